"""What every BMC provider promises (``features/bmc/contract.py``), asked of each on what it is meant for.

``ipmi_sim`` is a BMC for IPMI, ``sushy-emulator`` one for Redfish; what neither plays, a stand-in does (named so).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from muster.cli.demo.bind import free_port
from muster.features.bmc import providers
from muster.features.bmc.contract import BMCProvider, Device
from muster.features.bmc.providers.memory import MemoryBMC
from muster.features.bmc.settings import BMCSettings
from muster.kernel import process
from muster.kernel.errors import Rejected, Unavailable, Unsupported
from muster.kernel.secrets import Secret
from tests.servers import ipmi_sim, redfish_stand_in, sushy_emulator
from tests.servers.ipmi_sim import IPMISim
from tests.servers.redfish_stand_in import RedfishStandIn
from tests.servers.sushy_emulator import Emulator

pytestmark = pytest.mark.anyio
IPMI = ("ipmitool", "freeipmi", "pyghmi")
PROVIDERS = (*IPMI, "redfish", "memory")


@pytest.fixture(scope="module")
def simulator(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[IPMISim]:
    needs("ipmi")
    with ipmi_sim.running(tmp_path_factory.mktemp("ipmi"), port=_free_udp("127.0.7.10")) as running:
        yield running


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with sushy_emulator.running(tmp_path_factory.mktemp("redfish"), port=free_port("127.0.7.11")) as running:
        yield running


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedfishStandIn]:
    with redfish_stand_in.running(tmp_path_factory.mktemp("stand-in"), port=free_port("127.0.7.12")) as running:
        yield running


@pytest.fixture
def stand_in(served: RedfishStandIn) -> RedfishStandIn:
    served.anew()
    return served


def _free_udp(address: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((address, 0))
        return int(one.getsockname()[1])


def of_redfish(one: Emulator | RedfishStandIn, **more: Any) -> BMCSettings:
    redfish = {"port": one.port, "ca_file": str(one.ca), "dell_wait_s": 0.05, **more.pop("redfish", {})}
    return BMCSettings.model_validate({"redfish": redfish, **more})


@dataclass
class Subject:
    """A provider under test, and the BMC that it asks."""

    word: str
    provider: BMCProvider
    device: Device
    boots_from: Callable[[], str]

    async def becomes(self, state: str) -> bool:
        """Whether the machine gets there: the emulator's follows its orders a moment later."""
        for _ in range(100):
            if await self.provider.power(self.device) == state:
                return True
            await asyncio.sleep(0.1)
        return False


@pytest.fixture(params=PROVIDERS)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    async with _subject(request, request.param) as found:
        yield found


@contextlib.asynccontextmanager
async def _subject(request: pytest.FixtureRequest, word: str) -> AsyncIterator[Subject]:
    if word == "memory":
        memory, device = MemoryBMC(), Device("bmc.test", "admin", Secret("x"))
        yield Subject(word, memory, device, lambda: str((memory.machines[device.host].boot or [""])[0]))
    elif word == "redfish":
        emulator: Emulator = request.getfixturevalue("emulator")
        async with providers.opened(word, of_redfish(emulator)) as provider:
            device = Device(emulator.address, sushy_emulator.USER, Secret(sushy_emulator.PASSWORD))
            yield Subject(
                word, provider, device, lambda: emulator.machine()["Boot"]["BootSourceOverrideTarget"].lower()
            )
    else:
        simulator: IPMISim = request.getfixturevalue("simulator")
        settings = BMCSettings.model_validate({"ipmi": {"port": simulator.port}})
        async with providers.opened(word, settings) as provider:
            device = Device(simulator.address, ipmi_sim.USER, Secret(ipmi_sim.PASSWORD))
            yield Subject(word, provider, device, lambda: simulator.boots_from)


async def test_a_machine_is_switched_cycled_and_stopped_and_says_so(subject: Subject) -> None:
    """In one, for the emulator's machine follows seconds later."""
    provider, device = subject.provider, subject.device
    await provider.switch(device, "on")
    assert await subject.becomes("on")
    # Once more is success, too.
    await provider.switch(device, "on")
    await provider.switch(device, "off")
    assert await subject.becomes("off")
    # What is off has nothing to cycle: it is started.
    await provider.switch(device, "cycle")
    assert await subject.becomes("on")
    await provider.switch(device, "soft")
    assert await subject.becomes("off")


async def test_the_boot_device_is_kept(subject: Subject) -> None:
    ways = {"pxe": "pxe", "disk": "hdd" if subject.word == "redfish" else "disk"}
    if subject.word in IPMI:
        # As the simulator names what it is told.
        ways["disk"] = "default"
    for persistent in (False, True):
        await subject.provider.boot(subject.device, "pxe", persistent=persistent)
        assert subject.boots_from() == ways["pxe"]
        await subject.provider.boot(subject.device, "disk", persistent=persistent)
        assert subject.boots_from() == ways["disk"]


async def test_two_at_once_get_the_same_answer(subject: Subject) -> None:
    states = await asyncio.gather(*(subject.provider.power(subject.device) for _ in range(3)))
    assert len(set(states)) == 1


@pytest.mark.parametrize("subject", [p for p in PROVIDERS if p != "memory"], indirect=True)
async def test_a_wrong_password_is_refused_and_nothing_is_switched(subject: Subject) -> None:
    before = await subject.provider.power(subject.device)
    wrong = replace(subject.device, password=Secret("wrong"))
    # ipmitool has the same words for a BMC that is not there.
    refusal = Unavailable if subject.word == "ipmitool" else Rejected
    with pytest.raises(refusal, match=subject.device.host) as raised:
        await subject.provider.switch(wrong, "off" if before == "on" else "on")
    assert "wrong" not in str(raised.value)
    assert await subject.provider.power(subject.device) == before


async def test_what_a_controller_is_can_be_read(subject: Subject) -> None:
    assert await subject.provider.controller(subject.device, "guid")
    assert await subject.provider.controller(subject.device, "version")
    if subject.word == "redfish":
        with pytest.raises(Unsupported):
            await subject.provider.controller(subject.device, "info")
    else:
        assert "Device ID" in await subject.provider.controller(subject.device, "info")


@pytest.mark.parametrize("subject", IPMI, indirect=True)
async def test_ipmi_tells_of_network_sensors_and_parts(subject: Subject, simulator: IPMISim) -> None:
    provider, device = subject.provider, subject.device
    assert await provider.lan(device, "ipsrc") == "static"
    assert await provider.lan(device, "vlanid") is None
    assert await provider.lan(device, "print")
    found = await provider.sensors(device)
    assert set(found) == {"inlet_temp", "fan_1"}
    assert float(found["inlet_temp"]["value"]) == 23
    assert found["fan_1"]["unit"] == "RPM"
    if subject.word != "pyghmi":
        # The simulator refuses how pyghmi reads an inventory.
        assert await provider.fru(device, "serial") == "SN4711"
        assert await provider.fru(device, "manufacturer") == "Contoso"
        assert await provider.fru(device, "model") == "RX 10"
        assert await provider.fru(device, "asset_tag") == "AT42"
    with pytest.raises(Unsupported):
        await provider.identified(device)


@pytest.mark.parametrize("word", ["ipmitool", "pyghmi"])
async def test_a_light_is_lit_and_a_controller_begun_anew(
    request: pytest.FixtureRequest, word: str, simulator: IPMISim
) -> None:
    async with _subject(request, word) as subject:
        await subject.provider.identify(subject.device, lit=True)
        assert simulator.orders[-1].startswith("identify 255")
        await subject.provider.identify(subject.device, lit=False)
        assert simulator.orders[-1].startswith("identify 0")
        await subject.provider.reset(subject.device, "cold")


@pytest.mark.parametrize("word", IPMI)
async def test_a_bmc_that_is_not_there_is_unavailable_or_ends_with_its_deadline(word: str, needs: Any) -> None:
    needs("ipmi")
    settings = BMCSettings.model_validate({"ipmi": {"port": _free_udp("127.0.7.13")}})
    async with providers.opened(word, settings) as provider:
        with pytest.raises((Unavailable, TimeoutError)):
            async with asyncio.timeout(1):
                await provider.power(Device("127.0.7.13", "admin", Secret("x")))


@pytest.mark.parametrize("word", IPMI)
async def test_no_tool_has_the_password_among_its_arguments(
    request: pytest.FixtureRequest, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = process.run

    async def watched(arguments: Any, **how: Any) -> Any:
        seen.extend(str(a) for a in arguments)
        return await real(arguments, **how)

    monkeypatch.setattr(process, "run", watched)
    async with _subject(request, word) as subject:
        await subject.provider.power(subject.device)
    assert seen
    assert not [a for a in seen if ipmi_sim.PASSWORD in a]


async def test_a_light_of_redfish_is_lit(request: pytest.FixtureRequest, emulator: Emulator) -> None:
    async with _subject(request, "redfish") as subject:
        for lit in (False, True):
            await subject.provider.identify(subject.device, lit=lit)
            assert await subject.provider.identified(subject.device) == ("on" if lit else "off")


@pytest.fixture
async def redfish(stand_in: RedfishStandIn) -> AsyncIterator[tuple[BMCProvider, Device]]:
    async with providers.opened("redfish", of_redfish(stand_in, redfish={"answer_bytes": 1 << 16})) as provider:
        yield provider, Device(stand_in.address, redfish_stand_in.USER, Secret(redfish_stand_in.PASSWORD))


async def test_a_change_says_which_version_it_changes(
    stand_in: RedfishStandIn, redfish: tuple[BMCProvider, Device]
) -> None:
    provider, device = redfish
    stand_in.etag = '"four"'
    await provider.identify(device, lit=True)
    await provider.boot(device, "bios", persistent=False)
    assert [body for _, _, body in stand_in.changes] == [
        {"IndicatorLED": "Lit"},
        {"Boot": {"BootSourceOverrideTarget": "BiosSetup", "BootSourceOverrideEnabled": "Once"}},
    ]


async def test_the_newer_light_is_used_where_a_bmc_has_it(
    stand_in: RedfishStandIn, redfish: tuple[BMCProvider, Device]
) -> None:
    provider, device = redfish
    stand_in.system["LocationIndicatorActive"] = False
    await provider.identify(device, lit=True)
    assert stand_in.changes[-1][2] == {"LocationIndicatorActive": True}
    assert await provider.identified(device) == "on"
    del stand_in.system["LocationIndicatorActive"], stand_in.system["IndicatorLED"]
    with pytest.raises(Unsupported):
        await provider.identify(device, lit=False)


async def test_redfish_tells_of_the_network_and_of_the_machine(
    stand_in: RedfishStandIn, redfish: tuple[BMCProvider, Device]
) -> None:
    provider, device = redfish
    told = {f: await provider.lan(device, f) for f in ("ip", "netmask", "mac", "gateway", "vlanid", "ipsrc")}
    assert told == {
        "ip": "127.0.0.1", "netmask": "255.255.255.0", "mac": "E1:E2:E3:E4:E5:E6", "gateway": "127.0.0.254",
        "vlanid": 101, "ipsrc": "DHCP",
    }  # fmt: skip
    assert await provider.fru(device, "serial") == "437XR1138R2"
    for kind, sent in (("cold", "ForceRestart"), ("warm", "GracefulRestart")):
        await provider.reset(device, kind)  # type: ignore[arg-type]
        assert stand_in.changes[-1][2] == {"ResetType": sent}


async def test_dells_and_hpes_are_switched_in_their_ways(
    stand_in: RedfishStandIn, redfish: tuple[BMCProvider, Device]
) -> None:
    provider, device = redfish
    stand_in.anew(("On", "ForceOff", "GracefulShutdown"))
    stand_in.system["Manufacturer"] = "Dell Inc."
    await provider.switch(device, "cycle")
    assert [body["ResetType"] for _, _, body in stand_in.changes] == ["ForceOff", "On"]
    await provider.reset(device, "cold")
    assert stand_in.changes[-1][2] == {"ResetType": "GracefulRestart"}
    stand_in.anew()
    stand_in.system["Manufacturer"] = "HPE"
    await provider.switch(device, "soft")
    assert stand_in.changes[-1][2] == {"ResetType": "PushPowerButton"}
    # The button would start what is off.
    stand_in.system["PowerState"] = "Off"
    await provider.switch(device, "soft")
    assert len(stand_in.changes) == 1


async def test_a_certificate_that_nobody_vouches_for_ends_the_call_before_the_password_is_sent(
    stand_in: RedfishStandIn, emulator: Emulator
) -> None:
    device = Device(stand_in.address, redfish_stand_in.USER, Secret(redfish_stand_in.PASSWORD))
    async with providers.opened("redfish", of_redfish(stand_in, redfish={"ca_file": str(emulator.ca)})) as provider:
        with pytest.raises(Unavailable, match="certificate is not believed"):
            await provider.power(device)
    assert not stand_in.shown
    async with providers.opened("redfish", of_redfish(stand_in, redfish_verify_ssl=False)) as provider:
        assert await provider.power(device) == "on"


@pytest.mark.parametrize("scheme", ["https", "http", "HTTP"])
@pytest.mark.parametrize("way", ["an answer", "a resource's name"])
async def test_a_bmc_that_leads_elsewhere_takes_no_password_there(
    stand_in: RedfishStandIn, redfish: tuple[BMCProvider, Device], way: str, scheme: str
) -> None:
    provider, device = redfish
    elsewhere = f"{scheme}://127.0.7.14:{stand_in.port}/redfish/v1/Systems/1"
    if way == "an answer":
        stand_in.leads["/redfish/v1/Systems/1"] = elsewhere
    else:
        stand_in.resources["/redfish/v1/Systems"]["Members"] = [{"@odata.id": elsewhere}]
    with pytest.raises(Unavailable, match="leads to another host"):
        await provider.power(device)


@pytest.mark.parametrize(
    "body",
    [b"x" * (1 << 17), b"\x00\xff garbage", b"[]", b'"text"', b"{}", b'{"Members": 7}'],
    ids=lambda b: b[:9].hex(),
)
async def test_an_answer_that_is_none_is_unavailable_and_no_crash(
    stand_in: RedfishStandIn, redfish: tuple[BMCProvider, Device], body: bytes
) -> None:
    provider, device = redfish
    stand_in.raw["/redfish/v1/Systems"] = body
    with pytest.raises((Unavailable, Unsupported), match=device.host):
        await provider.power(device)


@pytest.mark.parametrize(
    "fact", [b'"\\ud800"', b"NaN", b"[" * 20_000, b'{"a": 1}', b"1e400"], ids=lambda b: b[:9].decode()
)
async def test_a_fact_that_no_reply_could_hold_is_unavailable(
    stand_in: RedfishStandIn, redfish: tuple[BMCProvider, Device], fact: bytes
) -> None:
    provider, device = redfish
    machine = json.dumps(stand_in.system | {"PowerState": "?", "SerialNumber": "?"}).encode()
    stand_in.raw["/redfish/v1/Systems/1"] = machine.replace(b'"?"', fact)
    for asked in (provider.power(device), provider.fru(device, "serial")):
        with pytest.raises(Unavailable, match="no Redfish"):
            await asked


async def test_a_slow_bmc_ends_with_its_deadline_and_so_does_its_thread(
    stand_in: RedfishStandIn,
) -> None:
    stand_in.hold.add("/redfish/v1/Systems/1")
    device = Device(stand_in.address, redfish_stand_in.USER, Secret(redfish_stand_in.PASSWORD))
    async with providers.opened("redfish", of_redfish(stand_in, calls=1)) as provider:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await provider.power(device)
        stand_in.hold.clear()
        # The only thread is free again although the BMC has still not answered.
        async with asyncio.timeout(20):
            assert await provider.power(device) == "on"


async def test_nobody_there_is_unavailable(stand_in: RedfishStandIn) -> None:
    settings = of_redfish(stand_in, redfish={"port": free_port("127.0.7.12")})
    async with providers.opened("redfish", settings) as provider:
        with pytest.raises(Unavailable, match="refused"):
            await provider.power(Device("127.0.7.12", "a", Secret("b")))


def test_pyghmi_s_process_knows_nothing_of_muster() -> None:
    text = Path(providers.__file__).with_name("pyghmi_calls.py").read_text()
    assert "muster" not in text.partition('"""')[2].partition('"""')[2]
