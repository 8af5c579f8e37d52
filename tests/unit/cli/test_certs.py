"""What ``muster certs`` refuses: the same with ``--dry-run`` as without, and nothing is written by either."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from muster.cli.certs import certs
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, write

CLUSTER = """\
schema: 1
cluster: demo
address: proxy.example.com
store: {url: "sqlite:////nowhere/store.db"}
members:
  - {id: 1, name: proxy01.example.com, address: 127.0.0.1}
  - {id: 2, name: proxy02.example.com, address: 127.0.0.2}
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER)
    return path


def run(cluster: Path, command: str, *arguments: str) -> Result:
    result = CliRunner().invoke(certs, [command, "--cluster", str(cluster), *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def files(cluster: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in cluster.parent.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "arguments",
    [
        ("init", "--days", "9999999"),
        ("init", "--days", "0", "--dry-run"),
        ("issue", "--all", "--days", "9999999"),
        ("issue", "--all", "--days", "0", "--dry-run"),
        ("rotate", "--all", "--days", "9999999"),
        ("rotate", "--ca", "--ca-days", "9999999"),
        ("rotate", "--within", "9999999"),
        ("rotate", "--ca", "--settle", "nan"),
        ("verify", "proxy01.example.com:443", "--timeout", "nan"),
        ("verify", "proxy01.example.com:443", "--name", "a..b"),
        ("verify", "a" * 80 + ".x:443"),
        ("verify", "a..b:443"),
        ("verify", "a\x1b31m:443"),
        ("verify", "127.0.0.1:0"),
        ("verify", "127.0.0.1:99999"),
    ],
)
def test_what_cannot_be_is_wrong_usage(cluster: Path, arguments: tuple[str, ...]) -> None:
    ClusterCA.create(cluster.parent / "pki", "demo", now=datetime.now(UTC))
    before = files(cluster)
    result = run(cluster, *arguments)
    assert (result.exit_code, files(cluster)) == (2, before), result.output
    assert "\x1b" not in result.output


def test_a_dry_init_refuses_what_the_real_one_refuses(cluster: Path, tmp_path: Path) -> None:
    assert run(cluster, "init", "--dry-run").output.startswith("Would write")
    assert not (cluster.parent / "pki").exists()
    run(cluster, "init")
    for further in ((), ("--dry-run",)):
        with pytest.raises(Conflict, match="--replace"):
            run(cluster, "init", *further)
    before = files(cluster)
    assert "Would write" in run(cluster, "init", "--replace", "--dry-run").output
    other = tmp_path / "other"
    ClusterCA.create(other, "other", now=datetime.now(UTC))
    adopted = ("init", "--ca-cert", str(other / "ca.pem"), "--ca-key")
    at = ("--pki", str(tmp_path / "new"), "--dry-run")
    with pytest.raises(Misconfigured, match="does not belong"):
        run(cluster, *adopted, str(cluster.parent / "pki" / "ca.key"), *at)
    with pytest.raises(Misconfigured, match="No such file"):
        run(cluster, *adopted, str(tmp_path / "none"), *at)
    assert "adopting" in run(cluster, *adopted, str(other / "ca.key"), *at).output
    assert {p: files(cluster)[p] for p in before} == before
    assert not (tmp_path / "new").exists()


def test_issuing_refuses_everything_before_it_writes_anything(cluster: Path) -> None:
    pki = cluster.parent / "pki"
    run(cluster, "init")
    (pki / "members" / "proxy02.example.com").mkdir(parents=True)
    before = files(cluster)
    for further in ((), ("--dry-run",)):
        with pytest.raises(Conflict, match="was not made by Muster"):
            run(cluster, "issue", "--all", *further)
        assert files(cluster) == before


@pytest.mark.parametrize("command", [("issue", "--all"), ("rotate", "--all")])
def test_a_ca_that_has_ended_issues_nothing_not_even_in_a_dry_run(cluster: Path, command: tuple[str, ...]) -> None:
    pki = cluster.parent / "pki"
    then = datetime.now(UTC) - timedelta(days=30)
    run(cluster, "init")
    run(cluster, "issue", "--all")
    ClusterCA.create(pki, "demo", now=then, valid_days=10, overwrite=True)
    if command[0] == "rotate":
        # Certificates of that CA, from the days when it could.
        old = ClusterCA.open(pki)
        for member in ("proxy01", "proxy02"):
            write(old.issue(BundleRequest("member", f"{member}.example.com"), now=then, valid_days=5), pki)
    before = files(cluster)
    for further in ((), ("--dry-run",)):
        with pytest.raises(Rejected, match="expired on"):
            run(cluster, *command, *further)
        assert files(cluster) == before


def test_a_dry_rotation_refuses_a_new_ca_that_cannot_be_adopted(cluster: Path, tmp_path: Path) -> None:
    run(cluster, "init")
    run(cluster, "issue", "--all")
    other = tmp_path / "other"
    ClusterCA.create(other, "other", now=datetime.now(UTC))
    before = files(cluster)
    wrong = ("--ca-cert", str(other / "ca.pem"), "--ca-key", str(cluster.parent / "pki" / "ca.key"))
    for further in ((), ("--dry-run",)):
        with pytest.raises(Misconfigured, match="does not belong"):
            run(cluster, "rotate", "--ca", *wrong, *further)
        assert files(cluster) == before
    (cluster.parent / "pki" / "ca.key").write_bytes((other / "ca.key").read_bytes())
    with pytest.raises(Misconfigured, match="does not belong"):
        run(cluster, "rotate", "--all", "--dry-run")


def test_a_dry_rotation_says_that_it_would_wait(cluster: Path) -> None:
    run(cluster, "init")
    run(cluster, "issue", "--all")
    run(cluster, "rotate", "--ca", "--no-look")
    said = run(cluster, "rotate", "--ca", "--settle", "3600", "--dry-run").output
    assert "Would wait 36" in said
    assert "Would let the new CA issue" in said


def test_without_a_ca_a_dry_run_says_so(cluster: Path) -> None:
    for command in (("issue", "--all"), ("rotate",), ("rotate", "--ca")):
        with pytest.raises(NotFound, match="muster certs init"):
            run(cluster, *command, "--dry-run")


SITE = CLUSTER.replace("address: 127.0.0.2}", "address: 127.0.0.2, kind: foreman}") + (
    "services: {puppetca: {enabled: false}}\nforeman: {ca_file: CA}\n"
)
NAMES = ("proxy02.example.com", "proxy.example.com")


def made_elsewhere(tmp_path: Path, request: BundleRequest, days: int = 90) -> tuple[str, ...]:
    """Return the options that import what a site's own CA issued."""
    home = tmp_path / "site"
    ca = ClusterCA.open(home) if (home / "ca.pem").exists() else ClusterCA.create(home, "site", now=datetime.now(UTC))
    at = write(ca.issue(request, now=datetime.now(UTC), valid_days=days), home)
    return ("--cert", str(at.certificate), "--cert-key", str(at.key))


@pytest.fixture
def site(cluster: Path, tmp_path: Path) -> Path:
    cluster.write_text(SITE.replace("CA", str(tmp_path / "site" / "ca.pem")))
    ClusterCA.create(cluster.parent / "pki", "demo", now=datetime.now(UTC))
    return cluster


def test_a_bundle_of_the_site_s_ca_is_imported_for_ruby_members_and_clients_and_nothing_is_wrong_with_it(
    site: Path, tmp_path: Path
) -> None:
    ruby = made_elsewhere(tmp_path, BundleRequest("member", NAMES[0], NAMES))
    before = files(site)
    assert run(site, "import", "proxy02", *ruby, "--dry-run").exit_code == 0
    assert files(site) == before
    assert "issued by CN=Muster cluster CA,O=site" in run(site, "import", "proxy02", *ruby).output
    foreman = made_elsewhere(tmp_path, BundleRequest("client", "foreman.example.com"))
    assert run(site, "import", "--client", "foreman.example.com", *foreman, "--json").exit_code == 0
    run(site, "issue", "proxy01")
    assert run(site, "verify").output == "Nothing is wrong.\n"


@pytest.mark.parametrize(
    ("arguments", "request_", "why"),
    [
        (("proxy02",), BundleRequest("member", NAMES[0]), "does not name proxy.example.com"),
        (("proxy01",), BundleRequest("member", "proxy01.example.com", NAMES, ("127.0.0.1",)), "O=site"),
        (("--balancer",), BundleRequest("balancer", "balancer"), "O=site"),
        (("--client", "foreman.example.com"), BundleRequest("client", "other.example.com"), "does not name foreman"),
        (("proxy02",), BundleRequest("client", NAMES[0], NAMES), "server"),
    ],
)
def test_what_its_users_would_refuse_is_not_imported(
    site: Path, tmp_path: Path, arguments: tuple[str, ...], request_: BundleRequest, why: str
) -> None:
    given = made_elsewhere(tmp_path, request_)
    if request_.kind == "balancer":
        check = tmp_path / "site" / "balancer" / "check.pem"
        given = ("--cert", str(check), "--cert-key", str(check))
    before = files(site)
    with pytest.raises(Rejected, match="It was not imported") as raised:
        run(site, "import", *arguments, *given)
    assert (why in str(raised.value), files(site)) == (True, before), raised.value


def test_a_key_of_another_certificate_is_not_imported(site: Path, tmp_path: Path) -> None:
    one = made_elsewhere(tmp_path, BundleRequest("member", NAMES[0], NAMES))
    other = made_elsewhere(tmp_path, BundleRequest("client", "foreman.example.com"))
    with pytest.raises(Misconfigured, match="does not belong to"):
        run(site, "import", "proxy02", "--cert", one[1], "--cert-key", other[3])
    assert run(site, "import", *one).exit_code == 2
