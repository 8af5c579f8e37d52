"""The lives of members: which step between joining and removed each one stands on, kept in the store.

::

    joining → warming → ready → draining → drained → maintenance
                 ↑                  ↓          ↓          ↓
                 └───────────── somebody wants it back ───┘        drained → removed → joining

A life changes by compare-and-set on its version only, and only the steward's hand writes it (``steward.py``); what it
changes to is decided in ``decide.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from muster.kernel.errors import Conflict
from muster.store.reading import Query, Readable, Reading

if TYPE_CHECKING:
    from muster.store.engine import Unit

State = Literal["joining", "warming", "ready", "draining", "drained", "maintenance", "removed"]

STATES: tuple[State, ...] = get_args(State)

# The member itself asks its clients to leave.
LEAVING: frozenset[State] = frozenset({"draining", "drained", "maintenance", "removed"})
# Balancers send it nothing new.
OUT: frozenset[State] = LEAVING | {"joining", "warming"}


_LIVES = Query("SELECT member, state, reason, version, since FROM lives")
_LIFE = Query("SELECT state, reason, version FROM lives WHERE member = :member")

# How a wish's reason begins (``roster.Wish.as_reason``).
_WISHED = ("drained ", "put into maintenance ", "removed ")


@dataclass(frozen=True)
class Life:
    """Where a member stands.

    Attributes:
        reason: why it came here; one clause.
        version: grows by one with every change.
        age_s: how long it has stood here, in store time.
    """

    state: State
    reason: str = ""
    version: int = 1
    age_s: float = 0.0

    @property
    def is_leaving(self) -> bool:
        return self.state in LEAVING

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "age_s": round(self.age_s, 3)}


def spoken(state: State, reason: str = "") -> str:
    """Return where a member stands and why, as a clause that follows *is*."""
    word = "in maintenance" if state == "maintenance" else state
    if state == "ready" or not reason:
        return word
    # Who wanted it: the verb of the wish only repeats where it stands.
    verb = next((v for v in _WISHED if reason.startswith(v)), "")
    return f"{word}, {reason.removeprefix(verb)}" if verb else f"{word}: {reason}"


def in_maintenance(lives: Mapping[str, Life]) -> frozenset[str]:
    """Return the members nobody asks after, lower case."""
    return frozenset(name.lower() for name, life in lives.items() if life.state == "maintenance")


async def lives_in(uow: Reading) -> dict[str, Life]:
    """Return every member's life."""
    now = await uow.now()
    rows = await uow.rows(_LIVES)
    return {r["member"]: Life(r["state"], r["reason"], r["version"], max(0.0, now - r["since"])) for r in rows}


async def life_of(uow: Reading, member: str) -> Life | None:
    """Return one member's life, None when nobody has decided anything about it yet."""
    found = await uow.rows(_LIFE, member=member)
    return Life(**found[0]) if found else None


async def changed(uow: Unit, member: str, state: State, *, reason: str, expected: int) -> None:
    """Write a member's next state over the version it was decided on; 0 means that it had none.

    Raises:
        Conflict: its life changed meanwhile; nothing was changed.
    """
    from sqlalchemy import insert, update

    from muster.store.tables import lives, store_now

    values = {"state": state, "reason": reason, "since": store_now(), "version": expected + 1}
    if expected == 0:
        if await life_of(uow, member) is not None:
            raise Conflict(f"Somebody began the life of {member} meanwhile")
        await uow.connection.execute(insert(lives).values(member=member, **values))
        return
    this = (lives.c.member == member) & (lives.c.version == expected)
    if (await uow.connection.execute(update(lives).where(this).values(**values))).rowcount != 1:
        raise Conflict(f"The life of {member} changed meanwhile; it is not version {expected} any more")


class Lives:
    """The lives in a store, to read."""

    def __init__(self, store: Readable) -> None:
        self._store = store

    async def all(self) -> dict[str, Life]:
        """Return every member's life, by name.

        Raises:
            Unavailable: the store did not answer.
        """
        async with self._store.read() as uow:
            return await lives_in(uow)
