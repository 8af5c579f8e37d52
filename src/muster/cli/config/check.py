"""``muster config check``: what is wrong with a cluster file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli import INVALID_SETTINGS
from muster.cli.options import cluster_option, json_option, print_json

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile
    from muster.kernel.settings import Problem


@click.command()
@cluster_option
@json_option
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
def check(cluster_path: Path, as_json: bool, file: Path | None) -> int:
    """Print every problem of the cluster file with its line; exit 3 when there is one.

    A warning is about what the file may not mean, or names and this host lacks; with nothing but warnings it is valid.
    """
    path = file or cluster_path
    cluster, problems, warned = _looked_at(path)
    if as_json:
        print_json(_as_json(path, cluster, problems, warned))
    else:
        for problem in problems:
            click.echo(f"{path}: {problem}")
        for problem in warned:
            click.echo(f"{path}: warning: {problem}")
        if cluster is not None:
            also = f"; {_counted(len(warned), 'warning')}" if warned else ""
            click.echo(
                f"{path}: valid; {_counted(len(cluster.members), 'member')}, generation {cluster.generation}{also}"
            )
        else:
            click.echo(_counted(len(problems), "problem"), err=True)
    return 0 if cluster is not None else INVALID_SETTINGS


def told(path: Path) -> dict[str, Any]:
    """Return everything ``muster config check`` says of a file, as one JSON object.

    Raises:
        Misconfigured: it cannot be read.
    """
    return _as_json(path, *_looked_at(path))


def _looked_at(path: Path) -> tuple[ClusterFile | None, list[Problem], list[Problem]]:
    from muster.app.settings import checked, warnings

    cluster, problems = checked(path)
    return cluster, problems, warnings(path, cluster) if cluster is not None else []


def _as_json(path: Path, cluster: ClusterFile | None, problems: list[Problem], warned: list[Problem]) -> dict[str, Any]:
    return {
        "file": str(path),
        "valid": cluster is not None,
        "problems": [p.as_json() for p in problems],
        "warnings": [p.as_json() for p in warned],
    }


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count != 1 else ''}"
