"""Every fault of the matrix, once: what is promised is held, and what was measured is printed."""

from __future__ import annotations

import os
import random

import pytest

from tests.faults import faults
from tests.faults.fault import Fault, missing
from tests.faults.members import all_up
from tests.servers.local import Local, say, until

pytestmark = pytest.mark.anyio

_SEED = 1


@pytest.mark.parametrize("fault", [pytest.param(f, id=f.id) for f in faults()])
async def test_what_is_promised_of_a_fault_is_held(fault: Fault, shared_cluster: Local) -> None:
    for need in fault.needs:
        if (reason := missing(need)) is not None:
            (pytest.fail if os.environ.get("MUSTER_NO_SKIPS") else pytest.skip)(f"{need}: {reason}")
    # Each row ends with the whole question, so the next one begins with the short one.
    await until(lambda: all_up(shared_cluster), "every member is up")
    outcome = await fault.inflicted(shared_cluster, random.Random(_SEED))
    say(f"{fault.id}: {outcome.as_row()}")
    for sentence in outcome.late:
        say(f"  LATE {sentence}")
    await until(shared_cluster.is_steady, "every member is ready and up again")
    assert outcome.broken == [], fault.promise
