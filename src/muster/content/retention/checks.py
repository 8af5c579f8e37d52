"""What the doctor can find out about packages that newer versions dropped: whether the Pulps keep them.

They are Pulp's to keep, for as long as clients use the metadata that they have. Where even a single Pulp would fail them, no
number of members helps.

Source: docs/facts/content-and-boot.md §8.3.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile, Member
from muster.content.retention.reached import pulp_behind
from muster.kernel.errors import MusterError
from muster.kernel.findings import Check, Finding

if TYPE_CHECKING:
    from muster.content.pulp import Pulp
    from muster.store.reading import Readable

_WITHIN_S = 15.0
_NAMED = 20
_CODE = "CONTENT-RETENTION"


@dataclass(frozen=True)
class _Kept:
    """What one member's Pulp keeps.

    Attributes:
        core: of pulpcore.
        versions: how many of each repository, by base path; None: all. What it does not distribute is not there.
        keepers: base paths of this cluster's, where there should be none.
        unseen: why nothing is known; empty: all is.
    """

    core: tuple[int, int] = (0, 0)
    versions: Mapping[str, int | None] | None = None
    keepers: Sequence[str] = ()
    unseen: str = ""


def checks(
    cluster: ClusterFile,
    balancing: Balancing,
    context: Callable[[], ssl.SSLContext | None],
    store: Callable[[], AbstractAsyncContextManager[Readable]],
) -> list[Check]:
    """Return the check of what Pulps keep; none where members have none in front of which they answer.

    ``context`` is what members are asked with, None when there is nothing.
    """
    content = cluster.content
    if content is None or not content.one_version or not {"https", "http"} & {*content.services} or content.keepers:
        return []
    if content.pulp_content_url is None and content.pulp_api_url is None:
        # There is no Pulp.
        return []

    async def looked() -> Sequence[Finding]:
        shown_to = context()
        if shown_to is None:
            return []
        asked = await _asked_for(store, content.retention_days * 86_400)
        if not asked:
            return []
        members = [m for m in cluster.members if m.kind == "muster"]
        said = await asyncio.gather(*(_kept_at(cluster, balancing, m, shown_to, asked) for m in members))
        return found({str(m.name): one for m, one in zip(members, said, strict=True)})

    return [Check("retention", looked)]


def found(said: Mapping[str, _Kept]) -> list[Finding]:
    """Return what follows from what each member's Pulp keeps, by the member's name."""
    findings = [_unseen(member, one.unseen) for member, one in said.items() if one.unseen]
    findings += [_left(member, one.keepers) for member, one in said.items() if one.keepers]
    short: dict[str, dict[str, list[str]]] = {}
    for member, one in said.items():
        for path, versions in (one.versions or {}).items():
            why = _short(one.core, versions)
            if why:
                short.setdefault(path, {}).setdefault(why, []).append(member)
    # What is so at several Pulps is said once.
    whys = {path: [f"on {', '.join(m)} {why}" for why, m in of.items()] for path, of in sorted(short.items())}
    named = [_forgetful(path, why) for path, why in whys.items()]
    if len(named) > _NAMED:
        more = [*whys][_NAMED:]
        named = [*named[:_NAMED], _forgetful(f"{more[0]} and {len(more) - 1} more", whys[more[0]])]
    return findings + named


def _short(core: tuple[int, int], versions: int | None) -> str:
    from muster.content.pulp import retains

    version = ".".join(map(str, core))
    if not retains(core):
        return f"it is to be had no more at once: pulpcore {version} has no retention"
    if versions == 1:
        return (
            "it is to be had until the next version: one version is kept (retain_repo_versions: 1), and the one before "
            f"while Pulp's retention lasts, which pulpcore {version} has unless its settings say otherwise"
        )
    return ""


def _forgetful(path: str, whys: Sequence[str]) -> Finding:
    return Finding(
        _CODE,
        path,
        f"What a newer version of {path} drops: {'; '.join(whys)}",
        "Clients use the metadata that they have for hours (dnf: 48), and ask for packages that it names. One Pulp alone "
        "would fail them, too; members have what no Pulp has no more.",
        "Let the repository keep several versions (retain_repo_versions) and Pulp superseded publications "
        "(DISTRIBUTED_PUBLICATION_RETENTION_PERIOD, pulpcore 3.109 or later); or content: keepers.",
        "warning",
    )


def _left(member: str, keepers: Sequence[str]) -> Finding:
    more = f" and {len(keepers) - 3} more" if len(keepers) > 3 else ""
    return Finding(
        "CONTENT-KEEPERS",
        f"Pulp behind {member}",
        f"{len(keepers)} keepers are left in the Pulp behind {member}: {', '.join(keepers[:3])}{more}",
        "The cluster file wants none. The member removes them when it starts and Pulp's API lets it; until then Pulp keeps "
        "publications for them.",
        f"Restart the member on {member}; its log says what Pulp refuses.",
        "warning",
    )


def _unseen(member: str, why: str) -> Finding:
    return Finding(
        "CONTENT-RETENTION-UNSEEN",
        f"Pulp behind {member}",
        f"Whether the Pulp behind {member} keeps packages that newer versions drop was not looked at: {why}",
        "Pulp's API tells that to its administrator alone. This says nothing of what Pulp keeps.",
        f"Run muster doctor on {member} itself, or as one of foreman.trusted_hosts; where Pulp believes no Remote-User, "
        "name its password in content: pulp_password_file.",
        "warning",
    )


async def _asked_for(store: Callable[[], AbstractAsyncContextManager[Readable]], within_s: float) -> list[str]:
    """Return the base paths of repositories that clients ask for; of a store that is away another check speaks."""
    from muster.content.retention.keepers import asked_within, distributed

    with contextlib.suppress(MusterError):
        async with store() as opened:
            return sorted(distributed(await asked_within(opened, within_s)()))
    return []


async def _kept_at(
    cluster: ClusterFile,
    balancing: Balancing,
    member: Member,
    context: ssl.SSLContext,
    asked: Sequence[str],
) -> _Kept:
    try:
        async with asyncio.timeout(_WITHIN_S), pulp_behind(cluster, balancing, member, context) as pulp:
            return await _kept(pulp, str(cluster.cluster), asked)
    except TimeoutError:
        return _Kept(unseen=f"it did not say within {_WITHIN_S:g} s what it keeps")
    except MusterError as e:
        return _Kept(unseen=str(e))


async def _kept(pulp: Pulp, cluster: str, asked: Sequence[str]) -> _Kept:
    from muster.content.retention import ring

    core = await pulp.core()
    repositories = {r.href: r for r in await pulp.repositories()}
    versions: dict[str, int | None] = {}
    for one in await pulp.at(asked):
        of = one.repository or one.version.partition("versions/")[0]
        if not of and one.publication:
            of = await pulp.repository_of(one.publication)
        if of in repositories:
            versions[one.base_path] = repositories[of].versions
    ours = await pulp.labelled(ring.LABEL, cluster)
    return _Kept(core, versions, sorted(d.base_path for d in ours if ring.recognised(d, cluster) is not None))
