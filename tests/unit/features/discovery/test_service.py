from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from muster.content.handed import Said
from muster.edge.replies import Reply
from muster.edge.request import Peer
from muster.edge.routes import RouteTable
from muster.features.discovery import api, checks
from muster.features.discovery.nodes import Nodes
from muster.features.discovery.service import Discovery
from muster.features.discovery.settings import DiscoverySettings
from muster.kernel.errors import MusterError, Rejected, Unavailable
from tests.unit.edge.calls import request

pytestmark = pytest.mark.anyio

FACTS = b'{"facts":{"discovery_bootif":"52:54:00:aa:00:01","secret":"hunter2"}}'


class Foreman:
    """Answers when it is let, and remembers what it was asked."""

    def __init__(self, status: int = 201, body: bytes = b"{}", kind: str = "application/json") -> None:
        self.said = Said(status, kind, body)
        self.error: MusterError | None = None
        self.asked: list[bytes] = []
        self.may = asyncio.Event()
        self.may.set()

    async def ask(self, method: str, path: str, headers: Any, *, body: AsyncIterator[bytes], **_: Any) -> Said:
        assert (method, path) == ("POST", "/api/v2/discovered_hosts/facts")
        self.asked.append(b"".join([p async for p in body]))
        await self.may.wait()
        if self.error is not None:
            raise self.error
        return self.said


def discovery(foreman: Foreman, monotonic: Callable[[], float] = lambda: 0.0, **given: Any) -> Discovery:
    settings = DiscoverySettings.model_validate(given)
    return Discovery(foreman, Nodes(settings, None), settings, monotonic=monotonic)  # type: ignore[arg-type]


async def called(service: Discovery, body: bytes = FACTS, *, source: str = "192.0.2.9") -> Reply:
    headers = {"Content-Length": str(len(body))}
    return await service.created(request("POST", "/discovery/create", body=[body], by=Peer(source), headers=headers))


async def test_facts_go_on_as_they_are_and_the_log_has_the_hardware_address_and_nothing_else_of_them() -> None:
    foreman = Foreman()
    with capture_logs() as logs:
        reply = await called(discovery(foreman))
    assert (reply.status, reply.body, foreman.asked) == (201, b"{}", [FACTS])
    (told,) = logs
    assert (told["about"], told["status"]) == ("52:54:00:aa:00:01", 201)
    assert "hunter2" not in repr(logs)


async def test_a_machine_that_tells_no_hardware_address_is_logged_without() -> None:
    with capture_logs() as logs:
        await called(discovery(Foreman()), b'{"facts":{}}')
        await called(discovery(Foreman(422)), b'{"facts":{}}')
    assert ["about" in one for one in logs] == [False, False]


@pytest.mark.parametrize(
    ("status", "body", "kind", "expected"),
    [
        (200, b"{}", "application/json; charset=utf-8", (200, b"application/json")),
        (204, b"", "", (200, None)),
        (404, b"<html>", "text/html", (404, b"text/plain")),
        (503, b"", "", (503, None)),
    ],
)
async def test_an_answer_of_foreman_s_is_json_or_plain_text(
    status: int, body: bytes, kind: str, expected: tuple[int, bytes | None]
) -> None:
    reply = await called(discovery(Foreman(status, body, kind)))
    headers = dict(reply.headers)
    assert (reply.status, headers.get(b"content-type")) == expected
    assert (reply.body, headers[b"content-length"]) == (body, b"%d" % len(body))


async def test_what_foreman_does_not_answer_begins_with_what_was_tried_and_frees_the_slot() -> None:
    foreman = Foreman()
    service = discovery(foreman, facts_at_once=1)
    foreman.error = Unavailable("foreman cannot be reached")
    for _ in range(3):
        with pytest.raises(Unavailable, match=r"^Failed to hand facts to Foreman: foreman cannot be reached$"):
            await called(service)
    foreman.error = None
    assert (await called(service)).status == 201


async def test_of_many_at_once_few_are_with_foreman_some_wait_and_the_others_are_told_to_come_again() -> None:
    foreman = Foreman()
    foreman.may.clear()
    service = discovery(foreman, facts_at_once=2)
    calls = [asyncio.create_task(called(service)) for _ in range(20)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(foreman.asked) == 2
    refused = [c for c in calls if c.done()]
    assert len(refused) == 2
    for one in refused:
        with pytest.raises(Unavailable, match="too many machines wait"):
            one.result()
    foreman.may.set()
    assert [(await c).status for c in calls if c not in refused] == [201] * 18


async def test_who_waits_longer_than_foreman_may_take_is_told_to_come_again() -> None:
    foreman = Foreman()
    foreman.may.clear()
    service = discovery(foreman, facts_at_once=1, foreman_timeout_s=0.05)
    first = asyncio.create_task(called(service))
    while not foreman.asked:
        await asyncio.sleep(0)
    with pytest.raises(Unavailable, match=r"busy with other machines' for 0\.05 s"):
        await called(service)
    foreman.may.set()
    assert (await first).status == 201
    assert (await called(service)).status == 201


async def test_who_comes_too_often_is_not_read_and_an_ipv6_network_is_one_source() -> None:
    foreman = Foreman()
    now = [1000.0]
    service = discovery(foreman, lambda: now[0], facts_per_minute=2)
    found = [await called(service, source=f"2001:db8::{n}") for n in range(4)]
    assert [r.status for r in found] == [201, 201, 429, 429]
    assert dict(found[2].headers)[b"retry-after"] == b"5"
    assert (await called(service, source="2001:db8:0:1::1")).status == 201
    now[0] += 31
    assert [(await called(service, source="2001:db8::9")).status for _ in range(2)] == [201, 429]
    assert len(foreman.asked) == 4


ROUTES: Mapping[str, Callable[[Discovery, Any], Any]] = {
    "GET /192.0.2.7/inventory/facter": api.inventory, "GET /192.0.2.7/facts": api.facts,
    "PUT /192.0.2.7/power/reboot": api.reboot, "PUT /192.0.2.7/power/kexec": api.kexec,
    "PUT /192.0.2.7/reboot": api.cycle, "POST /create": api.create,
}  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_each_path_is_one_call(route: str) -> None:
    method, _, path = route.partition(" ")
    found = RouteTable(api.MOUNT.routes).find(method, path)
    assert found is not None
    assert found[0].endpoint is ROUTES[route]
    assert found[1] == ({} if path == "/create" else {"ip": "192.0.2.7"})


async def test_no_machine_is_asked_at_what_is_no_address() -> None:
    for call in (api.inventory, api.facts, api.reboot, api.kexec, api.cycle):
        asked = request("PUT", "/discovery/x/y", body=[b"{}"])
        asked.arguments = {"ip": "localhost"}
        with pytest.raises(Rejected, match="Invalid IP address"):
            await call(discovery(Foreman()), asked)


async def test_the_doctor_says_that_it_is_unproven() -> None:
    (check,) = checks.checks()
    (found,) = await check.run()
    assert (found.code, found.severity) == ("DISCOVERY-UNPROVEN", "warning")
    assert checks.UNPROVEN in found.sentence
