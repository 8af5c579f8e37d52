from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml

from muster.app import member as app
from muster.app.member import MemberOptions, member_opened
from muster.app.settings import checked, loaded, store_password
from muster.edge.application import Mounted, unprotected
from muster.edge.routes import Access
from muster.features import manifests
from muster.kernel.errors import Misconfigured
from muster.kernel.settings import InvalidSettings

GOOD: dict[str, Any] = {
    "schema": 1,
    "cluster": "demo",
    "address": "proxy.example.com",
    "store": {"url": "sqlite:///unused.db"},
    "members": [
        {"id": 1, "name": "proxy01.example.com", "address": "127.0.0.11"},
        {"id": 2, "name": "old.example.com", "address": "127.0.0.12", "kind": "foreman"},
    ],
    "signer": "old.example.com",
    "features": {
        **{
            n: {"provider": "memory"}
            for n in ("dns", "dhcp", "puppet", "puppetca", "realm", "pulpcore", "externalipam")
        },
        "bmc": {},
        "container_gateway": {},
        "discovery": {},
        "facts": {},
        "openscap": {},
        "templates": {},
        "registration": {},
        "tftp": {},
        "httpboot": {},
    },
}


@pytest.fixture(autouse=True)
def _log_unconfigured() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def written(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "cluster.yaml"
    given = {**GOOD, "store": {"url": f"sqlite:///{tmp_path}/muster.db"}, **changes}
    path.write_text(yaml.safe_dump(given, sort_keys=False))
    return path


def test_a_good_file_is_a_cluster_without_findings(tmp_path: Path) -> None:
    cluster, found = checked(written(tmp_path))
    assert found == []
    assert cluster is not None
    assert cluster == loaded(written(tmp_path))


def test_members_that_would_sign_out_of_several_cas_make_no_cluster(tmp_path: Path) -> None:
    cluster, found = checked(written(tmp_path, signer="any"))
    assert cluster is None
    assert [(p.where, "signer: NAME" in p.sentence) for p in found] == [("signer", True)]
    with pytest.raises(InvalidSettings, match="each a Puppet CA of its own"):
        loaded(written(tmp_path, signer="any"))


def test_the_findings_of_every_room_come_together_in_order_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("""\
schema: 1
cluster: DEMO
address: proxy.example.com
store: {url: "sqlite:///muster.db"}
members:
  - {id: 1, name: a.example.com, address: 127.0.0.1}
  - {id: 1, name: b.example.com, address: 127.0.0.2}
signer: b.example.com
services:
  smartproxi: {enabled: false}
features:
  dnss: {}
  dns: {ttl_s: -1}
""")
    cluster, found = checked(path)
    assert cluster is None
    assert [(p.line, p.where) for p in found] == [
        (2, "cluster"),
        (7, "members[1].id"),
        (10, "services.smartproxi"),
        (12, "features.dnss"),
        (13, "features.dns.ttl_s"),
    ]
    with pytest.raises(InvalidSettings, match="has 5 problems"):
        loaded(path)


@pytest.mark.parametrize("text", ["a: [", "\0"])
def test_a_file_that_cannot_be_parsed_has_findings_too(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    cluster, found = checked(path)
    assert cluster is None
    assert len(found) == 1


def test_a_file_that_is_not_there_is_misconfigured(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="No such file"):
        checked(tmp_path / "none.yaml")


def test_the_stores_password_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    with_file = written(tmp_path, store={"url": "postgresql://u@h/d", "password_file": str(secret)})
    with pytest.raises(Misconfigured, match=r"Reading store password file .*password failed"):
        store_password(loaded(with_file))
    for empty in ("", "\n", "  \nsecond\n"):
        secret.write_text(empty)
        with pytest.raises(Misconfigured, match="is empty"):
            store_password(loaded(with_file))
    secret.write_text("hunter2\nsecond line\n")
    found = store_password(loaded(with_file))
    assert found is not None
    assert found.reveal() == "hunter2"
    assert store_password(loaded(written(tmp_path))) is None


async def test_a_member_of_the_ruby_kind_is_not_served_by_us(tmp_path: Path) -> None:
    options = MemberOptions(written(tmp_path), "old", tmp_path)
    with pytest.raises(Misconfigured, match=r"old\.example\.com is of kind foreman"):
        async with member_opened(options):
            pass


async def test_a_member_whose_bundle_is_not_here_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(
        Misconfigured, match=r"There is no bundle .*; on the host with the CA muster certs issue proxy01"
    ):
        async with member_opened(MemberOptions(written(tmp_path), "proxy01", tmp_path)):
            pass


async def test_the_directory_that_a_member_writes_to_is_there_before_anybody_looks_at_its_disk(tmp_path: Path) -> None:
    options = MemberOptions(written(tmp_path), "proxy01", tmp_path, state=tmp_path / "state")
    with pytest.raises(Misconfigured, match="There is no bundle"):
        async with member_opened(options):
            pass
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


class Built(Exception):
    """Carries the mounts of an application that was about to serve."""


async def product_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[Mounted]:
    # The list must be the one a member is really built with, and building goes straight on to opening sockets: so the
    # application's constructor is where this test stops it.
    def stopped(*, mounts: Sequence[Mounted], **_: object) -> None:
        raise Built(list(mounts))

    monkeypatch.setattr(app, "Application", stopped)
    with pytest.raises(Built) as raised:
        async with member_opened(MemberOptions(written(tmp_path), "proxy01", tmp_path)):
            pass
    found: Sequence[Mounted] = raised.value.args[0]
    return found


async def test_exactly_these_routes_are_unprotected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = await product_mounts(tmp_path, monkeypatch)
    # A feature that is not mounted could hide an open route from this list.
    assert {m.feature for m in mounts if m.feature} == {*manifests(), "logs"}
    assert unprotected(mounts) == [
        # Firmware: docs/facts/smart-proxy-protocol.md §10.
        ("*", "/EFI/…"),
        ("*", "/httpboot/…"),
        ("GET", "/features"),
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
        # Open by design: docs/facts/smart-proxy-protocol.md §18, §5.
        ("GET", "/pulp/api/v3/smart_proxy/features[/]"),
        ("GET", "/pulp/api/v3/smart_proxy/version[/]"),
        ("GET", "/pulpcore/status"),
        # Hosts that are no members' and nobody's yet: docs/facts/smart-proxy-protocol.md §15, §16.
        ("GET", "/register/"),
        ("GET", "/unattended/templateServer"),
        ("GET", "/unattended/{kind}"),
        ("GET", "/unattended/{kind}/{template}/{hostgroup}"),
        ("GET", "/userdata/{kind}"),
        ("GET", "/userdata/{mac}/{kind}"),
        ("GET", "/version"),
        # The same, and what discovered machines say of themselves: docs/facts/smart-proxy-protocol.md §18.3.
        ("POST", "/discovery/create"),
        ("POST", "/register/"),
        ("POST", "/unattended/{kind}"),
    ]


async def test_metrics_are_for_the_cluster_the_page_for_operators_and_everything_else_for_trusted_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = await product_mounts(tmp_path, monkeypatch)
    by_access = {a: {m.mount.prefix for m in mounts for r in m.mount.routes if r.access is a} for a in Access}
    assert by_access == {
        Access.OPEN: {
            "",
            "/discovery",
            "/health",
            "/pulpcore",
            "/pulp/api/v3/smart_proxy",
            "/register",
            "/unattended",
            "/userdata",
        },
        Access.CLUSTER: {"/dhcp_files", "/metrics", "/cluster", "/cluster/chains", "/netboot"},
        Access.OPERATORS: {"/cluster"},
        Access.TRUSTED: {
            "/v2",
            "/logs",
            "/services",
            "/facts",
            "/dns",
            "/dhcp",
            "/ipam",
            "/tftp",
            "/bmc",
            "/puppet",
            "/puppet/ca",
            "/realm",
            "/container_gateway",
            "/discovery",
            "/pulp/api/v3/smart_proxy",
            "/compliance",
            "/compliance-importer",
        },
        Access.CERTIFIED: {"/compliance"},
    }
