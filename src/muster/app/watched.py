"""The cluster's page on a member: what it looks at, from what the member has anyway."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from muster.app import offers, stories
from muster.app.listed import Listed
from muster.balancer.model import Balancing, signs_itself
from muster.cluster.file import ClusterFile
from muster.edge.logs import Timeline
from muster.edge.traffic import Traffic
from muster.observed.survey import Survey
from muster.pki.bundles import BundlePaths
from muster.pki.context import Credentials
from muster.store.engine import Store
from muster.store.reading import Readable, Reading
from muster.web.watch import Sources


class Modelled:
    """What the balancers of a cluster have to do; made anew only when its members have changed."""

    def __init__(self, listed: Listed) -> None:
        self._listed = listed
        self._made: tuple[ClusterFile, Balancing] | None = None

    def __call__(self) -> Balancing:
        latest = self._listed.latest
        if self._made is None or self._made[0] is not latest:
            self._made = (latest, offers.modelled(self._listed.cluster))
        return self._made[1]


def sources(
    name: str, listed: Listed, store: Store, pki: Path, bundle: BundlePaths, story: Timeline, traffic: Traffic
) -> Sources:
    """Return what a member's page looks at; members are asked with the member's own certificate."""
    balancing = Modelled(listed)
    site_ca = listed.cluster.foreman.ca_file

    def opened() -> AbstractAsyncContextManager[Readable]:
        return contextlib.nullcontext(store)

    return Sources(
        by=name,
        cluster=lambda: listed.cluster,
        balancing=balancing,
        survey=lambda: Survey(balancing(), Credentials(bundle.ca, bundle.certificate, bundle.key, site_ca)),
        store=opened,
        pki=pki,
        records=story,
        puppet_ca=puppet_ca_of(listed.cluster),
        boots=stories.read_by(listed.cluster),
        own=(name.lower(), traffic),
    )


def puppet_ca_of(cluster: ClusterFile) -> Callable[[Reading], Awaitable[dict[str, Any]]] | None:
    """Return what reads how the Puppet CA stands; None: the members are none."""
    if cluster.authority is None or not signs_itself(cluster):
        return None

    async def read(uow: Reading) -> dict[str, Any]:
        # It brings the certificates' library with it, which a member that is no CA need not load.
        from muster.authority.standing import standing_in

        return await standing_in(uow, str(cluster.signer))

    return read
