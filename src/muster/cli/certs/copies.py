"""Files that must reach other hosts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click


@dataclass(frozen=True)
class Copy:
    """Files that must reach another host."""

    owner: str
    path: Path

    def as_json(self) -> dict[str, str]:
        return {"to": self.owner, "path": str(self.path)}


def print_copies(copies: Sequence[Copy], *, dry_run: bool) -> None:
    if copies:
        click.echo(
            f"{'Then would have to reach other hosts:' if dry_run else 'Copy what belongs to other hosts, now:'}"
        )
    for copy in copies:
        click.echo(f"  {copy.owner}: {copy.path}")
