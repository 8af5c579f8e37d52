"""The command of one output: its options, and what becomes of its documents; the same for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from muster.app.offers import modelled
from muster.app.outputs import Offer
from muster.app.settings import loaded
from muster.balancer.haproxy.binary import has_ipv6
from muster.balancer.model import Balancing
from muster.cli import WRONG
from muster.cli.offered import balancers, members
from muster.cli.options import (
    DEFAULT_RUN,
    cluster_option,
    dry_run_option,
    json_option,
    pki_directory,
    pki_option,
    print_json,
    run_option,
)
from muster.cli.render.places import differences, put, shown_difference
from muster.cluster.file import ClusterFile
from muster.derived.output import Document, Output, Site, tried

_FILE = click.Path(dir_okay=False, path_type=Path)
_DIRECTORY = click.Path(file_okay=False, path_type=Path)


def command_of(offer: Offer) -> click.Command:
    """Return the command that shows, compares, checks or writes an output."""
    output = offer.output

    def carry_out(
        *,
        cluster_path: Path,
        at: Path | None,
        diff: bool,
        dry_run: bool,
        as_json: bool,
        check: bool = False,
        pki_path: Path | None = None,
        run_path: Path = DEFAULT_RUN,
        balancer: str | None = None,
        member: str | None = None,
        **own: Any,
    ) -> None:
        site = Site(
            run=run_path.absolute(),
            pki=(pki_directory(cluster_path, pki_path) / "balancer").absolute(),
            balancer=balancer,
            member=member,
            place=at.absolute() if at is not None else None,
            dual_stack=has_ipv6(),
            given={name: v.absolute() if isinstance(v, Path) else v for name, v in own.items()},
        )
        compared = _compared(output, site, at) if diff else None
        # Where several files name each other, their place is part of what they say.
        if as_json and at is not None and not diff and not output.in_directory:
            raise click.UsageError("--json shows and --output writes: use one of them")
        cluster = loaded(cluster_path)
        offer.refuse_where_off(cluster)
        balancing = modelled(cluster)
        structured = not diff and as_json
        content, documents = asyncio.run(
            _rendered(output, balancing, cluster, site, check=check, structured=structured)
        )
        if not output.says_lacks:
            for sentence in output.lacks(balancing, cluster, site):
                click.echo(sentence, err=True)
        if compared is not None:
            _show_differences(output, documents, compared, as_json=as_json)
        elif structured:
            print_json(content)
        elif at is None:
            click.echo("".join(shown(output, documents)), nl=False)
        else:
            put(output, documents, at, dry_run=dry_run)

    made: Callable[..., Any] = carry_out
    for option in reversed(list(_options(output))):
        made = option(made)
    return click.command(output.word, help=output.help)(made)


def _options(output: Output) -> Iterator[Callable[[Any], Any]]:
    yield cluster_option
    if "pki" in output.needs:
        yield pki_option
    if "run" in output.needs:
        yield run_option
    if "balancer" in output.needs:
        yield click.option(
            "--balancer",
            metavar="NAME",
            shell_complete=balancers,
            help="Whose configuration; needed when the file names several.",
        )
    if "member" in output.needs:
        yield click.option(
            "--member", metavar="NAME", shell_complete=members, help="For this one only. [default: each member]"
        )
    for own in output.options:
        if own.kind == "flag":
            yield click.option(f"--{own.word}", is_flag=True, help=own.help)
        else:
            kind = {"file": _FILE, "directory": _DIRECTORY}.get(own.kind)
            yield click.option(f"--{own.word}", type=kind, help=own.help)
    yield click.option("--output", "at", type=_DIRECTORY if output.in_directory else _FILE, help=output.output_help)
    if output.check is not None:
        yield click.option("--check", is_flag=True, help=output.check.help)
    default = f" (by default {output.installed.said})" if output.installed is not None else ""
    yield click.option(
        "--diff",
        is_flag=True,
        help=f"Show what writing to --output{default} would change, and write nothing; exit 0: nothing, 1: something.",
    )
    yield dry_run_option
    yield json_option


async def _rendered(
    output: Output, balancing: Balancing, cluster: ClusterFile, site: Site, *, check: bool, structured: bool
) -> tuple[Any, tuple[Document, ...]]:
    """Return what programs are shown if that is wanted, and the documents unless nobody looks at them."""
    content = output.as_json(balancing, cluster, site) if structured and output.as_json is not None else None
    if content is not None and not check:
        return content, ()
    if output.learned is not None:
        site = replace(site, given={**site.given, **await output.learned()})
    documents = output.rendered(balancing, cluster, site)
    if check:
        await tried(output, balancing, cluster, site)
    return content if content is not None else {d.name: d.text for d in documents}, documents


def shown(output: Output, documents: Sequence[Document]) -> Iterator[str]:
    """Return the documents as people read them, each of several under its name."""
    for number, document in enumerate(documents):
        if output.in_directory:
            yield f"{'' if number == 0 else chr(10)}==> {document.name} <==\n"
        yield document.text


def _compared(output: Output, site: Site, at: Path | None) -> Path:
    if at is not None:
        return at
    if output.installed is None:
        raise click.UsageError(f"{output.word} has no place of its own: --diff needs --output")
    return output.installed.of(site)


def _show_differences(output: Output, documents: tuple[Document, ...], place: Path, *, as_json: bool) -> None:
    found = differences(output, documents, place)
    if as_json:
        rows = [{"file": one.file, "differs": one.differs, "diff": one.text} for one in found]
        print_json({"differs": any(one.differs for one in found), "files": rows})
    else:
        click.echo("".join(shown_difference(one.text) for one in found), nl=False)
    if any(one.differs for one in found):
        raise click.exceptions.Exit(WRONG)
