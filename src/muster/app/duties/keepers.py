"""Do the keepers of this member's Pulp lead to what its repositories served?"""

from __future__ import annotations

from typing import Self

from muster.app.duties.duty import NOTHING, Duty, Found
from muster.cluster.file import ClusterFile
from muster.cluster.sections import Content as Settings
from muster.content.call import Program
from muster.content.following import Following
from muster.content.pulp import Pulp, password
from muster.content.retention.keepers import Keepers, asked_within
from muster.kernel.errors import Misconfigured
from muster.store.reading import Readable


class KeepersTurned(Duty):
    """Notes that keepers cannot be turned. Without any it looks once whether some are left, and says nothing."""

    name = "keepers"

    def __init__(self, keepers: Keepers | None, count: int, why: str = "") -> None:
        """``keepers`` None: there is nothing to turn them with, and ``why``."""
        self._keepers = keepers
        self._count = count
        self._why = why
        # A member that is to have none asks for some that are left when it has come to serve.
        self.begins_at_once = bool(count)

    @classmethod
    def of(
        cls, cluster: ClusterFile, settings: Settings, api: Program, following: Following | None, store: Readable
    ) -> Self:
        """Return a member's; where nothing is followed there are to be none."""
        count = settings.keepers if following is not None else 0
        carried = following.carried if following is not None else dict
        try:
            pulp = Pulp(api, password(settings.pulp_password_file))
        except Misconfigured as e:
            return cls(None, count, str(e))
        asked = asked_within(store, settings.retention_days * 86_400)
        return cls(Keepers(pulp, carried, asked, cluster=str(cluster.cluster), count=count), count)

    async def beat(self) -> None:
        if self._keepers is not None:
            await self._keepers.beat()

    def found(self) -> Found:
        why = self._keepers.trouble if self._keepers is not None else self._why
        if not why or not self._count:
            return NOTHING
        return Found(notes=(f"packages that newer versions drop are not kept: {why}",))
