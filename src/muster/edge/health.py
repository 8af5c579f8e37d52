"""Readiness: may this member take new clients of a service now, and if not, why, in one sentence.

``/health/ready?service=NAME`` is what every balancer asks, up to once a second for each service, so it only looks at
values others keep current: no query, no probe, no lock. ``/health/ready?services=all`` answers for the member as a whole and
for each service at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from muster.edge.replies import Reply, json_reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route


@dataclass(frozen=True)
class Verdict:
    """A service's readiness on this member.

    Attributes:
        state: ``ready``, ``draining`` or ``unready``.
        reason: one sentence; empty when ready.
        notes: sentences about what is wrong but does not take the service out.
    """

    state: str
    reason: str = ""
    notes: tuple[str, ...] = ()

    @property
    def status(self) -> int:
        return {"ready": 200, "draining": 404}.get(self.state, 503)

    def as_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"ready": self.state == "ready", "state": self.state}
        if self.reason:
            out["reason"] = self.reason
        if self.notes:
            out["notes"] = list(self.notes)
        return out


@dataclass
class Health:
    """What this member knows of its own readiness.

    Attributes:
        services: the services the balancer offers, by name.
        starting: sentence while the member is not open yet, else empty.
        draining: why the member drains, else empty.
        down: why a service is down here, by its name: another program that serves it does not answer, or a feature that
            belongs to it failed. A missing entry means up.
        reasons: further sources of reasons that take every service out (an expired certificate).
        notes: sources of sentences that only show.
    """

    member: str
    services: frozenset[str]
    starting: str = "the member is starting"
    draining: str = ""
    down: Mapping[str, str] = field(default_factory=dict)
    reasons: list[Callable[[], Sequence[str]]] = field(default_factory=list)
    notes: list[Callable[[], Sequence[str]]] = field(default_factory=list)

    def verdict(self, service: str | None = None) -> Verdict:
        """Return the readiness of a service, or of the member as a whole."""
        notes = tuple(n for source in self.notes for n in source())
        if self.draining:
            return Verdict("draining", self.draining, notes)
        if service is not None and service not in self.services:
            # 404 would mean "draining" to the balancer.
            known = ", ".join(sorted(self.services))
            return Verdict("unready", f"this cluster has no such service; it has {known}", notes)
        reasons = [self.starting] if self.starting else [r for source in self.reasons for r in source()]
        if service is not None and service in self.down:
            reasons.append(self.down[service])
        return Verdict("unready", "; ".join(reasons), notes) if reasons else Verdict("ready", "", notes)


async def live(_: Health, __: Request) -> Reply:
    return json_reply({"live": True})


async def ready(health: Health, request: Request) -> Reply:
    query = request.query()
    service = query.get("service")
    verdict = health.verdict(service if isinstance(service, str) else None)
    said = {"member": health.member, **verdict.as_json()}
    if query.get("services") == "all":
        said["services"] = {s: health.verdict(s).as_json() for s in sorted(health.services)}
    return json_reply(said, verdict.status)


MOUNT = Mount(
    "/health",
    (Route("GET", "/live", Access.OPEN, live), Route("GET", "/ready", Access.OPEN, ready)),
)
