from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from muster.edge.request import ClientGone, NotUnderstood, Peer, Request, TooLarge, TooSlow
from muster.kernel.errors import Rejected
from tests.unit.edge.calls import certificate, peer, request, scope

FORM = {"content-type": "application/x-www-form-urlencoded; charset=UTF-8"}


def test_a_peer_is_named_by_its_certificate_in_lower_case() -> None:
    assert peer("Foreman.Example.COM").name == "foreman.example.com"
    assert peer("foreman.example.com, O=x").name is None
    assert peer(None).name is None
    assert Peer("192.0.2.1").name is None
    assert Peer("192.0.2.1", b"not DER").name is None
    assert peer("foreman.example.com").certificate == certificate("foreman.example.com")


async def test_the_body_wins_over_the_query_and_the_path_over_both() -> None:
    call = request("POST", "/?a=query&b=query&c=query", headers=FORM, body=[b"b=body&c=body"])
    call.arguments = {"c": "path"}
    assert await call.params() == {"a": "query", "b": "body", "c": "path"}


@pytest.mark.parametrize("headers", [FORM, {}])
async def test_a_form_is_read_with_its_content_type_and_without(headers: dict[str, str]) -> None:
    assert await request("POST", "/", headers=headers, body=[b"a=1&", b"b[]=2"]).params() == {"a": "1", "b": ["2"]}


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/octet-stream"])
async def test_other_bodies_are_ignored_for_parameters(content_type: str) -> None:
    call = request("POST", "/?a=1", headers={"content-type": content_type}, body=[b'{"a": 2}'])
    assert await call.params() == {"a": "1"}
    assert await call.body() == b'{"a": 2}'


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_body_of_a_get_holds_no_parameters(method: str) -> None:
    assert await request(method, "/?a=1", headers=FORM, body=[b"b=2"]).params() == {"a": "1"}


@pytest.mark.parametrize("content_type", ["Multipart/Form-Data; boundary=X", "multipart/form-data"])
async def test_a_multipart_form_is_refused(content_type: str) -> None:
    body = b'--X\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--X--\r\n'
    call = request("PUT", "/", headers={"Content-Type": content_type}, body=[body])
    with pytest.raises(NotUnderstood, match="send it urlencoded") as raised:
        await call.params()
    assert raised.value.status == 415


async def test_a_semicolon_in_a_body_belongs_to_the_value() -> None:
    call = request("POST", "/?a=1;b=2", headers=FORM, body=[b"fqdn=x;y"])
    assert await call.params() == {"a": "1", "b": "2", "fqdn": "x;y"}


async def test_texts_are_given_by_name_and_absent_or_bare_ones_are_none() -> None:
    call = request("POST", "/?a=1&b", body=[b"x=y"])
    assert await call.text_params("a", "b", "c") == {"a": "1", "b": None, "c": None}


@pytest.mark.parametrize(("query", "kind"), [("a[]=1", "list"), ("a[b]=1", "dict")])
async def test_a_list_or_a_map_is_no_text(query: str, kind: str) -> None:
    with pytest.raises(Rejected, match=f"Invalid parameter a: one text is expected, not a {kind}"):
        await request("GET", "/?" + query).text_params("a")


async def test_a_body_up_to_the_limit_is_read_and_one_byte_more_refused() -> None:
    assert await request("POST", body=[b"12", b"345"], body_limit_bytes=5).body() == b"12345"
    with pytest.raises(TooLarge, match="the body is larger than 5 bytes"):
        await request("POST", body=[b"12", b"3456"], body_limit_bytes=5).body()


async def test_a_body_that_does_not_come_is_too_slow() -> None:
    async def never() -> dict[str, object]:
        await asyncio.Event().wait()
        return {}

    given = scope("POST", "/")
    call = Request(
        given,
        never,
        peer=Peer("192.0.2.1"),
        request_id="1",
        headers={},
        body_limit_bytes=10,
        body_timeout_s=0.01,
    )
    with pytest.raises(TooSlow, match=r"did not arrive within 0\.01 s"):
        await call.body()


async def test_a_client_that_goes_away_is_said_to_be_gone() -> None:
    with pytest.raises(ClientGone):
        await request("POST", body=[b"half"], gone=True).body()


async def test_what_arrived_while_a_client_was_waited_for_is_read_and_not_on_its_way_any_more() -> None:
    call = request("GET", headers={"Content-Length": "5"}, body=[b"he", b"llo"])
    assert call.unread
    with pytest.raises(IndexError):
        # Nothing comes any more, not even the news that it has gone.
        await call.gone()
    assert not call.unread


async def test_a_client_that_goes_away_as_the_block_ends_ends_nothing_behind_it() -> None:
    news: asyncio.Future[MutableMapping[str, Any]] = asyncio.get_running_loop().create_future()

    async def receive() -> MutableMapping[str, Any]:
        return await news

    call = Request(
        scope("GET", "/"), receive, peer=Peer("192.0.2.1"), request_id="1", headers={}, body_limit_bytes=1,
        body_timeout_s=0.5,
    )  # fmt: skip
    async with call.while_waited_for():
        await asyncio.sleep(0)
        news.set_result({"type": "http.disconnect"})
        # The news is heard in this turn of the loop, and what follows from it comes with the next.
        await asyncio.sleep(0)
    for _ in range(3):
        await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


def arriving(size: int, every_s: float) -> Request:
    """Return a request whose body arrives in pieces of a size, without end."""

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.sleep(every_s)
        return {"type": "http.request", "body": bytes(size), "more_body": True}

    return Request(
        scope("POST", "/"), receive, peer=Peer("192.0.2.1"), request_id="1", headers={}, body_limit_bytes=1,
        body_timeout_s=0.5,
    )  # fmt: skip


async def test_a_body_that_comes_a_byte_now_and_then_is_too_slow() -> None:
    async def read() -> None:
        async for _ in arriving(1, 0.05).pieces():
            pass

    async with asyncio.timeout(10):
        with pytest.raises(TooSlow):
            await read()


async def test_a_body_that_goes_on_has_as_long_as_it_needs() -> None:
    pieces = arriving(1000, 0.05).pieces()
    # More than twice what a body may be silent.
    for _ in range(25):
        await anext(pieces)
    await pieces.aclose()


async def test_a_body_that_is_taken_slowly_is_no_slow_one() -> None:
    pieces = arriving(1, 0.001).pieces()
    for _ in range(3):
        await anext(pieces)
        await asyncio.sleep(0.3)
    await pieces.aclose()


async def test_a_body_is_read_once_and_remembered() -> None:
    call = request("POST", body=[b"a=1"])
    assert await call.body() == await call.body() == b"a=1"
    assert await call.params() == {"a": "1"}


async def test_an_unread_body_is_noticed() -> None:
    for headers, unread in (({}, False), ({"content-length": "0"}, False), ({"content-length": "3"}, True)):
        assert request("POST", headers=headers, body=[b"abc"]).unread is unread
    call = request("POST", headers={"transfer-encoding": "chunked"}, body=[b"abc"])
    assert call.unread
    await call.body()
    assert not call.unread


async def test_a_broken_escape_in_a_form_is_rejected() -> None:
    with pytest.raises(Rejected, match="bad URI"):
        await request("POST", "/", headers=FORM, body=[b"a=%zz"]).params()


def test_header_names_are_matched_in_lower_case() -> None:
    call = request(headers={"Accept": "text/html", "X-Client-Cert": "x"})
    assert call.accept == "text/html"
    assert call.header(b"x-client-cert") == "x"
    assert call.header(b"nothing") is None
    assert call.peer.certificate is None
