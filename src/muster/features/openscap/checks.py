"""What the doctor can find out about compliance reports: do they reach Foreman, is there room, can pages be made?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from muster.features.openscap import oscap
from muster.features.openscap.ledger import counted
from muster.features.openscap.settings import OpenscapSettings
from muster.kernel.errors import MusterError
from muster.kernel.findings import Check, Finding
from muster.store.reading import Readable

_PLACE = "feature openscap"
STUCK_S = 3600.0
"""How long a report may wait before somebody has to look."""
_NEARLY_FULL = 0.8


def checks(
    settings: OpenscapSettings, store: Callable[[], AbstractAsyncContextManager[Readable]], *, is_member: bool
) -> list[Check]:
    """Return the checks. ``is_member``: whether a member of the cluster runs on this host."""

    async def reports() -> Sequence[Finding]:
        try:
            async with store() as opened:
                counts, now = await counted(opened)
        except MusterError:
            # Another check says so.
            return []
        found = []
        waiting, refused = counts["waiting"], counts["refused"]
        waited_s = now - waiting.oldest_at if waiting.oldest_at is not None else 0.0
        if waited_s > STUCK_S:
            found.append(
                Finding(
                    "OPENSCAP-STUCK",
                    _PLACE,
                    f"{waiting.reports} compliance reports wait for Foreman, the oldest for {waited_s / 3600:.0f} h",
                    "Foreman does not answer, does not know the Smart Proxy, or has no plugin for compliance.",
                    "muster openscap spool says what Foreman answered; then muster openscap retry.",
                )
            )
        if refused.reports:
            found.append(
                Finding(
                    "OPENSCAP-REFUSED",
                    _PLACE,
                    f"{_count(refused.reports, 'compliance report')} of {_count(refused.hosts, 'host')} refused",
                    "Foreman does not know the host or the policy, or the report cannot be read.",
                    "muster openscap spool --state refused says why; then muster openscap retry, or remove.",
                    "warning",
                )
            )
        held = sum(counts[s].bytes for s in ("arriving", "waiting", "refused"))
        if held > _NEARLY_FULL * settings.spool_limit_bytes:
            found.append(
                Finding(
                    "OPENSCAP-NEARLY-FULL",
                    _PLACE,
                    f"Reports that Foreman does not have take {held >> 20} of {settings.spool_limit_bytes >> 20} MiB",
                    "Foreman is away for long, or many reports were refused.",
                    "Bring Foreman back, remove what was refused (muster openscap remove), or raise spool_limit_bytes.",
                    "warning",
                )
            )
        return found

    async def program() -> Sequence[Finding]:
        why = oscap.lack() if is_member else ""
        if not why:
            return []
        return [
            Finding(
                "OPENSCAP-NO-OSCAP",
                _PLACE,
                f"Foreman shows no reports and guides as pages: {why}",
                "The program oscap makes them.",
                "Install it on every member; reports reach Foreman without it.",
                "warning",
            )
        ]

    return [Check(_PLACE, reports), Check(_PLACE, program)]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"
