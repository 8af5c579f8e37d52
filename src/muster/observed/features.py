"""Which features run on a member, and what it tells Foreman of their settings, asked as Foreman asks.

A member that trusts us says both in one answer. A containerised proxy is two records at Foreman, since its Pulp answers for
itself on another port (docs/facts/deployment.md §5); they are one member here.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from muster.balancer.model import Balancing
from muster.cluster.file import Member
from muster.foreman import questions
from muster.foreman.questions import Questions
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.names import in_url, shown

PULP_PROXY = "/pulp/api/v3/smart_proxy"
"""Below it the Pulp of a containerised proxy is a Smart Proxy itself, on the port of service ``https``."""
PULP_RECORD = f"{PULP_PROXY}/v2/features"
"""Where it tells Foreman of itself."""
_PULPCORE = "pulpcore"
_NOT_TRUSTED = "it tells them to trusted hosts only"


@dataclass(frozen=True)
class Running:
    """The features that run on one member.

    Attributes:
        settings: by feature, as far as they are told.
        unknown: features of which nobody can say whether they run.
        unseen: why settings were not told; empty when they were, and when the member is older than such an answer.
    """

    features: frozenset[str]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    unseen: str = ""


async def running_on(
    member: Member, balancing: Balancing, context: ssl.SSLContext, *, timeout_s: float = 3.0
) -> Running | None:
    """Return what runs on the member; None when it does not say, which others find out why.

    One question in place of the list that anybody is told. A second one to a member that does not trust us, and to a Ruby
    one without a Pulp among its features: to the port where that would answer for itself.
    """
    service = balancing.service("smartproxy")
    if service is None:
        return None
    url = f"https://{in_url(member.address)}:{service.port_on(str(member.name))}"
    try:
        async with questions.opened(url, context=context, server_name=balancing.address, timeout_s=timeout_s) as asking:
            own = await _of_proxy(asking)
    except MusterError:
        return None
    if member.kind != "foreman" or _PULPCORE in own.features:
        return own
    return await _with_pulp(own, member, balancing, context, timeout_s)


async def _of_proxy(asking: Questions) -> Running:
    answer = await asking.ask("/v2/features")
    try:
        if answer.status == 200:
            return _said(answer.json(), asking.url)
        unseen = {403: _NOT_TRUSTED, 404: ""}.get(answer.status, f"it answers {answer.status} to /v2/features")
    except Unavailable as e:
        unseen = str(e)
    listed = (await asking.call("/features")).json()
    if not isinstance(listed, list):
        raise Unavailable(f"{asking.url} answers /features with no list: {shown(listed)}")
    return Running(frozenset(map(str, listed)), unseen=unseen)


async def _with_pulp(
    own: Running, member: Member, balancing: Balancing, context: ssl.SSLContext, timeout_s: float
) -> Running:
    at = balancing.service("https")
    if at is None or not at.leads_to(str(member.name)):
        return own
    doubtful = Running(own.features, own.settings, frozenset({_PULPCORE}), own.unseen)
    url = f"https://{in_url(member.address)}:{at.port_on(str(member.name))}"
    try:
        # Under its own name, as Foreman asks it: where no URL is set for it, it tells the one it was asked by.
        async with questions.opened(url, context=context, server_name=str(member.name), timeout_s=timeout_s) as asking:
            answer = await asking.ask(PULP_RECORD)
            pulp = _said(answer.json(), url) if answer.status == 200 else None
    except MusterError:
        return doubtful
    if pulp is not None:
        return Running(own.features | pulp.features, {**pulp.settings, **own.settings}, unseen=own.unseen)
    if answer.status == 404:
        return own
    refused = answer.status in (401, 403)
    return Running(own.features, own.settings, doubtful.unknown, own.unseen or (_NOT_TRUSTED if refused else ""))


def _said(answer: Any, url: str) -> Running:
    """Return what runs by an answer to ``/v2/features``: Foreman, too, takes a feature for absent in any other state."""
    if not isinstance(answer, dict) or not all(isinstance(entry, dict) for entry in answer.values()):
        raise Unavailable(f"{url} answers /v2/features with no mapping: {shown(answer)}")
    up = {str(name): entry for name, entry in answer.items() if entry.get("state") == "running"}
    told = {name: s for name, entry in up.items() if isinstance(s := entry.get("settings"), dict)}
    return Running(frozenset(up), told)
