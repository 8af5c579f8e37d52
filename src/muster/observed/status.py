"""The cluster's status as one JSON value: members × services, who stands where and why, whether anybody is needed.

``muster status --json`` prints it and the cluster's page shows it, so that they say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile
from muster.cluster.life import LEAVING, OUT, lives_in
from muster.cluster.minutes import is_there_in, minutes_in
from muster.cluster.observations import observations_in
from muster.cluster.roster import seen_in
from muster.cluster.view import unchecked
from muster.observed.known import Known
from muster.observed.parity import of_another_file
from muster.observed.statements import told_in
from muster.observed.survey import Answer
from muster.store.reading import Reading
from muster.version import VERSION

_NO_STEWARD: Mapping[str, Any] = {"sentence": "", "by": "", "decides": False}


@dataclass(frozen=True)
class StoreSays:
    """What the store says of a cluster; empty, with ``trouble``, when it did not answer.

    Attributes:
        seen, lives, balancers: as JSON, by name.
        waiting: what members that take no step wait for, by member.
        behind: members that run with another cluster file.
        trouble: why the store did not answer; None: it did.
    """

    seen: Mapping[str, Any] = field(default_factory=dict)
    lives: Mapping[str, Any] = field(default_factory=dict)
    balancers: Mapping[str, Any] = field(default_factory=dict)
    steward: Mapping[str, Any] = field(default_factory=lambda: dict(_NO_STEWARD))
    waiting: Mapping[str, str] = field(default_factory=dict)
    behind: Sequence[str] = ()
    trouble: str | None = None


async def said_in(uow: Reading, cluster: ClusterFile, behind: Sequence[str] | None = None) -> StoreSays:
    """Return what the store says; ``behind`` as somebody found it just before, None: find out."""
    seen = {name: s.as_json() for name, s in (await seen_in(uow)).items()}
    lives = {name: life.as_json() for name, life in (await lives_in(uow)).items()}
    balancers = {name: o.as_json() for name, o in (await observations_in(uow)).items()}
    said = await minutes_in(uow)
    steward = {"sentence": said.sentence, "by": said.by, "decides": await is_there_in(uow)}
    if behind is None:
        behind = of_another_file(cluster, await told_in(uow), VERSION)
    return StoreSays(seen, lives, balancers, steward, dict(said.waiting), behind)


def status_of(
    cluster: ClusterFile,
    balancing: Balancing,
    answers: Sequence[Answer],
    says: StoreSays,
    here: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return everything that is known of a cluster now; ``here`` is what HAProxy says on the host that asks."""
    asked = {str(m.name): [a.as_json() for a in answers if a.member == str(m.name).lower()] for m in cluster.members}
    members: list[dict[str, Any]] = []
    for member in cluster.members:
        name = str(member.name)
        told, life = says.seen.get(name), says.lives.get(name)
        knows = Known(member.kind, told, life, asked[name], says.trouble is None, says.waiting.get(name, ""))
        members.append(
            {
                "name": member.name,
                "id": member.id,
                "address": member.address,
                "kind": member.kind,
                "said": told,
                "life": life,
                "stands": knows.stands,
                "as_wished": knows.is_as_wished,
                "has_this_file": name not in says.behind,
                "sentence": knows.sentence,
            }
        )
    serving = {a.service for a in answers if a.standing == "ready" and not _is_out(says.lives, a.member)}
    nowhere = [s.name for s in balancing.services if s.servers and s.name not in serving]
    return {
        "cluster": cluster.cluster,
        "address": cluster.address,
        "ready": says.trouble is None and not nowhere and all(m["as_wished"] for m in members),
        "members": members,
        "services": [
            {
                "name": s.name,
                "listen_port": s.listen_port,
                "also_listen_ports": list(s.also_listen_ports),
                "balance": s.balance,
                "members": [a.as_json() for a in answers if a.service == s.name],
            }
            for s in balancing.services
        ],
        "nowhere": nowhere,
        "store": {"ok": says.trouble is None, "trouble": says.trouble},
        "steward": dict(says.steward),
        "balancers": [
            {
                "name": b.name,
                "address": b.address,
                "said": says.balancers.get(b.name),
                "unchecked": _unchecked(says.balancers.get(b.name), says.lives),
            }
            for b in cluster.balancers
        ],
        "balancer": here,
    }


def _is_out(lives: Mapping[str, Any], member: str) -> bool:
    """Whether somebody wants it out; ``member`` in lower case."""
    return any(name.lower() == member and life["state"] in LEAVING for name, life in lives.items())


def _unchecked(said: Mapping[str, Any] | None, lives: Mapping[str, Any]) -> list[str]:
    """Return the services that a balancer sends to everybody because every check of them fails there."""
    if said is None or said["silent"] or said["blind"]:
        return []
    return list(unchecked(said["opinions"], [name for name, life in lives.items() if life["state"] in OUT]))
