"""For the doctor: which of the Pulps that members steer is not turned to what was decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from muster.cluster.file import ClusterFile
from muster.content.steered.ledger import Flips
from muster.kernel.errors import MusterError
from muster.kernel.findings import Check, Finding
from muster.store.reading import Readable


def checks(cluster: ClusterFile, store: Callable[[], AbstractAsyncContextManager[Readable]]) -> list[Check]:
    """Return the check of steered Pulps; none where there are none."""
    content = cluster.content
    if content is None or content.steered is None:
        return []
    steered = content.steered

    async def followed() -> Sequence[Finding]:
        try:
            async with store() as readable:
                followers = await Flips(readable).followers()
        except MusterError:
            # That the store is away others say.
            return []
        return [
            Finding(
                "CONTENT-STEERED",
                one.pulp,
                f"{one.pulp} is not turned to what all have of {one.repository}: {one.why}",
                "It was away when the others were turned, or lost what it had. Members bring it along when it answers.",
                "See to that Pulp; muster content jobs says how it stands. muster services show says where it is asked.",
                "warning",
            )
            for one in followers
            if one.why and one.repository in steered.repositories and one.pulp in steered.pulps
        ]

    return [Check("steered", followed)]
