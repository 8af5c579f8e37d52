"""``muster content promote``: an environment gets publications of mirrored repositories."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.ca.actor import actor
from muster.cli.content.mirrored import DIGITS, Place
from muster.cli.offered import environments, repositories
from muster.cli.options import cluster_option, dry_run_option, json_option, one_line, print_json

if TYPE_CHECKING:
    from muster.content.mirror.ledger import Ledger, Move, Outcome
    from muster.content.mirror.publications import Distribution


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=repositories)
@click.option("--from", "source", metavar="ENVIRONMENT", shell_complete=environments, help="What this one has of them.")
@click.option("--publication", metavar="DIGEST", help="This one, of one NAME: eight digits of it at least.")
@click.option("--to", "target", metavar="ENVIRONMENT", shell_complete=environments, required=True, help="Who gets it.")
@cluster_option
@dry_run_option
@json_option
def promote(
    names: tuple[str, ...],
    source: str | None,
    publication: str | None,
    target: str,
    cluster_path: Path,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Let an environment have what another one has of NAMEs, or one publication of a NAME; also to go back.

    All of them change at once, or none when one cannot be. Clients of the environment get it from all members at the same
    moment: when it lies on their disks.
    """
    if (source is None) == (publication is None):
        raise click.UsageError("Say what: either --from or --publication.")
    if publication is not None and len(set(names)) > 1:
        raise click.UsageError("--publication is of one repository.")
    if source == target:
        raise click.UsageError("--from and --to are the same.")
    found = asyncio.run(_promoted(tuple(dict.fromkeys(names)), source, publication, target, cluster_path, dry=dry_run))
    if as_json:
        print_json(found)
        return 0
    if found["note"]:
        click.echo(one_line(found["note"]), err=True)
    for one in found["repositories"]:
        click.echo(one_line(one["sentence"]))
    return 0


async def _promoted(
    names: tuple[str, ...], source: str | None, publication: str | None, target: str, cluster_path: Path, *, dry: bool
) -> dict[str, Any]:
    from muster.content.mirror.ledger import Outcome

    place = Place.of(cluster_path)
    for name in names:
        place.repository(name)
    place.environment(target)
    if source is not None:
        place.environment(source)
    async with place.ledger(dry=dry) as (ledger, _):
        given = await ledger.given()
        moves = [await _move(place, ledger, given, n, source, publication, target) for n in names]
        if dry:
            before = [(m, m.previous or "") for m in moves]
            done = [Outcome(m.repository, m.publication, was, m.publication != was) for m, was in before]
        else:
            done = await ledger.promote(moves, to=target, by=actor())
    return {
        "dry_run": dry,
        "to": target,
        "note": _note(place, given, moves, source, target),
        "repositories": [{**one._asdict(), "sentence": _sentence(one, target, dry=dry)} for one in done],
    }


async def _move(
    place: Place,
    ledger: Ledger,
    given: Mapping[str, Distribution],
    name: str,
    source: str | None,
    publication: str | None,
    target: str,
) -> Move:
    from muster.content.mirror.ledger import Move, refuse_other_kind
    from muster.kernel.errors import NotFound

    if source is not None:
        digest = _had(given, source, name)
        if not digest:
            raise NotFound(
                f"{source} has nothing of {name}; nothing was changed. {_remedy(place, given, name, source)}"
            )
    else:
        digest = (await ledger.publication(name, publication or "")).digest
    kind = place.settings.repositories[name].kind
    refuse_other_kind(given.values(), name, digest, kind)
    return Move(name, kind, digest, _had(given, target, name))


def _remedy(place: Place, given: Mapping[str, Distribution], name: str, source: str) -> str:
    """Return how an environment gets something of a repository: of the last one before it that has any."""
    order = place.settings.environments
    before = [e for e in order[: order.index(source)] if _had(given, e, name)]
    if before:
        return f"muster content promote {name} --from {before[-1]} --to {source} gives it what {before[-1]} has"
    return f"muster content sync {name} fetches it for {order[0]}"


def _had(given: Mapping[str, Distribution], environment: str, repository: str) -> str:
    """Return the publication of a repository that an environment has; empty: none."""
    return next(
        (d.publication for d in given.values() if (d.environment, d.repository) == (environment, repository)), ""
    )


def _note(place: Place, given: Mapping[str, Distribution], moves: list[Move], source: str | None, target: str) -> str:
    """Return what is unusual about the order of environments, which is no reason to refuse anything."""
    order = place.settings.environments
    at = order.index(target)
    if source is not None:
        frm = order.index(source)
        if frm > at:
            return f"{source} comes after {target}: this goes against the order of environments."
        if skipped := order[frm + 1 : at]:
            return (
                f"{', '.join(skipped)} between {source} and {target} {'is' if len(skipped) == 1 else 'are'} left out."
            )
        return ""
    if not at:
        return f"{target} is the first environment: the next sync may bring it what the origin has."
    without = [m.repository for m in moves if _had(given, order[at - 1], m.repository) != m.publication]
    return (
        f"{order[at - 1]}, which comes before {target}, does not have this of {', '.join(without)}." if without else ""
    )


def _sentence(one: Outcome, target: str, *, dry: bool) -> str:
    has = one.publication[:DIGITS]
    if not one.is_changed:
        return f"{one.repository}: {target} has {has} already; nothing {'would be' if dry else 'was'} changed."
    was = f"had {one.previous[:DIGITS]}" if one.previous else "had nothing"
    return f"{one.repository}: {target} {'would have' if dry else 'has'} {has}, and {was} before."
