"""In which repositories Pulps differ from what clients are shown, for longer than they may, as ``muster parity`` says it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from muster.cluster.file import ClusterFile
from muster.cluster.sections import ExpectedDifference
from muster.content.states import State, states_in
from muster.observed.parity import ABSENT, Drift, measured
from muster.store.reading import Reading


def reading(cluster: ClusterFile) -> Callable[[Reading], Awaitable[Sequence[Drift]]]:
    """Return what reads the drifts out of the store."""
    return partial(_drifts_in, cluster)


async def _drifts_in(cluster: ClusterFile, uow: Reading) -> Sequence[Drift]:
    found = (_drift(state, cluster.expected_differences) for state in await states_in(uow, cluster))
    return [d for d in found if d is not None]


def _drift(state: State, expected: Sequence[ExpectedDifference]) -> Drift | None:
    """Return who has something else than what is shown, of those that have had the time to follow."""
    late = {name for m in state.matters if m.is_overdue and m.kind in ("behind", "alone") for name in m.members}
    if not late:
        return None
    values = {
        m.name: (ABSENT if m.carried == "nothing" else m.carried) if m.name in late else state.shown
        for m in state.members
    }
    return measured(f"content.{state.path}", values, state.shown, "shown is", expected)
