"""What becomes of members: a pure function from the view to commands, and one sentence about it.

Invariants, cited by number in the tests:
    1. No decision leaves a service with fewer ready members than ``min_ready``, unless the wish was forced; then the
       sentence says which. Ready is who says so itself and whose check fails at no live balancer. A member that is not
       ready for a service takes nothing from it; one of which nobody knows counts for nothing, and takes what it may
       serve.
    2. The only signer of Puppet certificates leaves only by a forced wish, and the sentence says what that stops.
    3. A member is admitted only when each live balancer's checks have spoken about all its services, it is ready for one
       at least, and it does not lag.
    4. Each command carries the version it was decided on, and a member takes one step per beat.
    5. When nobody is ready, nobody is held out: a new cluster, or one that lost everybody, admits who comes.
    6. A member is drained only when no live balancer has a connection to it, and no silent one had any when it was last
       heard. What nobody counts is waited for, unless the wish was forced.
    7. What the cluster file no longer lists, and neither reports nor stands in any balancer, is removed; it comes back
       through joining.
    8. Whoever decides, however often and from wherever it was interrupted, comes to the same end: every command follows
       from the view alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from muster.cluster.life import State, spoken
from muster.cluster.view import MemberView, View

# So long a drain takes to reach everybody: a beat to write it, one to read it, one to tell HAProxy. Balancers that are
# silent (roster.SILENT_AFTER_S) by then are not waited for, as far as they had no connection left.
_SETTLED_S = 3.0
_UNLISTED = "the cluster file of the steward does not list it"
_UNHEARD = "it was not told yet"


@dataclass(frozen=True)
class Become:
    """Let a member take one step.

    Attributes:
        version: of the life it was decided on; 0: there was none.
    """

    member: str
    state: State
    reason: str
    version: int


@dataclass(frozen=True)
class Decision:
    """What to do now.

    Attributes:
        held: why a wish is not carried out, by member.
        waiting: what a member that takes no step waits for, by member.
        sentence: what goes on, for the log and ``muster status``.
    """

    commands: tuple[Become, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    sentence: str = ""


def decided(view: View) -> Decision:
    """Return the next step of every member that is due one."""
    commands: list[Become] = []
    held: dict[str, str] = {}
    waiting: dict[str, str] = {}
    lacking: dict[str, str] = {}
    # Those who leave in this very beat count as gone for those who are decided after them (invariant 1).
    serving = {m.name: m for m in view.members if _stands(m)}
    founding = not any(m.ready or _is_believed(m, view) for m in serving.values())
    for member in view.members:
        step = _step(member, view, serving, founding, held, waiting)
        if step is None:
            continue
        commands.append(step)
        if step.state == "draining":
            if member.wish.forced and (few := _few(member, view, serving)):
                lacking[member.name] = few
            serving.pop(member.name, None)
        elif step.state == "ready":
            serving[member.name] = member
    return Decision(tuple(commands), held, waiting, _sentence(view, commands, held, waiting, lacking))


def _stands(member: MemberView) -> bool:
    return member.listed and member.life is not None and member.life.state == "ready"


def _is_believed(member: MemberView, view: View) -> bool:
    """Whether it may serve for all that is known; that a balancer sends it clients unchecked does not speak for it."""
    unchecked = {service for services in view.unchecked.values() for service in services}
    return bool(member.doubts.keys() - unchecked)


def _step(
    member: MemberView,
    view: View,
    serving: Mapping[str, MemberView],
    founding: bool,
    held: dict[str, str],
    waiting: dict[str, str],
) -> Become | None:
    state = member.life.state if member.life else None
    wanted = member.wish.target
    if not member.listed:
        return _unlisted(member, waiting)
    match state:
        case None:
            if founding and wanted == "ready" and not member.lags:
                return _become(member, "ready", "nobody else was ready")
            return _become(member, "joining", "it is new in the cluster file")
        case "joining":
            if wanted != "ready":
                # Also one that never came up, and never will.
                return _become(member, "draining", member.wish.as_reason())
            if member.kind == "muster" and not (member.reports and member.state != "starting"):
                waiting[member.name] = "it does not report yet"
                return None
            return _become(member, "warming", "it came up")
        case "warming":
            if wanted != "ready":
                return _become(member, "draining", member.wish.as_reason())
            return _admitted(member, view, founding, waiting)
        case "ready":
            if wanted == "ready":
                return None
            why, unknown = _kept(member, view, serving)
            if why or unknown:
                (held if why else waiting)[member.name] = why or unknown
                return None
            return _become(member, "draining", member.wish.as_reason())
        case "draining":
            if wanted == "ready":
                return _become(member, "warming", "it is wanted back")
            return _emptied(member, view, waiting)
        case "drained":
            if wanted == "ready":
                return _become(member, "warming", "it is wanted back")
            if wanted in ("maintenance", "removed"):
                return _become(member, wanted, member.wish.as_reason())
            return None
        case "maintenance":
            if wanted == "ready":
                return _become(member, "warming", "it is wanted back")
            if wanted == "removed":
                return _become(member, "removed", member.wish.as_reason())
            return _become(member, "drained", member.wish.as_reason()) if wanted == "drain" else None
        case "removed":
            return _become(member, "joining", "it is in the cluster file again") if wanted != "removed" else None
    return None


def _unlisted(member: MemberView, waiting: dict[str, str]) -> Become | None:
    if member.life is None:
        waiting[member.name] = _UNLISTED
        return None
    if member.life.state == "removed":
        return None
    if member.reports or any(member.opinions.values()):
        # Hosts get a new cluster file one after another: this steward's may be the older one.
        waiting[member.name] = f"it serves, and {_UNLISTED}"
        return None
    return _become(member, "removed", "the cluster file no longer lists it")


def _admitted(member: MemberView, view: View, founding: bool, waiting: dict[str, str]) -> Become | None:
    if member.lags:
        waiting[member.name] = member.lags
        return None
    if founding:
        return _become(member, "ready", "nobody else was ready")
    if member.state == "draining":
        waiting[member.name] = "it was not told yet that it is wanted back"
        return None
    silent = sorted(
        f"{service} at {balancer}"
        for balancer, opinions in member.opinions.items()
        for service, opinion in opinions.items()
        if opinion == "unknown"
    )
    # A balancer that does not know the member yet has not read the cluster file that lists it.
    unaware = sorted(b for b in view.balancers if not member.opinions.get(b))
    if silent or unaware:
        waiting[member.name] = f"no check has ended yet: {', '.join(silent or unaware)}"
        return None
    failing = any("down" in opinions.values() for opinions in member.opinions.values())
    if not member.ready or (failing and not any("up" in o.values() for o in member.opinions.values())):
        why = "; ".join(f"{s}: {r}" for s, r in member.unready.items() if r) or "no check of it succeeds"
        waiting[member.name] = f"it is ready for nothing ({why})"
        return None
    return _become(member, "ready", "its checks have passed" if member.opinions else "it is ready")


def _kept(member: MemberView, view: View, serving: Mapping[str, MemberView]) -> tuple[str, str]:
    """Return why a member may not leave, and what has to be known before it may; one of them, or neither."""
    if member.wish.forced:
        return "", ""
    if member.is_signer:
        return "it is the only signer, so no Puppet certificate could be signed without it", ""
    if few := _few(member, view, serving):
        return f"without it too few members would be ready ({few}; {view.min_ready} must be)", ""
    others = [m for name, m in serving.items() if name != member.name]
    short = [s for s in sorted(member.takes) if sum(s in m.serves for m in others) < view.min_ready]
    reasons = dict.fromkeys(m.doubts[s] for s in short for m in (member, *others) if s in m.doubts)
    return "", f"nobody knows who would serve without it ({'; '.join(reasons)})" if reasons else ""


def _few(member: MemberView, view: View, serving: Mapping[str, MemberView]) -> str:
    """Return the services that too few would serve without the member, and how many would; empty when none are known."""
    others = [m for name, m in serving.items() if name != member.name]
    counts = {s: sum(s in m.serves for m in others) for s in sorted(member.takes)}
    few = {s: n for s, n in counts.items() if n + sum(s in m.doubts for m in others) < view.min_ready}
    return ", ".join(f"{service} {count}" for service, count in few.items())


def _emptied(member: MemberView, view: View, waiting: dict[str, str]) -> Become | None:
    silent = not member.reports
    age_s = member.life.age_s if member.life else 0.0
    if member.kind == "muster" and not silent and member.state not in ("draining", "stopping"):
        waiting[member.name] = _UNHEARD
    elif member.sessions:
        waiting[member.name] = f"{member.sessions} connections left"
    elif member.uncounted and not (member.wish.forced and age_s >= _SETTLED_S):
        listed = "; ".join(member.uncounted.values())
        waiting[member.name] = f"{listed}; only a forced wish does not wait for that"
    elif member.sessions is None and age_s < _SETTLED_S:
        waiting[member.name] = "no balancer reports, so its clients get some time"
    elif view.blind and age_s < _SETTLED_S:
        waiting[member.name] = f"{', '.join(view.blind.values())}, so its clients get some time"
    elif member.kind == "foreman" and age_s < _SETTLED_S:
        # It says nothing itself, and what was counted may be from before a balancer heard of it.
        waiting[member.name] = "balancers get some time to hear of it"
    else:
        return _become(member, "drained", member.wish.as_reason())
    return None


def _become(member: MemberView, state: State, reason: str) -> Become:
    return Become(member.name, state, reason, member.version)


_SAID: Mapping[State, str] = {
    "joining": "Expecting {member}: {reason}",
    "warming": "Warming {member}: {reason}",
    "ready": "Admitting {member}: {reason}",
    "draining": "Draining {member}: {reason}",
    "drained": "{member} has no clients left",
    "maintenance": "{member} is in maintenance: {reason}",
    "removed": "Removing {member}: {reason}",
}


def _sentence(
    view: View,
    commands: list[Become],
    held: Mapping[str, str],
    waiting: Mapping[str, str],
    lacking: Mapping[str, str],
) -> str:
    listed = [m for m in view.members if m.listed]
    became = {c.member: c.state for c in commands}
    stand = [m for m in listed if became.get(m.name, m.life.state if m.life else None) == "ready"]
    absent = {m.name: why for m in stand if (why := absence(m))}
    return " ".join(
        [
            *_parts(view, commands, held, waiting, lacking),
            *(f"{name} {why}." for name, why in absent.items()),
            f"{len(stand) - len(absent)} of {len(listed)} members are ready.",
        ]
    )


def absence(member: MemberView) -> str:
    """Return what keeps a member that was admitted from serving anything; empty when nothing is known to."""
    if member.kind == "muster" and not member.reports:
        return "is silent"
    if member.kind == "muster" and member.state in ("draining", "stopping"):
        return f"says that it is {member.state}"
    if not member.takes and (member.kind == "muster" or any(member.opinions.values())):
        return "is ready for nothing" if member.kind == "muster" else "fails every check"
    return ""


def _parts(
    view: View,
    commands: list[Become],
    held: Mapping[str, str],
    waiting: Mapping[str, str],
    lacking: Mapping[str, str],
) -> Iterator[str]:
    by_name = {m.name: m for m in view.members}
    for command in commands:
        left = by_name[command.member].uncounted.values()
        if command.state == "drained" and left:
            yield f"{command.member} is drained by force, whoever it serves: {'; '.join(left)}."
            continue
        stops = command.state == "draining" and by_name[command.member].is_signer
        also = "; no Puppet certificate can be signed until it is back" if stops else ""
        if command.state == "draining" and (few := lacking.get(command.member)):
            also += f"; fewer than {view.min_ready} members are ready without it ({few})"
        yield f"{_SAID[command.state].format(member=command.member, reason=command.reason)}{also}."
    for name, why in held.items():
        yield f"Not draining {name}: {why}."
    for name, why in waiting.items():
        member = by_name[name]
        if _stands(member):
            yield f"Not draining {name} yet: {why}."
        elif member.life is not None:
            yield f"{name} is {spoken(member.life.state)}: {why}."
        elif member.reports:
            # Who is only wished for may be one that never came to be.
            yield f"{name} is not admitted: {why}."
    for balancer, services in view.unchecked.items():
        yield f"Every check of {', '.join(services)} fails at {balancer}: it serves unchecked."
    if view.absent:
        yield f"Of balancer {', '.join(sorted(view.absent))} nothing is known."
