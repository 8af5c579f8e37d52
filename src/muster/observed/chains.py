"""What members' features call their providers through, as each member says it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile, Member
from muster.foreman import questions
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.names import in_url

_PATH = "/cluster/chains"


async def chains_of(
    cluster: ClusterFile, balancing: Balancing, context: ssl.SSLContext, *, timeout_s: float = 3.0
) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
    """Return what each member told, by feature, and of those that told nothing the reason; by member, in their order."""
    service = balancing.service("smartproxy")
    members = [m for m in cluster.members if m.kind == "muster"]

    async def ask(member: Member) -> Mapping[str, Any] | str:
        if service is None:
            return "the cluster has no service smartproxy, on whose port members answer"
        url = f"https://{in_url(member.address)}:{service.port_on(str(member.name))}"
        try:
            async with questions.opened(
                url, context=context, server_name=balancing.address, timeout_s=timeout_s
            ) as asking:
                return _checked((await asking.call(_PATH)).json(), url)
        except MusterError as e:
            return str(e)

    said = dict(zip((str(m.name) for m in members), await asyncio.gather(*map(ask, members)), strict=True))
    told = {name: one for name, one in said.items() if not isinstance(one, str)}
    return told, {name: one for name, one in said.items() if isinstance(one, str)}


def _checked(answer: Any, url: str) -> Mapping[str, Any]:
    """Return an answer of the shape that ``policy/chains.py: Chains.as_json`` makes.

    Raises:
        Unavailable: it has another.
    """
    try:
        for chain in answer.values():
            for one in (*chain["providers"], *chain["strangers"]):
                str(one["name"])
    except (AttributeError, KeyError, TypeError):
        raise Unavailable(f"{url}{_PATH} answers something else than chains") from None
    return answer  # type: ignore[no-any-return]
