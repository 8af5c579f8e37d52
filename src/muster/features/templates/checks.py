"""What the doctor can find out about what is handed on to Foreman: does it answer by the name that members call it?

Asked from this host, for what needs an account and is refused without one; nothing is changed, nobody's template fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from muster.cluster.file import ClusterFile
from muster.cluster.foreman import trust_of
from muster.foreman import questions
from muster.kernel.errors import Misconfigured, MusterError
from muster.kernel.findings import Check, Finding
from muster.pki.context import client_context

_PLACE = "Foreman"
_ASKED = "/api/v2/status"
_TIMEOUT_S = 10.0


def checks(
    cluster: ClusterFile, ca: Callable[[], Path | None], lost: Sequence[str], *, timeout_s: float = _TIMEOUT_S
) -> list[Check]:
    """Return the check of Foreman; none where members have not to hand anything on.

    ``ca``: None when it is no use; ``lost``: what there is not while Foreman is away, in words, at least one.
    """
    what = f"{', '.join(lost[:-1])} and {lost[-1]}" if len(lost) > 1 else lost[0]
    what = f"{what[0].upper()}{what[1:]}"
    url = cluster.foreman.url
    if url is None:
        return []

    async def answered() -> Sequence[Finding]:
        believed = ca()
        if believed is None:
            return []
        try:
            context = client_context(believed, also=trust_of(cluster))
        except Misconfigured:
            # A file that only members have.
            return []
        try:
            async with questions.opened(url, context=context, timeout_s=timeout_s) as asking:
                status = (await asking.ask(_ASKED)).status
        except MusterError as e:
            return [_away(what, str(e))]
        if status == 403:
            return [_refuses(what, url)]
        return [_away(what, f"{url} answers {status}")] if status >= 500 else []

    return [Check("what is handed to Foreman", answered)]


def _away(what: str, why: str) -> Finding:
    return Finding(
        "FOREMAN-AWAY",
        _PLACE,
        f"{what}: {why}",
        "Foreman is stopped, or elsewhere, or its certificate is of a CA that nobody named.",
        "Start it; compare foreman.url, and foreman.ca_file, with the certificate that it shows.",
    )


def _refuses(what: str, url: str) -> Finding:
    return Finding(
        "FOREMAN-REFUSES",
        _PLACE,
        f"{what}: Foreman answers 403 at {url}",
        "It knows itself by another name: in containers it refuses all but its own and aliases it was told of.",
        "Write Foreman's own name into foreman.url, or tell Foreman of the alias (docs/admin/registration.md).",
    )
