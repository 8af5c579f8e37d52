"""What HAProxy on this host is told about members, and what it is seen to think of them.

:func:`orders` is pure: HAProxy's view and the members' lives in, commands out. :class:`Steering` carries them out and
remembers, over restarts, which servers it holds out itself: what somebody else drained on HAProxy's own socket is left
alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from muster.balancer.haproxy.journal import Totals, summed
from muster.balancer.haproxy.sockets import MasterSocket, RuntimeSocket, ServerState
from muster.balancer.model import Balancing
from muster.cluster.life import OUT, Life
from muster.cluster.observations import Observation, Opinion
from muster.kernel.errors import MusterError, NotFound, Unavailable
from muster.kernel.files import write_atomically
from muster.kernel.log import logger

_log = logger("balancer")

Verb = Literal["drain", "ready", "maint"]
Held = Literal["gate", "drain", "maint"]
Place = tuple[str, str]
"""Backend and server."""

_PANIC = "_panic"
_HELD = "held.json"
_REFUSAL = "refused.json"
_HALF_UP = re.compile(r"(?:UP|DRAIN) [0-9]+/[0-9]+")


@dataclass(frozen=True, slots=True)
class Order:
    """One command for HAProxy. ``ready`` undoes drain and maintenance; checks decide again."""

    verb: Verb
    backend: str
    server: str

    @property
    def place(self) -> Place:
        return self.backend, self.server


def orders(
    states: Sequence[ServerState], lives: Mapping[str, Life] | None, held: Mapping[Place, Held]
) -> Sequence[Order]:
    """Return what has to be said so that HAProxy does what was decided about members.

    Args:
        states: servers of services and of their panic twins.
        lives: by lower-case name; None while the store does not answer: then nothing that holds is changed, except that
            a server added lately is let in once a check of it has ended.
        held: what we hold out ourselves.
    """
    out = []
    spoken = {(s.backend, s.server): opinion(s) for s in states}
    for state in states:
        place = (state.backend, state.server)
        mine = held.get(place)
        life = lives.get(state.server) if lives is not None else None
        if life is None:
            # Nobody decides about it: its first check does.
            judged = spoken.get((state.backend.removesuffix(_PANIC), state.server), "unknown")
            if mine == "gate" and judged != "unknown":
                out.append(Order("ready", *place))
        elif life.state == "maintenance":
            if mine != "maint" or not state.status.startswith("MAINT"):
                out.append(Order("maint", *place))
        elif life.state in OUT:
            if mine in (None, "maint") or state.takes_traffic:
                out.append(Order("drain", *place))
        elif mine is not None:
            out.append(Order("ready", *place))
    return out


def opinion(state: ServerState) -> Opinion:
    """Return what HAProxy's checks say about a server, whatever its administrative state."""
    if state.status.startswith("DOWN"):
        return "down"
    if state.check.startswith(("L4OK", "L6OK", "L7OK")):
        # After maintenance HAProxy shows the check from before it, and the server as half up until one has ended.
        return "unknown" if _HALF_UP.match(state.status) else "up"
    if state.status.startswith(("UP", "NOLB")) and "via" in state.status:
        return "up"
    return "unknown" if state.check in ("", "INI", "SOCKERR") else "down"


def observation(
    name: str,
    balancing: Balancing,
    states: Sequence[ServerState],
    sessions: Mapping[str, int],
    *,
    engine: str,
    generation: str,
    trouble: str,
    totals: Mapping[str, Mapping[str, int]],
) -> Observation:
    """Return what this balancer tells the store."""
    opinions: dict[str, dict[str, Opinion]] = {}
    by_place = {(s.backend, s.server): s for s in states}
    for service in balancing.services:
        for server in service.servers:
            asked = [service.name, *(f"{service.name}_{kind}_probe" for kind in ("ready", "alive", "connect"))]
            found = [by_place[p, server.name] for p in asked if (p, server.name) in by_place]
            said = [o for s in reversed(found) if (o := opinion(s)) != "unknown"]
            if found:
                opinions.setdefault(server.name, {})[service.name] = said[0] if said else "unknown"
    return Observation(name, engine, generation, opinions, dict(sessions), trouble, totals)


def note_refusal(run: Path, balancer: str, why: str) -> None:
    """Leave beside HAProxy's files why what the balancer shall do is not in force; nothing, when ``why`` is empty.

    Raises:
        Unavailable: the disk refused.
    """
    if why:
        write_atomically(run / _REFUSAL, json.dumps({"balancer": balancer, "why": why}), mode=0o600)
    else:
        (run / _REFUSAL).unlink(missing_ok=True)


def noted_refusal(run: Path) -> tuple[str, str] | None:
    """Return what :func:`note_refusal` left: the balancer, and why; None: nothing that can be read."""
    try:
        found = json.loads((run / _REFUSAL).read_bytes())
        return str(found["balancer"]), str(found["why"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


async def _is_remembered() -> bool:
    return True


class Steering:
    """One balancer's hand on HAProxy. Concurrency: one beat at a time.

    Args:
        run: private directory of HAProxy's files.
        remember: has what servers were told outlive a HAProxy that is killed, and returns whether it does.
    """

    def __init__(self, run: Path, remember: Callable[[], Awaitable[bool]] = _is_remembered) -> None:
        self._file = run / _HELD
        self._outlives = remember
        self._held: dict[Place, Held] = _remembered(self._file)
        self._runtime = RuntimeSocket(run / "runtime.sock")
        self._master = MasterSocket(run / "master.sock")

    def gate(self, places: Iterable[Place]) -> None:
        """Remember servers that were added drained."""
        self._held.update(dict.fromkeys(places, "gate"))
        self._remember()

    async def beat(
        self,
        name: str,
        balancing: Balancing,
        lives: Mapping[str, Life] | None,
        *,
        engine: str,
        generation: str,
        trouble: str,
        totals: Mapping[str, Totals],
    ) -> Observation:
        """Tell HAProxy what was decided and return what it thinks.

        Raises:
            Unavailable: HAProxy did not answer.
        """
        states = await self._runtime.servers()
        services = {s.name for s in balancing.services}
        steered = [s for s in states if s.backend.removesuffix(_PANIC) in services]
        folded = {n.lower(): life for n, life in lives.items()} if lives is not None else None
        if found := orders(steered, folded, self._held):
            for order in found:
                await self._carry_out(order, folded)
            await self._release([o.place for o in found if o.verb == "ready"])
        self._forget({(s.backend, s.server) for s in steered})
        seen = observation(
            name,
            balancing,
            states,
            await self._sessions(services),
            engine=engine,
            generation=generation,
            trouble=trouble,
            totals=summed(totals),
        )
        # After the orders: who was let in this very moment is held no more.
        return replace(seen, held=sorted({server for _, server in self._held}))

    async def _carry_out(self, order: Order, lives: Mapping[str, Life] | None) -> None:
        try:
            match order.verb:
                case "drain":
                    # Ends maintenance, too. With ready in between the server would get clients for a moment.
                    await self._runtime.drain(*order.place)
                    self._held[order.place] = "drain"
                case "maint":
                    await self._runtime.maint(*order.place)
                    self._held[order.place] = "maint"
                case "ready":
                    await self._runtime.ready(*order.place)
        except NotFound as e:
            _log.debug("HAProxy has changed meanwhile", why=str(e))
            return
        except Unavailable:
            self._remember()
            raise
        self._remember()
        life = (lives or {}).get(order.server)
        _log.info(
            "HAProxy is told",
            verb=order.verb,
            backend=order.backend,
            server=order.server,
            why=life.reason if life else "",
        )

    async def _release(self, places: Iterable[Place]) -> None:
        """Hold these servers out no more, once it is sure that no HAProxy begins with them held out.

        One that is killed begins with what was remembered last. Were that still the drain, and we had let go of it, it
        would be taken for somebody else's and stand for ever.
        """
        if not await self._outlives():
            return
        for place in places:
            self._held.pop(place, None)
        self._remember()

    async def _sessions(self, services: set[str]) -> dict[str, int]:
        """Return connections by member over all workers, old ones included."""
        count: dict[str, int] = {}
        for state in await self._master.servers_of_all_workers():
            if state.backend.removesuffix(_PANIC) in services:
                count[state.server] = count.get(state.server, 0) + state.sessions
        return count

    def _forget(self, present: set[Place]) -> None:
        gone = self._held.keys() - present
        if gone:
            for place in gone:
                del self._held[place]
            self._remember()

    def _remember(self) -> None:
        rows = [[*place, kind] for place, kind in sorted(self._held.items())]
        try:
            write_atomically(self._file, json.dumps(rows), mode=0o600)
        except MusterError as e:
            _log.warning("What is held out was not saved; a restart leaves it to muster ready", why=str(e))


def held_out(run: Path) -> frozenset[Place]:
    """Return the servers that the balancer with this run directory holds out itself; none when that cannot be read."""
    return frozenset(_remembered(run / _HELD))


def _remembered(path: Path) -> dict[Place, Held]:
    try:
        rows = json.loads(path.read_text())
        return {(str(b), str(s)): kind for b, s, kind in rows if kind in ("gate", "drain", "maint")}
    except (OSError, ValueError, TypeError):
        return {}
