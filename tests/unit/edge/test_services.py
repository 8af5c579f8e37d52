from __future__ import annotations

import json
from typing import Any

import pytest

from muster.cluster.service import ANY, of_settings
from muster.edge.replies import error_reply, not_found
from muster.edge.request import Peer
from muster.edge.routes import Access, RouteTable
from muster.edge.services import MOUNT, Registered
from muster.kernel.errors import MusterError
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from tests.unit.edge.calls import FOREMAN, Answer, peer, request

pytestmark = pytest.mark.anyio

BASE = {"pulp": of_settings("pulp", "https://{member}", {ANY: "https://smartproxy.test/pulp/content"})}
MOVED = {"control_url": "https://pulp.dmz.test"}
TABLE = RouteTable(MOUNT.routes)


async def call(
    of: Registered,
    method: str,
    path: str,
    content: Any = None,
    *,
    match: str | None = None,
    by: Peer | None = None,
    scheme: str = "https",
) -> Answer:
    found = TABLE.find(method, path)
    if found is None:
        answer = not_found()
    else:
        body = [json.dumps(content).encode()] if content is not None else [b"{"]
        headers = {"If-Match": match} if match is not None else {}
        asked = request(method, path, by=by or peer(), headers=headers, body=body, scheme=scheme)
        asked.arguments = found[1]
        try:
            answer = await found[0].endpoint(of, asked)
        except MusterError as e:
            answer = error_reply(e, accept=None)
    return Answer(answer.status, {k.decode(): v.decode() for k, v in answer.headers}, answer.body)


def test_every_call_is_for_trusted_hosts() -> None:
    assert {r.access for r in MOUNT.routes} == {Access.TRUSTED}


async def test_a_service_is_read_changed_and_taken_out_by_its_version(tmp_path: Any) -> None:
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        of = Registered(store, lambda: BASE)
        assert list((await call(of, "GET", "/")).json) == ["pulp"]
        first = await call(of, "GET", "/pulp")
        assert (first.status, first.headers["etag"], first.json["source"]) == (200, '"0"', "settings")
        put = await call(of, "PUT", "/pulp", MOVED, match='"0"')
        assert (put.status, put.headers["etag"]) == (200, '"1"')
        assert (put.json["control_url"], put.json["changed_by"]) == ("https://pulp.dmz.test", FOREMAN)
        late = await call(of, "PUT", "/pulp", {"weight": "essential"}, match='"0"')
        assert (late.status, late.text.startswith("Service pulp has version 1 now, not 0")) == (412, True)
        assert (await call(of, "PUT", "/pulp@dmz", MOVED, match='"0"')).status == 200
        assert (await call(of, "PUT", "/registry", MOVED, match='"7"')).status == 412
        gone = await call(of, "DELETE", "/pulp", match='"1"')
        assert (gone.status, gone.json["source"]) == (200, "settings")
        assert (await call(of, "DELETE", "/pulp@dmz", match='"2"')).body == b""
        assert (await call(of, "GET", "/pulp@dmz")).status == 404


async def test_what_is_no_change_is_refused_and_changes_nothing(tmp_path: Any) -> None:
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        of = Registered(store, lambda: BASE)
        for match in (None, "*", "0", '"-1"', 'W/"0"'):
            answer = await call(of, "PUT", "/pulp", MOVED, match=match)
            assert (answer.status, "If-Match" in answer.text) == (400, True)
        assert (await call(of, "PUT", "/pulp", match='"0"')).status == 400
        assert (await call(of, "PUT", "/pulp", {"control_url": "x"}, match='"0"')).status == 400
        assert (await call(of, "PUT", "/frob", MOVED, match='"0"')).status == 400
        for scheme, by in (("http", peer()), ("https", Peer("192.0.2.1"))):
            assert (await call(of, "PUT", "/pulp", MOVED, match='"0"', scheme=scheme, by=by)).status == 403
            assert (await call(of, "DELETE", "/pulp", match='"0"', scheme=scheme, by=by)).status == 403
        assert (await call(of, "GET", "/pulp")).json["version"] == 0
