"""Members asked about all of their services with one question, more often than HAProxy can ask about each.

HAProxy asks for every service of every member on a connection of its own, which is dear: in large clusters it can only do
so slowly. The watch asks each member once, on a connection that it keeps, and tells HAProxy at once what its own checks
would find later. It only takes out: who comes back is let in by HAProxy's checks, and without the watch they still find
everything by themselves, later.

:func:`judged` is pure: what was thought and what was answered in, what to think and to tell out.
"""

from __future__ import annotations

import asyncio
import errno
import json
import math
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlsplit

from muster.balancer.haproxy.render import checked_at, source_of
from muster.balancer.haproxy.sockets import RuntimeSocket
from muster.balancer.model import READY, SLOWEST_ALONE_S, Balancing
from muster.balancer.words import ip
from muster.cluster.file import Balancer
from muster.foreman import questions
from muster.foreman.answers import Answer
from muster.foreman.questions import Questions
from muster.kernel.clock import Clock, SystemClock, system_chance
from muster.kernel.errors import Misconfigured, MusterError, Unavailable
from muster.kernel.log import Seldom, and_more, logger
from muster.kernel.names import in_url
from muster.kernel.tasks import ended
from muster.pki.context import Credentials

_log = logger("balancer")

# Hung just after an answer: 1.2 s to the next question, 1 s without an answer, 0.3 s, 1 s; found within 4 s.
_EVERY_S = 1.2
_DOUBTING_S = 0.3
_TIMEOUT_S = 1.0
_FALL = 2
# Longer than a question can take only when this process itself was held up.
_STALL_S = 0.5
# For a day of flapping: some hundred lines for each member.
_LINES, _LINES_WITHIN_S = 3, 600.0
# What this host lacks, and no member has to do with.
_OURS = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM)
)
# A balancer's own question in the PROXY protocol: version 2, LOCAL, no addresses. Source: its specification, section 2.2.
LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"

State = Literal["ready", "draining", "unready"]
Order = Literal["down", "stopping"]


@dataclass(frozen=True, slots=True)
class Watched:
    """A member that can be asked about several services at once.

    Attributes:
        address: the cluster's name, which its certificate carries.
        source: the address it is asked from, when that matters.
        services: those it answers for, and the backend in which HAProxy checks each.
        site: as in :class:`~muster.balancer.model.Question`.
    """

    name: str
    address: str
    url: str
    path: str
    proxied: bool
    site: bool
    source: str | None
    services: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Thought:
    """What is thought of one service of a member.

    Attributes:
        failures: in a row; an answer that it is ready, or draining, ends them.
        drains: whether HAProxy was told that it drains.
    """

    failures: int = 0
    drains: bool = False


def is_needed(balancing: Balancing) -> bool:
    """Whether HAProxy alone would find a member that hangs too late."""
    return any(s.check.watched_s > SLOWEST_ALONE_S for s in balancing.services)


def watched(balancing: Balancing, which: Balancer) -> tuple[Watched, ...]:
    """Return whom a balancer can ask: members of ours for all services, Ruby members for their Smart Proxy alone."""
    found: dict[tuple[str, str], Watched] = {}
    for service in balancing.services:
        places = checked_at(service)
        for server in service.servers:
            asked = server.question
            if asked.kind == "connect":
                continue
            url = f"https://{in_url(server.address)}:{asked.port}"
            path = f"{READY}?services=all" if asked.kind == "ready" else asked.uri
            one = found.setdefault(
                (server.name, path),
                Watched(server.name, balancing.address, url, path, True, asked.site, source_of(which), ()),
            )
            # One question without the header means that it may be left out.
            proxied = one.proxied and asked.proxied
            services = (*one.services, (service.name, places[server.name]))
            found[server.name, path] = replace(one, proxied=proxied, services=services)
    return tuple(found.values())


def said(answer: Answer, member: Watched) -> dict[str, State]:
    """Return what a member's answer means for each of its services."""
    whole: State = {200: "ready", 404: "draining"}.get(answer.status, "unready")  # type: ignore[assignment]
    if not member.path.startswith(READY):
        # A Ruby member that does not know the path does not drain.
        return {name: "ready" if answer.status == 200 else "unready" for name, _ in member.services}
    each = _told(answer.text)
    # An older member speaks of itself only; whatever it says of itself holds for every service.
    return {name: each.get(name, whole) if whole == "ready" else whole for name, _ in member.services}


def judged(
    before: Mapping[str, Thought], states: Mapping[str, State] | None
) -> tuple[dict[str, Thought], dict[str, Order]]:
    """Return what to think of each service now, and what HAProxy must be told.

    Args:
        before: what was thought, by service; all that the member answers for.
        states: what it said; None: it did not answer.
    """
    after, told = {}, {}
    for name, was in before.items():
        state = states.get(name, "unready") if states is not None else "unready"
        if state == "ready":
            after[name] = Thought()
        elif state == "draining":
            after[name] = Thought(drains=True)
            if not was.drains:
                told[name] = "stopping"
        else:
            after[name] = Thought(was.failures + 1)
            # Once: when HAProxy lets it in against this opinion, its own checks have passed.
            if after[name].failures == _FALL:
                told[name] = "down"
    return after, told  # type: ignore[return-value]


class Watch:
    """Asks members and tells HAProxy. Concurrency: :meth:`follow` and :meth:`close` by one task.

    ``is_changing`` says whether one worker is about to follow another, so that what is said to either may be lost.
    """

    def __init__(
        self, runtime: RuntimeSocket, is_changing: Callable[[], bool] = lambda: False, *, clock: Clock | None = None
    ) -> None:
        self._runtime = runtime
        self._is_changing = is_changing
        self._seldom = Seldom(_LINES, _LINES_WITHIN_S)
        self._clock = clock or SystemClock()
        self._turn = asyncio.Lock()
        self._tasks: dict[Watched, asyncio.Task[None]] = {}
        self._files: object = None
        # When the latest of the questions that got an answer was asked.
        self._answered_at = -math.inf

    async def follow(self, members: tuple[Watched, ...], credentials: Credentials, files: object) -> None:
        """Watch these members from now on; ``files`` differs when what ``credentials`` names has changed.

        Raises:
            Misconfigured: a file cannot be used; then who was watched still is.
        """
        if files == self._files and self._tasks.keys() == set(members):
            return
        ours = credentials.ours()
        rubys = credentials.rubys() if any(m.site for m in members) else ours
        await self.close()
        self._files = files
        for member in members:
            work = self._of(member, rubys if member.site else ours)
            self._tasks[member] = asyncio.create_task(work, name=f"watch of {member.name}")

    async def close(self) -> None:
        tasks, self._tasks = list(self._tasks.values()), {}
        await ended(tasks)

    async def _of(self, member: Watched, context: ssl.SSLContext) -> None:
        thoughts = {name: Thought() for name, _ in member.services}
        asking = questions.opened(
            member.url, context=context, server_name=member.address, timeout_s=_TIMEOUT_S, connect_timeout_s=_TIMEOUT_S,
            preface=LOCAL if member.proxied else b"", source=member.source,
        )  # fmt: skip
        async with asking as proxy:
            # Not all at the same moment.
            await asyncio.sleep(system_chance().uniform(0, _EVERY_S))
            asked_at = -math.inf
            while True:
                doubts = any(0 < t.failures < _FALL for t in thoughts.values())
                await asyncio.sleep(_DOUBTING_S if doubts else _EVERY_S)
                # Whether anybody answered since this member was asked before.
                is_heard = self._answered_at >= asked_at
                asked_at = self._clock.monotonic()
                try:
                    heard = await _heard(proxy, member, self._clock)
                    if heard is None:
                        continue
                    states, why = heard
                    if states is not None:
                        self._answered_at = max(self._answered_at, asked_at)
                    after, told = judged(thoughts, states)
                    if states is None and told and not is_heard and len(self._tasks) > 1:
                        # Where all are silent this host is the likelier cause, and HAProxy's own checks say what is so.
                        continue
                    # What HAProxy could not be told is thought anew with the next answer.
                    if await self._is_told(member, told, why):
                        thoughts = after
                except Exception:  # noqa: BLE001 - boundary: one member's watch with a bug must not end for good
                    if (held := self._seldom.held_back(("broke", member.name))) is not None:
                        _log.exception(f"Watching a member broke{and_more(held)}", member=member.name)

    async def _is_told(self, member: Watched, told: Mapping[str, Order], why: str) -> bool:
        if not told:
            return True
        places = dict(member.services)
        try:
            async with self._turn:
                if self._is_changing():
                    return False
                await self._runtime.health({(places[s], member.name): order for s, order in told.items()})
        except Unavailable as e:
            _log.debug("HAProxy was not told about a member", member=member.name, why=str(e))
            return False
        if self._is_changing():
            # The worker that heard it may be the old one, and the new one may have begun without it.
            return False
        if (held := self._seldom.held_back(("told", member.name))) is not None:
            # That a member drains is what somebody wanted.
            say = _log.warning if "down" in told.values() else _log.info
            say(
                f"HAProxy is told before its checks find it{and_more(held)}",
                member=member.name,
                services=", ".join(sorted(told)),
                why=why,
            )
        return True


async def _heard(proxy: Questions, member: Watched, clock: Clock) -> tuple[Mapping[str, State] | None, str] | None:
    """Return what a member said and why it counts; None when nothing follows from it."""
    begun = clock.monotonic()
    try:
        answer = await proxy.ask(member.path)
    except Misconfigured as e:
        # Whom to believe is for HAProxy's checks to say; both would be wrong alike.
        _log.debug("A watched member was not believed", member=member.name, why=str(e))
        return None
    except MusterError as e:
        if clock.monotonic() - begun > _TIMEOUT_S + _STALL_S or _is_ours(e) or not await _is_resolved(member):
            return None
        return None, str(e)
    states = said(answer, member)
    return states, f"it says {', '.join(sorted(set(states.values())))}"


def _is_ours(error: MusterError) -> bool:
    cause = error.__cause__
    return isinstance(cause, socket.gaierror) or (isinstance(cause, OSError) and cause.errno in _OURS)


async def _is_resolved(member: Watched) -> bool:
    """Whether the member's address, where it is a name, is known now; HAProxy keeps the one it knew."""
    host = urlsplit(member.url).hostname
    if host is None or ip(host) is not None:
        return True
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return True


def _told(body: str) -> dict[str, State]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    services = content.get("services") if isinstance(content, dict) else None
    return dict(_states(services)) if isinstance(services, dict) else {}


def _states(services: Mapping[object, object]) -> Iterator[tuple[str, State]]:
    for name, one in services.items():
        state = one.get("state") if isinstance(one, dict) else None
        if state in ("ready", "draining", "unready"):
            yield str(name), state
