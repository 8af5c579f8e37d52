from __future__ import annotations

import asyncio
from base64 import b64encode
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from muster.edge.feature import Surroundings
from muster.features.bmc import providers
from muster.features.bmc.contract import BMCProvider, Device, NoCredentials
from muster.features.bmc.providers.memory import Machine, MemoryBMC
from muster.features.bmc.service import BMC, CALLS_TO_ONE, Call, credentials, opened
from muster.features.bmc.settings import BMCSettings
from muster.kernel.errors import Misconfigured, Rejected, Unavailable
from muster.kernel.secrets import Secret
from muster.policy.metered import OperationMetrics

pytestmark = pytest.mark.anyio
HOST = "192.0.2.77"


def basic(user: str = "admin", password: str = "secret") -> str:  # noqa: S107
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


CALL = Call(HOST, "redfish", basic())


def service(*words: str, default: str | None = "ipmitool") -> tuple[BMC, dict[str, MemoryBMC]]:
    memories = {word: MemoryBMC() for word in words or ("redfish", "ipmitool")}
    usable: dict[str, BMCProvider] = dict(memories)
    return BMC(usable, {"shell": "no", "freeipmi": "no ipmipower", "redfish": "no sushy"}, default), memories


@pytest.mark.parametrize(
    ("installed", "default", "asked", "chosen"),
    [
        (("redfish", "ipmitool"), "ipmitool", None, "ipmitool"),
        (("redfish", "ipmitool"), "ipmitool", "Redfish", "redfish"),
        (("redfish", "ipmitool"), None, "IPMITOOL", "ipmitool"),
        (("ipmitool", "freeipmi", "pyghmi"), None, "IPMI", "freeipmi"),
        (("ipmitool", "pyghmi"), None, "freeipmi", "ipmitool"),
        (("redfish", "pyghmi"), "freeipmi", None, "pyghmi"),
        (("pyghmi", "ipmitool"), None, "pyghmi", "pyghmi"),
    ],
)
def test_a_provider_is_chosen_by_call_then_by_setting_and_ipmi_stands_in_for_what_is_not_there(
    installed: tuple[str, ...], default: str | None, asked: str | None, chosen: str
) -> None:
    bmc, _ = service(*installed, default=default)
    assert bmc.chosen(asked) == chosen


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (None, "bmc_default_provider is not set"),
        ("SSH", "gone since Foreman 5.0"),
        ("redfish", "no sushy"),
        ("ipmitool", "No BMC providers are installed, please install at least freeipmi or ipmitool"),
    ],
)
def test_a_call_that_nobody_serves_says_why(asked: str | None, text: str) -> None:
    bmc = BMC({}, {"redfish": "no sushy"}, None)
    with pytest.raises(Rejected, match=text):
        bmc.chosen(asked)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (None, "unauthorized"),
        ("Bearer x", "bad_authentication_request, credentials are not in auth.basic format"),
        ("Basic", "bad_authentication_request, credentials are not in auth.basic format"),
        ("Basic ???", "bad_authentication_request, credentials are not in auth.basic format"),
        (
            "Basic " + b64encode(b"\xff:x").decode(),
            "bad_authentication_request, credentials are not in auth.basic format",
        ),
    ],
)
def test_missing_credentials_are_401_in_the_ruby_proxys_words(header: str | None, text: str) -> None:
    with pytest.raises(NoCredentials) as raised:
        credentials(header)
    assert (str(raised.value), raised.value.status) == (text, 401)


@pytest.mark.parametrize("password", ["", "a:b", "ü", "-f", "'\"\\#$; x"])
def test_any_printable_password_is_taken_as_it_is(password: str) -> None:
    assert credentials(basic("us er", password)) == ("us er", Secret(password))


@pytest.mark.parametrize("given", ["a\nb", "a\0b", "a\x7f", "x" * 600])
def test_what_no_tool_can_be_given_is_refused_without_being_shown(given: str) -> None:
    for header in (basic(password=given), basic(given)):
        with pytest.raises(Rejected) as raised:
            credentials(header)
        assert given not in str(raised.value)


def test_neither_a_call_nor_a_device_shows_credentials() -> None:
    device = Device(HOST, "admin", Secret("secret"))
    assert "admin" not in repr(device)
    assert "secret" not in repr(device) + repr(CALL)
    assert b64encode(b"admin:secret").decode() not in repr(CALL)


async def test_success_is_true_and_a_state_is_told() -> None:
    bmc, memories = service()
    assert await bmc.power(CALL, "status") == {"action": "status", "result": "off"}
    assert await bmc.switch(CALL, "on") == {"action": "on", "result": True}
    assert await bmc.power(CALL, "on") == {"action": "on", "result": True}
    assert await bmc.power(CALL, "off") == {"action": "off", "result": False}
    assert await bmc.identify(CALL, "on") == {"action": "on", "result": True}
    assert await bmc.identified(CALL, "status") == {"action": "status", "result": "on"}
    assert await bmc.reset(CALL, "reset", "cold") == {"action": "reset", "result": True}
    assert memories["redfish"].machines == {HOST: Machine("on", "on", None, 1)}
    assert not memories["ipmitool"].machines


async def test_unknown_actions_are_answered_after_the_credentials_were_looked_at() -> None:
    bmc, memories = service()
    unknown = {"error": "The action: x is not a valid action"}
    assert await bmc.power(CALL, "x") == unknown
    assert await bmc.switch(CALL, "x") == unknown
    assert await bmc.lan(CALL, "x") == unknown
    assert await bmc.fru(CALL, "x") == unknown
    assert await bmc.controller(CALL, "x") == unknown
    assert await bmc.sensors(CALL, "x", None) == unknown
    assert await bmc.reset(CALL, "x", "cold") == unknown
    assert await bmc.identified(CALL, "x") == unknown
    assert await bmc.identify(CALL, "x") == {"error": "The action:  is not a valid function"}
    assert await bmc.bootdevices(CALL, "x") == {"error": "The action: x is not a valid function"}
    assert await bmc.boot(CALL, "x", "pxe", {}) == {"error": "The action: x is not a valid function"}
    assert await bmc.reset(CALL, "reset", "x") == {"error": "The type: x is not a valid type"}
    assert not memories["redfish"].machines
    with pytest.raises(NoCredentials):
        await bmc.power(replace(CALL, authorization=None), "x")


@pytest.mark.parametrize(
    ("given", "on", "persistent"),
    [
        ({}, False, False),
        ({"reboot": "false", "persistent": "false"}, False, False),
        ({"reboot": False, "persistent": True}, False, True),
        ({"reboot": "true", "persistent": "1"}, True, True),
        ({"reboot": "", "persistent": None}, False, False),
    ],
)
async def test_false_is_no_where_a_machine_would_be_started_anew(
    given: dict[str, Any], on: bool, persistent: bool
) -> None:
    bmc, memories = service()
    assert await bmc.boot(CALL, "bootdevice", "pxe", given) == {"action": "pxe", "result": True}
    machine = memories["redfish"].machines[HOST]
    assert (machine.power == "on", machine.boot) == (on, ("pxe", persistent))


async def test_what_is_neither_yes_nor_no_changes_nothing() -> None:
    bmc, memories = service()
    with pytest.raises(Rejected, match="reboot"):
        await bmc.boot(CALL, "bootdevice", "pxe", {"reboot": "perhaps"})
    assert not memories["redfish"].machines
    assert await bmc.boot(CALL, "bootdevice", "floppy", {}) == {"error": "floppy is not a valid boot device"}


async def test_sensors_are_listed_counted_and_sorted_out() -> None:
    bmc, _ = service()
    assert (await bmc.sensors(CALL, "count", None))["result"] == 2
    assert (await bmc.sensors(CALL, "names", None))["result"] == ["fan_1", "inlet_temp"]
    assert list((await bmc.sensors(CALL, "fanlist", None))["result"]) == ["fan_1"]
    assert list((await bmc.sensors(CALL, "templist", None))["result"]) == ["inlet_temp"]
    assert (await bmc.sensors(CALL, "get", "inlet_temp"))["result"]["value"] == "21"
    assert await bmc.sensors(CALL, "get", "x") == {"action": "get", "result": None}
    assert await bmc.sensors(CALL, "get", None) == {"options": "sensor=<name>"}


async def test_a_failed_test_is_an_answer_and_a_failed_change_is_not() -> None:
    bmc, memories = service()
    assert await bmc.tested(CALL) == {"action": "test", "result": True}
    memories["redfish"].failure = Unavailable("it is away")
    assert await bmc.tested(CALL) == {"action": "test", "result": False}
    with pytest.raises(Unavailable):
        await bmc.switch(CALL, "on")


@pytest.mark.parametrize(
    "host", ["-f", "a b", "a;b", "a\n", "192.0.2.1 ", "x" * 300, "../x", "a@b", "[::1]", "300.1.2.3"]
)
async def test_a_host_is_checked_whole(host: str) -> None:
    bmc, memories = service()
    with pytest.raises(Rejected):
        await bmc.power(replace(CALL, host=host), "status")
    assert not memories["redfish"].machines


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "bmc.example.net", "bmc1"])
async def test_a_bmc_is_an_address_or_a_name(host: str) -> None:
    bmc, memories = service()
    await bmc.power(replace(CALL, host=host), "status")
    assert list(memories["redfish"].machines) == [host]


@pytest.mark.parametrize(("driver", "privilege"), [("open", None), ("-x", None), (None, "root"), (None, "ADMIN; x")])
async def test_options_of_ipmi_are_words_of_a_list(driver: str | None, privilege: str | None) -> None:
    bmc, _ = service()
    with pytest.raises(Rejected):
        await bmc.power(replace(CALL, driver=driver, privilege=privilege), "status")


async def test_what_is_absent_is_a_state_with_a_reason(monkeypatch: pytest.MonkeyPatch, around: Surroundings) -> None:
    monkeypatch.setattr("muster.features.bmc.providers.ipmitool.PATH", "/nowhere")
    settings = BMCSettings(bmc_default_provider="ipmitool")
    async with opened(settings, around) as bmc:
        assert "ipmitool" not in bmc.installed
        assert "redfish" in bmc.installed
        assert bmc.told().settings == {"bmc_default_provider": "ipmitool", "redfish_verify_ssl": True}
        assert "shell" in bmc.told().capabilities
        with pytest.raises(Misconfigured, match="package ipmitool"):
            await bmc.reached()
    async with opened(BMCSettings(bmc_default_provider="memory"), around) as bmc:
        await bmc.reached()
        assert (await bmc.power(Call(HOST, None, basic()), "status"))["result"] == "off"


async def test_bmcs_that_do_not_answer_keep_no_call_from_the_others(
    monkeypatch: pytest.MonkeyPatch, around: Surroundings
) -> None:
    class OneIsDead(MemoryBMC):
        async def power(self, device: Device) -> str:
            if device.host == HOST:
                raise Unavailable("no answer")
            return await super().power(device)

    monkeypatch.setitem(providers.PROVIDERS, "memory", lambda _settings: nullcontext(OneIsDead()))
    settings = BMCSettings.model_validate({"bmc_default_provider": "memory", "policies": {"deadline_s": 50}})
    async with opened(settings, around) as bmc:
        for _ in range(30):
            with pytest.raises(Unavailable, match="no answer"):
                await bmc.power(Call(HOST, "memory", basic()), "status")
        assert (await bmc.power(Call("198.51.100.1", "memory", basic()), "status"))["result"] == "off"


async def test_what_is_said_of_one_policy_leaves_the_others_as_they_are_for_bmcs() -> None:
    settings = BMCSettings.model_validate({"policies": {"deadline_s": 50, "retry": {"base_s": 1}}})
    assert (settings.policies.deadline_s, settings.policies.retry.attempts) == (50, 1)
    assert BMCSettings().policies.deadline_s == 30
    with pytest.raises(ValidationError, match="one that is dead would keep calls from all others"):
        BMCSettings.model_validate({"policies": {"breaker": {"failures": 3}}})


async def test_a_bmc_that_says_nothing_leaves_turns_to_the_others(
    monkeypatch: pytest.MonkeyPatch, around: Surroundings
) -> None:
    asked: list[str] = []

    class OneIsSilent(MemoryBMC):
        async def power(self, device: Device) -> str:
            asked.append(device.host)
            if device.host == HOST:
                await asyncio.Event().wait()
            return await super().power(device)

    monkeypatch.setitem(providers.PROVIDERS, "memory", lambda _settings: nullcontext(OneIsSilent()))
    async with opened(BMCSettings(bmc_default_provider="memory", calls=3), around) as bmc:
        waiting = [
            asyncio.create_task(bmc.power(replace(CALL, host=HOST, provider="memory"), "status")) for _ in range(100)
        ]
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            for n in range(20):
                other = await bmc.power(Call(f"198.51.100.{n}", "memory", basic()), "status")
                assert other["result"] == "off"
        assert asked.count(HOST) == CALLS_TO_ONE
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert asked.count(HOST) == CALLS_TO_ONE


@pytest.fixture
def around(tmp_path: Any) -> Surroundings:
    file = tmp_path / "x"
    return Surroundings("m", OperationMetrics(CollectorRegistry()), file, file, file)
