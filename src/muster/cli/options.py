"""Options that several commands share, so that they mean and read the same everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_CLUSTER = Path("/etc/muster/cluster.yaml")
DEFAULT_RUN = Path("/run/muster")

_FILE = click.Path(dir_okay=False, path_type=Path)
_DIRECTORY = click.Path(file_okay=False, path_type=Path)


def cluster_option(command: F) -> F:
    return click.option(
        "--cluster",
        "cluster_path",
        type=_FILE,
        envvar="MUSTER_CLUSTER",
        default=DEFAULT_CLUSTER,
        show_default=True,
        show_envvar=True,
        help="The cluster file.",
    )(command)


def pki_option(command: F) -> F:
    return click.option(
        "--pki",
        "pki_path",
        type=_DIRECTORY,
        envvar="MUSTER_PKI",
        show_envvar=True,
        help="Directory of CA and bundles. [default: pki beside the cluster file]",
    )(command)


def run_option(command: F) -> F:
    return click.option(
        "--run",
        "run_path",
        type=_DIRECTORY,
        envvar="MUSTER_RUN",
        default=DEFAULT_RUN,
        show_default=True,
        show_envvar=True,
        help="Directory of sockets and running state.",
    )(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done and do nothing.")


def pki_directory(cluster_path: Path, pki_path: Path | None) -> Path:
    return pki_path if pki_path is not None else cluster_path.parent / "pki"


def print_json(content: Any) -> None:
    click.echo(json.dumps(content, indent=2, ensure_ascii=False, default=str))
