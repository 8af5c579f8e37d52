"""Rolling a command over the members, one after another: the plan, and where it stands. Pure.

Invariants:
    1. At most one member is out at a time: the next one starts only when the one before is done.
    2. A member that failed stays out, and the roll stops there.
    3. A resumed roll begins with the member that was out; what is done is never done again.
    4. A roll that could not take every member out in its turn without leaving a service short takes none.
    5. Who is out because somebody else wants it is left alone, before, between and after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from muster.cluster.roster import Wish
from muster.kernel.errors import Rejected
from muster.kernel.names import shown

_PLACEHOLDERS = ("{member}", "{address}")


@dataclass(frozen=True)
class Roll:
    """A command on its way over the members.

    Attributes:
        members: names, in order.
        done: those it is finished on.
        passed: those it left alone, because somebody wanted them out.
        out: the member that is out now, or that failed.
        failure: why the roll stopped; empty while it goes on.
    """

    command: tuple[str, ...]
    members: tuple[str, ...]
    done: tuple[str, ...] = ()
    out: str = ""
    failure: str = ""
    passed: tuple[str, ...] = ()

    @property
    def remaining(self) -> tuple[str, ...]:
        """The members still to come, the one that is out first."""
        left = tuple(m for m in self.members if m not in self.done and m not in self.passed)
        return (self.out, *(m for m in left if m != self.out)) if self.out in left else left

    @property
    def is_finished(self) -> bool:
        return not self.remaining

    def begun(self, member: str) -> Roll:
        """Return the roll with a member out.

        Raises:
            Rejected: another member is out, or this one is not due.
        """
        if self.out and self.out != member:
            raise Rejected(f"{self.out} is out; {member} must wait")
        if member not in self.remaining:
            raise Rejected(f"{member} is not due in this roll")
        return replace(self, out=member, failure="")

    def finished(self, member: str) -> Roll:
        return replace(self, done=(*self.done, member), out="", failure="")

    def left_alone(self, *members: str) -> Roll:
        """Return the roll without these; they are not come back to."""
        out = "" if self.out in members else self.out
        return replace(self, passed=(*self.passed, *members), out=out, failure=self.failure if out else "")

    def failed(self, member: str, why: str) -> Roll:
        return replace(self, out=member, failure=why)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        lists = {k: tuple(content.get(k, ())) for k in ("command", "members", "done", "passed")}
        return cls(**lists, out=content.get("out", ""), failure=content.get("failure", ""))


REASON = "muster roll"


def wanted_out(going: Roll, wishes: Mapping[str, Wish]) -> dict[str, str]:
    """Return by member, of those still to come, why it shall be out; what the roll itself wished does not count."""
    out = {}
    for member in going.remaining:
        wish = wishes.get(member, Wish())
        own = member == going.out and wish.target == "drain" and wish.reason == REASON
        if wish.target != "ready" and not own:
            out[member] = wish.as_reason()
    return out


def shortages(
    going: Roll, ready: Mapping[str, frozenset[str]], serves: Mapping[str, frozenset[str]], min_ready: int
) -> dict[str, list[str]]:
    """Return by member the services that would have fewer than ``min_ready`` ready members while it is out.

    Who was out before is back by then, ready for all it serves: the roll goes on no earlier. A member that is not ready for
    a service takes nothing from it. Both mappings are services by member in lower case, and ``serves`` has every member.
    """
    now = {name: ready.get(name, frozenset()) for name in serves}
    short = {}
    for member in going.remaining:
        name = member.lower()
        mine = now.pop(name)
        few = [s for s in sorted(mine) if sum(s in services for services in now.values()) < min_ready]
        if few:
            short[member] = few
        now[name] = serves[name]
    return short


def left(state: str, target: str) -> str:
    """Return how a roll that stops leaves a member which stands on this step of its life and is wished to that one."""
    if (state, target) == ("drained", "drain"):
        return "It stays drained"
    if (state, target) == ("ready", "ready"):
        return "It is not drained"
    return f"It is {state}, and wished to be {'drained' if target == 'drain' else target}"


def arguments(command: Sequence[str], *, member: str, address: str) -> list[str]:
    """Return the command for one member: ``{member}`` and ``{address}`` replaced, argument by argument, no shell.

    Raises:
        Rejected: another placeholder in braces, which would reach the command as it stands.
    """
    out = []
    for word in command:
        text = word.replace("{member}", member).replace("{address}", address)
        if text.startswith("{") and text.endswith("}"):
            raise Rejected(f"{shown(word)} is no placeholder; there are {' and '.join(_PLACEHOLDERS)}")
        out.append(text)
    return out
