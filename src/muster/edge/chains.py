"""``/cluster/chains``: what this member's features call their providers through, and how each is now.

Of settings it tells names, kinds and figures of policies; where a provider is stands in none of them.
"""

from __future__ import annotations

from muster.edge.replies import Reply, json_reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.policy.chains import Chains


async def chains(of: Chains, _request: Request) -> Reply:
    answer = json_reply(of.as_json())
    return answer._replace(headers=[*answer.headers, (b"cache-control", b"no-store")])


MOUNT = Mount("/cluster/chains", (Route("GET", "/", Access.CLUSTER, chains),))
