"""The command line: one file per command, imported only when its command runs.

Exit codes: 0 done, nothing wrong · 1 something examined is wrong (findings, not ready) · 2 wrong usage · 3 settings invalid
· 4 could not be done (unreachable, refused, failed) · 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Mapping
from typing import NoReturn

import click

from muster.cli.options import one_line
from muster.kernel.errors import MusterError
from muster.kernel.settings import InvalidSettings
from muster.version import VERSION

WRONG = 1
INVALID_SETTINGS = 3
NOT_DONE = 4
INTERRUPTED = 130

# What a device says of a write; such an error names no file.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})

# Command → module, in the order of --help: try out, run, look, change, derive.
_COMMANDS: Mapping[str, str] = {
    "demo": "demo",
    "up": "up",
    "down": "up",
    "serve": "serve",
    "balance": "balance",
    "status": "status",
    "doctor": "doctor",
    "parity": "parity",
    "explain": "explain",
    "drain": "drain",
    "ready": "drain",
    "maintenance": "drain",
    "add": "members",
    "remove": "members",
    "roll": "roll",
    "config": "config",
    "certs": "certs",
    "ca": "ca",
    "render": "render",
}


class _Commands(click.Group):
    """Imports a command's module when it is asked for: start-up is what a person waits for most often."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"muster.cli.{_COMMANDS[name]}")
        command: click.Command = getattr(module, name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            ctx.fail(f"No command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    epilog="Exit codes: 0 done; 1 something examined is wrong; 2 usage; 3 settings invalid; 4 could not be done.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(VERSION, prog_name="muster")
def muster() -> None:
    """Foreman Smart Proxies that work as one.

    Try it: muster demo. Run it: write a cluster file, muster certs init, then muster serve on every member and muster
    balance on every balancer.
    """


def main() -> None:
    """Run the command line and exit with a documented code."""
    try:
        result = muster.main(standalone_mode=False)
        sys.exit(result if isinstance(result, int) else 0)
    except click.exceptions.Abort:
        click.echo("Interrupted.", err=True)
        sys.exit(INTERRUPTED)
    except click.exceptions.Exit as e:
        sys.exit(e.exit_code)
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except InvalidSettings as e:
        click.echo(str(e), err=True)
        sys.exit(INVALID_SETTINGS)
    except MusterError as e:
        _fail(str(e))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as e:
        # boundary: every room translates what it expects; what is left of this kind is mostly a file that this account may
        # not use, and an administrator needs its name, not our stack.
        sentence = _refused(e)
        if sentence is None:
            raise
        _fail(sentence)


def _fail(sentence: str) -> NoReturn:
    # A message may quote the store or a log, and a terminal obeys what it is sent.
    click.echo("Error: " + "\n".join(one_line(line) for line in sentence.split("\n")), err=True)
    sys.exit(NOT_DONE)


def _refused(error: OSError) -> str | None:
    """Return what the system refused, None when it names no file: that is a bug, and its traceback says more."""
    reason = error.strerror or str(error)
    if isinstance(error.filename, str | bytes):
        who = "; run it as root or as the account the file belongs to" if isinstance(error, PermissionError) else ""
        return f"{os.fsdecode(error.filename)} cannot be used: {reason}{who}"
    return f"Writing failed: {reason}" if error.errno in _FULL else None
