from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest

from muster.cluster.file import ClusterFile
from muster.content import handed
from muster.content.backend import Answer, BadGateway, GatewayTimeout
from muster.content.handed import Foreman, authorization, forwarded_for, is_value, limited, passed, told
from muster.edge.feature import Surroundings
from muster.edge.request import Peer, TooLarge
from muster.kernel.errors import Misconfigured, Rejected, Unavailable
from tests.unit.edge.calls import request

pytestmark = pytest.mark.anyio

# What would make a host somebody else, or is another's matter.
FORGED = {
    "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "other.test", "X-Forwarded-Proto": "http", "X-Real-IP": "192.0.2.1",
    "Forwarded": "for=192.0.2.1", "Remote-User": "admin", "X-Client-Cert": "x", "X-RHSM-SSL-Client-Cert": "x",
    "SSL-Client-S-DN": "CN=x", "SSL-Client-Verify": "SUCCESS", "X-SSL-Client-DN": "CN=x", "Cookie": "a=b", "Host": "x.test",
    "Connection": "x-a", "Upgrade": "h2c", "TE": "trailers", "X_RHN_Provisioning_MAC_0": "eth0 x", "Accept-Encoding": "gzip",
    "X-RHN-Provisioning-MAC-x": "eth0 x", "X-Anaconda-Other": "x", "X-HTTP-Method-Override": "DELETE",
}  # fmt: skip


class Backend:
    """Answers everything alike; None: nothing ever comes."""

    def __init__(
        self, *pieces: bytes | None, status: int = 200, headers: Sequence[tuple[str, str]] = (), is_framed: bool = True
    ) -> None:
        self.pieces, self.status = pieces, status
        self.headers = [*([("Transfer-Encoding", "chunked")] if is_framed else []), *headers]
        self.asked: list[tuple[str, str, list[tuple[str, str]]]] = []
        self.is_ended = False

    async def ask(self, method: str, path: str, headers: Sequence[tuple[str, str]], *_: Any) -> Answer:
        self.asked.append((method, path, list(headers)))
        return Answer("Foreman", self.status, self.headers, self._coming(), self._end)

    async def _coming(self) -> AsyncGenerator[bytes, None]:
        for piece in self.pieces:
            if piece is None:
                await asyncio.Event().wait()
            yield piece or b""

    def _end(self) -> None:
        self.is_ended = True


def cluster(**foreman: Any) -> ClusterFile:
    content = {
        "schema": 1, "cluster": "c", "address": "proxy.example.com", "store": {"url": "sqlite:///nowhere"},
        "foreman": foreman, "members": [{"id": 1, "name": "proxy01.example.com", "address": "127.0.0.11"}],
    }  # fmt: skip
    return ClusterFile.model_validate(content)


def test_of_a_host_s_headers_only_those_go_on_that_are_named() -> None:
    sent = {
        "User-Agent": "anaconda/1 x", "X-RHN-Provisioning-MAC-0": "eth0 aa:bb", "X-Anaconda-Architecture": "x86_64",
        "X-Anaconda-System-Release": "Some Linux 10", "X-System-Serial-Number": "ABC-1", "Accept": "text/plain",
    }  # fmt: skip
    found = told(request(headers={**FORGED, **sent, "Authorization": "Basic eA=="}))
    assert dict(found) == {
        **{name.lower(): value for name, value in sent.items() if name != "Accept"},
        "Accept": "*/*, application/json,version=2, text/plain",
    }


@pytest.mark.parametrize("value", ["", "a\x01b", "ä", "x" * 5000, " x"])
def test_a_header_s_value_is_one_line_of_ascii_or_stays_here(value: str) -> None:
    assert told(request(headers={"User-Agent": value, "Accept": value})) == [("Accept", handed.ACCEPTED)]
    assert not is_value(value)


def test_many_headers_are_cut_off() -> None:
    sent = {f"X-RHN-Provisioning-MAC-{n}": f"eth{n}" for n in range(500)}
    assert len(told(request(headers=sent))) < 100


def test_whoever_proves_himself_does_so_once() -> None:
    assert authorization(request()) == []
    assert authorization(request(headers={"Authorization": "Bearer x.y.z"})) == [("Authorization", "Bearer x.y.z")]
    twice = request(headers={"Authorization": "Bearer x"})
    twice.sent_headers.append((b"authorization", b"Bearer y"))
    for given in (twice, request(headers={"Authorization": "Bearer\x0bx"}), request(headers={"Authorization": ""})):
        with pytest.raises(Rejected, match="Authorization"):
            authorization(given)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("192.0.2.9", "192.0.2.9"),
        ("::ffff:192.0.2.9", "192.0.2.9"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_a_host_asks_from_where_its_connection_comes_from(address: str, said: str) -> None:
    given = request(by=Peer(address), headers={"X-Forwarded-For": "192.0.2.77"})
    assert forwarded_for(given) == ("X-Forwarded-For", said)


async def test_a_body_goes_on_up_to_its_limit() -> None:
    assert [p async for p in limited(request("POST", body=(b"ab", b"cd")), 4)] == [b"ab", b"cd"]
    with pytest.raises(TooLarge):
        _ = [p async for p in limited(request("POST", body=(b"ab", b"cde")), 4)]


async def test_an_answer_is_whole_and_in_plain() -> None:
    backend = Backend(b"#!/bin", b"/sh\n", headers=[("Content-Type", "text/plain")])
    said = await Foreman(backend).ask("GET", "/register?a=b", [("A", "b")])
    assert (said.status, said.content_type, said.body) == (200, "text/plain", b"#!/bin/sh\n")
    assert backend.asked == [("GET", "/register?a=b", [("A", "b"), ("Accept-Encoding", "identity")])]
    assert backend.is_ended


async def test_an_answer_that_is_too_long_packed_or_never_ends_is_none() -> None:
    long = Backend(*[b"x" * (1 << 19)] * 3)
    with pytest.raises(BadGateway, match="more than 1 MiB"):
        await Foreman(long).ask("GET", "/", [])
    packed = Backend(b"x", headers=[("Content-Encoding", "gzip")])
    with pytest.raises(BadGateway, match="coding"):
        await Foreman(packed).ask("GET", "/", [])
    endless = Backend(b"half", None)
    with pytest.raises(GatewayTimeout, match="did not end its answer"):
        await Foreman(endless, ended_within_s=0.01).ask("GET", "/", [])
    part = Backend(b"half", status=206)
    with pytest.raises(BadGateway, match="a part"):
        await Foreman(part).ask("GET", "/", [])
    unframed = Backend(b"half a script", is_framed=False)
    with pytest.raises(BadGateway, match="where its answer ends"):
        await Foreman(unframed).ask("GET", "/", [])
    assert (await Foreman(Backend(status=204, is_framed=False)).ask("GET", "/", [])).status == 204
    assert unframed.is_ended
    assert long.is_ended
    assert part.is_ended
    assert packed.is_ended
    assert endless.is_ended


async def test_an_answer_is_counted_while_it_is_held() -> None:
    counted: list[int] = []

    def hold(size: int) -> None:
        counted.append(size)
        if sum(counted) > 5:
            raise Unavailable("there is no room")

    with pytest.raises(Unavailable, match="no room"):
        await Foreman(Backend(b"1234", b"5678")).ask("GET", "/", [], hold=hold)
    assert counted == [4, 4]


def test_what_is_passed_is_a_text_like_ruby_s_and_no_body_where_there_is_none() -> None:
    reply = passed(404, b"nope")
    assert (reply.status, reply.body, reply.headers[0]) == (404, b"nope", (b"content-type", b"text/html;charset=utf-8"))
    assert [passed(s, b"x").body for s in (204, 304)] == [b"", b""]
    assert not {n for n, _ in passed(204, b"").headers} & {b"content-type", b"content-length"}


@pytest.mark.parametrize(
    ("foreman", "said"), [({}, "foreman.url is absent"), ({"url": "http://f.test"}, "needs https")]
)
async def test_without_a_foreman_over_tls_there_is_a_sentence(
    foreman: dict[str, str], said: str, tmp_path: Path
) -> None:
    around = Surroundings("proxy01.example.com", None, tmp_path, tmp_path, tmp_path, cluster=cluster(**foreman))  # type: ignore[arg-type]
    with pytest.raises(Misconfigured, match=said):
        async with handed.opened(around, timeout_s=5, needed_by="templates"):
            pass


async def test_what_a_host_says_goes_over_a_connection_of_its_own() -> None:
    kept, anew = Backend(b"a"), Backend(b"b")
    foreman = Foreman(kept, anew)
    assert (await foreman.ask("GET", "/", [])).body == b"a"
    assert (await foreman.ask("POST", "/", [])).body == b"b"
