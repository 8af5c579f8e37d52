"""``muster completion``: the script by which a shell completes commands, options and names."""

from __future__ import annotations

import click

_VARIABLE = "_MUSTER_COMPLETE"
_PROGRAM = "muster"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script by which SHELL completes commands, options and names of the cluster file.

    For bash (4.4 or later) it goes into /etc/bash_completion.d/muster, for zsh as _muster into a directory of $fpath, for
    fish into /etc/fish/completions/muster.fish.
    """
    click.echo(script(shell), nl=False)


def script(shell: str) -> str:
    """Return the script for a shell; it is not on this host as a rule, where a package is made."""
    from click.shell_completion import get_completion_class

    from muster.cli import muster

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"{shell} is no shell that can be completed for.")
    made = kind(muster, {}, _PROGRAM, _VARIABLE)
    # Not source(): for bash it asks the one of this host which version it has.
    return (made.source_template % made.source_vars()).strip() + "\n"
