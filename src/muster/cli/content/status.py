"""``muster content status``: which version of each repository clients get, and what is the matter."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli import WRONG
from muster.cli.content.mirrored import DIGITS
from muster.cli.options import cluster_option, json_option, line, print_json, print_parts

if TYPE_CHECKING:
    from rich.text import Text

    from muster.content.states import State

# So long a repository that nobody asks for is remembered.
_REMEMBERED_S = 30 * 86_400.0
# Of what there is no matter with, without --all.
_MOST_WELL = 10
_ENDS = ("/repodata/repomd.xml", "/repodata", "/InRelease", "/Release", "/PULP_MANIFEST")


@click.command()
@click.argument("path", required=False)
@cluster_option
@json_option
@click.option("--all", "is_all", is_flag=True, help="Also every repository there is no matter with.")
def status(path: str | None, cluster_path: Path, as_json: bool, is_all: bool) -> int:
    """Show which version of each repository clients get, and what is the matter; exit 1 when something is.

    That is a Pulp or a member's disk that has been behind for longer than content.lag_s. Worst first; of what is as it
    should be some lines. With PATH, as clients ask for it: what every member has of that one. Asks the store alone.
    """
    found = asyncio.run(collected(cluster_path, path))
    if as_json:
        print_json(found)
    else:
        print_parts(lambda _: shown(found, is_all=is_all, is_one=path is not None))
    return WRONG if any(r["is_wrong"] for r in found["repositories"]) else 0


async def collected(cluster_path: Path, path: str | None = None) -> dict[str, Any]:
    """Return everything ``muster content status`` shows, as one JSON object; ``path``: of that repository alone."""
    from muster.app.settings import loaded, store_to_read
    from muster.content.mirror.paths import is_mirrored
    from muster.content.mirror.recorded import DISTRIBUTIONS, distributions_of
    from muster.content.states import states_in
    from muster.kernel import log
    from muster.kernel.errors import Misconfigured

    # What would be logged stands in the answer; unconfigured, it would also stand between its lines.
    log.configure(level="ERROR")
    cluster = loaded(cluster_path)
    if cluster.content is None or not cluster.content.one_version:
        why = "has no section content" if cluster.content is None else "says one_version: false in content"
        raise Misconfigured(f"{cluster_path} {why}: each Pulp answers for itself, and members follow no repositories")
    async with store_to_read(cluster) as store, store.read() as uow:
        states = await states_in(uow, cluster, _REMEMBERED_S)
        # A store that no member which mirrors has used has no such table.
        has_mirrored = any(is_mirrored(state.path) for state in states)
        given = distributions_of(await uow.rows(DISTRIBUTIONS)) if has_mirrored else {}
    if path is not None:
        states = [_named(states, path)]
    return {
        "cluster": cluster.cluster,
        "address": cluster.address,
        "lag_s": cluster.content.lag_s,
        "members": [str(m.name) for m in cluster.members if m.kind == "muster"],
        "repositories": [
            {**s.as_json(), "publication": given[s.path].publication if s.path in given else ""} for s in states
        ],
    }


def _named(states: list[State], path: str) -> State:
    """Return the repository that somebody means, who may have copied more or less of its path.

    Raises:
        NotFound: clients have asked for none of that name.
    """
    import difflib

    from muster.kernel.errors import NotFound
    from muster.kernel.names import shown

    wanted = "/" + path.partition("://")[2].partition("/")[2] if "://" in path else path
    wanted = wanted.rstrip("/")
    for end in _ENDS:
        wanted = wanted.removesuffix(end)
    by_path = {state.path: state for state in states}
    for one in (wanted, f"/pulp/content/{wanted.lstrip('/')}"):
        if one in by_path:
            return by_path[one]
    near = difflib.get_close_matches(wanted, by_path, n=1)
    also = f"; {near[0]} they did" if near else "; muster content status --all lists what they did"
    raise NotFound(f"Clients have asked for no repository {shown(path)} within {_REMEMBERED_S / 86_400:.0f} days{also}")


def shown(found: dict[str, Any], *, is_all: bool = False, is_one: bool = False) -> list[Text]:
    """Return what a person sees: of each repository a few lines, then what they come to."""
    repositories = found["repositories"]
    if is_one:
        return [part for r in repositories for part in (*_lines(r), *_of_members(r))]
    matter = [r for r in repositories if r["matters"]]
    well = [r for r in repositories if not r["matters"]]
    listed = well if is_all or len(well) <= _MOST_WELL else []
    parts = [part for r in (*matter, *listed) for part in _lines(r)]
    return [*parts, _summary(repositories, matter, well, is_cut=len(listed) < len(well))]


def _lines(repository: dict[str, Any]) -> list[Text]:
    from muster.content.states import ago

    asked = f"asked for {ago(repository['asked_s'])} ago"
    what = f"{repository['shown']} for {ago(repository['shown_s'])}" if repository["shown"] else "no version is shown"
    said = [line(m["sentence"], "red" if m["is_overdue"] else "yellow") for m in repository["matters"]]
    style = "red" if repository["is_wrong"] else "yellow" if said else ""
    publication = repository.get("publication", "")
    of_mirror = [line(f"from publication {publication[:DIGITS]}", "dim")] if publication else []
    return [line(repository["path"], style), *_under([line(f"{what}, {asked}"), *of_mirror, *said])]


def _under(lines: list[Text]) -> list[Text]:
    from rich.text import Text

    return [Text("    ").append_text(one) for one in lines]


def _of_members(repository: dict[str, Any]) -> list[Text]:
    from muster.content.mirror import paths
    from muster.content.states import ago

    whose = paths.spoken(repository["path"], "its Pulp")
    lines = []
    # What stands above already says which member it is of.
    above = "; ".join(m["sentence"] for m in repository["matters"])
    for member in repository["members"]:
        if member["told_s"] is None:
            lines.append(line(f"{member['name']}: {member['sentence']}", "yellow"))
            continue
        carried = f"{whose} has {member['carried']}" if member["carried"] else f"{whose} was not reached"
        count = member["versions"]
        disk = f"{count} version{'s' if count != 1 else ''} on its disk"
        staged = {True: ", what is shown among them", False: ", not what is shown", None: ""}[member["is_staged"]]
        lines.append(line(f"{member['name']}: {carried}; said {ago(member['told_s'])} ago"))
        lines += _under([line(f"{disk}{staged}")])
        if member["sentence"] and member["sentence"] not in above:
            lines += _under([line(member["sentence"], "yellow")])
    return _under(lines)


def _summary(
    repositories: list[dict[str, Any]], matter: list[dict[str, Any]], well: list[dict[str, Any]], *, is_cut: bool
) -> Text:
    if not repositories:
        return line("Clients have asked for no repository yet.", "dim")
    wrong = sum(r["is_wrong"] for r in repositories)
    cold = sum(not r["is_followed"] for r in well)
    good = len(well) - cold
    parts = [
        f"{wrong} with something wrong" if wrong else "",
        f"{len(matter) - wrong} not settled yet" if len(matter) > wrong else "",
        f"{good} as {'it' if good == 1 else 'they'} should be" if good else "",
        f"{cold} that nobody asks for now" if cold else "",
    ]
    count = len(repositories)
    cut = " (--all lists these, too)" if is_cut else ""
    text = f"{count} repositor{'ies' if count != 1 else 'y'}: {', '.join(p for p in parts if p)}{cut}."
    return line(text, "bold")
