"""Who may call: trusted hosts, then the client certificate, in the Ruby proxy's order and words (protocol reference §3)."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from muster.edge.request import Request
from muster.edge.routes import Access
from muster.kernel.errors import Denied
from muster.kernel.names import shown


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


@dataclass
class Gate:
    """Decides each call; refusals are :class:`Denied` with the Ruby proxy's text.

    Attributes:
        trusted_hosts: lower-case names; None skips the check, an empty set refuses everybody.
    """

    trusted_hosts: frozenset[str] | None
    forward_verify: bool = True
    names: Names = field(default_factory=SystemNames)

    async def admit(self, access: Access, request: Request) -> None:
        """Return when the caller may call.

        Raises:
            Denied: with the reason.
        """
        if access is Access.TRUSTED:
            if self.trusted_hosts is not None:
                await self._check_trusted(request, self.trusted_hosts)
            if request.over_tls and request.peer.certificate is None:
                raise Denied("No client SSL certificate supplied")
        elif access is Access.CLUSTER:
            self._check_cluster(request)

    async def _check_trusted(self, request: Request, trusted: frozenset[str]) -> None:
        name = _certified_name(request) if request.over_tls else await self._resolved_name(request.peer.address)
        if name.lower() not in trusted:
            raise Denied(
                f"Untrusted client {name.lower()} attempted to access {shown(request.path)}. "
                "Check :trusted_hosts: in settings.yml"
            )

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
        elif not ipaddress.ip_address(request.peer.address.partition("%")[0]).is_loopback:
            raise Denied("Only clients on this host may ask this without TLS")


def _certified_name(request: Request) -> str:
    if request.peer.certificate is None:
        raise Denied("could not read client cert from environment")
    name = request.peer.name
    if not name:
        raise Denied("could not read CN from the client certificate")
    return name


def _same_address(one: str, other: str) -> bool:
    try:
        return ipaddress.ip_address(one.partition("%")[0]) == ipaddress.ip_address(other)
    except ValueError:
        return False


def _words(error: OSError) -> str:
    return str(error.strerror or error)
