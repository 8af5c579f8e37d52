"""``python -m tests.faults``: inflict the fault matrix in random order for some rounds, and print the table."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults import faults
from tests.faults.fault import Fault, Outcome, missing
from tests.servers import local as clusters
from tests.servers.local import Local, until

# Of rows 3 and 22.
_REMOVALS = 4
_ATTACKS = 3

_HEAD = ("row", "fault", "held", "failed", "served", "p99 ms", "gap s", "recovery s", "measured")


class Cluster:
    """The cluster of all rounds; one that does not recover is replaced."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._local: Local | None = None

    async def steady(self) -> Local:
        if self._local is None:
            self._local = await asyncio.to_thread(self._stack.enter_context, clusters.running())
            await until(self._local.is_steady, "every member is ready and up")
        return self._local

    def replace(self) -> None:
        self._local = None
        self._stack.close()


async def rounds(rows: Sequence[Fault], count: int, seed: int) -> list[tuple[Fault, Outcome]]:
    """Return the outcome of every row of every round; each has random numbers of its own, so that a row repeats alone."""
    found: list[tuple[Fault, Outcome]] = []
    with contextlib.ExitStack() as stack:
        cluster = Cluster(stack)
        for number in range(1, count + 1):
            order = random.Random(f"{seed} {number}")
            for fault in order.sample(rows, len(rows)):
                begun = time.monotonic()
                outcome = await inflicted(fault, cluster, random.Random(f"{seed} {number} {fault.row}"))
                found.append((fault, outcome))
                say(f"round {number} {fault.id} {time.monotonic() - begun:.0f} s: {outcome.as_row()}")
                for sentence in outcome.broken:
                    say(f"  BROKEN {sentence}")
                for sentence in outcome.late:
                    say(f"  LATE {sentence}")
    return found


async def inflicted(fault: Fault, cluster: Cluster, chance: random.Random) -> Outcome:
    local = await cluster.steady()
    try:
        outcome = await fault.inflicted(local, chance)
    except Exception as e:  # boundary: one row's end must not end the others
        outcome = Outcome(broken=[f"{type(e).__name__}: {e}"])
    try:
        await until(local.is_steady, "every member is ready and up again")
    except AssertionError as e:
        outcome.broken.append(str(e))
        cluster.replace()
    return outcome


def table(faults: Sequence[Fault], found: Sequence[tuple[Fault, Outcome]]) -> list[str]:
    """Return one line a row: sums, and the worst of all rounds."""
    rows = [_HEAD]
    for fault in faults:
        mine = [o for f, o in found if f is fault]
        called = [o for o in mine if o.operations]
        held = sum(not (o.broken or o.late) for o in mine)
        rows.append(
            (
                str(fault.row),
                fault.name,
                f"{held}/{len(mine)}",
                str(sum(o.summary.failed for o in called)) if called else "–",
                f"{sum(o.summary.served for o in called)}/{sum(o.summary.expected for o in called)}" if called else "–",
                f"{max(o.summary.p99_ms for o in called):.0f}" if called else "–",
                f"{max(o.summary.longest_gap_s for o in called):.2f}" if called else "–",
                f"{max(o.recovery_s for o in called):.2f}" if called else "–",
                ", ".join(f"{name} {value}" for name, value in worst(mine).items()),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD) - 1)]
    return ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]


def worst(outcomes: Sequence[Outcome]) -> dict[str, float | int | str]:
    """Return the largest of each figure; of words, the last."""
    found: dict[str, float | int | str] = {}
    for outcome in outcomes:
        for name, value in outcome.measured.items():
            before = found.get(name)
            numbers = isinstance(before, int | float) and isinstance(value, int | float)
            found[name] = max(before, value) if numbers else value  # type: ignore[type-var, assignment]
    return found


def as_json(seed: int, found: Sequence[tuple[Fault, Outcome]]) -> dict[str, Any]:
    def finite(value: float) -> float | None:
        return round(value, 3) if math.isfinite(value) else None

    return {
        "seed": seed,
        "outcomes": [
            {
                "row": fault.row,
                "name": fault.name,
                "promise": fault.promise,
                "broken": outcome.broken,
                "late": outcome.late,
                "failed": outcome.summary.failed,
                "served": outcome.summary.served,
                "expected": outcome.summary.expected,
                "p99_ms": finite(outcome.summary.p99_ms),
                "longest_gap_s": finite(outcome.summary.longest_gap_s),
                "recovery_s": finite(outcome.recovery_s),
                "measured": outcome.measured,
            }
            for fault, outcome in found
        ],
    }


def able(rows: Sequence[Fault]) -> list[Fault]:
    """Return the rows this machine can run; the others are named with the reason, or, in CI, end everything."""
    found = []
    for fault in rows:
        reasons = [why for need in ("haproxy", *fault.needs) if (why := missing(need))]
        if not reasons:
            found.append(fault)
            continue
        say(f"{fault.id} is left out: {'; '.join(reasons)}")
        if os.environ.get("MUSTER_NO_SKIPS"):
            raise SystemExit(2)
    return found


def say(sentence: str) -> None:
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="[%(default)s]")
    parser.add_argument("--seed", type=int, help="repeats a run; absent: a new one, which is printed")
    parser.add_argument("--row", type=int, nargs="+", choices=[f.row for f in faults()], help="only these")
    parser.add_argument("--group", choices=sorted({f.group for f in faults()}), help="only the rows of this group")
    parser.add_argument(
        "--store-away",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long row 16 stops the store [%(default)g]",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every outcome there")
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(1_000_000)
    say(f"seed {seed}")
    chosen = [
        f
        for f in faults(store_away_s=asked.store_away, removals=_REMOVALS, attacks=_ATTACKS)
        if (not asked.row or f.row in asked.row) and asked.group in (None, f.group)
    ]
    rows = able(chosen)
    found = asyncio.run(rounds(rows, asked.rounds, seed))
    say("\n" + "\n".join(table(rows, found)))
    if asked.json is not None:
        asked.json.write_text(json.dumps(as_json(seed, found), indent=1) + "\n")
    broken = sum(bool(o.broken or o.late) for _, o in found)
    say(f"\n{len(found) - broken} of {len(found)} held; seed {seed}")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
