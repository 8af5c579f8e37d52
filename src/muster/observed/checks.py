"""What the doctor can find out from what members say: whether they are ready, and of which cluster file they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from muster.balancer.model import Balancing
from muster.cluster.checks import unsigned
from muster.cluster.file import ClusterFile
from muster.cluster.life import Life
from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.findings import Check, Finding
from muster.observed.parity import of_another_file
from muster.observed.statements import told_in
from muster.observed.survey import ONLY_THE_PORT, Answer, surveyed
from muster.pki.context import Credentials
from muster.store.reading import Readable
from muster.version import VERSION


def checks(
    cluster: ClusterFile,
    balancing: Balancing,
    credentials: Callable[[], Credentials | None],
    store: Callable[[], AbstractAsyncContextManager[Readable]],
    *,
    lives: Mapping[str, Life] | None = None,
    whole: ClusterFile | None = None,
) -> list[Check]:
    """Return the checks of what members say of themselves, to the balancer's question and in the store.

    ``credentials`` is what to ask them with, None when there is nothing; ``whole`` is the cluster file with the members
    that are not looked at, None when there are none.
    """

    async def readiness() -> Sequence[Finding]:
        shown = credentials()
        if shown is None:
            return []
        leaving = frozenset(name.lower() for name, life in (lives or {}).items() if life.is_leaving)
        answers = await surveyed(balancing, shown)
        least = min(cluster.min_ready, len((whole or cluster).members))
        return [
            *_of_answers(answers, cluster),
            *_nowhere(balancing, answers, leaving),
            *_short(balancing, answers, leaving, least),
        ]

    async def statements() -> Sequence[Finding]:
        try:
            async with store() as opened, opened.read() as uow:
                told = await told_in(uow)
        except (Unavailable, Misconfigured):
            # The store's own check names it.
            return []
        return other_file(cluster, whole or cluster, told)

    return [Check("readiness", readiness), Check("statements", statements)]


def _of_answers(answers: Sequence[Answer], cluster: ClusterFile) -> Iterator[Finding]:
    drained: dict[tuple[str, str], list[str]] = {}
    for answer in answers:
        if answer.standing == "draining":
            drained.setdefault((answer.member, answer.reason), []).append(answer.service)
    for (member, reason), services in drained.items():
        yield Finding(
            "MEMBER-DRAINING",
            member,
            f"{member} drains {', '.join(services)}: {reason}{unsigned(cluster, member)}",
            "Somebody asked for it, or its process is being stopped.",
            f"muster ready {member} when the work is done.",
            "warning",
        )
    for answer in answers:
        if answer.standing == "unready":
            yield Finding(
                "MEMBER-UNREADY",
                f"{answer.service} on {answer.member}",
                f"{answer.member} is not ready for {answer.service}: {answer.reason}",
                "The member says so itself.",
                "Mend what the sentence names; the balancer readmits it by itself.",
            )
    for member, note in sorted({(a.member, n) for a in answers for n in a.notes if not n.startswith(ONLY_THE_PORT)}):
        yield Finding(
            "MEMBER-NOTE",
            member,
            f"{member}: {note}",
            "The member says so itself; no service is out for it.",
            "Mend what the sentence names.",
            "warning",
        )


def _nowhere(balancing: Balancing, answers: Sequence[Answer], leaving: frozenset[str]) -> Iterator[Finding]:
    ready = {a.service for a in answers if a.standing == "ready" and a.member not in leaving}
    for service in balancing.services:
        if service.servers and service.name not in ready:
            yield Finding(
                "SERVICE-NOWHERE",
                service.name,
                f"No member is ready for service {service.name}; the balancer fails open to all of them",
                "See the findings of its members.",
                "Bring one member back; or disable the service in the cluster file.",
            )


def _short(balancing: Balancing, answers: Sequence[Answer], leaving: frozenset[str], least: int) -> Iterator[Finding]:
    """Say of services that all members share which have fewer ready ones than is asked for, and yet some."""
    for service in balancing.services:
        if service.destinations == "signer":
            continue
        standing = {a.member: a.standing for a in answers if a.service == service.name}
        ready = [m for m, s in standing.items() if s == "ready" and m not in leaving]
        if 0 < len(ready) < least:
            yield Finding(
                "SERVICE-SHORT",
                service.name,
                f"{len(ready)} {'member is' if len(ready) == 1 else 'members are'} ready for service {service.name} "
                f"({', '.join(ready)}); min_ready asks for {least}",
                "Members were taken out by force, or failed since: no drain that was not forced goes so far.",
                "Bring a member back (muster ready NAME), or lower min_ready in the cluster file.",
                "warning",
            )


def other_file(cluster: ClusterFile, whole: ClusterFile, told: Mapping[str, Mapping[str, object]]) -> list[Finding]:
    """Return who of the cluster runs with another cluster file than the one read here."""
    looked_at = {str(m.name) for m in cluster.members}
    names = [name for name in of_another_file(whole, told, VERSION) if name in looked_at]
    if not names:
        return []
    return [
        Finding(
            "MEMBER-FILE",
            ", ".join(names),
            f"{', '.join(names)} {'runs' if len(names) == 1 else 'run'} with another cluster file than this host's",
            "The file was changed and not copied there, or copied and not yet read: who comes and goes a member learns at "
            "once, every other setting when it starts.",
            "Copy the file to every member; then muster roll -- ssh {member} systemctl restart muster-member",
            "warning",
        )
    ]
