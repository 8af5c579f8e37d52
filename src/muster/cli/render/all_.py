"""``muster render all``: everything that follows from the cluster file, as one tree."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli import WRONG
from muster.cli.options import (
    cluster_option,
    dry_run_option,
    json_option,
    pki_directory,
    pki_option,
    print_json,
    run_option,
)
from muster.kernel.names import shown

if TYPE_CHECKING:
    from muster.app.outputs import Offer
    from muster.balancer.model import Balancing
    from muster.cluster.file import ClusterFile
    from muster.derived.output import Output, Site
    from muster.derived.whole import Part

_LONGEST_PATH = 4096
HELP = "Write every output there is as one tree, with a page that says what goes where."


@click.command("all", help=HELP)
@cluster_option
@pki_option
@run_option
@click.option(
    "--output", "at", type=click.Path(file_okay=False, path_type=Path), required=True, help="The tree's directory."
)
@click.option(
    "--check", is_flag=True, help="Ask each consumer that is installed here what it thinks; write nothing it refuses."
)
@click.option(
    "--diff", is_flag=True, help="Show what writing would change, and write nothing; exit 0: nothing, 1: something."
)
@dry_run_option
@json_option
def all_(
    cluster_path: Path,
    pki_path: Path | None,
    run_path: Path,
    at: Path,
    check: bool,
    diff: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write every output there is as one tree, with a page that says what goes where.

    What cannot be rendered, for want of a section of the cluster file or of a program, stands on that page with the reason.
    What an earlier tree left there, such as files of a member that is gone, is named and stays.
    """
    from muster.app.offers import modelled
    from muster.app.outputs import offers
    from muster.app.settings import loaded
    from muster.balancer.haproxy.binary import has_ipv6
    from muster.cli.render.places import differences, leftovers, put, shown_difference
    from muster.derived.output import Output, Site
    from muster.derived.whole import tree

    cluster = loaded(cluster_path)
    balancing = modelled(cluster)
    site = Site(
        run=run_path.absolute(),
        pki=(pki_directory(cluster_path, pki_path) / "balancer").absolute(),
        dual_stack=has_ipv6(),
    )
    parts = asyncio.run(_parts(offers(), balancing, cluster, site, check=check))
    documents = tree(cluster, parts)
    whole = Output("all", HELP, lambda *_: documents, in_directory=True)
    left = leftovers((p.output.word for p in parts), documents, at)
    said: dict[str, Any] = {
        "rendered": [{"output": p.output.word, "files": [d.name for d in p.documents]} for p in parts if not p.why_not],
        "absent": [{"output": p.output.word, "why": p.why_not} for p in parts if p.why_not],
        "left": left,
    }
    if diff:
        found = differences(whole, documents, at)
        if as_json:
            rows = [{"file": one.file, "differs": one.differs, "diff": one.text} for one in found]
            print_json({"differs": any(one.differs for one in found), "files": rows, **said})
        else:
            click.echo("".join(shown_difference(one.text) for one in found), nl=False)
            _say_left(left)
        if any(one.differs for one in found):
            raise click.exceptions.Exit(WRONG)
        return
    put(whole, documents, at, dry_run=dry_run, quiet=as_json)
    if as_json:
        print_json({"directory": at, "dry_run": dry_run, **said})
        return
    for one in said["absent"]:
        click.echo(f"Not {one['output']}: {one['why']}", err=True)
    _say_left(left)


def _say_left(files: list[Path]) -> None:
    """Nothing is removed: somebody may have put it there, or a service may still read it."""
    for one in files:
        click.echo(f"Left as it is, and not rendered any more: {shown(str(one), _LONGEST_PATH)}", err=True)


async def _parts(
    offers: tuple[Offer, ...], balancing: Balancing, cluster: ClusterFile, site: Site, *, check: bool
) -> list[Part]:
    from muster.derived.whole import Part
    from muster.kernel.errors import Misconfigured, Rejected, Unavailable, Unsupported

    found: list[Part] = []
    for one in offers:
        output = one.output
        try:
            one.refuse_where_off(cluster)
            given: dict[str, Any] = {
                o.word.replace("-", "_"): False if o.kind == "flag" else None for o in output.options
            }
            if output.learned is not None:
                given |= await output.learned()
            documents = []
            lacks: dict[str, None] = {}
            for below, there in _sites(output, cluster, replace(site, given=given)):
                documents += [replace(d, name=f"{below}{d.name}") for d in output.rendered(balancing, cluster, there)]
                lacks |= dict.fromkeys(output.lacks(balancing, cluster, there))
        except (Misconfigured, Rejected, Unsupported, Unavailable) as e:
            found.append(Part(output, why_not=str(e)))
            continue
        if check:
            await _checked(output, balancing, cluster, replace(site, given=given))
        found.append(Part(output, tuple(documents), lacks=tuple(lacks)))
    return found


async def _checked(output: Output, balancing: Balancing, cluster: ClusterFile, site: Site) -> None:
    from muster.derived.output import tried
    from muster.kernel.errors import Rejected, Unavailable, Unsupported

    try:
        for _, there in _sites(output, cluster, site):
            await tried(output, balancing, cluster, there)
    except Unavailable as e:
        click.echo(f"Not asked about {output.word}: {e}", err=True)
    except Unsupported as e:
        click.echo(f"Not asked about {output.word}: {e}", err=True)
    except Rejected as e:
        raise Rejected(f"{output.word}: {e}") from e


def _sites(output: Output, cluster: ClusterFile, site: Site) -> Iterator[tuple[str, Site]]:
    """Return for whom the output is rendered, and the directory of each."""
    if "balancer" not in output.needs or len(cluster.balancers) < 2:
        yield "", site
        return
    for balancer in cluster.balancers:
        yield f"{balancer.name}/", replace(site, balancer=str(balancer.name))
