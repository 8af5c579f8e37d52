"""Does what a hand-made cluster is made of answer as the balancer will need it? Asked once, before anything is changed."""

from __future__ import annotations

import asyncio
from datetime import datetime

from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile
from muster.doctor.causes import dead, grouped
from muster.doctor.examine import in_order
from muster.doctor.matrix import Prober, entrances, versions
from muster.kernel.findings import Finding
from muster.observed.adoption.asked import features_differ, unled
from muster.pki.context import Credentials


async def answering(
    cluster: ClusterFile, balancing: Balancing, credentials: Credentials, *, now: datetime
) -> list[Finding]:
    """Return what is wrong with what answers: first causes, errors in front; what follows from one is left out.

    Every service is asked on every member, and through the balancer that stands there now, as the doctor asks: what serves
    the port, whether its certificate carries the cluster's name and the member's, who issued it, when it ends. Then: which
    open port HAProxy's file forgot, and whether members run the same features.

    Raises:
        Misconfigured: one of our own files cannot be used.
    """
    names = [str(m.name) for m in cluster.members]
    prober = Prober(
        balancing,
        credentials.ca_file,
        credentials.certificate,
        credentials.key,
        now,
        ruby=frozenset(n.lower() for n in names),
        aliases=tuple(str(a) for a in cluster.aliases),
    )
    ways_in = entrances(cluster)
    cells, forgotten, features = await asyncio.gather(
        prober.cells(ways_in), unled(balancing, cluster), features_differ(balancing, cluster, credentials)
    )
    told = in_order([*(f for c in cells for f in c.findings), *versions(cluster, cells), *forgotten, *features])
    found = [*dead(names, ways_in, cells, ruby=set(names)), *told]
    return [f for cause in grouped(found, names, ways_in) for f in (cause.finding, *cause.alike)]
