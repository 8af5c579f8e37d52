"""What Foreman and others hear of a Pulp. Source: docs/facts/smart-proxy-protocol.md §18."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from muster.cluster.service import ADMINISTRATOR, ANY, Service
from muster.edge.replies import error_reply, not_found
from muster.edge.request import Peer
from muster.edge.routes import Access, RouteTable
from muster.features.pulpcore import service
from muster.features.pulpcore.api import MOUNT, RECORD
from muster.features.pulpcore.manifest import FEATURE
from muster.features.pulpcore.providers.memory import MemoryPulp
from muster.features.pulpcore.service import Pulpcore, Whereabouts
from muster.features.pulpcore.settings import PulpcoreSettings
from muster.kernel.clock import FakeClock
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.secrets import Secret
from tests.unit.edge.calls import peer, request

TABLE, OF_RECORD = RouteTable(MOUNT.routes), RouteTable(RECORD.routes)
WHERE = Whereabouts("https://pulp.test", "https://smartproxy.test/pulp/content", None, "https://pulp.test")


async def call(pulp: Pulpcore, path: str, *, by: Peer | None = None, table: RouteTable = TABLE) -> tuple[int, str]:
    found = table.find("GET", path)
    if found is None:
        return 404, not_found().body.decode()
    try:
        answer = await found[0].endpoint(pulp, request("GET", path, by=by))
    except MusterError as e:
        answer = error_reply(e, accept=None)
    return answer.status, answer.body.decode()


def made(where: Whereabouts = WHERE, **settings: Any) -> tuple[Pulpcore, MemoryPulp, FakeClock]:
    memory, clock = MemoryPulp(), FakeClock()
    return Pulpcore(memory, PulpcoreSettings(provider="memory", **settings), where, clock=clock), memory, clock


def test_the_status_is_for_everybody_and_the_record_is_as_a_proxy_s() -> None:
    assert {r.access for r in MOUNT.routes} == {Access.OPEN}
    assert {r.path: r.access for r in RECORD.routes} == {
        "/features[/]": Access.OPEN,
        "/v2/features[/]": Access.TRUSTED,
        "/version[/]": Access.OPEN,
    }


async def test_the_status_is_pulps_own_body() -> None:
    pulp, memory, _ = made()
    status, said = await call(pulp, "/status")
    assert (status, json.loads(said)) == (200, memory.content)


async def test_pulps_code_is_passed_on_and_silence_is_503() -> None:
    pulp, memory, clock = made()
    memory.code = 500
    assert await call(pulp, "/status") == (500, "https://pulp.test answers 500 to the question for Pulp's status")
    clock.advance(3)
    memory.code = 302
    assert (await call(pulp, "/status"))[0] == 502
    clock.advance(3)
    memory.failure = Unavailable("GET https://pulp.test/pulp/api/v3/status/ failed: connection refused")
    status, said = await call(pulp, "/status")
    assert status == 503
    assert said.startswith("Communication error with 'pulp.test': GET https://pulp.test/pulp/api/v3/status/ failed")


async def test_many_who_ask_at_once_cost_pulp_one_question() -> None:
    pulp, memory, clock = made()
    memory.slow = asyncio.Event()
    many = [asyncio.create_task(call(pulp, "/status")) for _ in range(50)]
    await asyncio.sleep(0)
    many[0].cancel()
    memory.slow.set()
    answers = await asyncio.gather(*many[1:])
    assert {status for status, _ in answers} == {200}
    await call(pulp, "/status")
    assert len(memory.asked) == 1
    clock.advance(3)
    await call(pulp, "/status")
    assert len(memory.asked) == 2


async def test_capabilities_are_pulps_components_and_outlive_its_absence() -> None:
    pulp, memory, clock = made()
    memory.failure = Unavailable("away")
    await pulp.refresh()
    assert pulp.told().capabilities == ()
    memory.failure = None
    await pulp.refresh()
    assert pulp.told().capabilities == ("core", "rpm")
    asked = len(memory.asked)
    await pulp.refresh()
    assert len(memory.asked) == asked
    clock.advance(61)
    memory.failure = Unavailable("away")
    await pulp.refresh()
    assert len(memory.asked) == asked + 1
    assert pulp.told().capabilities == ("core", "rpm")
    # Who is away is not waited for by every caller.
    await pulp.refresh()
    assert len(memory.asked) == asked + 1


async def test_foreman_hears_of_a_pulp_that_hangs_what_was_last_known() -> None:
    pulp, memory, clock = made(status_timeout_s=0.05)
    await pulp.refresh()
    memory.slow = asyncio.Event()
    clock.advance(61)
    await pulp.refresh()
    assert pulp.told().capabilities == ("core", "rpm")
    await pulp.close()


def entry(**fields: Any) -> Service:
    typed = {k: v for k, v in fields.items() if k != "client_urls"}
    said = [*typed, *(f"client_urls.{n}" for n in fields.get("client_urls", {}))]
    return Service("pulp", "pulp", **fields, sources=dict.fromkeys(said, ADMINISTRATOR))


async def test_what_is_typed_into_the_register_is_told_and_asked_from_the_next_call_on() -> None:
    register: list[Service | Exception | None] = [None]

    async def registered() -> Service | None:
        found = register[-1]
        if isinstance(found, Exception):
            raise found
        return found

    memory, clock = MemoryPulp(), FakeClock()
    settings = PulpcoreSettings(provider="memory")
    pulp = Pulpcore(memory, settings, WHERE, registered=registered, clock=clock)
    await pulp.refresh()
    assert (memory.asked, pulp.is_essential) == (["https://pulp.test"], False)
    register.append(entry(control_url="https://dmz.test/", client_urls={ANY: "https://lb.test/x"}, weight="essential"))
    await pulp.refresh()
    told = pulp.told().settings
    assert (told["pulp_url"], told["content_app_url"], pulp.is_essential) == (
        "https://dmz.test",
        "https://lb.test/x",
        True,
    )
    assert memory.asked[-1] == "https://dmz.test"
    # What the other sources say does not reach here: those are this member's settings.
    register.append(Service("pulp", "pulp", control_url="https://other.test", sources={"control_url": "features of x"}))
    await pulp.refresh()
    assert (pulp.where, pulp.is_essential) == (WHERE, False)
    register.append(entry(control_url="https://dmz.test"))
    await pulp.refresh()
    register.append(Unavailable("the store is away"))
    await pulp.refresh()
    assert pulp.where.pulp_url == "https://dmz.test"


async def test_a_store_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def registered() -> Service | None:
        await asyncio.Event().wait()
        return None

    monkeypatch.setattr(service, "_LOOK_S", 0.01)
    pulp = Pulpcore(MemoryPulp(), PulpcoreSettings(provider="memory"), WHERE, registered=registered, clock=FakeClock())
    await pulp.reached()
    assert pulp.told().capabilities == ("core", "rpm")


async def test_what_is_no_status_of_a_pulp_is_passed_on_to_nobody() -> None:
    pulp, memory, _ = made()
    memory.content = {"secret": "of whoever answers there"}
    status, said = await call(pulp, "/status")
    assert (status, "no status of a Pulp" in said) == (503, True)
    assert "secret" not in said


async def test_foreman_is_told_in_the_ruby_plugins_order() -> None:
    pulp, _, _ = made(mirror=True, username="admin", password="pw")
    told = pulp.told().settings
    assert list(told) == list(FEATURE.exposed(None))
    assert told == {
        "pulp_url": "https://pulp.test", "mirror": True, "content_app_url": "https://smartproxy.test/pulp/content",
        "username": "admin", "password": Secret("pw"), "client_authentication": ["password", "client_certificate"],
        "rhsm_url": None,
    }  # fmt: skip


async def test_a_password_in_a_file_is_read_when_it_is_told(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("one\n")
    pulp, _, _ = made(password_file=file)
    assert pulp.told().settings["password"] == Secret("one")
    file.write_text("two\nthree\n")
    assert pulp.told().settings["password"] == Secret("two")
    file.unlink()
    assert pulp.told().settings["password"] is None


async def test_the_record_of_a_containerised_proxy_says_its_one_feature() -> None:
    pulp, _, _ = made(password="pw")
    assert await call(pulp, "/features", table=OF_RECORD) == (200, '["pulpcore"]')
    status, said = await call(pulp, "/v2/features/", by=peer(), table=OF_RECORD)
    assert status == 200
    assert json.loads(said) == {
        "pulpcore": {
            "http_enabled": False,
            "https_enabled": True,
            "settings": {**pulp.told().settings, "password": "pw"},
            "state": "running",
            "capabilities": ["core", "rpm"],
        }
    }
    assert json.loads((await call(pulp, "/version", table=OF_RECORD))[1]) == {
        "version": "5.0.0",
        "modules": {"pulpcore": "5.0.0"},
    }


async def test_the_records_version_follows_the_member_s() -> None:
    told = ["3.19.0"]
    pulp = Pulpcore(MemoryPulp(), PulpcoreSettings(provider="memory"), WHERE, version=lambda: told[0])
    assert json.loads((await call(pulp, "/version", table=OF_RECORD))[1])["version"] == "3.19.0"
    told[0] = "5.0.0"
    assert json.loads((await call(pulp, "/version", table=OF_RECORD))[1])["modules"] == {"pulpcore": "5.0.0"}


async def test_pulp_is_reached_when_it_answers_and_works() -> None:
    pulp, memory, _ = made()
    await pulp.reached()
    memory.content["online_content_apps"] = []
    with pytest.raises(Unavailable, match="answers, but no content application reports to it"):
        await pulp.reached()
    memory.code = 503
    with pytest.raises(Unavailable, match="answers 503"):
        await pulp.reached()
