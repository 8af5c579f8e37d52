from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from muster.content.backend import Answer
from muster.content.joining import Joining
from muster.content.places import PLACES
from muster.content.pub import Pub
from muster.content.registry import Registry
from muster.content.service import Content
from muster.edge.authorise import Callers, Gate
from muster.edge.replies import Reply
from muster.edge.request import ClientGone, Peer
from muster.kernel.errors import Denied
from tests.unit.edge.calls import FOREMAN, peer
from tests.unit.edge.calls import request as call

pytestmark = pytest.mark.anyio

MEMBER = "proxy01.example.com"
REGISTRY = next(p for p in PLACES if p.who == "gateway")
CONTENT = next(p for p in PLACES if p.prefix == "/pulp/content")
IMAGES = next(p for p in PLACES if p.prefix == "/v2")
API = next(p for p in PLACES if p.who == "trusted")


class Pulp:
    """A backend that remembers as whom it was asked."""

    name, url = "Pulp", "http://pulp.test"
    users: list[str | None]

    def __init__(self) -> None:
        self.users = []

    async def ask(self, _: str, __: str, sent: Sequence[tuple[str, str]], *___: object) -> Answer:
        self.users.append(dict(sent).get("Remote-User"))
        return Answer("Pulp", 200, [], _nothing(), lambda: None)


async def _nothing() -> AsyncGenerator[bytes, None]:
    pieces: tuple[bytes, ...] = ()
    for piece in pieces:
        yield piece


def content(pulp: Pulp, *, revoked: bool = False) -> Content:
    async def is_revoked(_: object) -> bool:
        return revoked

    backend: Any = pulp
    gate = Gate(Callers(frozenset({FOREMAN}), frozenset()), revoked=is_revoked)
    return Content(MEMBER, {"api": backend}, Pub(None, Joining({}, ())), gate, None, frozenset({MEMBER}), "127.0.0.1")


async def test_the_gateway_of_this_host_is_pulps_administrator_unless_its_certificate_is_revoked() -> None:
    pulp = Pulp()
    request = call("GET", "/pulpcore_registry/v2/", by=peer(MEMBER))
    await content(pulp).answer(REGISTRY, request)
    with pytest.raises(Denied, match="revoked"):
        await content(pulp, revoked=True).answer(REGISTRY, request)
    assert pulp.users == ["admin"]


@pytest.mark.parametrize("who", [peer(FOREMAN), peer("proxy02.example.com"), peer(None), Peer("192.0.2.9")])
async def test_nobody_else_is(who: Peer) -> None:
    pulp = Pulp()
    with pytest.raises(Denied):
        await content(pulp).answer(REGISTRY, call("GET", "/pulpcore_registry/v2/", by=who))
    assert pulp.users == []


@pytest.mark.parametrize("revoked", [False, True])
async def test_a_trusted_host_is_itself_when_its_certificate_is_revoked(revoked: bool) -> None:
    pulp = Pulp()
    await content(pulp, revoked=revoked).answer(API, call("GET", "/pulp/api/v3/", by=peer(FOREMAN)))
    assert pulp.users == [None if revoked else "admin"]


class Slow(Pulp):
    """One that does not answer until somebody gives up."""

    given_up = False

    async def ask(self, *_: object) -> Answer:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.given_up = True
            raise
        raise AssertionError


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_who_goes_away_before_the_answer_is_asked_for_no_more(method: str) -> None:
    pulp = Slow()
    async with asyncio.timeout(10):
        with pytest.raises(ClientGone):
            await content(pulp).answer(API, call(method, "/pulp/api/v3/", by=peer(FOREMAN), gone=True))
    assert pulp.given_up
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("body", [(), (b"he",)], ids=["nothing of it", "a part"])
async def test_so_is_who_announced_a_body_that_nobody_takes(body: tuple[bytes, ...]) -> None:
    pulp: Any = Slow()
    of = content(pulp)
    of.backends = {"content": pulp}
    sent = call("GET", "/pulp/content/r/a.rpm", headers={"Content-Length": "5"}, body=body, gone=True)
    async with asyncio.timeout(10):
        with pytest.raises(ClientGone):
            await of.answer(CONTENT, sent)
    assert pulp.given_up


async def test_a_change_goes_on_when_who_asked_for_it_has_gone() -> None:
    pulp = Pulp()
    answer = await content(pulp).answer(API, call("POST", "/pulp/api/v3/", by=peer(FOREMAN), gone=True))
    assert (answer.status, pulp.users) == (200, ["admin"])


@pytest.mark.parametrize("content_range", [[("Content-Range", "bytes */20272")], []])
async def test_a_range_that_there_is_not_is_refused_without_a_sentence_whose_length_may_be_wrong(
    content_range: Sequence[tuple[str, str]],
) -> None:
    """Debian's registry says of its sentence the length of the whole blob (docs/facts/content-and-boot.md §9.3)."""
    ended = []

    class Short(Pulp):
        async def ask(self, *_: object) -> Answer:
            said = [("Content-Length", "20272"), ("Content-Type", "text/plain"), *content_range]
            return Answer("the registry", 416, said, _nothing(), lambda: ended.append(True))

    short: Any = Short()
    of = content(short)
    of.backends, of.registry = {"registry": short}, Registry(short, None)
    path = f"/v2/r/blobs/sha256:{'ab' * 32}"
    answer = await of.answer(IMAGES, call("GET", path, headers={"Range": "bytes=20272-"}, by=peer(FOREMAN)))
    assert isinstance(answer, Reply)
    assert (answer.status, answer.body, ended) == (416, b"", [True])
    said = dict(answer.headers)
    assert said[b"content-length"] == b"0"
    assert said.get(b"content-range") == (b"bytes */20272" if content_range else None)


async def test_a_member_without_a_pulp_has_nothing_of_what_was_followed_before() -> None:
    asked = content(Pulp()).call_as(None)
    answer = await asked.ask("GET", "/pulp/content/r/repodata/repomd.xml")
    assert (answer.status, await answer.whole(1)) == (404, b"")
