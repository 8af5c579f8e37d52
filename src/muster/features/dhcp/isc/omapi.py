"""Hosts of a running ISC dhcpd, made, found and removed over OMAPI.

A call is a thread's, because the library blocks, and a thread ends with its call's time, which bounds the connecting, the
sending and all reads together. Connections are kept; one that has ended while nobody used it is left, so that it takes no
change with it. Each reads 64 KiB of one answer at most.

What dhcpd 4.4.3-P1 answers, as tests/contract/test_dhcp_omapi.py asks it (result codes are ISC's, in hexadecimal):

=================================================  =============================================================
a key's name that is not declared, or is, with     17, to whoever asks for the authenticator; so says a server
another algorithm                                  without any key, too. Case of the name does not matter
a wrong secret                                     6000b, unsigned
no key where it wants one (``omapi-key``)          60009
no such host                                       17
the hardware address has a host by another name    60007 (key conflict); a host of dhcpd.conf counts
the name has a host of another hardware address    12 (exists); case of the name *does* matter: ``H1`` is not ``h1``
both the name and the hardware address are one     12 as well, whatever its address and statements are
host's
the address is another host's                      nothing: it is made
a statement that is none, or an option that        60008; nothing is made
dhcpd.conf does not define
a value that ends elsewhere than it does for       nothing: the host is made **without that statement**
dhcpd (``next-server = 10.1.2.3;``)                and those behind it
statements that are empty                          60003; nothing is made
its leases file cannot be written                  1a, and the host is there until the next start; when one is removed:
                                                   success, and it comes back then
=================================================  =============================================================

A host that it made is in its leases file, and that on the disk (fsync), before it answers.

It says a host's name, hardware address and addresses, and never its statements: those are read from the leases file. Nor
does it say which host stands in dhcpd.conf, and it removes such a one as willingly, for as long as dhcpd.conf has one by
that name: the leases file remembers it at each start. Of several hosts of one hardware address, which a configuration may
have, it finds and removes the first.

Source: omapi(3), omshell(1).
"""

from __future__ import annotations

import asyncio
import binascii
import hmac
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address

import pypureomapi

from muster.features.dhcp.contract import Unreached
from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.names import FQDN, MACAddress, shown
from muster.kernel.reasons import spoken
from muster.kernel.secrets import Secret

ALGORITHMS: Mapping[str, str] = {
    "hmac-md5": "md5",
    "hmac-sha1": "sha1",
    "hmac-sha224": "sha224",
    "hmac-sha256": "sha256",
    "hmac-sha384": "sha384",
    "hmac-sha512": "sha512",
}
"""What a key can sign with, by dhcpd's word: the digest, by Python's."""

STATES = ("", "free", "active", "expired", "released", "abandoned", "reset", "backup")
"""A lease's states by their numbers (omapi(3)); ``backup`` is the other's of two servers that fail over."""

# By octets: Ethernet and InfiniBand (ARP's hardware types).
_HARDWARE: Mapping[int, int] = {6: 1, 20: 32}
_NOBODY = MACAddress.parse("00:00:00:00:00:00")
_EXISTS, _NOT_FOUND, _IO_ERROR = 0x12, 0x17, 0x1A
_KEY_CONFLICT, _NOT_PARSED, _NO_KEY, _BAD_SIGNATURE = 0x60007, 0x60008, 0x60009, 0x6000B
_TRUE = struct.pack("!I", 1)
_LONGEST_TEXT = 200


class NameTaken(Rejected):
    """The name is that of another hardware address's host; nothing was changed."""


@dataclass(frozen=True)
class Key:
    """A key that dhcpd.conf declares and names as ``omapi-key``.

    Attributes:
        secret: in base64, as it stands there.
        algorithm: one of :data:`ALGORITHMS`.
    """

    name: str
    secret: Secret
    algorithm: str = "hmac-md5"


@dataclass(frozen=True)
class Host:
    """A host declaration of dhcpd's; what stands in its statements is not told.

    Attributes:
        ip: None: it has no fixed address.
        mac: None: it has no hardware address, or one that is neither Ethernet's nor InfiniBand's.
    """

    name: str
    ip: IPv4Address | None
    mac: MACAddress | None


@dataclass(frozen=True)
class LeaseSeen:
    """A lease that dhcpd has for an address of a pool; one that was never given to anybody is there, too, and ``free``.

    Attributes:
        state: one of :data:`STATES`; a number's digits where dhcpd has a new one.
        starts, ends: aware; None where it never began. One for ever ends 2038-01-19 03:14:07 UTC.
    """

    ip: IPv4Address
    state: str
    mac: MACAddress | None
    starts: datetime | None
    ends: datetime | None
    client_hostname: str = ""


@dataclass(frozen=True)
class _Answer:
    """What dhcpd said: code 0, and what it opened; or ISC's code and a word of it."""

    code: int
    text: str = ""
    handle: int = 0
    values: Mapping[bytes, bytes] = field(default_factory=dict)


class _BadAnswer(Exception):
    """It was none, or not signed as it must be."""


class _Authenticator(pypureomapi.OmapiHMACMD5Authenticator):
    """Signs with whatever digest the key has; the library knows MD5 alone."""

    def __init__(self, key: Key) -> None:
        super().__init__(key.name.encode(), key.secret.reveal().encode())
        self._digest = ALGORITHMS[key.algorithm]
        self.authlen = hmac.new(b"", b"", self._digest).digest_size
        # dhcpd finds no key without the last words.
        self.algorithm = f"{key.algorithm}.SIG-ALG.REG.INT.".encode()

    def sign(self, message: bytes) -> bytes:
        return hmac.digest(self.key, message, self._digest)


class _Line(pypureomapi.Omapi):
    """A connection; one thread at a time.

    Attributes:
        until: by which reading of the monotonic clock the present call has ended.
        used: at which reading the last one did.
    """

    def __init__(self, server: str, port: int, until: float) -> None:
        self.until, self.used = until, 0.0
        super().__init__(server, port, timeout=_left_s(until))

    def recv_protocol_initialization(self) -> None:
        try:
            self._filled()
        except BaseException:
            self.close()
            raise
        super().recv_protocol_initialization()

    def receive_message(self) -> pypureomapi.OmapiMessage:
        self._filled()
        return super().receive_message()

    def asked(self, question: pypureomapi.OmapiMessage) -> _Answer:
        """Return what the server says to a question, signed as it must be.

        Raises:
            OSError, OmapiError, ValueError: it said nothing that is an answer.
        """
        self._bounded()
        self.send_message(question)
        answer = self.receive_response(question, insecure=True)
        if answer.opcode == pypureomapi.OMAPI_OP_STATUS:
            said = dict(answer.message)
            if b"result" not in said:
                raise _BadAnswer("it is a status without a result")
            found = _Answer(_number(said[b"result"]), _text(said.get(b"message", b"")))
        elif answer.opcode == pypureomapi.OMAPI_OP_UPDATE:
            found = _Answer(0, handle=answer.handle, values=dict(answer.obj))
        else:
            raise _BadAnswer(f"it answered with operation {answer.opcode}")
        # Of a question that it could not verify it signs no refusal.
        if answer.authid != self.protocol.defauth and found.code not in (_NO_KEY, _BAD_SIGNATURE):
            raise _BadAnswer("it is not signed")
        return found

    def is_usable(self) -> bool:
        """Whether it is open and silent, as one is that nobody uses."""
        connection = self.transport.connection
        if connection is None:
            return False
        try:
            connection.setblocking(False)
            connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _filled(self) -> None:
        # The library waits anew for every piece, so a server that sends octet by octet would hold it for days.
        while not self.recv_message_queue:
            self._bounded()
            self.transport.fill_inbuffer()

    def _bounded(self) -> None:
        if self.transport.connection is not None:
            self.transport.connection.settimeout(_left_s(self.until))


_Steps = Callable[[_Line], _Answer]


@dataclass
class OMAPI:
    """Speaks to one dhcpd; any number of calls at once, of one event loop, over a few connections. Use :func:`opened`.

    Every method raises Unavailable when there is no answer, and Misconfigured when the server does not accept our key (then
    nothing was changed). Without an answer a change may have happened, or happen yet: dhcpd does what was sent to it when it
    comes to it, though the connection has ended.

    Attributes:
        server: a host name or an IPv4 address; dhcpd listens on no other.
        timeout_s: how long a call may take, the wait for a connection included.
        connections: how many there are at most; dhcpd does one thing at a time.
        idle_s: how long a connection may be idle and is used again; on the way there may be who forgets it and says nothing.
    """

    server: str
    port: int
    key: Key | None
    timeout_s: float
    connections: int
    idle_s: float = 60.0
    _idle: deque[_Line] = field(default_factory=deque, repr=False)
    _closed: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(self.connections, "omapi")
        # dhcpd's backlog is 1: of several connections opened at once some would wait a second for the kernel's next try.
        self._opening = threading.Lock()
        if self.key is not None:
            _authenticator(self.key)

    @property
    def place(self) -> str:
        return f"{self.server}#{self.port}"

    async def reached(self) -> None:
        """Return when the server has answered, and accepts our key."""
        await self._ask(lambda line: line.asked(_question("host", _hardware(_NOBODY))), "asking whether it is there")

    async def host_of(self, mac: MACAddress) -> Host | None:
        """Return the host of a hardware address, None when there is none; a host of dhcpd.conf is one."""
        return await self._host(_hardware(mac), f"looking up the host of {mac}")

    async def host_by(self, name: str) -> Host | None:
        """Return the host by that very name, None when there is none."""
        return await self._host({b"name": name.encode()}, f"looking up host {shown(name)}")

    async def create(self, name: str, ip: IPv4Address, mac: MACAddress, statements: str = "") -> bool:
        """Make a host.

        That nobody else has the address is the caller's: dhcpd gives one to several hosts.

        Args:
            name: unique on the server, in its very case.
            ip: of its subnet or not: dhcpd does not look.
            mac: unique on the server.
            statements: what :mod:`muster.features.dhcp.isc.written` wrote; dhcpd drops silently what others write wrong.

        Returns:
            False: it was there by that name, with that hardware and IP address; its statements may be others.

        Raises:
            Conflict: the hardware address has a host by another name, or with another address.
            NameTaken: the name is another hardware address's.
            Rejected: dhcpd does not take the statements, or the name is no host's, and would stand in the leases file.
        """
        FQDN.parse(name)
        doing = f"adding host {shown(name)} ({ip} / {mac})"
        given = {b"name": name.encode(), **_hardware(mac), b"ip-address": ip.packed}
        if statements:
            given[b"statements"] = statements.encode()
        question = _question("host", given)
        question.message += [(b"create", _TRUE), (b"exclusive", _TRUE)]
        answer = await self._ask(lambda line: line.asked(question), doing)
        if answer.code == _IO_ERROR:
            # It stays, unwritten; who asked again would hear that it is there already.
            with suppress(MusterError):
                await self.delete(mac, name=name)
        if answer.code == _EXISTS:
            held = await self.host_of(mac)
            if held is None or held.name != name:
                raise NameTaken(f"{self.place} has a host {shown(name)} of another hardware address; {doing} not done")
            if held.ip != ip:
                raise Conflict(f"{self.place} has host {shown(name)} of {mac} with address {held.ip}; {doing} not done")
            return False
        if answer.code == _KEY_CONFLICT:
            raise Conflict(f"{self.place} has a host of {mac} by another name; {doing} not done")
        if answer.code == _NOT_PARSED:
            raise Rejected(
                f"{self.place} does not understand the host's options; {doing} not done. An option that is not dhcpd's own "
                "has to be defined in dhcpd.conf; dhcpd's log says which it is"
            )
        self._may_refuse(answer, doing)
        return True

    async def delete(self, mac: MACAddress, *, name: str | None = None) -> None:
        """Remove the host of a hardware address, wherever it comes from.

        One of dhcpd.conf is removed as well, and does not come back with the next start; the caller keeps from that.

        Args:
            mac: the hardware address.
            name: the host's, where it is known: another one of the same hardware address stays.

        Raises:
            NotFound: there is none.
        """
        doing = f"removing the host of {mac}"

        def steps(line: _Line) -> _Answer:
            found = line.asked(_question("host", {b"name": name.encode()} if name else _hardware(mac)))
            if found.code == 0 and name is not None and _mac(found.values) != mac:
                return _Answer(_NOT_FOUND)
            return line.asked(pypureomapi.OmapiMessage.delete(found.handle)) if found.code == 0 else found

        answer = await self._ask(steps, doing)
        if answer.code == _NOT_FOUND:
            raise NotFound(f"{self.place} has no host of {mac}")
        self._may_refuse(answer, doing)

    async def lease_at(self, ip: IPv4Address) -> LeaseSeen | None:
        """Return the lease of an address, None when the address is in no pool and was never leased."""
        doing = f"looking up the lease of {ip}"
        answer = await self._ask(lambda line: line.asked(_question("lease", {b"ip-address": ip.packed})), doing)
        if answer.code == _NOT_FOUND:
            return None
        self._may_refuse(answer, doing)
        told, state = answer.values, _number(answer.values.get(b"state", b""))
        return LeaseSeen(
            ip,
            STATES[state] if 0 < state < len(STATES) else str(state),
            _mac(told),
            _time(told.get(b"starts", b"")),
            _time(told.get(b"ends", b"")),
            _text(told.get(b"client-hostname", b"")),
        )

    async def _host(self, wanted: Mapping[bytes, bytes], doing: str) -> Host | None:
        answer = await self._ask(lambda line: line.asked(_question("host", wanted)), doing)
        if answer.code == _NOT_FOUND:
            return None
        self._may_refuse(answer, doing)
        told = answer.values
        address = told.get(b"ip-address", b"")[:4]
        ip = IPv4Address(address) if len(address) == 4 else None
        return Host(_text(told.get(b"name", b"")), ip, _mac(told))

    def _may_refuse(self, answer: _Answer, doing: str) -> None:
        if answer.code == _IO_ERROR:
            raise Unavailable(f"{self.place} cannot write its leases file; {doing} not done; its log says why")
        if answer.code != 0:
            raise Rejected(f"{self.place} answered {answer.text or 'no'} ({answer.code:x}); {doing} not done")

    async def _ask(self, steps: _Steps, doing: str) -> _Answer:
        """Return the last answer of a conversation; the one place where the library's errors become ours."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.timeout_s):
                # Waiting work of a call whose time is over is not begun; what has begun ends by itself.
                answer = await loop.run_in_executor(
                    self._threads, self._talked, steps, time.monotonic() + self.timeout_s
                )
        except TimeoutError as e:
            raise Unavailable(f"{self.place} did not answer within {self.timeout_s:g} s while {doing}") from e
        except ConnectionRefusedError as e:
            raise Unreached(f"{self.place} cannot be reached while {doing}: {spoken(e)}") from e
        except OSError as e:
            raise Unavailable(f"{self.place} cannot be reached while {doing}: {spoken(e)}") from e
        except pypureomapi.OmapiError as e:
            raise Unavailable(f"{self.place} did not answer while {doing}: {shown(str(e), _LONGEST_TEXT)}") from e
        except (_BadAnswer, ValueError, struct.error) as e:
            said = shown(str(e), _LONGEST_TEXT)
            raise Unavailable(f"{self.place} sent something that is no answer while {doing}: {said}") from e
        if answer.code == _NO_KEY:
            what = (
                f"does not let key {self.key.name} give orders"
                if self.key
                else "takes orders with a key alone (omapi-key)"
            )
            raise Misconfigured(f"{self.place} {what}; {doing} not done")
        if answer.code == _BAD_SIGNATURE and self.key is not None:
            raise Misconfigured(f"{self.place} finds the secret of key {self.key.name} wrong; {doing} not done")
        return answer

    def _talked(self, steps: _Steps, until: float) -> _Answer:
        """A conversation, in a thread."""
        line = self._line(until)
        try:
            answer = steps(line)
        except BaseException:
            # What is still in flight on it would answer the next question.
            line.close()
            raise
        line.used = time.monotonic()
        self._idle.append(line)
        if self._closed or answer.code in (_NO_KEY, _BAD_SIGNATURE):
            self._hang_up()
        return answer

    def _line(self, until: float) -> _Line:
        with suppress(IndexError):
            while True:
                line = self._idle.pop()
                if time.monotonic() - line.used < self.idle_s and line.is_usable():
                    line.until = until
                    return line
                line.close()
        if not self._opening.acquire(timeout=_left_s(until)):
            raise TimeoutError
        try:
            line = _Line(self.server, self.port, until)
            try:
                self._introduced(line)
            except BaseException:
                line.close()
                raise
            return line
        finally:
            self._opening.release()

    def _introduced(self, line: _Line) -> None:
        if self.key is None:
            return
        authenticator = _authenticator(self.key)
        question = pypureomapi.OmapiMessage.open(b"authenticator")
        question.update_object(authenticator.auth_object())
        answer = line.asked(question)
        if answer.code != 0 or answer.handle == 0:
            raise _unknown(self.place, self.key)
        authenticator.authid = answer.handle
        line.protocol.authenticators[answer.handle] = authenticator
        line.protocol.defauth = answer.handle

    def _hang_up(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def close(self) -> None:
        """Close what is idle; a call that is under way closes its connection when it ends, in time."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._hang_up()


@asynccontextmanager
async def opened(
    server: str, port: int, key: Key | None, *, timeout_s: float, connections: int = 4
) -> AsyncIterator[OMAPI]:
    """Yield the server; connections are made when first needed and closed on leaving.

    Raises:
        Misconfigured: the key is none.
    """
    omapi = OMAPI(server, port, key, timeout_s, connections)
    try:
        yield omapi
    finally:
        omapi.close()


def _unknown(place: str, key: Key) -> MusterError:
    return Misconfigured(
        f"{place} knows no key {shown(key.name)} of algorithm {key.algorithm}: name and algorithm have to be those of "
        "omapi-key in dhcpd.conf"
    )


def _authenticator(key: Key) -> _Authenticator:
    """Return what signs.

    Raises:
        Misconfigured: the key is none, or this machine forbids it, as FIPS does MD5. The secret is not shown.
    """
    if key.algorithm not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise Misconfigured(
            f"DHCP key {shown(key.name)} has algorithm {shown(key.algorithm)}, which is none of {known}"
        )
    try:
        # The library would skip what is no base64, and sign with the rest.
        binascii.a2b_base64(key.secret.reveal(), strict_mode=True)
        made = _Authenticator(key)
        made.sign(b"")
    except ValueError:
        raise Misconfigured(
            f"DHCP key {shown(key.name)} cannot be used: its secret is no base64, or this machine forbids {key.algorithm}"
        ) from None
    return made


def _question(kind: str, wanted: Mapping[bytes, bytes]) -> pypureomapi.OmapiMessage:
    question = pypureomapi.OmapiMessage.open(kind.encode())
    question.obj += wanted.items()
    return question


def _hardware(mac: MACAddress) -> dict[bytes, bytes]:
    octets = bytes.fromhex(mac.replace(":", ""))
    return {b"hardware-address": octets, b"hardware-type": struct.pack("!I", _HARDWARE[len(octets)])}


def _mac(told: Mapping[bytes, bytes]) -> MACAddress | None:
    octets = told.get(b"hardware-address", b"")
    if _HARDWARE.get(len(octets)) != _number(told.get(b"hardware-type", _TRUE)):
        return None
    return MACAddress.parse(octets.hex(":"))


def _number(octets: bytes) -> int:
    return int.from_bytes(octets, "big")


def _time(octets: bytes) -> datetime | None:
    number = _number(octets)
    return datetime.fromtimestamp(number, UTC) if 0 < number < 1 << 32 else None


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")


def _left_s(until: float) -> float:
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
