"""How far long work is."""

from __future__ import annotations

from collections.abc import Callable

import click


def progress(*, quiet: bool) -> Callable[[str, int, int], None]:
    """Return what says on standard error how far long work is."""

    def say(what: str, done: int, of: int) -> None:
        if not quiet:
            click.echo(f"{what}: {done} of {of}", err=True)

    return say
