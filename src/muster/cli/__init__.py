"""The command line: one file per command, imported only when its command runs.

Exit codes: 0 done, nothing wrong · 1 something examined is wrong (findings, not ready) · 2 wrong usage · 3 settings invalid
· 4 could not be done (unreachable, refused, failed) · 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from typing import NoReturn

import click

from muster.cli.options import CommandFiles, one_line
from muster.kernel import failpoints
from muster.kernel.errors import MusterError
from muster.version import VERSION

WRONG = 1
INVALID_SETTINGS = 3
NOT_DONE = 4
INTERRUPTED = 130

# What a device says of a write; such an error names no file.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})

# In the order of --help: try out, run, look, change, keep, derive.
_COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": ("demo", "Run three members behind a real HAProxy, create DNS records through them, examine everything."),
    "up": ("up", "Run a local cluster: CA, store, members and a real HAProxy on loopback."),
    "down": ("down", "Stop the local cluster that muster up runs."),
    "serve": ("serve", "Run one member."),
    "balance": ("balance", "Run the balancer: HAProxy with the configuration that follows from the cluster file."),
    "status": ("status", "Show which member is ready for which service, and why not; exit 1 when something needs you."),
    "doctor": ("doctor", "Examine the cluster; exit 1 when something is wrong."),
    "parity": ("parity", "Compare the members field by field; exit 1 when they drifted apart."),
    "explain": (
        "explain",
        "Say what happened to a machine that boots, a client's connections, or what a feature calls.",
    ),
    "support-bundle": (
        "support_bundle",
        "Write what a maintainer needs to see into one archive, without secrets; list it first, and ask.",
    ),
    "drain": ("drain", "Let MEMBER finish what it has and get nothing new; wait until its connections are gone."),
    "ready": (
        "ready",
        "Let MEMBER take clients again, once every balancer's checks of it have passed; wait until it is ready.",
    ),
    "maintenance": (
        "maintenance",
        "Drain MEMBER, then stop asking after it: balancers check it no more and nothing complains of it.",
    ),
    "add": (
        "add",
        "Write MEMBER into the cluster file and issue its certificate; balancers take it in once its checks pass.",
    ),
    "remove": ("remove", "Drain MEMBER, let balancers forget it, and take it out of the cluster file."),
    "roll": ("roll", "Drain a member, run COMMAND here, wait until the member is ready again; then the next one."),
    "services": (
        "services",
        "Where everything lives that members serve with: Pulps, registries, Foreman, DNS servers.",
    ),
    "repairs": ("repairs", "What providers of groups have yet to have: changes that others of the group have had."),
    "foreman": ("foreman", "What Foreman knows of the cluster's Smart Proxies: compared, registered, refreshed."),
    "adopt": (
        "adopt",
        "Make the cluster file of a cluster of Ruby Smart Proxies that stands already, and say what is wrong with it.",
    ),
    "config": ("config", "Write, check and show the cluster file."),
    "certs": ("certs", "The cluster's own TLS certificates."),
    "content": ("content", "The repositories that clients ask for, and those that members mirror."),
    "netboot": ("netboot", "What machines boot from the network with."),
    "ipam": ("ipam", "Addresses that Foreman's External IPAM gives to new hosts."),
    "openscap": ("openscap", "Compliance reports of hosts: those on their way to Foreman, and those it refused."),
    "ca": ("ca", "The Puppet CA: certificates of Puppet agents, signed by any member."),
    "backup": (
        "backup",
        "Write the store, this host's keys and certificates and the cluster file into one file, encrypted with age.",
    ),
    "restore": (
        "restore",
        "Bring a backup FILE back: keys and certificates, an empty store's content, then the cluster file.",
    ),
    "render": ("render", "Show or write the configuration of other programs."),
    "completion": (
        "completion",
        "Print the script by which SHELL completes commands, options and names of the cluster file.",
    ),
}


class _Commands(CommandFiles):
    """The commands themselves; who mistypes one is told which is near."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        is_wrong = args and args[0] not in _COMMANDS and not args[0].startswith("-")
        # A shell that completes what stands behind it hears nothing.
        if is_wrong and not ctx.resilient_parsing:
            import difflib

            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            ctx.fail(f"No command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    package="muster.cli",
    files=_COMMANDS,
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
        failpoints.arm(os.environ)
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
    except MusterError as e:
        # Whoever read settings has loaded what reads them; help has not, and takes a third of the time.
        from muster.kernel.settings import InvalidSettings

        if isinstance(e, InvalidSettings):
            click.echo(str(e), err=True)
            sys.exit(INVALID_SETTINGS)
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
