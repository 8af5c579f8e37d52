"""What Ruby members tell Foreman of their Pulp, asked over the wire: for the services register.

A containerised proxy is two records at Foreman, since its Pulp answers for itself on another port
(docs/facts/foreman-and-katello.md §5). They are one member here: what its own features lack is asked there.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from typing import Any

from muster.balancer.model import Balancing
from muster.cluster.file import Member
from muster.cluster.service import ANY, Told, room_said
from muster.cluster.values import web_url
from muster.foreman import questions
from muster.kernel.errors import MusterError
from muster.kernel.names import in_url, shown
from muster.observed.features import PULP_RECORD

_MOST = 100


async def told_by(
    member: Member, balancing: Balancing, context: ssl.SSLContext, *, timeout_s: float = 10.0
) -> Told | None:
    """Return what a Ruby member tells of its Pulp; None when it has none.

    Raises:
        Unavailable, Denied, Misconfigured: it could not be asked; the sentence says why.
    """
    entry, status = await _asked(member, "smartproxy", "/v2/features", balancing, context, timeout_s)
    source = f"features of {member.name}"
    if entry is None:
        entry, status = await _asked(member, "https", PULP_RECORD, balancing, context, timeout_s)
        source = f"features of {member.name}'s Pulp"
    if entry is None or entry.get("state") != "running":
        return None
    return Told(str(member.name), source, {f"pulp@{str(member.name).lower()}": of_entry(entry, status)})


def of_entry(entry: Mapping[str, Any], status: Any = None) -> dict[str, Any]:
    """Return what an entry ``pulpcore`` of ``/v2/features``, and Pulp's status, say for the register; never a password."""
    settings = entry.get("settings")
    told = settings if isinstance(settings, Mapping) else {}
    control, content = _url(told.get("pulp_url")), _url(told.get("content_app_url"))
    capabilities = entry.get("capabilities")
    facts: dict[str, Any] = {
        "mirror": told.get("mirror") is True,
        "capabilities": [shown(str(c)) for c in capabilities[:_MOST]] if isinstance(capabilities, list) else [],
        "rhsm_url": _url(told.get("rhsm_url")),
        **room_said(status.get("storage") if isinstance(status, Mapping) else None),
    }
    return {
        **({"control_url": control} if control else {}),
        **({"client_urls": {ANY: content}} if content else {}),
        "facts": {k: v for k, v in facts.items() if v not in ("", [])},
    }


async def _asked(
    member: Member,
    service: str,
    path: str,
    balancing: Balancing,
    context: ssl.SSLContext,
    timeout_s: float,
) -> tuple[Mapping[str, Any] | None, Any]:
    """Return the entry ``pulpcore`` a port of the member tells, None when there is none, and Pulp's status."""
    at = balancing.service(service)
    is_there = at is not None and at.leads_to(str(member.name))
    if at is None or not is_there:
        return None, None
    url = f"https://{in_url(member.address)}:{at.port_on(str(member.name))}"
    # A Pulp for which no URL is set tells the name that it was asked by: Foreman asks by the member's own.
    name = str(member.name) if path == PULP_RECORD else balancing.address
    async with questions.opened(url, context=context, server_name=name, timeout_s=timeout_s) as asking:
        answer = await asking.ask(path)
        if answer.status == 404:
            return None, None
        said = answer.accepted(url, "GET", path).json()
        entry = said.get("pulpcore") if isinstance(said, Mapping) else None
        if not isinstance(entry, Mapping):
            return None, None
        # Room on its disk is optional: whoever does not say so is complete without.
        status = await _or_none(asking, "/pulpcore/status" if service == "smartproxy" else "/pulp/api/v3/status/")
        return entry, status


async def _or_none(asking: questions.Questions, path: str) -> Any:
    try:
        answer = await asking.ask(path)
    except MusterError:
        return None
    try:
        return json.loads(answer.text) if answer.status == 200 else None
    except (ValueError, RecursionError):
        return None


def _url(said: Any) -> str:
    if not isinstance(said, str):
        return ""
    try:
        return web_url(said)
    except ValueError:
        return ""
