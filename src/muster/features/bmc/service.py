"""Rules common to all BMC providers: which one serves a call, who may ask, and Foreman's words for what is found.

Source: docs/facts/smart-proxy-protocol.md §13, recorded in ``tests/wire/recorded/smart-proxy/bmc.jsonl``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast, get_args
from weakref import WeakValueDictionary

from muster.edge.feature import Surroundings, Told
from muster.features.bmc import providers
from muster.features.bmc.contract import (
    BMCProvider,
    BootDevice,
    ControllerField,
    Device,
    Driver,
    FruField,
    LanField,
    NoCredentials,
    Power,
    Privilege,
    Reset,
)  # fmt: skip
from muster.features.bmc.settings import BMCSettings
from muster.kernel.errors import Misconfigured, MusterError, Rejected
from muster.kernel.log import logger
from muster.kernel.names import host_or_address, shown
from muster.kernel.secrets import Secret
from muster.policy.chain import chained
from muster.policy.marks import operations

_log = logger("features")

DEVICES: tuple[BootDevice, ...] = ("pxe", "disk", "bios", "cdrom")
# The order in which a device's word is looked for within what was asked: Foreman's words are these four.
_LOOKED_FOR: tuple[BootDevice, ...] = ("pxe", "cdrom", "bios", "disk")
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "")
_DRIVERS: Mapping[str, Driver] = {"lan15": "lan", "lan20": "lanplus", "lan": "lan", "lanplus": "lanplus"}
_LONGEST_CREDENTIAL = 255
_OPERATIONS = frozenset(one.name for one in operations(BMCProvider))
CALLS_TO_ONE = 2
"""Calls that one provider makes to one BMC at once."""


@dataclass(frozen=True)
class Call:
    """What a call says beside its action. It shows no credentials.

    Attributes:
        authorization: the header as it came.
        driver, privilege: IPMI's ``options``.
    """

    host: str
    provider: str | None = None
    authorization: str | None = field(default=None, repr=False)
    driver: str | None = None
    privilege: str | None = None


class _InTurns:
    """A provider that makes so many calls at once, and of them few to one BMC; others wait, and their deadline runs.

    One BMC that takes connections and says nothing has Foreman ask it again and again, and leaves the turns to others.
    """

    def __init__(self, provider: BMCProvider, calls: int) -> None:
        self._provider = provider
        self._all = asyncio.Semaphore(calls)
        self._most = min(calls, CALLS_TO_ONE)
        # Of BMCs that are asked now: nobody else holds them.
        self._each: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._provider, name)
        return partial(self._in_turn, found) if name in _OPERATIONS else found

    async def _in_turn(self, operation: Callable[..., Awaitable[Any]], device: Device, *more: Any, **named: Any) -> Any:
        own = self._each.setdefault(device.host.lower(), asyncio.Semaphore(self._most))
        async with own, self._all:
            return await operation(device, *more, **named)


@dataclass(frozen=True)
class BMC:
    """The feature's service.

    Attributes:
        usable: the providers of this member by their word.
        absent: why each of the others is not.
    """

    usable: Mapping[str, BMCProvider]
    absent: Mapping[str, str]
    default: str | None
    verifies: bool = True

    async def reached(self) -> None:
        """Return when calls that name no provider can be served; BMCs themselves are not asked.

        Raises:
            Misconfigured: the provider of the settings cannot be used here.
        """
        if self.default is not None and self.default in self.absent:
            raise Misconfigured(f"bmc_default_provider {self.default}: {self.absent[self.default]}")

    def told(self) -> Told:
        """Return what Foreman hears of the settings, and as capabilities the providers that can be used here."""
        return Told(exposed(self.default, self.verifies), tuple(word for word in self.usable if word != "memory"))

    @property
    def installed(self) -> list[str]:
        """The providers that can be used here, in the Ruby proxy's order, ours last."""
        return [w for w in ("freeipmi", "ipmitool", "redfish", "shell", "pyghmi", "memory") if w in self.usable]

    async def tested(self, call: Call) -> dict[str, Any]:
        provider, device = self._asked(call)
        try:
            await provider.power(device)
        except MusterError as e:
            # The protocol has no room for the reason; the log has.
            _log.warning("The test of a BMC failed: %s", e)
            return _result("test", False)
        return _result("test", True)

    async def power(self, call: Call, action: str) -> dict[str, Any]:
        provider, device = self._asked(call)
        if action not in ("on", "off", "status"):
            return _no_action(action)
        state = await provider.power(device)
        return _result(action, state if action == "status" else state == action)

    async def switch(self, call: Call, action: str) -> dict[str, Any]:
        provider, device = self._asked(call)
        if action not in get_args(Power):
            return _no_action(action)
        await provider.switch(device, cast(Power, action))
        return _result(action, True)

    async def identified(self, call: Call, action: str) -> dict[str, Any]:
        provider, device = self._asked(call)
        return _result(action, await provider.identified(device)) if action == "status" else _no_action(action)

    async def identify(self, call: Call, action: str) -> dict[str, Any]:
        provider, device = self._asked(call)
        if action not in ("on", "off"):
            # The Ruby proxy's text, its missing word included.
            return {"error": "The action:  is not a valid function"}
        await provider.identify(device, lit=action == "on")
        return _result(action, True)

    async def bootdevices(self, call: Call, function: str) -> dict[str, Any]:
        self._asked(call)
        return {"devices": list(DEVICES)} if function == "bootdevices" else _no_function(function)

    async def boot(self, call: Call, function: str, device_name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Set the boot device, and start the machine anew where ``reboot`` says so.

        Raises:
            Rejected: ``reboot`` or ``persistent`` says neither yes nor no; nothing was changed.
        """
        provider, device = self._asked(call)
        if function != "bootdevice":
            return _no_function(function)
        found = next((one for one in _LOOKED_FOR if one in device_name), None)
        if found is None:
            return {"error": f"{shown(device_name)} is not a valid boot device"}
        reboot, persistent = (_truth(name, given.get(name)) for name in ("reboot", "persistent"))
        await provider.boot(device, found, persistent=persistent)
        if reboot:
            await provider.switch(device, "cycle")
        return _result(device_name, True)

    async def lan(self, call: Call, action: str) -> dict[str, Any]:
        provider, device = self._asked(call)
        if action not in get_args(LanField):
            return _no_action(action)
        return _result(action, await provider.lan(device, cast(LanField, action)))

    async def fru(self, call: Call, action: str) -> dict[str, Any]:
        provider, device = self._asked(call)
        if action not in get_args(FruField):
            return _no_action(action)
        return _result(action, await provider.fru(device, cast(FruField, action)))

    async def controller(self, call: Call, action: str) -> dict[str, Any]:
        provider, device = self._asked(call)
        if action not in get_args(ControllerField):
            return _no_action(action)
        return _result(action, await provider.controller(device, cast(ControllerField, action)))

    async def reset(self, call: Call, action: str, kind: str | None) -> dict[str, Any]:
        provider, device = self._asked(call)
        if action != "reset":
            return _no_action(action)
        if kind is None:
            return {"options": "type=cold|warm"}
        if kind not in get_args(Reset):
            return {"error": f"The type: {shown(kind)} is not a valid type"}
        await provider.reset(device, cast(Reset, kind))
        return _result(action, True)

    async def sensors(self, call: Call, action: str, sensor: str | None) -> dict[str, Any]:
        provider, device = self._asked(call)
        if action not in ("list", "count", "names", "fanlist", "templist", "get"):
            return _no_action(action)
        if action == "get" and sensor is None:
            return {"options": "sensor=<name>"}
        found = await provider.sensors(device)
        results: Mapping[str, Any] = {
            "list": found,
            "count": len(found),
            "names": list(found),
            "fanlist": {name: one for name, one in found.items() if _is_fan(name, one)},
            "templist": {name: one for name, one in found.items() if _is_thermometer(name, one)},
            "get": found.get(sensor or ""),
        }
        return _result(action, results[action])

    def _asked(self, call: Call) -> tuple[BMCProvider, Device]:
        """Return who is to ask whom.

        Raises:
            Rejected: no provider serves the call, or a parameter is malformed.
            NoCredentials: it brings none, and the provider wants some.
        """
        host = host_or_address(call.host)
        provider = self.usable[self.chosen(call.provider)]
        if not provider.needs_credentials:
            return provider, Device(host)
        user, password = credentials(call.authorization)
        if call.driver is not None and call.driver not in _DRIVERS:
            raise Rejected(f"No driver of IPMI for another host: {shown(call.driver)}; there are lan15 and lan20")
        if call.privilege is not None and call.privilege not in get_args(Privilege):
            raise Rejected(f"No privilege of IPMI: {shown(call.privilege)}; there are {', '.join(get_args(Privilege))}")
        driver = _DRIVERS[call.driver] if call.driver is not None else None
        return provider, Device(host, user, password, driver, cast(Privilege | None, call.privilege))

    def chosen(self, asked: str | None) -> str:
        """Return the word of the provider that serves a call which asks for one, or for none.

        Raises:
            Rejected: none can.
        """
        word = (asked or self.default or "").lower()
        if not word:
            raise Rejected("No BMC provider: the call names none (bmc_provider), and bmc_default_provider is not set")
        if word == "ssh":
            raise Rejected("The BMC provider ssh is gone since Foreman 5.0; name redfish or one that speaks IPMI")
        if word in self.usable:
            return word
        if word in ("redfish", "shell"):
            raise Rejected(f"The BMC provider {word} cannot be used on this member: {self.absent[word]}")
        found = next((one for one in providers.IPMI if one in self.usable), None)
        if found is None:
            raise Rejected("No BMC providers are installed, please install at least freeipmi or ipmitool")
        _log.warning("The BMC provider %s is not installed; %s is used", shown(word), found)
        return found


def credentials(authorization: str | None) -> tuple[str, Secret]:
    """Return the user and the password of a header.

    Raises:
        NoCredentials: with the Ruby proxy's texts.
        Rejected: they hold what no tool can be given: a line end or another control character, or too much.
    """
    if authorization is None:
        raise NoCredentials("unauthorized")
    scheme, _, encoded = authorization.strip().partition(" ")
    if scheme.lower() != "basic" or not encoded.strip():
        raise NoCredentials("bad_authentication_request, credentials are not in auth.basic format")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        raise NoCredentials("bad_authentication_request, credentials are not in auth.basic format") from None
    user, _, password = text.partition(":")
    # Never shown: what stands there is a password, or half of one.
    if len(text) > 2 * _LONGEST_CREDENTIAL or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise Rejected("The user or the password for the BMC has a control character, or is too long")
    return user, Secret(password)


def exposed(default: str | None, verifies: bool | None) -> dict[str, Any]:
    """Return the settings that Foreman is told."""
    return {"bmc_default_provider": default, "redfish_verify_ssl": verifies}


def _truth(name: str, value: Any) -> bool:
    """Return what a parameter says; a form's ``false`` is no, which the Ruby proxy took for yes."""
    if value is None or isinstance(value, bool):
        return bool(value)
    word = str(value).lower()
    if word not in (*_TRUE, *_FALSE):
        raise Rejected(f"Invalid parameter {name}: true or false is expected, not {shown(word)}")
    return word in _TRUE


def _is_fan(name: str, one: Mapping[str, Any]) -> bool:
    return "fan" in name or (one.get("unit") or "") == "RPM"


def _is_thermometer(name: str, one: Mapping[str, Any]) -> bool:
    return "temp" in name or (one.get("unit") or "").lower() in ("degrees c", "c", "°c")


def _result(action: str, result: Any) -> dict[str, Any]:
    return {"action": action, "result": result}


def _no_action(action: str) -> dict[str, Any]:
    return {"error": f"The action: {shown(action)} is not a valid action"}


def _no_function(function: str) -> dict[str, Any]:
    return {"error": f"The action: {shown(function)} is not a valid function"}


@asynccontextmanager
async def opened(settings: BMCSettings, around: Surroundings) -> AsyncIterator[BMC]:
    """Open every provider that can be used on this host, each wrapped in its policies."""
    usable: dict[str, BMCProvider] = {}
    absent: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        for word in providers.PROVIDERS:
            # Machines in a dictionary are for who asks for them.
            if word == "memory" and settings.bmc_default_provider != "memory":
                continue
            try:
                provider = await stack.enter_async_context(providers.opened(word, settings))
            except Misconfigured as e:
                absent[word] = str(e)
                continue
            in_turns = cast(BMCProvider, _InTurns(provider, settings.calls))
            policies = around.chains.built(
                "bmc", settings.policies, around.operations, label=word, word=word, name=word
            )
            usable[word] = chained(BMCProvider, in_turns, policies)  # type: ignore[type-abstract]
        yield BMC(usable, absent, settings.bmc_default_provider, settings.redfish_verify_ssl)
