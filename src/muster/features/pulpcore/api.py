"""Routes of the Pulpcore feature (docs/facts/smart-proxy-protocol.md §18), and those of Pulp's record at Foreman.

Containerised proxies register twice: a Pulp answers for itself below its own API, with these three questions alone
(docs/facts/foreman-and-katello.md §5). A member answers them so, too, wherever its Pulp is.
"""

from __future__ import annotations

from muster.edge.feature import State, entry
from muster.edge.replies import JSON, Reply, json_reply, reply, text_reply
from muster.edge.request import Request
from muster.edge.root import secrets_for
from muster.edge.routes import Access, Mount, Route
from muster.features.pulpcore.service import Pulpcore


async def status(pulp: Pulpcore, request: Request) -> Reply:
    said = await pulp.relayed()
    if said.status == 200:
        return reply(200, said.text.encode("utf-8", "replace"), JSON)
    sentence = f"{pulp.where.asked} answers {said.status} to the question for Pulp's status"
    return text_reply(said.status if 400 <= said.status <= 599 else 502, sentence, accept=request.accept)


async def features(_pulp: Pulpcore, _request: Request) -> Reply:
    return json_reply(["pulpcore"])


async def features_v2(pulp: Pulpcore, request: Request) -> Reply:
    await pulp.refresh()
    # Whoever registered this as a proxy must not lose its one feature while the member drains.
    return json_reply({"pulpcore": entry(pulp.told(), pulp.settings, State.RUNNING, secrets_for(request))})


async def version(pulp: Pulpcore, _request: Request) -> Reply:
    return json_reply({"version": pulp.version, "modules": {"pulpcore": pulp.version}})


MOUNT = Mount("/pulpcore", (Route("GET", "/status", Access.OPEN, status),))

RECORD = Mount(
    "/pulp/api/v3/smart_proxy",
    (
        Route("GET", "/features[/]", Access.OPEN, features),
        Route("GET", "/v2/features[/]", Access.TRUSTED, features_v2),
        Route("GET", "/version[/]", Access.OPEN, version),
    ),
)
