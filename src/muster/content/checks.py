"""What the doctor can find out about content: who answers its ports, what is behind them, and which Pulp or disk lags."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from muster.balancer.model import Balancing, Server
from muster.cluster.file import ClusterFile, Member
from muster.cluster.sections import ContentService
from muster.cluster.service import placed
from muster.content.places import PROGRAMS, Backend
from muster.content.states import Kind, State, states_in
from muster.foreman import questions
from muster.foreman.answers import Answer
from muster.foreman.questions import Questions
from muster.kernel.errors import Misconfigured, MusterError, Unavailable
from muster.kernel.findings import Check, Finding, Severity
from muster.kernel.names import in_url, shown
from muster.store.reading import Readable

_TIMEOUT_S = 5.0
# What every answer of a member says that it is from, whatever the path.
_OURS = "muster/"
# One question to each program behind a port. Any answer below 500 will do.
_ASKED: Mapping[ContentService, Sequence[Backend]] = {
    "https": ("content", "api", "registry", "foreman"),
    "http": ("content",),
    "rhsm": ("foreman",),
    "docker": ("registry",),
}
_REMEDIES: Mapping[Backend, str] = {
    "content": "There: systemctl status pulpcore-content; content: pulp_content_url; may the member's account use a socket?",
    "api": "There: systemctl status pulpcore-api; content: pulp_api_url; may the member's account use a socket?",
    "registry": "Start it; content: registry_url, ca_file.",
    "foreman": "Start it; foreman: url; content: ca_file, foreman_certificate.",
}


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


# Of each kind: the code, how bad it is, the cause and the remedy.
_OF_A_KIND: Mapping[Kind, tuple[str, Severity, str, str]] = {
    "behind": (
        "CONTENT-BEHIND",
        "error",
        "That Pulp was not synced, its synchronisation failed, or the repository is not its any more. Its member leaves "
        "content while others take clients.",
        "Foreman: Smart Proxies, that one, Content, Synchronize; its tasks say what failed. muster content status PATH "
        "shows what each member has.",
    ),
    "unstaged": (
        "CONTENT-UNSTAGED",
        "error",
        "The disk is full or content.kept_bytes is reached, the metadata is damaged at its Pulp, or Pulp does not give it.",
        "Do what the sentence says: make room or raise content.kept_bytes; sync the repository anew. Members try again by "
        "themselves.",
    ),
    "alone": (
        "CONTENT-ALONE",
        "error",
        "The repository's lifecycle environment is assigned to that Smart Proxy alone, or the others were never synced.",
        "Foreman: Smart Proxies, each of the others, Lifecycle Environments; then Synchronize.",
    ),
    "unreached": (
        "CONTENT-UNREACHED",
        "warning",
        "That Pulp answers for other repositories: this one is broken there, or its guard lets nobody in.",
        "Look at that Pulp's log; ask it for the repository's repodata/repomd.xml, of a deb suite for its InRelease.",
    ),
}  # fmt: skip


def repositories(cluster: ClusterFile, store: Callable[[], AbstractAsyncContextManager[Readable]]) -> list[Check]:
    """Return the check of the repositories that clients ask for; none where each Pulp answers for itself."""
    content = cluster.content
    if content is None or not content.one_version:
        return []

    async def followed() -> Sequence[Finding]:
        try:
            async with store() as opened, opened.read() as uow:
                found = await states_in(uow, cluster)
        except (Unavailable, Misconfigured):
            # The store's own check names it.
            return []
        return of_states(found)

    return [Check("repositories", followed)]


def of_states(states: Sequence[State]) -> list[Finding]:
    """Return what is so for longer than Pulps and disks may be behind."""
    return [
        Finding(code, state.path, f"{state.path}: {matter.sentence}", cause, remedy, severity)
        for state in states
        for matter in state.matters
        if matter.is_overdue and (told := _OF_A_KIND.get(matter.kind)) is not None
        for code, severity, cause, remedy in [told]
    ]


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
    wanted = [backend for backend in _ASKED[service] if _is_there(cluster, backend)]
    # Each on a connection of its own: one that hangs holds up no other.
    said = await asyncio.gather(
        *(_unanswered(url, context, address, timeout_s, _spoken(one), PROGRAMS[one].asked) for one in wanted)
    )
    member = cluster.member(server.name)
    return [
        _behind(service, server, one, f"{why} ({_url_of(cluster, member, one)})")
        for one, why in zip(wanted, said, strict=True)
        if why
    ]


def _is_there(cluster: ClusterFile, backend: Backend) -> bool:
    return _url(cluster, backend) is not None


def _url_of(cluster: ClusterFile, member: Member, backend: Backend) -> str:
    """Return where a member asks a program, as its settings say it."""
    return placed(_url(cluster, backend) or "", member)


def _url(cluster: ClusterFile, backend: Backend) -> str | None:
    content = cluster.content
    if content is None:
        return None
    return {
        "content": content.pulp_content_url,
        "api": content.pulp_api_url,
        "registry": content.registry_url,
        "foreman": cluster.foreman.url,
    }.get(backend)


def _spoken(backend: Backend) -> str:
    """Return a program's name as a sentence begins with it."""
    name = PROGRAMS[backend].name
    return name[0].upper() + name[1:]


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


def _behind(service: ContentService, server: Server, backend: Backend, why: str) -> Finding:
    who = _spoken(backend)
    # What takes the service out stands where the member's own word for that does.
    takes_out = service in PROGRAMS[backend].needed_by
    return Finding(
        "CONTENT-BACKEND",
        f"{service} on {server.name}" if takes_out else f"{who} behind {server.name}",
        f"{server.name} gets no answer for {service}: {why}",
        f"{who} is stopped or broken, elsewhere, or members may not reach it there.",
        _REMEDIES[backend],
    )
