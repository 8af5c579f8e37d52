"""Dynamic updates (RFC 2136) over TCP with TSIG, by dnspython; no ``nsupdate`` is spawned.

What the Ruby proxy asks first and does later rides here in one message: the prerequisite section carries the conflict
check, so of two racing writers the server itself lets one win. Every answer's code is read: the Ruby proxy reports success
for a stopped server and for a zone the server does not have (docs/facts/ruby-proxy.md §5 no. 1).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.tsig
import dns.update

from muster.features.dns import presentation
from muster.features.dns.contract import SRV, Data, NoZone, Record, RecordType
from muster.features.dns.providers.tsig_key import key_from
from muster.features.dns.settings import NSUpdateSettings
from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.names import FQDN, ServiceName
from muster.kernel.reasons import spoken

# What a signed zone has beside a CNAME (RFC 4035 §2.5).
_BESIDE_A_CNAME = frozenset({dns.rdatatype.CNAME, dns.rdatatype.RRSIG, dns.rdatatype.NSEC})
# A racing writer may remove what our prerequisite saw before we look; then the question is open again.
_ROUNDS = 4
_REFUSALS = {
    dns.rcode.REFUSED: "refuses the update (REFUSED): its policy does not let {key} change {zone}",
    dns.rcode.NOTAUTH: "is not the primary server of {zone} (NOTAUTH)",
    dns.rcode.NOTZONE: "says the name lies outside {zone} (NOTZONE)",
    dns.rcode.FORMERR: "does not understand the update (FORMERR)",
    dns.rcode.NOTIMP: "does not support dynamic updates (NOTIMP)",
}


class Asked(Protocol):
    """Sends a message as it is and returns the answer; errors are those of ``NSUpdateDNS._ask``."""

    async def __call__(self, message: dns.message.Message, doing: str) -> dns.message.Message: ...


class Signing(Protocol):
    """What messages are signed with.

    Attributes:
        shown: what it is called in a sentence.
    """

    shown: str

    async def key(self, ask: Asked) -> dns.tsig.Key | None:
        """Return the key that is good now, None for unsigned messages; ``ask`` is there to agree on one with the server.

        Raises:
            Misconfigured, Unavailable: there is none to be had.
        """

    def is_forgotten(self, key: dns.tsig.Key) -> bool:
        """Take note that the server knows no such key; return whether there can be another one."""


class SharedKey:
    """A key that stands in the settings, or none."""

    def __init__(self, key: dns.tsig.Key | None) -> None:
        self._key = key
        self.shown = "an unsigned update" if key is None else f"key {key.name.to_text(omit_final_dot=True)}"

    async def key(self, ask: Asked) -> dns.tsig.Key | None:  # noqa: ARG002
        return self._key

    def is_forgotten(self, key: dns.tsig.Key) -> bool:  # noqa: ARG002
        return False


@dataclass
class NSUpdateDNS:
    """Speaks to one primary server; keeps a few TCP connections open. One event loop."""

    server: str
    port: int
    ttl_s: int
    signing: Signing
    timeout_s: float
    connections: int
    _idle: deque[Any] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.connections)
        self._backend: Any = dns.asyncbackend.get_backend("asyncio")

    def __repr__(self) -> str:
        return f"<nsupdate to {self.place}>"

    @property
    def place(self) -> str:
        return f"{self.server}#{self.port}"

    async def lookup(self, name: FQDN | ServiceName, type: RecordType) -> frozenset[Data]:
        owner = _absolute(name)
        answer = await self._ask(_question(owner, type.value), f"looking up {name} {type.value}")
        if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise self._refused(answer, f"looking up {name} {type.value}", str(name))
        found = answer.get_rrset(answer.answer, owner, dns.rdataclass.IN, dns.rdatatype.from_text(type.value))
        return frozenset(_data(type, r) for r in found or ())

    async def reached(self) -> None:
        # Any answer will do, a refusal too: the server is there and speaks DNS. Unsigned: a server that knows no such key
        # is there, too, and says so with the first change.
        await self._send(_question(dns.name.root, "SOA"), "asking whether it is there")

    async def add(self, record: Record) -> None:
        owner = _absolute(record.name)
        doing = f"adding {record}"
        zone = await self._zone(owner, doing)
        for _ in range(_ROUNDS):
            answer = await self._ask(self._addition(zone, owner, record), doing)
            if answer.rcode() == dns.rcode.NOERROR:
                return
            if answer.rcode() not in (dns.rcode.YXRRSET, dns.rcode.YXDOMAIN):
                raise self._refused(answer, doing, zone.to_text())
            if await self._settles(record):
                return
        raise Unavailable(
            f"{self.place} said {_ROUNDS} times that something is in the way of {doing}, and each time, asked what, that "
            "there is nothing: other writers, or another view than the one that takes our updates; try again"
        )

    async def remove(self, name: FQDN | ServiceName, type: RecordType) -> None:
        owner = _absolute(name)
        doing = f"removing {name} {type.value}"
        zone = await self._zone(owner, doing)
        update = dns.update.UpdateMessage(zone)
        update.present(owner, type.value)
        update.delete(owner, type.value)
        answer = await self._ask(update, doing)
        if answer.rcode() in (dns.rcode.NXRRSET, dns.rcode.NXDOMAIN):
            raise NotFound(f"{name} has no {type.value} record on {self.place}")
        if answer.rcode() == dns.rcode.REFUSED and await self._is_gone(owner, doing):
            above = zone.to_text(omit_final_dot=True) or "."
            raise NoZone(f"{self.place} has no zone for {name} any more: {above} has neither it nor the name above it")
        if answer.rcode() != dns.rcode.NOERROR:
            raise self._refused(answer, doing, zone.to_text())

    def _addition(self, zone: dns.name.Name, owner: dns.name.Name, record: Record) -> dns.update.UpdateMessage:
        update = dns.update.UpdateMessage(zone)
        if record.type is RecordType.CNAME:
            # A CNAME stands alone. BIND would silently ignore one beside other records and still answer NOERROR.
            update.absent(owner)
        else:
            update.absent(owner, "CNAME")
            if record.type is not RecordType.SRV:
                update.absent(owner, record.type.value)
        update.add(owner, self.ttl_s, record.type.value, presentation.text(record.data))
        return update

    async def _settles(self, record: Record) -> bool:
        """After a failed prerequisite: True when the record is there, False when nothing is in the way any more.

        Raises:
            Conflict: something else is.
        """
        same_type = await self.lookup(record.name, record.type)
        if record.data in same_type:
            return True
        if same_type and record.type is not RecordType.SRV:
            held = ", ".join(sorted(map(str, same_type)))
            raise Conflict(f"{record.name} holds {record.type.value} {held} on {self.place}")
        if record.type is RecordType.CNAME:
            if others := await self._others(record.name):
                raise Conflict(f"{record.name} holds {others} on {self.place}, and a CNAME stands alone")
            return False
        if await self.lookup(record.name, RecordType.CNAME):
            raise Conflict(f"{record.name} is a CNAME, which stands alone")
        return False

    async def _others(self, name: FQDN | ServiceName) -> str:
        """Return in words what a name holds beside a CNAME, of whatever type; empty when it is nothing."""
        owner = _absolute(name)
        # ANY, because the prerequisite counts every type: TXT, MX, the SOA and NS of a zone's apex.
        answer = await self._ask(_question(owner, "ANY"), f"looking up {name} ANY")
        if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            # A server need not answer ANY (RFC 8482). That the name is in use it has said already.
            return "records of a type that cannot be asked for"
        found = {r.rdtype for r in answer.answer if r.name == owner} - _BESIDE_A_CNAME
        return f"{', '.join(sorted(map(dns.rdatatype.to_text, found)))} records" if found else ""

    async def _is_gone(self, owner: dns.name.Name, doing: str) -> bool:
        """Whether the server denies with authority that the name exists, and that the one above it does.

        So it is where a zone was taken away and one further up, which nobody may change, answers in its place: BIND's own
        empty zones do. Where only the name is missing its zone is still there, and that we may not change it is the news.
        """
        for name in (owner, owner.parent()):
            answer = await self._ask(_question(name, "SOA"), doing)
            # Of an alias it would be the target that is missing.
            if answer.rcode() != dns.rcode.NXDOMAIN or not answer.flags & dns.flags.AA or answer.answer:
                return False
        return True

    async def _zone(self, owner: dns.name.Name, doing: str) -> dns.name.Name:
        """Return the zone of the name on this very server: the owner of the SOA it answers with.

        Asked each time: a cached zone would send the apex of a later child zone to its parent, which accepts the record
        and never serves it. Only an SOA of the name or of one above it counts, for an update's zone encloses its names
        (RFC 2136 §3.1): an alias answers with itself, and with its target's SOA where the server follows it.
        """
        asked = owner
        while True:
            answer = await self._ask(_question(asked, "SOA"), doing)
            code = answer.rcode()
            if code == dns.rcode.SERVFAIL:
                raise self._refused(answer, doing, asked.to_text())
            if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) or not answer.flags & dns.flags.AA:
                name = owner.to_text(omit_final_dot=True)
                raise Rejected(f"{self.place} serves no zone for {name} ({dns.rcode.to_text(code)}); {doing} not done")
            for rrset in (*answer.answer, *answer.authority):
                if rrset.rdtype == dns.rdatatype.SOA and owner.is_subdomain(rrset.name):
                    return rrset.name
            if asked == dns.name.root:
                name = owner.to_text(omit_final_dot=True)
                raise Rejected(f"{self.place} names no zone that {name} is in; {doing} not done")
            asked = asked.parent()

    def _refused(self, answer: dns.message.Message, doing: str, zone: str) -> MusterError:
        code = answer.rcode()
        if code in _REFUSALS:
            why = _REFUSALS[code].format(key=self.signing.shown, zone=zone.rstrip(".") or ".")
            return Rejected(f"{self.place} {why}; {doing} not done")
        if code == dns.rcode.SERVFAIL:
            return Unavailable(f"{self.place} failed inside (SERVFAIL) while {doing}; its log says why")
        return Rejected(f"{self.place} answered {dns.rcode.to_text(code)}; {doing} not done")

    async def _ask(self, message: dns.message.Message, doing: str) -> dns.message.Message:
        """Sign a message, send it and return the verified answer.

        Questions are signed like updates: a server may show another view to those without a key.
        """
        key = await self.signing.key(self._send)
        if key is None:
            return await self._send(message, doing)
        message.use_tsig(key)
        try:
            return await self._send(message, doing)
        except Misconfigured as e:
            # A server that was killed knows no key that was agreed on before, and has done nothing.
            if not isinstance(e.__cause__, dns.tsig.PeerBadKey) or not self.signing.is_forgotten(key):
                raise
        if (another := await self.signing.key(self._send)) is not None:
            message.use_tsig(another)
        return await self._send(message, doing)

    async def _send(self, message: dns.message.Message, doing: str) -> dns.message.Message:
        """Send a message as it is and return the answer; the one place where dnspython's errors become ours."""
        try:
            async with self._slots, asyncio.timeout(self.timeout_s):
                return await self._exchange(message)
        except dns.tsig.PeerBadTime as e:
            raise Misconfigured(
                f"{self.place} says our clock is off (TSIG BADTIME); {doing} not done. Set the clocks"
            ) from e
        except dns.tsig.PeerBadKey as e:
            raise Misconfigured(
                f"{self.place} does not know our {self.signing.shown} (TSIG BADKEY); {doing} not done"
            ) from e
        except (dns.tsig.PeerBadSignature, dns.tsig.PeerBadTruncation) as e:
            raise Misconfigured(
                f"{self.place} finds the secret of {self.signing.shown} wrong (TSIG BADSIG); {doing} not done"
            ) from e
        except (dns.tsig.BadTime, dns.tsig.BadSignature, dns.tsig.BadKey, dns.message.UnknownTSIGKey) as e:
            raise Misconfigured(f"The answer of {self.place} is not signed as it must be: {e}; outcome unknown") from e
        except (TimeoutError, dns.exception.Timeout) as e:
            raise Unavailable(f"{self.place} did not answer within {self.timeout_s:g} s while {doing}") from e
        except (EOFError, OSError) as e:
            raise Unavailable(f"{self.place} cannot be reached while {doing}: {_reason(e)}") from e
        except dns.exception.DNSException as e:
            raise Unavailable(f"{self.place} sent something that is no answer while {doing}: {e}") from e

    async def _exchange(self, message: dns.message.Message) -> dns.message.Message:
        connection = await self._connection()
        try:
            answer = await dns.asyncquery.tcp(message, self.server, sock=connection)
            # BIND signs refusals of a signed update too; an unsigned success would be somebody else's.
            if message.tsig is not None and not answer.had_tsig and answer.rcode() == dns.rcode.NOERROR:
                raise dns.tsig.BadSignature("it carries no TSIG")  # type: ignore[no-untyped-call]
        except BaseException:
            # What is still in flight on it would answer the next question.
            await connection.close()
            raise
        self._idle.append(connection)
        return answer

    async def _connection(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            # A server closes idle connections; one that has ended must not take a change with it.
            if not connection.reader.at_eof() and not connection.writer.is_closing():
                return connection
            await connection.close()
        return await self._backend.make_socket(
            socket.AF_UNSPEC, socket.SOCK_STREAM, 0, None, (self.server, self.port), self.timeout_s
        )

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()


def _question(owner: dns.name.Name, type_name: str) -> dns.message.QueryMessage:
    question = dns.message.make_query(owner, type_name)
    # The server is to say what it has itself, not what it can find out.
    question.flags &= ~dns.flags.RD
    return question


def _absolute(name: FQDN | ServiceName) -> dns.name.Name:
    return dns.name.from_text(name, origin=dns.name.root)


def _data(kind: RecordType, rdata: Any) -> Data:
    if kind in (RecordType.A, RecordType.AAAA):
        return ipaddress.ip_address(rdata.address)
    if kind is RecordType.SRV:
        return SRV(rdata.priority, rdata.weight, rdata.port, _name(rdata.target))
    return _name(rdata.target)


def _name(name: dns.name.Name) -> FQDN:
    # Already in the zone: shown and compared, never sent on, so it need not be a host name.
    return FQDN(name.to_text(omit_final_dot=True))


def _reason(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "it closed the connection"
    return spoken(error)


@asynccontextmanager
async def opened(settings: NSUpdateSettings, ttl_s: int) -> AsyncIterator[NSUpdateDNS]:
    """Yield the provider; connections are made when first needed and closed on leaving."""
    provider = NSUpdateDNS(
        settings.server, settings.port, ttl_s, SharedKey(key_from(settings)), settings.timeout_s, settings.connections
    )
    try:
        yield provider
    finally:
        await provider.close()
