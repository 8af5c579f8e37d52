"""What is to be done next so that all Pulps have the same new content: pure, a stage in, steps out.

Invariants, which tests name by their numbers:

1. Nobody is turned before every Pulp that is not gone on without has a publication of the same content.
2. A Pulp is gone on without when it was away for as long as is waited, or failed three times; never while it works.
3. Pulps that got something other than the one whose synchronisation ended last are sent to the origin again, so many
   times at most; then nothing is changed.
4. When all are gone on without, nothing is changed.
5. A Pulp that has its publication is waited for no more: whether it answers when all are turned is a matter of later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from muster.content.steered.stages import At, Stage

MOST_ROUNDS = 4
MOST_TRIES = 3

Step = Literal["ensure", "sync", "look", "read", "publish"]
"""What is asked of one Pulp: that what it needs is there; to fetch; how a task is; what a version has; to publish it."""

_NEXT: Mapping[str, Step] = {"new": "ensure", "ready": "sync", "syncing": "look", "publishing": "look"}
_HAS_CONTENT = frozenset({"synced", "publishing", "staged"})


@dataclass(frozen=True)
class Decision:
    """What is to be done.

    Attributes:
        stage: as it was, or with what was decided of it.
        steps: what is asked of which Pulp, each by itself and all at once.
        ends: ``flip``: all that are in have it; ``fail``: nothing will come of it, and ``why``.
    """

    stage: Stage
    steps: Mapping[str, Step] = field(default_factory=dict)
    ends: Literal["", "flip", "fail"] = ""
    why: str = ""


def decided(stage: Stage, wait_s: float) -> Decision:
    """Return what is next; ``wait_s`` is how long a Pulp may be away."""
    for name, at in stage.pulps.items():
        if at.phase not in ("left", "staged") and (at.tries >= MOST_TRIES or (at.away_s > 0 and at.away_s >= wait_s)):
            stage = stage.having(name, dataclasses.replace(at, phase="left"))
    there = {name: at for name, at in stage.pulps.items() if at.is_in}
    if not there:
        said = "; ".join(f"{name}: {at.why or 'it has nothing of it'}" for name, at in sorted(stage.pulps.items()))
        return Decision(stage, ends="fail", why=f"no Pulp has it, so nothing was changed: {said}")
    steps = {name: _NEXT[at.phase] for name, at in there.items() if at.phase in _NEXT}
    steps |= {name: "read" for name, at in there.items() if at.phase == "synced" and not at.digest}
    if not all(at.phase in _HAS_CONTENT and at.digest for at in there.values()):
        return Decision(stage, steps)
    newest = max(there.values(), key=lambda at: at.ended).digest
    if older := {name: at for name, at in there.items() if at.digest != newest}:
        return _again(stage, older, newest)
    steps |= {name: "publish" for name, at in there.items() if at.phase == "synced"}
    return Decision(stage, steps, "" if steps else "flip")


def _again(stage: Stage, older: Mapping[str, At], newest: str) -> Decision:
    if stage.rounds >= MOST_ROUNDS:
        had = ", ".join(f"{name} {at.digest[:12]}" for name, at in sorted(stage.pulps.items()) if at.digest)
        why = (
            f"the origin changes faster than Pulps fetch it: {had}, after {MOST_ROUNDS + 1} rounds; nothing was changed"
        )
        return Decision(stage, ends="fail", why=why)
    for name, at in older.items():
        why = f"it got something else than {newest[:12]}, and fetches again"
        stage = stage.having(name, At("ready", at.repository, ended=at.ended, tries=at.tries, why=why))
    stage = dataclasses.replace(stage, rounds=stage.rounds + 1)
    return Decision(stage, dict.fromkeys(older, "sync"))
