"""Every recorded call of Foreman's to the Ruby proxy, played in order to a real member with a real BIND."""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.servers.bind import BindServer
from tests.servers.client import Answer, Connection, Place, tls_client
from tests.servers.dhcpd import DHCPServer
from tests.servers.foreman_for_hosts import ForemanForHosts
from tests.servers.member import Member
from tests.servers.puppet_api import Asked, PuppetAPI, Said
from tests.wire import golden
from tests.wire.differences import BIND, DIFFERENCES, PUPPETSERVER
from tests.wire.golden import Effect, Exchange, Handed

EXCHANGES = golden.exchanges()
# The member's own clock is later than the recording's, so a recorded moment is moved to the start of its file.
_RECORDED_MOMENT = re.compile(r"(?<=from_timestamp=)1795\d{6}\.\d+")


@dataclass(frozen=True)
class Played:
    """What came back, and what was asked of the Puppet server and of Foreman meanwhile; status 0: the connection failed."""

    status: int
    body: str
    effects: tuple[Effect, ...]
    headers: Mapping[str, str]
    upstream: tuple[Asked, ...]
    handed: tuple[Handed, ...]
    host: str | None = None
    boot_files: Mapping[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def played(
    proxy: Member,
    boot_files: Path,
    lab: BindServer,
    dhcpd_lab: DHCPServer,
    puppet: PuppetAPI,
    foreman: ForemanForHosts,
    clients: Mapping[str, Path],
) -> dict[tuple[str, int], Played]:
    _wait_for_store(proxy)
    found: dict[tuple[str, int], Played] = {}
    begun: dict[str, float] = {}
    for exchange in EXCHANGES:
        moment = begun.setdefault(exchange.file, time.time())
        path = _RECORDED_MOMENT.sub(str(moment), exchange.line["path"])
        puppet.asked.clear()
        foreman.asked.clear()
        with _meanwhile(exchange, puppet):
            answer = _played(exchange, path, proxy, clients)
        upstream = tuple(puppet.asked)
        effects = tuple(Effect(e.name, e.type, tuple(lab.dig(e.name, e.type))) for e in _effects(exchange))
        host = dhcpd_lab.host_in_leases(exchange.host.split()[1]) if exchange.host else None
        found[exchange.key] = Played(
            answer.status,
            answer.text,
            effects,
            answer.headers,
            upstream,
            _handed(foreman),
            host,
            golden.boot_files(boot_files) if exchange.file == "tftp" else {},
        )
    return found


def _handed(foreman: ForemanForHosts) -> tuple[Handed, ...]:
    return tuple(
        Handed(
            one.method, one.path, one.body.decode("latin-1"),
            one.headers.get("content-type") if one.method == "POST" else None, one.headers.get("x-forwarded-for"),
        )
        for one in foreman.asked
    )  # fmt: skip


@contextlib.contextmanager
def _meanwhile(exchange: Exchange, puppet: PuppetAPI) -> Iterator[None]:
    """Hold the lab in the state that an exchange's note tells of."""
    if exchange.line["note"] != "Puppet CA answers 500":
        yield
        return
    path = "/puppet-ca/v1/certificate_statuses/foreman"
    puppet.failures[path] = Said(500, "CA is broken")
    yield
    del puppet.failures[path]


@pytest.fixture(scope="module")
def bind_place(lab: BindServer) -> str:
    return f"{lab.address}#{lab.port}"


def _wait_for_store(proxy: Member) -> None:
    end = time.monotonic() + 15
    while "incomplete" in json.loads(proxy.ask("GET", "/logs").body)["info"]:
        assert time.monotonic() < end, "the member never reached its store"
        time.sleep(0.1)


def _played(exchange: Exchange, path: str, proxy: Member, clients: Mapping[str, Path]) -> Answer:
    place: Place = proxy.https if exchange.over_tls else proxy.http
    tls: ssl.SSLContext | None = None
    if exchange.over_tls:
        tls = tls_client(proxy.ca, clients[exchange.client] if exchange.client else None)
        if "ALPN" in exchange.line["note"]:
            tls.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with Connection(place, tls=tls, source=exchange.line.get("source_ip")) as connection:
            connection.send(exchange.raw(path))
            return connection.answer(exchange.method)
    except OSError as e:
        return Answer(0, type(e).__name__, {}, b"")


def _effects(exchange: Exchange) -> tuple[Effect, ...]:
    """Return the questions of an exchange: the recorded ones, then those its difference asks besides."""
    ours = DIFFERENCES[exchange.key].effects if exchange.key in DIFFERENCES else {}
    asked = {f"{e.name} {e.type}" for e in exchange.effects}
    extra = [Effect(name, kind, ()) for name, kind in (dig.split() for dig in ours if dig not in asked)]
    return (*exchange.effects, *extra)


def _expected(exchange: Exchange) -> tuple[int, str | None, tuple[Effect, ...]]:
    line, difference = exchange.line, DIFFERENCES.get(exchange.key)
    recorded = line["status"], exchange.body
    status, body = (difference.status, difference.expected(line["body"])) if difference else recorded
    ours = difference.effects if difference else {}
    effects = tuple(Effect(e.name, e.type, ours.get(f"{e.name} {e.type}", e.answer)) for e in _effects(exchange))
    return status, body, effects


def _comparable(exchange: Exchange, body: str) -> str:
    """Cut the records out of a log: they are this run's own (their form is tested in ``test_logs.py``)."""
    volatile = exchange.line.get("volatile", ())
    if "logs" in volatile:
        return re.sub(r'"logs":\[.*\]', '"logs":[]', body)
    if "ip" in volatile:
        # Whichever address is found free, in the subnet it was asked for.
        return re.sub(r'"ip":"192\.168\.120\.[0-9]+"', '"ip":"192.168.120.x"', body)
    return body


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda e: e.id)
def test_the_answer_is_the_recorded_one(
    exchange: Exchange,
    played: dict[tuple[str, int], Played],
    bind_place: str,
    puppet: PuppetAPI,
    boot_files: Path,
) -> None:
    ours = played[exchange.key]
    status, body, effects = _expected(exchange)
    body = body and golden.as_if_not_ended(body)
    body = body and body.replace(BIND, bind_place).replace(PUPPETSERVER, puppet.url)
    body = body and body.replace(golden.BOOT_FILES, str(boot_files))
    assert (ours.status, _comparable(exchange, ours.body)) == (
        status,
        _comparable(exchange, ours.body if body is None else body),
    ), exchange.line["note"]
    assert ours.effects == effects, exchange.line["note"]


@pytest.mark.parametrize("exchange", [e for e in EXCHANGES if e.host is not None], ids=lambda e: e.id)
def test_dhcpd_has_of_each_host_what_it_had_then(exchange: Exchange, played: dict[tuple[str, int], Played]) -> None:
    done = played[exchange.key]
    if done.status != exchange.line["status"]:
        assert done.host is None, "it was refused"
        return
    assert (done.host or "").split() == (exchange.host or "").split(), exchange.line["note"]


@pytest.mark.parametrize("exchange", [e for e in EXCHANGES if e.file == "tftp"], ids=lambda e: e.id)
def test_boot_files_are_what_they_were_then(exchange: Exchange, played: dict[tuple[str, int], Played]) -> None:
    done = played[exchange.key]
    if done.status == exchange.line["status"]:
        stood = {path: done.boot_files.get(path) for path in exchange.boot_files}
        assert stood == exchange.boot_files, exchange.line["note"]
    if exchange.method == "DELETE" and done.status == 200:
        left = [p for p in done.boot_files if "dd-ee-01" in p or "dd:ee:01" in p or "DDEE01" in p.upper()]
        kind = {
            "Pxegrub2": ("grub2/", "host-config/"),
            "Pxegrub": ("grub/",),
            "Ztp": ("ztp.cfg/",),
            "Poap": ("poap.cfg/",),
        }
        own = kind.get(exchange.line["path"].split("/")[2], ("pxelinux.cfg/",))
        assert not [p for p in left if p.startswith(own)]


@pytest.mark.parametrize("exchange", [e for e in EXCHANGES if e.upstream is not None], ids=lambda e: e.id)
def test_the_puppet_server_is_asked_what_it_was_asked_then(
    exchange: Exchange, played: dict[tuple[str, int], Played]
) -> None:
    tries = DIFFERENCES[exchange.key].tries if exchange.key in DIFFERENCES else 1
    expected = [one for one in exchange.upstream or () for _ in range(tries)]
    assert list(played[exchange.key].upstream) == expected, exchange.line["note"]


@pytest.mark.parametrize("exchange", [e for e in EXCHANGES if e.handed is not None], ids=lambda e: e.id)
def test_foreman_is_handed_what_it_was_handed_then(exchange: Exchange, played: dict[tuple[str, int], Played]) -> None:
    ours = DIFFERENCES[exchange.key].handed if exchange.key in DIFFERENCES else None
    expected = exchange.handed if ours is None else ours
    assert played[exchange.key].handed == expected, exchange.line["note"]


def test_what_foreman_is_shown_is_the_member_s_certificate(
    played: dict[tuple[str, int], Played], proxy: Member, foreman: ForemanForHosts
) -> None:
    foreman.asked.clear()
    assert proxy.ask("GET", "/unattended/provision").status == 200
    (asked,) = foreman.asked
    assert (asked.client, asked.headers["host"]) == (proxy.name, foreman.url.removeprefix("https://"))


def _has_recorded_type(exchange: Exchange) -> bool:
    """Whether both answered alike; a page of the Ruby proxy's own server and a failed connection have no such type."""
    status, content_type = exchange.line["status"], exchange.line["content_type"] or ""
    return _expected(exchange)[0] == status != 0 and "ISO-8859-1" not in content_type


@pytest.mark.parametrize("exchange", [e for e in EXCHANGES if _has_recorded_type(e)], ids=lambda e: e.id)
def test_the_recorded_content_type_is_kept(exchange: Exchange, played: dict[tuple[str, int], Played]) -> None:
    assert played[exchange.key].headers.get("content-type") == exchange.line["content_type"]


def test_no_difference_is_stale(played: dict[tuple[str, int], Played]) -> None:
    recorded = {e.key: e for e in EXCHANGES}
    assert not set(DIFFERENCES) - set(recorded), "differences from nothing recorded"
    stale = [
        key
        for key in DIFFERENCES
        if (played[key].status, _comparable(recorded[key], played[key].body), played[key].effects)
        == (
            recorded[key].line["status"],
            _comparable(recorded[key], recorded[key].line["body"]),
            recorded[key].effects,
        )
        and (recorded[key].handed is None or played[key].handed == recorded[key].handed)
    ]
    assert not stale, "these answers are the recorded ones"


def test_every_difference_says_why() -> None:
    assert not [key for key, d in DIFFERENCES.items() if not d.reason.endswith(".") or len(d.reason) < 30]


def test_all_files_were_played() -> None:
    assert {e.file for e in EXCHANGES} == set(golden.FILES)
    assert len(EXCHANGES) == 722


def test_a_request_id_is_never_echoed(played: dict[tuple[str, int], Played]) -> None:
    given = [e.key for e in EXCHANGES if "X-Request-Id" in e.line["request_headers"]]
    assert given
    assert not [key for key in given if "x-request-id" in played[key].headers]
