from __future__ import annotations

import re
from typing import Any

import pytest

from muster.edge.replies import Reply
from muster.edge.routes import Access
from muster.edge.traffic import Traffic
from muster.kernel.errors import Denied, Rejected, Unavailable
from muster.web import api
from muster.web.api import MOUNT, VIEWERS, Viewing
from muster.web.assets import ASSETS
from tests.servers import pages
from tests.unit.edge.calls import request

TOP = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


def viewing(**more: Any) -> Viewing:
    return Viewing(pages.StandIn(pages.page_of(3)), **more)


def headers(reply: Reply) -> dict[bytes, bytes]:
    return dict(reply.headers)


async def test_the_page_loads_nothing_from_elsewhere_and_is_kept_by_nobody() -> None:
    reply = await api.page(viewing(), request("GET", "/"))
    found = headers(reply)
    assert (reply.status, found[b"cache-control"], found[b"referrer-policy"]) == (200, b"no-store", b"no-referrer")
    policy = found[b"content-security-policy"].decode()
    assert policy.startswith("default-src 'none'; ")
    assert {"frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} <= set(policy.split("; "))
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(rb'(src|href|action)="(?!/cluster/|#)', reply.body)
    assert b"access-control-allow-origin" not in found


async def test_files_are_under_their_digest_and_nowhere_else() -> None:
    asset = ASSETS["page.css"]
    asked = request("GET", asset.path)
    asked.arguments = {"digest": asset.digest, "name": "page.css"}
    reply = await api.static(viewing(), asked)
    assert (reply.status, reply.body) == (200, asset.body)
    assert b"immutable" in headers(reply)[b"cache-control"]
    for digest, name in (("0" * 16, "page.css"), (asset.digest, "../api.py"), (asset.digest, "page.js")):
        asked.arguments = {"digest": digest, "name": name}
        assert (await api.static(viewing(), asked)).status == 404


@pytest.mark.parametrize(
    "said",
    [
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {**TOP, "sec-fetch-dest": "iframe"},
    ],
)
async def test_pages_of_other_sites_are_told_nothing(said: dict[str, str]) -> None:
    for endpoint in (api.page, api.static, api.live, api.announced):
        asked = request("GET", "/", headers=said)
        asked.arguments = {"digest": "", "name": ""}
        with pytest.raises(Denied):
            await endpoint(viewing(), asked)


async def test_a_link_from_elsewhere_may_be_followed() -> None:
    for said in (TOP, {"sec-fetch-site": "none"}, {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}):
        assert (await api.page(viewing(), request("GET", "/", headers=said))).status == 200


@pytest.mark.parametrize("query", ["level=LOUD", f"text={'x' * 201}", f"member={'x' * 201}"])
async def test_a_filter_that_is_none_is_refused(query: str) -> None:
    with pytest.raises(Rejected):
        await api.page(viewing(), request("GET", f"/?{query}"))


async def test_so_many_may_follow_and_nobody_at_a_member_that_goes() -> None:
    full = viewing()
    full.watch.viewers = VIEWERS
    with pytest.raises(Unavailable, match=r"50 follow the page"):
        await api.live(full, request("GET", "/live"))
    with pytest.raises(Unavailable, match="drains or stops"):
        await api.live(viewing(closing=lambda: True), request("GET", "/live"))
    with pytest.raises(Rejected):
        await api.live(viewing(), request("GET", f"/live?have={'a' * 401}"))
    streamed = await api.live(viewing(), request("GET", "/live"))
    assert dict(streamed.headers)[b"content-type"] == b"text/event-stream; charset=utf-8"
    await streamed.pieces.aclose()


async def test_who_is_no_member_has_no_rings() -> None:
    assert (await api.rings(viewing(), request("GET", "/rings.json"))).status == 404
    assert (await api.rings(viewing(traffic=Traffic()), request("GET", "/rings.json"))).status == 200


def test_every_route_only_reads_and_asks_who_calls() -> None:
    assert {(r.method, r.path, r.access) for r in MOUNT.routes} == {
        ("GET", "/", Access.OPERATORS),
        ("GET", "/static/{digest}/{name}", Access.OPERATORS),
        ("GET", "/live", Access.OPERATORS),
        ("GET", "/rings.json", Access.CLUSTER),
    }
