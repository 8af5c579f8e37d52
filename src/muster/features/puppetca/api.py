"""Routes of the Puppet CA feature (docs/facts/smart-proxy-protocol.md §12)."""

from __future__ import annotations

from muster.edge.replies import JSON, Reply, empty_reply, json_reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.features.puppetca.service import PuppetCAFeature
from muster.kernel.errors import NotFound


async def list_(feature: PuppetCAFeature, _request: Request) -> Reply:
    return json_reply(await feature.certificates())


async def entries(feature: PuppetCAFeature, _request: Request) -> Reply:
    return json_reply(await feature.entries())


async def allow(feature: PuppetCAFeature, request: Request) -> Reply:
    given = await request.text_params("token_ttl")
    token = await feature.allow(request.arguments["certname"], given["token_ttl"])
    return empty_reply(JSON) if token is None else json_reply({"generated_token": token})


async def forbid(feature: PuppetCAFeature, request: Request) -> Reply:
    await feature.forbid(request.arguments["certname"])
    return empty_reply(JSON)


async def validate(feature: PuppetCAFeature, request: Request) -> Reply:
    if not await feature.permits(await request.body()):
        # 404 is the "no" of this call.
        raise NotFound("")
    return empty_reply(JSON)


async def sign(feature: PuppetCAFeature, request: Request) -> Reply:
    await feature.sign(request.arguments["certname"])
    return empty_reply(JSON)


async def clean(feature: PuppetCAFeature, request: Request) -> Reply:
    await feature.clean(request.arguments["certname"])
    return empty_reply(JSON)


MOUNT = Mount(
    "/puppet/ca",
    (
        Route("GET", "/", Access.TRUSTED, list_),
        Route("GET", "/autosign", Access.TRUSTED, entries),
        Route("POST", "/autosign/{certname}", Access.TRUSTED, allow),
        Route("DELETE", "/autosign/{certname}", Access.TRUSTED, forbid),
        Route("POST", "/validate", Access.TRUSTED, validate),
        Route("POST", "/{certname}", Access.TRUSTED, sign),
        Route("DELETE", "/{certname}", Access.TRUSTED, clean),
    ),
)
