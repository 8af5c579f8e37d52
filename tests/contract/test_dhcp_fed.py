"""The lease feed: members elsewhere than dhcpd answer as those that have its files (``features/dhcp/isc/replica.py``)."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import ssl
import stat
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from muster.app.settings import loaded
from muster.features.dhcp import checks
from muster.features.dhcp.isc import feed, replica
from muster.features.dhcp.isc.frames import Frame
from muster.features.dhcp.settings import DHCPSettings
from tests.servers import dhcp_client, dhcpd, fed
from tests.servers.client import Answer, ask, tls_client
from tests.servers.dhcpd import DHCPServer
from tests.servers.member import TRUSTED, Member
from tests.servers.waiting import until
from tests.unit.features.dhcp.isc.written import lease

pytestmark = pytest.mark.anyio

LEASES = 10_000
INCLUDED = "bm90IHRvIGJlIHRvbGQgdG8gYW55Ym9keQ=="
CONF = """
include "{included}";
# {comment}
subnet 10.20.0.0 netmask 255.255.0.0 {{ option routers 10.20.0.1; range 10.20.0.1 10.20.95.250; }}
subnet 10.231.9.0 netmask 255.255.255.0 {{ range 10.231.9.100 10.231.9.250; }}
ping-check off;
host static1.example.com {{ hardware ethernet 00:11:22:33:44:01; fixed-address 10.20.250.1; option host-name "static1"; }}
"""
SUBNET = "/dhcp/10.20.0.0"
STATIC = "/mac/00:11:22:33:44:01"
Figure = Callable[[str, float], None]
_OLD = re.compile(r"feature dhcp: what it knows of its server is \d+ s old")


never = partial(lease, ends=None)


def many(count: int = LEASES) -> str:
    return "".join(
        never(f"10.20.{n // 250}.{n % 250 + 1}", f"52:54:00:01:{n // 250:02x}:{n % 250:02x}") for n in range(count)
    )


@contextlib.contextmanager
def server_running(directory: Path, leases: str = "") -> Iterator[DHCPServer]:
    directory.mkdir()
    included = directory / "keys.conf"
    included.write_text(f"key other {{ algorithm hmac-sha256; secret {INCLUDED}; }};\n")
    conf = CONF.format(included=included, comment=f"not the secret {INCLUDED}")
    with dhcpd.running(directory / "dhcpd", conf=conf, leases=leases) as server:
        yield server


@contextlib.contextmanager
def started(*members: Member) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for member in members:
            member.start()
            stack.callback(_stopped, member)
        yield


def _stopped(member: Member) -> None:
    with contextlib.suppress(AssertionError):
        _ = member.process
        member.stop()


@pytest.fixture(scope="module")
def server(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[DHCPServer]:
    needs("dhcpd")
    needs("namespaces")
    with server_running(tmp_path_factory.mktemp("fed") / "of", many()) as running:
        yield running


@pytest.fixture
def figure(record_testsuite_property: Callable[[str, object], None]) -> Figure:
    """Keep a figure for --junitxml; how fast a machine is decides nothing."""
    return lambda what, value: record_testsuite_property(what, round(value, 1))


@pytest.fixture(scope="module")
def members(server: DHCPServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Member]]:
    """One member with the files, and one without."""
    with pair(server, tmp_path_factory.mktemp("pair")) as found:
        yield found


@pytest.fixture
def fresh(server: DHCPServer, tmp_path: Path) -> Iterator[list[Member]]:
    """Two others like them, for whoever stops them."""
    with pair(server, tmp_path) as found:
        yield found


@contextlib.contextmanager
def pair(server: DHCPServer, directory: Path) -> Iterator[list[Member]]:
    found = fed.made(directory / "cluster", server, count=2)
    with started(*found):
        until(lambda: found[1].ask("GET", f"{SUBNET}{STATIC}").status == 200)
        yield found


def whole(member: Member, path: str, tls: ssl.SSLContext | None = None) -> bytes:
    """Return an answer that comes piece by piece."""
    connection = http.client.HTTPSConnection(*member.https, timeout=40, context=tls or member.tls(TRUSTED))
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200, path
        return answer.read()


def told(member: Member, path: str = "") -> Any:
    return json.loads(whole(member, f"{SUBNET}{path}"))


def lag_of(member: Member) -> float:
    """Return how old a member says to Prometheus that it knows dhcpd's leases."""
    line = 'muster_provider_lag_seconds{feature="dhcp",provider="isc"} '
    return next(
        float(one.removeprefix(line)) for one in member.ask("GET", "/metrics").text.splitlines() if one.startswith(line)
    )


def leases_of(member: Member, ip: str) -> list[str]:
    return [one["mac"] for one in json.loads(whole(member, f"/dhcp/10.231.9.0/ip/{ip}"))]


def reserve(member: Member, number: int) -> str:
    ip, mac = f"10.20.100.{number}", f"52:54:00:aa:01:{number:02x}"
    body = f"name=h{number}.example.com&hostname=h{number}.example.com&mac={mac}&ip={ip}".encode()
    answer = member.ask("POST", SUBNET, body=body)
    assert answer.status == 200, answer.text
    return mac


def test_a_member_without_the_files_tells_what_one_with_them_tells(members: list[Member]) -> None:
    with_files, without = members
    assert without.ask("GET", "/dhcp").body == with_files.ask("GET", "/dhcp").body
    assert len(told(without)["leases"]) == LEASES
    assert told(without) == told(with_files)
    for path in (STATIC, "/ip/10.20.3.7", "/mac/52:54:00:01:03:07"):
        assert told(without, path) == told(with_files, path)
    assert without.ask("GET", f"{SUBNET}/ip/10.20.99.1").status == 404


def test_what_is_written_is_here_a_moment_later(members: list[Member], server: DHCPServer, figure: Figure) -> None:
    _, copy = fed.replica(members[1])
    took = []
    for number in range(1, 21):
        ip = dhcp_client.leased(server, f"52:54:00:02:00:{number:02x}")
        before = time.perf_counter()
        while f"lease {ip} ".encode() not in copy.read_bytes()[-8192:]:
            assert time.perf_counter() - before < 5
            time.sleep(0.001)
        took.append(time.perf_counter() - before)
        assert leases_of(members[1], ip) == leases_of(members[0], ip) == [f"52:54:00:02:00:{number:02x}"]
    figure("ms from dhcpd's acknowledgement until a lease is in the copy, median", sorted(took)[10] * 1000)
    figure("ms from dhcpd's acknowledgement until a lease is in the copy, at most", max(took) * 1000)
    assert copy.read_bytes() == server.leases.read_bytes()


def test_what_one_member_has_made_every_member_tells_at_once(members: list[Member], figure: Figure) -> None:
    took = []
    for number in range(1, 31):
        maker, other = (members, members[::-1])[number % 2]
        before = time.perf_counter()
        mac = reserve(maker, number)
        took.append(time.perf_counter() - before)
        for member in (other, maker):
            assert told(member, f"/mac/{mac}")["ip"] == f"10.20.100.{number}"
            assert told(member, f"/ip/10.20.100.{number}")[0]["name"] == f"h{number}.example.com"
        assert other.ask("DELETE", f"{SUBNET}/mac/{mac}").status == 200
        for member in (maker, other):
            assert member.ask("GET", f"{SUBNET}/mac/{mac}").status == 404
    for who, times in (("without", took[0::2]), ("with", took[1::2])):
        figure(f"ms for a reservation by a member {who} the files, median", sorted(times)[len(times) // 2] * 1000)


def test_what_is_still_on_its_way_is_waited_for(members: list[Member], monkeypatch: pytest.MonkeyPatch) -> None:
    # As over a slow wire.
    take = replica._Kept.take

    def slowly(kept: replica._Kept, frame: Frame) -> None:
        if frame.word == "more":
            time.sleep(0.3)
        take(kept, frame)

    monkeypatch.setattr(replica._Kept, "take", slowly)
    with_files, without = members
    for number in range(40, 43):
        mac = reserve(with_files, number)
        assert told(without, f"/mac/{mac}")["ip"] == f"10.20.100.{number}"
        assert with_files.ask("DELETE", f"{SUBNET}/mac/{mac}").status == 200
        assert without.ask("GET", f"{SUBNET}/mac/{mac}").status == 404


def test_dhcpds_own_rewrite_is_followed(members: list[Member], server: DHCPServer) -> None:
    mac = reserve(members[1], 50)
    before = server.leases.stat().st_ino
    server.stop()
    # It writes a new file when it starts, as it does each hour.
    server.start()
    assert server.leases.stat().st_ino != before
    for _ in range(3):
        assert told(members[1], f"/mac/{mac}")["ip"] == "10.20.100.50"
        assert told(members[1]) == told(members[0])
    _, copy = fed.replica(members[1])
    assert copy.read_bytes() == server.leases.read_bytes()
    mac = reserve(members[1], 51)
    assert told(members[0], f"/mac/{mac}")


def test_a_changed_configuration_is_followed_and_no_secret_of_it_leaves_the_host(
    members: list[Member], server: DHCPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_STREAM_S", 1.0)
    assert server.key is not None
    secrets = (server.key.secret.reveal(), INCLUDED)
    conf, copy = fed.replica(members[1])
    text = server.conf.read_text()
    assert all(secret in text for secret in secrets)
    try:
        server.conf.write_text(f"{text}subnet 10.21.0.0 netmask 255.255.255.0 {{ }}\n")
        until(lambda: b"10.21.0.0" in members[1].ask("GET", "/dhcp").body, 5)
        streamed = _stream(members[0], members[1])
        assert b"static1.example.com" in streamed
        for told_of in (conf.read_bytes(), copy.read_bytes(), streamed):
            assert b"secret" not in told_of
            assert b"key" not in told_of
            assert not any(secret.encode() in told_of for secret in secrets)
    finally:
        server.conf.write_text(text)
    # Nor is there anything between the two that the other reads differently.
    assert json.loads(members[1].ask("GET", "/dhcp").body) == json.loads(members[0].ask("GET", "/dhcp").body)
    for path in (conf, copy):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(conf.parent.stat().st_mode) == 0o700


def _context(member: Member) -> ssl.SSLContext:
    return tls_client(member.ca, _pem(member))


def _pem(member: Member) -> Path:
    bundle = fed.bundle(member)
    pem = member.directory / "both.pem"
    pem.write_bytes(bundle.certificate.read_bytes() + bundle.key.read_bytes())
    return pem


def _stream(source: Member, asker: Member) -> bytes:
    """Return what a member is told, from the start, until the stream has ended."""
    return whole(source, f"/dhcp_files/streams/{'0' * 32}?conf=&size=0&leases=", _context(asker))


@pytest.mark.parametrize("path", [f"/dhcp_files/streams/{'1' * 32}", f"/dhcp_files/streams/{'1' * 32}/1"])
def test_only_a_member_is_told_what_stands_in_the_files(members: list[Member], path: str) -> None:
    with_files, without = members

    def refused(answer: Answer) -> bool:
        return answer.status == 403 and b"lease" not in answer.body

    assert refused(with_files.ask("GET", path, name=None))
    # One of the cluster's own CA, whom Foreman's calls are taken from.
    assert refused(with_files.ask("GET", path, name=TRUSTED))
    assert ask(with_files.http, "GET", path).status == 503
    # Whoever has not the files tells nobody.
    assert ask(without.https, "GET", path, tls=_context(with_files)).status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/dhcp_files/streams/../../etc/passwd", "/dhcp_files/streams/x", f"/dhcp_files/streams/{'A' * 32}",
        f"/dhcp_files/streams/{'2' * 32}?size=-1", f"/dhcp_files/streams/{'2' * 32}?leases=zz",
        f"/dhcp_files/streams/{'2' * 32}?conf[]=a", f"/dhcp_files/streams/{'2' * 32}/99999999999999999999",
    ],
)  # fmt: skip
def test_what_no_member_asks_is_refused(members: list[Member], path: str) -> None:
    assert ask(members[0].https, "GET", path, tls=_context(members[1])).status in (400, 404)


def test_a_feed_that_is_silent_is_503_with_its_reason_until_it_is_back(fresh: list[Member], figure: Figure) -> None:
    with_files, without = fresh
    mac = reserve(without, 60)
    with_files.stop()
    answer = without.ask("GET", f"{SUBNET}/mac/{mac}")
    assert answer.status == 503
    assert f"dhcpd's files come from member {with_files.name}, and nothing was heard of them for" in answer.text
    for path in ("", "/ip/10.20.3.7", "/unused_ip?from=10.20.200.1&to=10.20.200.9"):
        assert without.ask("GET", f"{SUBNET}{path}").status == 503
    until(lambda: without.ask("GET", "/dhcp").status == 503, 8)

    def noted() -> str:
        return ask(without.https, "GET", "/health/ready", tls=without.tls()).text

    until(lambda: "nothing was heard" in noted(), 15)
    with_files.start()
    before = time.perf_counter()
    until(lambda: without.ask("GET", f"{SUBNET}/mac/{mac}").status == 200, 8)
    figure("s until it is back after the source answered", time.perf_counter() - before)
    until(lambda: "nothing was heard" not in noted(), 15)


def test_how_old_it_is_what_a_member_knows_of_the_leases_is_a_metric_and_noted(fresh: list[Member]) -> None:
    with_files, without = fresh

    def ready() -> Answer:
        return ask(without.https, "GET", "/health/ready", tls=without.tls())

    until(lambda: max(lag_of(member) for member in fresh) < 10, 60)
    with_files.stop()
    until(lambda: _OLD.search(ready().text) is not None, 60)
    assert lag_of(without) > 10
    # Nobody else knows more, and all other features are as good as ever.
    assert ready().status == 200
    with_files.start()
    until(lambda: _OLD.search(ready().text) is None and lag_of(without) < 10, 60)


def test_a_member_that_drains_tells_on_and_one_that_ends_is_not_held_up_by_who_is_told(fresh: list[Member]) -> None:
    with_files, without = fresh
    with_files.tell(with_files.process.server.drain, True)
    until_then = time.monotonic() + 2.5
    number = 80
    while time.monotonic() < until_then:
        mac = reserve(without, number)
        assert told(without, f"/mac/{mac}")
        number += 1
        time.sleep(0.2)
    before = time.monotonic()
    with_files.stop()
    # Less than its calls have to end, and than a stream lasts.
    assert time.monotonic() - before < 4


def test_another_member_that_has_the_files_is_asked_instead(server: DHCPServer, tmp_path: Path) -> None:
    found = fed.made(tmp_path / "cluster", server, count=3, having=2)
    first, _, without = found
    with started(*found):
        until(lambda: without.ask("GET", f"{SUBNET}{STATIC}").status == 200)
        inode = fed.replica(without)[1].stat().st_ino
        first.stop()
        for number in range(70, 75):
            mac = reserve(without, number)
            assert told(without, f"/mac/{mac}")
        # What it had already it kept: only what was missing went over the wire.
        assert fed.replica(without)[1].stat().st_ino == inode


def test_a_member_that_starts_again_goes_on_with_what_it_kept_but_tells_nothing_of_it_alone(
    fresh: list[Member], server: DHCPServer
) -> None:
    with_files, without = fresh
    copy = fed.replica(without)[1]
    without.stop()
    first, second = (f"52:54:00:03:00:0{n}" for n in (1, 2))
    ip = dhcp_client.leased(server, first)
    inode = copy.stat().st_ino
    without.start()
    assert leases_of(without, ip) == [first]
    assert copy.stat().st_ino == inode
    without.stop()
    # As a crash of the host leaves it.
    copy.write_bytes(copy.read_bytes()[:-500] + b"\0" * 500)
    without.start()
    ip = dhcp_client.leased(server, second)
    assert leases_of(without, ip) == [second]
    assert copy.read_bytes() == server.leases.read_bytes()
    with_files.stop()
    without.stop()
    without.start()
    assert without.ask("GET", "/dhcp").status == 503
    assert without.ask("GET", f"/dhcp/10.231.9.0/ip/{ip}").status == 503


def test_files_that_are_not_there_yet_are_waited_for(needs: Callable[[str], None], tmp_path: Path) -> None:
    needs("dhcpd")
    with server_running(tmp_path / "of", never("10.20.3.7")) as server:
        members = fed.made(tmp_path / "cluster", server, count=2)
        aside = server.leases.rename(server.leases.with_name("aside"))
        with started(*members):
            for member in members:
                assert "dhcp" in json.loads(member.ask("GET", "/features").body)
                answer = member.ask("GET", f"{SUBNET}/ip/10.20.3.7")
                assert answer.status == 503
                assert f"Reading dhcpd's leases {server.leases} failed: No such file or directory" in answer.text
            aside.rename(server.leases)
            for member in members:
                until(lambda m=member: m.ask("GET", f"{SUBNET}/ip/10.20.3.7").status == 200, 10)  # type: ignore[misc]
            # And when it goes away later.
            server.leases.rename(aside)
            for member in members:
                answer = member.ask("GET", f"{SUBNET}/ip/10.20.3.7")
                assert answer.status == 503
                assert "No such file or directory" in answer.text
            aside.rename(server.leases)
            for member in members:
                until(lambda m=member: m.ask("GET", f"{SUBNET}/ip/10.20.3.7").status == 200, 10)  # type: ignore[misc]


async def test_the_doctor_names_members_that_tell_nobody(
    fresh: list[Member], server: DHCPServer, tmp_path: Path
) -> None:
    with_files, without = fresh
    cluster = loaded(without.cluster_file)

    async def found(*files_on: str) -> list[tuple[str, str, str]]:
        isc = {**server.settings, "config": str(tmp_path / "no"), "leases": str(tmp_path / "no"), "files_on": files_on}
        settings = DHCPSettings.model_validate({"isc": isc, "ping_free_ip": False})
        asked = checks.checks(settings, lambda: _context(without), cluster)
        return [(f.code, f.severity, f.sentence) for check in asked for f in await check.run()]

    assert await found(with_files.name) == []
    (one,) = await found(with_files.name, without.name)
    assert one[:2] == ("DHCP-FEED-SILENT", "warning")
    assert f"Member {without.name} has" in one[2]
    assert "isc.files_on does not name this member" in one[2]
    (one,) = await found("nobody.example.com")
    assert one[:2] == ("DHCP-FEED-SILENT", "error")
    assert "no member of kind muster" in one[2]
    with_files.stop()
    (one,) = await found(with_files.name)
    assert one[:2] == ("DHCP-FEED-SILENT", "error")
