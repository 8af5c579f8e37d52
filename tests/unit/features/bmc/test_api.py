from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from muster.edge.request import NotUnderstood
from muster.edge.routes import Access, RouteTable
from muster.features.bmc.api import MOUNT
from muster.features.bmc.contract import NoCredentials
from muster.features.bmc.providers.memory import Machine, MemoryBMC
from muster.features.bmc.service import BMC
from muster.kernel.errors import Rejected
from tests.unit.edge.calls import request

pytestmark = pytest.mark.anyio
TABLE = RouteTable(MOUNT.routes)
BASIC = ("authorization", "Basic " + b64encode(b"admin:secret").decode())
JSON = ("content-type", "application/json")


async def asked(memory: MemoryBMC, method: str, target: str, body: bytes = b"", *headers: tuple[str, str]) -> Any:
    found = TABLE.find(method, target.partition("?")[0])
    assert found is not None
    route, arguments = found
    call = request(method, target, headers=dict(headers), body=[body])
    call.arguments = arguments
    return json.loads((await route.endpoint(BMC({"redfish": memory}, {}, "redfish"), call)).body)


def test_all_is_for_trusted_hosts_alone() -> None:
    assert {r.access for r in MOUNT.routes} == {Access.TRUSTED}


async def test_a_path_that_ends_early_says_what_there_is_and_asks_nobody() -> None:
    memory = MemoryBMC()
    assert await asked(memory, "PUT", "/h/chassis/power") == {"actions": ["on", "off", "cycle", "soft", "reset"]}
    assert await asked(memory, "GET", "/h/chassis/power/") == {"actions": ["on", "off", "status"]}
    assert await asked(memory, "GET", "/providers/installed") == {"installed_providers": ["redfish"]}
    assert not memory.machines
    with pytest.raises(Rejected):
        await asked(memory, "GET", "/-h")


async def test_parameters_stand_in_query_form_or_json_and_the_path_wins() -> None:
    memory = MemoryBMC()
    await asked(memory, "PUT", "/h/chassis/power/on", b"action=off&bmc_provider=Redfish", BASIC)
    assert memory.machines["h"].power == "on"
    body = json.dumps({"bmc_provider": "Redfish", "persistent": True, "options": {"driver": "lan20"}}).encode()
    await asked(memory, "PUT", "/h/chassis/config/bootdevice/disk", body, BASIC, JSON)
    assert memory.machines["h"].boot == ("disk", True)
    await asked(memory, "PUT", "/h/chassis/config", b"function=bootdevice&device=pxe", BASIC)
    assert memory.machines["h"] == Machine("on", "off", ("pxe", False))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "Invalid JSON content in body of request: \n"),
        (b"[" * 100_000, "Invalid JSON content in body of request: \n"),
        (b"[]", "Invalid JSON content in body of request: data must be a hash, not Array"),
        (b"null", "Invalid JSON content in body of request: data must be a hash, not NilClass"),
    ],
    ids=["broken", "deep", "list", "null"],
)
async def test_json_that_is_no_object_is_415(body: bytes, text: str) -> None:
    memory = MemoryBMC()
    with pytest.raises(NotUnderstood) as raised:
        await asked(memory, "PUT", "/h/chassis/power/on", body, BASIC, JSON)
    assert str(raised.value).startswith(text)
    assert not memory.machines


@pytest.mark.parametrize(
    "given", [{"bmc_provider": 7}, {"options": []}, {"options": {"driver": []}}, {"bmc_provider": "\ud800"}]
)
async def test_a_value_of_another_kind_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        await asked(MemoryBMC(), "PUT", "/h/chassis/power/on", json.dumps(given).encode(), BASIC, JSON)


async def test_without_credentials_nothing_is_asked() -> None:
    memory = MemoryBMC()
    with pytest.raises(NoCredentials):
        await asked(memory, "PUT", "/h/chassis/power/on")
    assert not memory.machines
