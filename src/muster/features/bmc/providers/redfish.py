"""Redfish by the library sushy, a thread a call, with Basic credentials and without sessions.

Source: docs/facts/smart-proxy-protocol.md §13; DSP0266 (protocol) and DSP0268 (ComputerSystem, Manager, EthernetInterface).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, ClassVar, TypeVar

from muster.features.bmc.contract import BootDevice, ControllerField, Device, FruField, LanField, Power, Reset
from muster.features.bmc.settings import BMCSettings
from muster.kernel.errors import Misconfigured, Rejected, Unavailable, Unsupported
from muster.kernel.names import in_url, shown

try:
    import sushy
    from requests import PreparedRequest, Response, Session
    from requests.adapters import HTTPAdapter
    from requests.exceptions import RequestException
    from sushy import exceptions
    from sushy.auth import BasicAuth
    from sushy.connector import Connector
    from urllib3.connection import HTTPSConnection
    from urllib3.connectionpool import HTTPSConnectionPool
    from urllib3.exceptions import HTTPError
except ImportError as e:
    raise Misconfigured(
        f"no sushy on this host ({e.name}): packaging/requirements-bmc.txt has it (packaging/README.md)"
    ) from e

T = TypeVar("T")
_CONNECT_S, _READ_S = 10.0, 30.0
_PIECE_BYTES = 1 << 16
_BOOT = {"pxe": "Pxe", "disk": "Hdd", "bios": "BiosSetup", "cdrom": "Cd"}
_SWITCH: Mapping[str, tuple[str, ...]] = {
    "on": ("On",),
    "off": ("ForceOff",),
    "soft": ("GracefulShutdown",),
    "cycle": ("ForceRestart", "PowerCycle"),
    "reset": ("ForceRestart",),
}
_RESETS: Mapping[str, tuple[str, ...]] = {
    "cold": ("ForceRestart", "GracefulRestart"),
    "warm": ("GracefulRestart", "ForceRestart"),
}
_LAN = {"ip": "Address", "netmask": "SubnetMask", "gateway": "Gateway", "ipsrc": "AddressOrigin"}
_FRU = {"serial": "SerialNumber", "manufacturer": "Manufacturer", "model": "Model", "asset_tag": "AssetTag"}


class _Elsewhere(RequestException):
    """The BMC leads to another host, which is not to learn the password."""


class _TooMuch(RequestException):
    """The answer is longer than what is read."""


class _Conversation:
    """The connections of one call, which :meth:`end` breaks off from another thread."""

    def __init__(self, base: str, context: ssl.SSLContext, answer_bytes: int) -> None:
        self.base = base
        self.answer_bytes = answer_bytes
        self.context = context
        self.ended = threading.Event()
        self._sockets: list[socket.socket] = []

    def hold(self, opened: socket.socket) -> None:
        self._sockets.append(opened)
        if self.ended.is_set():
            self.end()

    def end(self) -> None:
        self.ended.set()
        for one in self._sockets:
            with suppress(OSError):
                # Not TLS' own, which waits for the other side and belongs to the thread that reads.
                socket.socket.shutdown(one, socket.SHUT_RDWR)

    def session(self) -> Session:
        session = Session()
        # No proxy and no file of passwords that this process' environment names.
        session.trust_env = False
        # Of its own the library has two, and whatever the BMC calls its resources may begin as the other does.
        session.adapters.clear()
        session.mount("", _Adapter(self))
        return session


class _Adapter(HTTPAdapter):
    """Sends to one BMC alone, reads no more than it may, and never asks twice."""

    def __init__(self, conversation: _Conversation) -> None:
        self._conversation = conversation
        super().__init__(max_retries=0)

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        conversation = self._conversation

        class Connection(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                conversation.hold(self.sock)

        class Pool(HTTPSConnectionPool):
            ConnectionCls = Connection

        super().init_poolmanager(*arguments, **named, ssl_context=conversation.context)
        self.poolmanager.pool_classes_by_scheme = {"https": Pool}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:  # noqa: ARG002
        """Leave it to the context: the library would add the CAs of its own package."""
        conn.cert_reqs = self._conversation.context.verify_mode

    def send(self, request: PreparedRequest, *arguments: Any, **named: Any) -> Response:
        """Send, unless it goes elsewhere, and return the answer with its whole body.

        What the BMC calls its resources may be whole URLs, and an answer may lead on: user and password go nowhere else.
        """
        if not (request.url or "").lower().startswith(self._conversation.base.lower() + "/"):
            raise _Elsewhere("it leads to another host")
        if self._conversation.ended.is_set():
            raise RequestException("it took too long")
        answer = super().send(request, *arguments, **{**named, "stream": True})
        pieces, left = [], self._conversation.answer_bytes
        try:
            while piece := answer.raw.read1(_PIECE_BYTES, decode_content=True):
                left -= len(piece)
                if left < 0:
                    raise _TooMuch(f"its answer is longer than {self._conversation.answer_bytes} bytes")
                pieces.append(piece)
        except HTTPError as e:
            raise RequestException(f"its answer broke off: {e}") from e
        finally:
            answer.raw.close()
        # As the library does itself where it reads a body whole.
        answer._content, answer._content_consumed = b"".join(pieces), True
        return answer


class _Machine:
    """One BMC's resources during one call: the first system, the first manager, its first interface."""

    def __init__(self, root: Any, conversation: _Conversation) -> None:
        self._root = root
        self.conversation = conversation

    @property
    def system(self) -> Any:
        return self._root.get_system(self._first(self._root.get_system_collection(), "system"))

    @property
    def manager(self) -> Any:
        return self._root.get_manager(self._first(self._root.get_manager_collection(), "manager"))

    @property
    def interface(self) -> Mapping[str, Any]:
        interfaces = self.manager.ethernet_interfaces
        found: Mapping[str, Any] = interfaces.get_member(self._first(interfaces, "network interface")).json
        return found

    @staticmethod
    def _first(collection: Any, what: str) -> str:
        if not collection.members_identities:
            raise Unsupported(f"has no {what}")
        return str(collection.members_identities[0])


class RedfishBMC:
    """Asks with sushy.

    Concurrency: ``calls`` threads; a call whose deadline has passed has its connection broken off, and its thread ends.
    """

    needs_credentials: ClassVar[bool] = True

    def __init__(self, settings: BMCSettings, context: ssl.SSLContext, threads: ThreadPoolExecutor) -> None:
        self._settings = settings.redfish
        self._context = context
        self._threads = threads

    async def power(self, device: Device) -> str:
        return await self._ask(device, lambda m: str(_fact(m.system.json["PowerState"])).lower())

    async def switch(self, device: Device, action: Power) -> None:
        await self._ask(device, partial(_switch, action=action, wait_s=self._settings.dell_wait_s))

    async def identified(self, device: Device) -> str:
        return await self._ask(device, _identified)

    async def identify(self, device: Device, *, lit: bool) -> None:
        await self._ask(device, partial(_identify, lit=lit))

    async def boot(self, device: Device, target: BootDevice, *, persistent: bool) -> None:
        def change(machine: _Machine) -> None:
            machine.system.set_system_boot_options(
                sushy.BootSource(_BOOT[target]),
                sushy.BootSourceOverrideEnabled("Continuous" if persistent else "Once"),
            )

        await self._ask(device, change)

    async def lan(self, device: Device, field: LanField) -> Any:
        if field in ("snmp", "print"):
            raise Unsupported(f"Redfish has no {field} of a BMC's network that all BMCs have alike")
        return await self._ask(device, partial(_lan, field=field))

    async def fru(self, device: Device, field: FruField) -> Any:
        if field == "list":
            raise Unsupported("Redfish has no list of parts as IPMI has one")
        return await self._ask(device, lambda m: _fact(m.system.json.get(_FRU[field])))

    async def controller(self, device: Device, field: ControllerField) -> Any:
        if field == "info":
            raise Unsupported("Redfish says of a BMC nothing like IPMI's device ID")
        name = "UUID" if field == "guid" else "FirmwareVersion"
        return await self._ask(device, lambda m: _fact(m.manager.json.get(name)))

    async def reset(self, device: Device, kind: Reset) -> None:
        await self._ask(device, partial(_reset, kind=kind))

    async def sensors(self, device: Device) -> Mapping[str, Mapping[str, Any]]:  # noqa: ARG002
        raise Unsupported("Provider redfish reads no sensors")

    async def _ask(self, device: Device, call: Callable[[_Machine], T]) -> T:
        """Make a call in a thread; the only place where the libraries' failures are translated.

        Raises:
            Rejected, Unavailable, Unsupported: as the contract says.
        """
        host = in_url(device.host)
        base = f"https://{host}" if self._settings.port == 443 else f"https://{host}:{self._settings.port}"
        conversation = _Conversation(base, self._context, self._settings.answer_bytes)
        try:
            return await self._in_thread(conversation, partial(_conversed, conversation, device, call))
        except exceptions.AccessError as e:
            raise Rejected(f"The BMC {device.host} refuses the user and the password (HTTP {e.status_code})") from e
        except exceptions.HTTPError as e:
            kind = Rejected if 400 <= e.status_code < 500 else Unavailable
            raise kind(f"The BMC {device.host} answers {e.status_code}: {shown(e.detail or 'no reason', 200)}") from e
        except exceptions.ConnectionError as e:
            raise Unavailable(f"The BMC {device.host} cannot be asked: {_reason(e)}") from e
        except (exceptions.MissingActionError, exceptions.MissingAttributeError) as e:
            raise Unsupported(f"The BMC {device.host} cannot do this: {shown(str(e), 200)}") from e
        except exceptions.InvalidParameterValueError as e:
            raise Rejected(f"The BMC {device.host} does not know this: {shown(str(e), 200)}") from e
        except Unsupported as e:
            raise Unsupported(f"The BMC {device.host} {e}") from None
        except (
            exceptions.SushyError,
            RequestException,
            HTTPError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
            RecursionError,
        ) as e:
            # The library takes for granted that what it reads has the form it should have.
            raise Unavailable(
                f"The BMC {device.host} says something that is no Redfish: {type(e).__name__} {shown(str(e), 120)}"
            ) from e

    async def _in_thread(self, conversation: _Conversation, call: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except asyncio.CancelledError:
            conversation.end()
            raise


def _conversed(conversation: _Conversation, device: Device, call: Callable[[_Machine], T]) -> T:
    # One try: the library repeats what broke off, a reset of the machine included.
    connector = Connector(
        conversation.base + "/", server_side_retries=1, server_side_retries_delay=1,
        # Of no effect beside the context, but that the library warns of each call without verification.
        verify=conversation.context.verify_mode is not ssl.CERT_NONE,
        default_request_timeout=_READ_S, connect_timeout=_CONNECT_S,
    )  # fmt: skip
    # Of its session only the adapter is ours; connections close after each answer, as the library wants it.
    session = conversation.session()
    session.headers.update(connector._session.headers)
    connector._session = session
    with session:
        # As octets: of texts the library below would make Latin-1.
        auth = BasicAuth(username=device.user.encode(), password=device.password.reveal().encode())
        root = sushy.Sushy(conversation.base, auth=auth, connector=connector)
        return call(_Machine(root, conversation))


def _switch(machine: _Machine, action: Power, wait_s: float) -> None:
    system = machine.system
    is_off = str(system.json.get("PowerState")).lower() == "off"
    if is_off and action == "soft":
        return
    if is_off and action == "cycle":
        action = "on"
    wanted = _SWITCH[action]
    if action == "soft" and _is_of(system, "HPE", "Hewlett"):
        wanted = ("PushPowerButton",)
    allowed = {one.value for one in system.get_allowed_reset_system_values()}
    chosen = next((one for one in wanted if one in allowed), None)
    if chosen is None and action == "cycle":
        # Older Dells.
        system.reset_system(sushy.ResetType("ForceOff"))
        if machine.conversation.ended.wait(wait_s):
            return
        chosen = "On"
    system.reset_system(sushy.ResetType(chosen or wanted[0]))


def _identified(machine: _Machine) -> str:
    told = machine.system.json
    if "LocationIndicatorActive" in told:
        return "on" if told["LocationIndicatorActive"] else "off"
    if "IndicatorLED" not in told:
        raise Unsupported("has no light that it tells of")
    light = str(_fact(told["IndicatorLED"])).lower()
    return "on" if light == "lit" else light


def _identify(machine: _Machine, *, lit: bool) -> None:
    system = machine.system
    if "LocationIndicatorActive" in system.json:
        system._conn.patch(system.path, data={"LocationIndicatorActive": lit}, etag=system._get_etag())
    elif "IndicatorLED" in system.json:
        system.set_indicator_led(sushy.IndicatorLED("Lit" if lit else "Off"))
    else:
        raise Unsupported("has no light that could be switched")


def _lan(machine: _Machine, field: LanField) -> Any:
    told = machine.interface
    if field == "mac":
        return _fact(told.get("MACAddress"))
    if field == "vlanid":
        return _fact((told.get("VLAN") or {}).get("VLANId"))
    addresses: Sequence[Mapping[str, Any]] = told.get("IPv4Addresses") or ({},)
    return _fact(addresses[0].get(_LAN[field]))


def _fact(value: Any) -> str | int | None:
    """Return a fact that a BMC tells, as far as it is one that a reply can hold.

    Raises:
        ValueError: it is a list, a map, a fraction, or a text with half a character.
    """
    if value is None or isinstance(value, str | int):
        if isinstance(value, str):
            value.encode()
        return value
    raise ValueError(f"a {type(value).__name__} where a text stands")


def _reset(machine: _Machine, kind: Reset) -> None:
    manager = machine.manager
    if not manager.json.get("Actions"):
        raise Unsupported("has no action that starts it anew")
    # iDRACs know no other.
    wanted = ("GracefulRestart",) if _is_of(machine.system, "Dell") else _RESETS[kind]
    allowed = {one.value for one in manager.get_allowed_reset_manager_values()}
    manager.reset_manager(sushy.ResetType(next((one for one in wanted if one in allowed), wanted[0])))


def _is_of(system: Any, *makers: str) -> bool:
    return str(system.json.get("Manufacturer") or "").lower().startswith(tuple(m.lower() for m in makers))


def _reason(error: Exception) -> str:
    """Return the innermost reason in one line: what is around it names our own objects."""
    inner: BaseException = error
    while (below := inner.__cause__ or inner.__context__) is not None and not isinstance(inner, ssl.SSLError):
        inner = below
    if isinstance(inner, ssl.SSLCertVerificationError):
        why = inner.verify_message or inner.reason
        return f"its certificate is not believed: {why} (redfish_verify_ssl, redfish.ca_file)"
    if isinstance(inner, TimeoutError):
        return "it did not answer in time"
    return shown(getattr(inner, "strerror", None) or str(inner) or type(inner).__name__, 160)


def _context(settings: BMCSettings) -> ssl.SSLContext:
    if not settings.redfish_verify_ssl:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        return ssl.create_default_context(cafile=settings.redfish.ca_file)
    except (OSError, ssl.SSLError) as e:
        raise Misconfigured(f"bmc: redfish.ca_file {settings.redfish.ca_file} cannot be read: {e}") from e


@asynccontextmanager
async def opened(settings: BMCSettings) -> AsyncIterator[RedfishBMC]:
    """Yield the provider.

    Raises:
        Misconfigured: the file of CAs cannot be read.
    """
    threads = ThreadPoolExecutor(settings.calls, thread_name_prefix="redfish")
    try:
        yield RedfishBMC(settings, _context(settings), threads)
    finally:
        # Whoever still waits for a BMC's name does so without us.
        threads.shutdown(wait=False, cancel_futures=True)
