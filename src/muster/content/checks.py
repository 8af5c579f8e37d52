"""What the doctor can find out about content: whether members answer its ports, and what is behind those that do."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence

from muster.balancer.model import Balancing, Server
from muster.cluster.file import ClusterFile
from muster.cluster.sections import ContentService
from muster.foreman import questions
from muster.foreman.answers import Answer
from muster.foreman.questions import Questions
from muster.kernel.errors import MusterError
from muster.kernel.findings import Check, Finding
from muster.kernel.names import in_url, shown

_TIMEOUT_S = 5.0
# What every answer of a member says that it is from, whatever the path.
_OURS = "muster/"
_PULP, _API, _REGISTRY, _FOREMAN = "Pulp's content application", "Pulp's API", "The registry", "Foreman"
# One question to each program behind a port: its service, who it is, and where. Any answer below 500 will do.
_ASKED: tuple[tuple[ContentService, str, str], ...] = (
    ("https", _PULP, "/pulp/content/"),
    ("https", _API, "/pulp/api/v3/status/"),
    ("https", _REGISTRY, "/v2/"),
    ("https", _FOREMAN, "/rhsm/status"),
    ("http", _PULP, "/pulp/content/"),
    ("rhsm", _FOREMAN, "/rhsm/status"),
    ("docker", _REGISTRY, "/v2/"),
)


def checks(
    cluster: ClusterFile,
    balancing: Balancing,
    context: Callable[[], ssl.SSLContext | None],
    *,
    timeout_s: float = _TIMEOUT_S,
) -> list[Check]:
    """Return the check of the ports of content on every member; none where members answer none.

    ``context`` is what members are asked with, None when there is nothing.
    """
    content = cluster.content
    if content is None:
        return []

    async def answered() -> Sequence[Finding]:
        shown_to = context()
        if shown_to is None:
            return []
        ours = {str(m.name).lower() for m in cluster.members if m.kind == "muster"}
        asked = [
            _of_port(
                cluster, balancing.address, name, server, shown_to if service.traffic != "plain" else None, timeout_s
            )
            for name in content.services
            if (service := balancing.service(name)) is not None
            for server in service.servers
            if server.name in ours
        ]
        return [f for found in await asyncio.gather(*asked) for f in found]

    return [Check("content", answered)]


async def _of_port(
    cluster: ClusterFile,
    address: str,
    service: ContentService,
    server: Server,
    context: ssl.SSLContext | None,
    timeout_s: float,
) -> Sequence[Finding]:
    """Return what is wrong with one port; nothing of one that does not answer, which the matrix says."""
    url = f"{'http' if context is None else 'https'}://{in_url(server.address)}:{server.port}"

    async with questions.opened(url, context=context, server_name=address, timeout_s=timeout_s) as asking:
        try:
            first = await asking.ask("/")
        except MusterError:
            return []
        if _OURS not in (first.server or ""):
            return [_elsewhere(service, server, first)]
    wanted = [(who, path) for s, who, path in _ASKED if s == service and _is_there(cluster, who)]
    # Each on a connection of its own: one that hangs holds up no other.
    said = await asyncio.gather(*(_unanswered(url, context, address, timeout_s, who, path) for who, path in wanted))
    return [_behind(service, server, who, why) for (who, _), why in zip(wanted, said, strict=True) if why]


def _is_there(cluster: ClusterFile, who: str) -> bool:
    content = cluster.content
    return {
        _REGISTRY: content is not None and content.registry_url is not None,
        _FOREMAN: cluster.foreman.url is not None,
    }.get(who, True)


async def _unanswered(
    url: str, context: ssl.SSLContext | None, address: str, timeout_s: float, who: str, path: str
) -> str:
    """Return why nothing useful came of a question to what is behind the port, empty when something did."""

    async def asked(asking: Questions) -> str:
        try:
            answer = await asking.ask(path)
        except MusterError as e:
            return str(e)
        if answer.status < 500:
            return ""
        # A member says itself why, in one line; of others' pages the status is enough.
        told = answer.text if who.lower() in answer.text.lower() and "\n" not in answer.text else ""
        return shown(told) if told else f"{who} answers {answer.status}"

    async with questions.opened(url, context=context, server_name=address, timeout_s=timeout_s) as asking:
        return await asked(asking)


def _elsewhere(service: str, server: Server, answer: Answer) -> Finding:
    who = shown(answer.server) if answer.server else "another program"
    return Finding(
        "CONTENT-ELSEWHERE",
        f"{service} on {server.name}",
        f"{who} answers port {server.port} of {server.name}, which this cluster file gives to the member",
        "The member still runs with an earlier cluster file, beside an Apache. Balancers that have this file begin their "
        "connections with a PROXY header, which that program does not understand: clients get nothing from it.",
        "Stop that program there and restart the member with this file; the balancers get the file last "
        "(docs/admin/content.md).",
    )


def _behind(service: str, server: Server, who: str, why: str) -> Finding:
    remedies = {
        _PULP: "There: systemctl status pulpcore-content; content: pulp_content_url; may the member's account use a socket?",
        _API: "There: systemctl status pulpcore-api; content: pulp_api_url; may the member's account use a socket?",
        _REGISTRY: "Start it; content: registry_url, ca_file.",
        _FOREMAN: "Start it; foreman: url; content: ca_file, foreman_certificate.",
    }
    # What takes the service out stands where the member's own word for that does.
    takes_out = (service in ("https", "http") and who == _PULP) or (service == "docker" and who == _REGISTRY)
    return Finding(
        "CONTENT-BACKEND",
        f"{service} on {server.name}" if takes_out else f"{who} behind {server.name}",
        f"{server.name} gets no answer for {service}: {why}",
        f"{who} is stopped or broken, elsewhere, or members may not reach it there.",
        remedies[who],
    )
