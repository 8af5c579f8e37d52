"""The real client (curl), three members, a real HAProxy, a real BIND, and dig: every type, every outcome."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from muster.cli.local.plan import ADDRESS, FOREMAN
from muster.kernel.clock import SystemClock
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, write
from tests.servers import bind
from tests.servers.bind import BindServer, Zone
from tests.servers.local import Local, running

ZONES = ["example.net", "2.0.192.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa"]
TYPES = {
    "A": ("a01.example.net", "192.0.2.5", "192.0.2.6"),
    "AAAA": ("a02.example.net", "2001:db8::5", "2001:db8::6"),
    "CNAME": ("a03.example.net", "host.example.net", "other.example.net"),
}


@dataclass(frozen=True)
class Curl:
    """The cluster as curl sees it."""

    cluster: Local
    bind: BindServer

    def __call__(self, *arguments: str, client: Path | str | None = "foreman") -> tuple[int, str]:
        """Return HTTP status (0: no answer) and body."""
        port = self.cluster.ports["smartproxy"]
        own = self.cluster.pki / "clients" / FOREMAN if client == "foreman" else client
        shown = ["--cert", f"{own}/cert.pem", "--key", f"{own}/key.pem"] if own else []
        done = subprocess.run(
            [
                "curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", "--cacert", str(self.cluster.pki / "ca.pem"),
                "--resolve", f"{ADDRESS}:{port}:127.0.0.1", *shown, *arguments[:-1],
                f"https://{ADDRESS}:{port}{arguments[-1]}",
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        body, _, status = done.stdout.rpartition("\n")
        return int(status or 0), body

    def post(self, **form: str) -> tuple[int, str]:
        given = [word for k, v in form.items() for word in ("--data-urlencode", f"{k}={v}")]
        return self(*given, "/dns/")

    def delete(self, path: str) -> tuple[int, str]:
        return self("-X", "DELETE", f"/dns/{path}")

    def dig(self, name: str, kind: str) -> list[str]:
        done = subprocess.run(
            ["dig", f"@{self.bind.address}", "-p", str(self.bind.port), "+tcp", "+short", "+norecurse", name, kind],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return sorted(done.stdout.split("\n")[:-1])

    def zone_lines(self) -> list[str]:
        """Everything in the zones that is no SOA."""
        return [line for z in ZONES for line in self.bind.transfer(z) if " SOA " not in line]


@pytest.fixture(scope="module")
def curl(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Curl]:
    for name in ("bind", "haproxy", "dig"):
        needs(name)
    directory = tmp_path_factory.mktemp("dns")
    with bind.running(directory / "bind", zones=[Zone(z) for z in ZONES]) as server:
        settings = {"server": server.address, "port": server.port, "key_file": str(server.key_file)}
        features = {"dns": {"provider": "nsupdate", "nsupdate": settings}}
        (directory / "features.yaml").write_text(yaml.safe_dump(features))
        with running(options=["--features", str(directory / "features.yaml")]) as cluster:
            yield Curl(cluster, server)


@pytest.mark.parametrize("kind", TYPES)
def test_create_repeat_conflict_delete_and_delete_of_nothing(curl: Curl, kind: str) -> None:
    name, value, other = TYPES[kind]
    landed = [value + ("." if kind == "CNAME" else "")]
    assert curl.post(fqdn=name, value=value, type=kind) == (200, "")
    assert curl.dig(name, kind) == landed
    assert curl.post(fqdn=name, value=value, type=kind) == (200, "")
    assert curl.post(fqdn=name, value=other, type=kind) == (409, f"'{name} 'is already in use")
    assert curl.dig(name, kind) == landed
    assert curl.delete(f"{name}/{kind}") == (200, "")
    assert curl.dig(name, kind) == []
    assert curl.delete(f"{name}/{kind}") == (200, "")


@pytest.mark.parametrize(
    "owner", ["5.2.0.192.in-addr.arpa", "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"]
)
def test_reverse_records_live_under_their_value(curl: Curl, owner: str) -> None:
    assert curl.post(fqdn="p01.example.net", value=owner, type="PTR") == (200, "")
    assert curl.dig(owner, "PTR") == ["p01.example.net."]
    assert curl.post(fqdn="p01.example.net", value=owner, type="PTR") == (200, "")
    assert curl.post(fqdn="p02.example.net", value=owner, type="PTR") == (409, f"'{owner}' is already in use")
    assert curl.delete(owner) == (200, "")
    assert curl.dig(owner, "PTR") == []
    assert curl.delete(owner) == (200, "")


def test_srv_records_stand_beside_each_other(curl: Curl) -> None:
    name = "_sip._tcp.example.net"
    assert curl.post(fqdn=name, value="10 60 5060 sip.example.net", type="SRV") == (200, "")
    assert curl.post(fqdn=name, value="20 60 5060 sip2.example.net", type="SRV") == (200, "")
    assert curl.post(fqdn=name, value="20 60 5060 sip2.example.net", type="SRV") == (200, "")
    assert curl.dig(name, "SRV") == ["10 60 5060 sip.example.net.", "20 60 5060 sip2.example.net."]
    assert curl.delete(f"{name}/SRV") == (200, "")
    assert curl.dig(name, "SRV") == []


def test_without_a_certificate_403_and_with_a_foreign_one_no_handshake(curl: Curl, tmp_path: Path) -> None:
    assert curl("-d", "fqdn=x.example.net&value=192.0.2.9&type=A", "/dns/", client=None) == (
        403,
        "could not read client cert from environment",
    )
    foreign = ClusterCA.create(tmp_path / "pki", "foreign", now=SystemClock().now())
    at = write(foreign.issue(BundleRequest("client", FOREMAN), now=SystemClock().now()), tmp_path / "pki")
    status, _ = curl("-d", "fqdn=x.example.net&value=192.0.2.9&type=A", "/dns/", client=at.directory)
    assert status == 0
    assert curl.dig("x.example.net", "A") == []


@pytest.mark.parametrize(
    "name",
    [
        "good.example.net\nupdate delete a01.example.net A",
        "nul\x00.example.net",
        "a" * 300,
        ".".join(["a" * 60] * 6),
        "a" * 25 + "!",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!.example.net",
        'quote".example.net',
        "semi;colon.example.net",
        "sp ace.example.net",
    ],
)
def test_hostile_names_are_refused_and_bind_is_untouched(curl: Curl, name: str) -> None:
    before = curl.zone_lines()
    encoded = "".join(c if c.isalnum() or c in ".-" else "".join(f"%{b:02X}" for b in c.encode()) for c in name)
    status, body = curl("--data-raw", f"fqdn={encoded}&value=192.0.2.77&type=A", "/dns/")
    assert status == 400
    assert body.startswith("Invalid DNS name ")
    assert "\n" not in body
    assert "\x00" not in body
    assert curl.delete(encoded.replace("%0A", "%0a"))[0] in (400, 404)
    assert curl.zone_lines() == before


def test_a_zone_the_server_lacks_is_never_a_false_success(curl: Curl) -> None:
    status, body = curl.post(fqdn="a.nozone.test", value="192.0.2.9", type="A")
    assert status == 400
    assert "serves no zone for a.nozone.test" in body


def test_every_member_answers_so_the_calls_were_spread(curl: Curl) -> None:
    for _ in range(9):
        assert curl("/version")[0] == 200
    for member in curl.cluster.names:
        assert "Finished" in curl.cluster.log(member)
