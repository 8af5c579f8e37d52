"""Who may call: trusted hosts, then the client certificate, in the Ruby proxy's order and words.

Source: docs/facts/smart-proxy-protocol.md §3.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, Self

from cryptography import x509

from muster.cluster.file import ClusterFile
from muster.edge.request import Peer, Request
from muster.edge.routes import Access
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Denied
from muster.kernel.names import shown
from muster.pki.facts import distinguished
from muster.pki.trust import RevocationLists, Trust, described


class Names(Protocol):
    """Reverse and forward resolution: the hosts file, then DNS. Raises OSError with the resolver's words."""

    async def reverse(self, address: str) -> str: ...

    async def forward(self, name: str) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the resolver found, why it found nothing, or a bug."""

    found: Any = None
    why: str | None = None
    bug: Exception | None = None


@dataclass(slots=True)
class _Lookup:
    """A question to the resolver, waiting or under way. Times are the loop's."""

    key: tuple[str, str]
    ask: Callable[[], Any]
    deadline: float
    answer: asyncio.Future[_Answer]


@dataclass
class SystemNames:
    """The machine's resolver, in threads of its own; no caller waits longer than ``timeout_s``.

    Anybody may make us ask, and whose DNS server is silent holds a thread for as long as the resolver is patient, which is
    longer than we are. So the threads are few and nobody else's, as many questions as ``waiting`` may wait for one, the
    same question is asked once at a time, and its answer, yes or no, holds for ``kept_s``.

    Attributes:
        kept: answers remembered at most; the oldest goes first.

    Concurrency: one event loop.
    """

    timeout_s: float = 5.0
    threads: int = 8
    waiting: int = 64
    kept_s: float = 5.0
    kept: int = 1024
    _under_way: dict[tuple[str, str], _Lookup] = field(default_factory=dict)
    _waiting: deque[_Lookup] = field(default_factory=deque)
    _answers: dict[tuple[str, str], tuple[float, _Answer]] = field(default_factory=dict)
    _busy: int = 0

    async def reverse(self, address: str) -> str:
        return str((await self._asked("reverse", address, lambda: socket.gethostbyaddr(address)))[0])

    async def forward(self, name: str) -> Sequence[str]:
        found = await self._asked("forward", name, lambda: socket.getaddrinfo(name, None, 0, socket.SOCK_STREAM))
        return [str(f[4][0]) for f in found]

    async def _asked(self, way: str, what: str, ask: Callable[[], Any]) -> Any:
        loop = asyncio.get_running_loop()
        key = (way, what)
        answer = self._remembered(key, loop.time())
        if answer is None:
            lookup = self._under_way.get(key)
            if lookup is None:
                lookup = _Lookup(key, ask, loop.time() + self.timeout_s, loop.create_future())
                self._begin(lookup)
            # Not cancelled with its asker: others may wait for the same answer, and the thread goes on anyway.
            await asyncio.wait({lookup.answer}, timeout=max(0.0, lookup.deadline - loop.time()))
            if not lookup.answer.done():
                raise OSError(f"the resolver did not answer within {self.timeout_s:g} s")
            answer = lookup.answer.result()
        if answer.bug is not None:
            raise answer.bug
        if answer.why is not None:
            raise OSError(answer.why)
        return answer.found

    def _remembered(self, key: tuple[str, str], now: float) -> _Answer | None:
        until, answer = self._answers.get(key, (now, None))
        return answer if until > now else None

    def _begin(self, lookup: _Lookup) -> None:
        if len(self._waiting) >= self.waiting:
            raise OSError("too many lookups wait for the resolver")
        self._under_way[lookup.key] = lookup
        self._waiting.append(lookup)
        self._go_on()

    def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self._busy < self.threads:
            lookup = self._waiting.popleft()
            if lookup.deadline <= loop.time():
                # Its askers have gone.
                self._end(lookup, _Answer(why=f"the resolver did not answer within {self.timeout_s:g} s"))
                continue
            # A daemon, and no executor's: a member that stops does not wait for a silent DNS server.
            thread = threading.Thread(
                target=_resolve, args=(lookup, loop, self._answered), name="resolver", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as e:
                self._end(lookup, _Answer(why=str(e)))
                continue
            self._busy += 1

    def _answered(self, lookup: _Lookup, answer: _Answer) -> None:
        self._busy -= 1
        if answer.bug is None:
            self._answers.pop(lookup.key, None)
            while len(self._answers) >= self.kept:
                del self._answers[next(iter(self._answers))]
            self._answers[lookup.key] = (asyncio.get_running_loop().time() + self.kept_s, answer)
        self._end(lookup, answer)
        self._go_on()

    def _end(self, lookup: _Lookup, answer: _Answer) -> None:
        del self._under_way[lookup.key]
        lookup.answer.set_result(answer)


def _resolve(lookup: _Lookup, loop: asyncio.AbstractEventLoop, answered: Callable[[_Lookup, _Answer], None]) -> None:
    """Ask the resolver, in a thread, and bring its answer to the loop."""
    try:
        answer = _Answer(lookup.ask())
    except OSError as e:
        answer = _Answer(why=_words(e))
    except UnicodeError as e:
        answer = _Answer(why=f"not a host name: {e}")
    except Exception as e:  # noqa: BLE001 - boundary: a thread that dies silently would hold its place for ever
        answer = _Answer(bug=e)
    # The loop may have closed meanwhile.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(answered, lookup, answer)


@dataclass(frozen=True)
class Callers:
    """Who may use protected routes, by lower-case names.

    Attributes:
        trusted: count with a certificate of whichever CA is trusted.
        own: count with a certificate of the cluster's own CA; None: every name does.
        over_http: whether ``trusted`` counts over plain HTTP, too, by the address' name.
    """

    trusted: frozenset[str] = frozenset()
    own: frozenset[str] | None = None
    over_http: bool = False

    @classmethod
    def of(cls, cluster: ClusterFile) -> Self:
        """Return who may by a cluster file.

        ``trusted_hosts`` is the whole list where an administrator wrote one. Where nobody did, Foreman's host counts, and
        members and balancers with what the cluster's CA gave them; without Foreman's URL every certificate of that CA.
        """
        names = frozenset(n.lower() for n in cluster.trusted_names)
        if cluster.foreman.trusted_hosts is not None:
            return cls(names, frozenset(), over_http=True)
        if not names:
            return cls()
        us = (*(str(m.name) for m in cluster.members), *(b.name for b in cluster.balancers))
        return cls(names, frozenset(name.lower() for name in us))


@dataclass
class Gate:
    """Decides each call; refusals are :class:`Denied` with the Ruby proxy's text.

    Attributes:
        trust: the CAs whose certificates count now; None: whatever the handshake took.
        lists: revocation lists of other CAs than the cluster's Puppet CA.
        revoked: asks whether the cluster's Puppet CA revoked a certificate, on whichever member; None: there is none.
        hosts_cas: returns the CA that members are for hosts, and those above it; empty: they are none; None: they are one
            that is not known yet.
    """

    callers: Callers
    forward_verify: bool = True
    names: Names = field(default_factory=SystemNames)
    trust: Trust | None = None
    lists: RevocationLists = field(default_factory=RevocationLists)
    revoked: Callable[[x509.Certificate], Awaitable[bool]] | None = None
    hosts_cas: Callable[[], Sequence[x509.Certificate] | None] = lambda: ()
    clock: Clock = field(default_factory=SystemClock)

    def judge(self, peer: Peer) -> None:
        """Return when the certificate of a connection, if it has one, counts still.

        Asked at every call: a handshake would refuse it, but connections are kept and sessions resumed.

        Raises:
            Denied: it ended, or its CA is trusted no longer.
        """
        certificate = peer.parsed
        if certificate is None:
            return
        issuer = None
        if self.trust is not None:
            standing, issuer = peer.issued_under(self.trust)
            # What came through an intermediate that the client sent is known by the handshake alone.
            if standing == "unknown" and peer.trust is not self.trust:
                raise Denied(f"The CA of the client certificate {described(certificate)} is trusted no longer")
        now = self.clock.now().astimezone(UTC)
        for one in (certificate, issuer):
            if one is not None and not one.not_valid_before_utc <= now <= one.not_valid_after_utc:
                raise Denied(f"{_outlived(one, now)}; the client certificate is {described(certificate)}")

    async def admit(self, access: Access, request: Request) -> None:
        """Return when the caller may call.

        Raises:
            Denied: with the reason.
            Unavailable: whether the certificate is revoked could not be asked.
        """
        if access is Access.OPEN:
            return
        if access is Access.TRUSTED:
            await self._check_trusted(request)
        elif access is Access.OPERATORS:
            self._check_operators(request)
        elif access is Access.CERTIFIED:
            _check_certified(request)
        else:
            self._check_cluster(request)
        await self.refuse_revoked(request)

    async def refuse_revoked(self, request: Request) -> None:
        """Return when the caller shows no certificate that is revoked.

        Raises:
            Denied: it does.
            Unavailable: whether it is could not be asked.
        """
        certificate = request.peer.parsed if request.over_tls else None
        if certificate is not None and (
            self.lists.revoke(certificate) or (self.revoked is not None and await self.revoked(certificate))
        ):
            raise Denied(f"The client certificate {described(certificate)} is revoked")

    def is_ours(self, request: Request, names: frozenset[str]) -> bool:
        """Whether the caller shows a certificate of the cluster's own CA with one of these names, in lower case."""
        return request.over_tls and request.peer.name in names and self._is_own(request.peer)

    async def _check_trusted(self, request: Request) -> None:
        callers = self.callers
        if request.over_tls:
            if callers.own is None and request.peer.certificate is None:
                raise Denied("No client SSL certificate supplied")
            # Where every name counts, a certificate without one does, too.
            known = self._is_own(request.peer) and callers.own is None
            name = "" if known else _certified_name(request).lower()
            known = known or name in callers.trusted or self._is_one_of_us(request.peer, name)
        elif callers.over_http:
            name = (await self._resolved_name(request.peer.address)).lower()
            known = name in callers.trusted
        else:
            raise Denied(
                "Only clients with a certificate may ask this: foreman.trusted_hosts in the cluster file names nobody who "
                "may do so over plain HTTP"
            )
        if not known:
            # The root of a mount is the empty path there, unless a slash was sent.
            is_root = request.path == "/" and not request.raw_path.endswith(b"/")
            raise Denied(
                f"Untrusted client {name} attempted to access {'' if is_root else shown(request.path)}. "
                "Check :trusted_hosts: in settings.yml"
            )

    def _is_one_of_us(self, peer: Peer, name: str) -> bool:
        own = self.callers.own
        return (own is None or name in own) and self._is_own(peer)

    def _is_own(self, peer: Peer) -> bool:
        return self.trust is None or peer.issued_under(self.trust)[0] == "own"

    async def _resolved_name(self, address: str) -> str:
        # A scoped IPv6 address has no PTR record; the Ruby proxy compares it as it is.
        if "%" in address:
            return address
        try:
            name = await self.names.reverse(address)
        except OSError as e:
            raise Denied(f"unable to resolve hostname for ip address {address}\n\n{_words(e)}") from e
        if not self.forward_verify:
            return name
        try:
            addresses = await self.names.forward(name)
        except OSError as e:
            text = f"could not forward verify the remote hostname - {name} ({address})\n\n{_words(e)}"
            raise Denied(text) from e
        if not any(_same_address(a, address) for a in addresses):
            raise Denied(f"untrusted client has no matching forward DNS lookup - {name} ({address})")
        return name

    def _check_cluster(self, request: Request) -> None:
        if request.over_tls:
            if request.peer.certificate is None:
                raise Denied("No client SSL certificate supplied")
            # Every managed host has a certificate of some trusted CA.
            if not self._is_own(request.peer) and request.peer.name not in self.callers.trusted:
                raise Denied(
                    "Only hosts in foreman.trusted_hosts, and holders of a certificate of the cluster's own CA, may ask this"
                )
        elif not ipaddress.ip_address(request.peer.address.partition("%")[0]).is_loopback:
            raise Denied("Only clients on this host may ask this without TLS")

    def _check_operators(self, request: Request) -> None:
        if not request.over_tls:
            raise Denied("Only clients with a certificate may look at this, over HTTPS")
        if request.peer.certificate is None:
            raise Denied(
                "No client SSL certificate supplied; muster certs issue --client NAME --p12 makes one for a browser"
            )
        # Of a port that shows a room's certificate nobody knows here who issued its clients'.
        standing, issuer = ("unknown", None) if self.trust is None else request.peer.issued_under(self.trust)
        hosts_cas = self.hosts_cas()
        if issuer is not None and standing == "own" and self._serves_hosts(issuer, hosts_cas):
            # The cluster adopted a CA from which every managed host has a certificate.
            standing = "other"
        if standing == "own" or (standing == "other" and request.peer.name in self.callers.trusted):
            return
        if hosts_cas is None:
            raise Denied(
                "The members' Puppet CA could not be opened yet, and may be the cluster's own CA, of which agents have "
                "certificates then: only hosts in foreman.trusted_hosts may look at this; see muster status --serve"
            )
        raise Denied(
            "Only hosts in foreman.trusted_hosts, and holders of a certificate of the cluster's own CA, may look at this"
        )

    def _serves_hosts(self, own: x509.Certificate, hosts_cas: Sequence[x509.Certificate] | None) -> bool:
        """Whether the cluster's own CA is also Foreman's, or the Puppet CA, or may be, since nobody knows that one."""
        if hosts_cas is None:
            return True
        others = (*(self.trust.others if self.trust is not None else ()), *hosts_cas)
        return any(ca.public_key() == own.public_key() for ca in others)


def _check_certified(request: Request) -> None:
    if not request.over_tls:
        raise Denied("Only clients with a certificate may ask this, over HTTPS")
    if request.peer.certificate is None:
        raise Denied("No client SSL certificate supplied")
    _certified_name(request)


def _certified_name(request: Request) -> str:
    if request.peer.certificate is None:
        raise Denied("could not read client cert from environment")
    name = request.peer.name
    if not name:
        raise Denied("could not read CN from the client certificate")
    return name


def _outlived(one: x509.Certificate, now: datetime) -> str:
    name = distinguished(one.subject)
    if now > one.not_valid_after_utc:
        return f"The certificate of {name} ended on {one.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    return f"The certificate of {name} is valid only from {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on"


def _same_address(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one.partition("%")[0]) == ipaddress.ip_address(other)
    except ValueError:
        return False


def _words(error: OSError) -> str:
    return str(error.strerror or error)
