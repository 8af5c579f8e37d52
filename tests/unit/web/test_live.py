from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from muster.web import live
from muster.web.model.log import Filter
from muster.web.render import Rendered
from tests.servers import pages


def read(event: bytes) -> dict[str, Any]:
    first, data, *_ = event.decode().split("\n")
    assert first == "event: look"
    found: dict[str, Any] = json.loads(data.removeprefix("data: "))
    return found


def looking(
    watch: pages.StandIn, have: list[str] | None = None, closing: list[bool] | None = None
) -> AsyncGenerator[bytes, None]:
    closes = closing if closing is not None else [False]
    return live.looks(watch, Rendered(), Filter(), have or [], lambda: closes[0])


async def test_a_viewer_gets_what_he_lacks_then_what_changes_with_a_sentence() -> None:
    watch = pages.StandIn(pages.page_of(3, troubled=False))
    rendered = Rendered().sections(pages.page_of(3, troubled=False), Filter())
    stream = looking(watch, have=[s.digest for s in rendered if s.name != "matrix"])
    first = read(await anext(stream))
    assert (list(first["sections"]), first["said"]) == (["matrix"], "")
    assert watch.viewers == 1
    task = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    watch.show(pages.page_of(3))
    second = read(await task)
    assert second["said"] == "proxy02 is unreachable"
    assert {"glance", "matrix", "members", "traffic"} <= set(second["sections"])
    assert "log" not in second["sections"]
    assert "proxy01.example.com" in second["asof"]
    await stream.aclose()
    assert watch.viewers == 0


async def test_who_reads_slowly_gets_the_newest_look_and_no_queue() -> None:
    watch = pages.StandIn(pages.page_of(3, troubled=False))
    stream = looking(watch)
    await anext(stream)
    for store in ("one", "two", "three"):
        watch.show(pages.page_of(3, troubled=False, store=store))
    task = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    watch.show(pages.page_of(3, troubled=False, store="four"))
    assert "four" in read(await task)["sections"]["glance"][1]
    await stream.aclose()


async def test_a_stream_ends_when_the_member_goes() -> None:
    closing = [False]
    stream = looking(pages.StandIn(pages.page_of(1)), closing=closing)
    await anext(stream)
    closing[0] = True
    assert [piece async for piece in stream] == []
