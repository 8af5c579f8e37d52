"""What the commands of ``muster repairs`` share: reading them, choosing some, deciding about those, and saying so."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from muster.cli.options import one_line, print_json

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile
    from muster.policy.groups.journal import Repair

F = TypeVar("F", bound=Callable[..., object])


def chosen(command: F) -> F:
    """Give a command what says which repairs are meant."""
    all_ = click.option("--all", "all_", is_flag=True, help="All of them.")
    group = click.option("--group", metavar="FEATURE", help="With --all: only those of this feature.")
    provider = click.option("--provider", metavar="NAME", help="With --all: only those of this provider of the group.")
    ids = click.argument("ids", metavar="[ID]...", type=click.IntRange(1), nargs=-1)
    decorated: Any = ids(all_(group(provider(command))))
    return decorated  # type: ignore[no-any-return]


async def read(cluster_path: Path) -> list[Repair]:
    """Return all repairs, oldest first."""
    from muster.app.settings import loaded, store_to_read
    from muster.kernel import log
    from muster.policy.groups.journal import repairs

    # What would be logged is raised; unconfigured, it would also stand between the lines of the answer.
    log.configure(level="ERROR")
    async with store_to_read(loaded(cluster_path)) as store:
        return await repairs(store)


async def decide(
    cluster_path: Path,
    ids: Sequence[int],
    *,
    all_: bool,
    group: str | None,
    provider: str | None,
    drop: bool,
    dry: bool,
) -> list[Repair]:
    """Decide about the repairs that are meant, and return those as they were.

    Raises:
        UsageError: none are named, or both some and all.
        NotFound: one that is named is not there; nothing was changed.
        Unavailable: the store did not answer, or what one is about is being changed; it says how many were decided about.
    """
    from muster.app.settings import cluster_store, loaded
    from muster.kernel import log
    from muster.kernel.errors import NotFound, Unavailable
    from muster.policy.groups.journal import decided, repairs

    if bool(ids) == all_:
        raise click.UsageError("Name repairs by their ID (muster repairs list), or all with --all.")
    if (group or provider) and not all_:
        raise click.UsageError("--group and --provider go with --all.")
    log.configure(level="ERROR")
    cluster = loaded(cluster_path)
    async with cluster_store(cluster, changes=not dry) as store:
        there = {r.id: r for r in await repairs(store)}
        # One that is in the settings no more may have repairs still.
        known = {(r.group, r.provider) for r in there.values()} | set(_grouped(cluster))
        if (group or provider) and not any(group in (None, g) and provider in (None, p) for g, p in known):
            told = "; ".join(
                f"{g}: {', '.join(sorted(p for f, p in known if f == g))}" for g in sorted({g for g, _ in known})
            )
            raise NotFound(
                f"There is no such provider of a group; there are {told or 'no groups'}. Nothing was changed"
            )
        if strange := sorted(set(ids) - there.keys()):
            raise NotFound(f"There is no repair {', '.join(map(str, strange))}; nothing was changed")
        meant = [
            r
            for r in there.values()
            if (all_ or r.id in ids) and group in (None, r.group) and provider in (None, r.provider)
        ]
        if dry:
            return meant
        done = []
        for repair in meant:
            # One that was carried out meanwhile needs nobody any more.
            try:
                with contextlib.suppress(NotFound):
                    done.append(await decided(store, repair.id, drop=drop))
            except Unavailable as e:
                raise Unavailable(f"{e}; {len(done)} of {len(meant)} were decided about before") from e
        return done


def _grouped(cluster: ClusterFile) -> Iterator[tuple[str, str]]:
    """Yield feature and name of every provider of a group that the settings have."""
    for feature, given in cluster.features.items():
        group = given.get("group") if isinstance(given, Mapping) else None
        if isinstance(group, Mapping):
            yield from ((str(feature), str(name)) for name in group.get("providers") or ())


def report(found: Sequence[Repair], verb: str, *, dry: bool, as_json: bool) -> None:
    """Say what was decided, or would be."""
    if as_json:
        print_json({"dry_run": dry, "repairs": [r.as_json() for r in found]})
        return
    for repair in found:
        click.echo(one_line(sentence(repair)))
    count = f"{len(found)} repair{'s' if len(found) != 1 else ''}"
    click.echo(f"Nothing was changed; {count} would be {verb}." if dry else f"{count} {verb}.")


def sentence(repair: Repair) -> str:
    """Return a repair as a person reads it."""
    since = datetime.fromtimestamp(repair.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    state = "refused" if repair.is_stuck else f"waits, tried {repair.attempts} times"
    what = f"{repair.written.operation} {_in_words(repair)}"
    return f"{repair.id}: {repair.group}, provider {repair.provider}: {what}; since {since}; {state}: {repair.why}"


def _in_words(repair: Repair) -> str:
    given = repair.written.arguments
    said = [f"{k} {v}" for k, v in given.items() if isinstance(v, str)] if isinstance(given, dict) else []
    return ", ".join(said) or repair.written.key
