"""Options that several commands share, so that they mean, allow and read the same everywhere."""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.types import StringParamType

from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.names import host_or_address, shown
from muster.kernel.secrets import Secret

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from rich.console import RenderableType
    from rich.text import Text

F = TypeVar("F", bound=Callable[..., object])

DEFAULT_CLUSTER = Path("/etc/muster/cluster.yaml")
DEFAULT_RUN = Path("/run/muster")
DEFAULT_LOCAL = Path(".muster")

_FILE = click.Path(dir_okay=False, path_type=Path)
_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_LONGEST_REASON = 200
_LONGEST_LINE = 10_000


class Commands(click.Group):
    """A group whose help has the first sentence of every command, whole: click cuts it at the width of the screen."""

    def told(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Return what the list of commands says: name and sentence, in order."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        return [(name, first_sentence(c.help or "")) for name, c in found if c is not None and not c.hidden]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return what begins so: names from the list, for click would import each command to ask it for its sentence."""
        from click.shell_completion import CompletionItem

        names = [CompletionItem(n, help=said) for n, said in self.told(ctx) if n.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if rows := self.told(ctx):
            with formatter.section("Commands"):
                formatter.write_dl(rows)


class CommandFiles(Commands):
    """A group whose commands are imported when they are asked for: start-up is what a person waits for most often.

    A command has the name of its file. The table says of each the file and the first sentence of its help, in the order of
    --help: help that had to import every command would be the slowest of all.
    """

    def __init__(self, *arguments: Any, package: str, files: Mapping[str, tuple[str, str]], **named: Any) -> None:
        # What stands for a command until it is imported: click knows from it which names are near a wrong one.
        super().__init__(*arguments, **named)
        self.commands = {name: click.Command(name) for name in files}
        self.package = package
        self.files = files

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.files)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in self.files:
            return None
        file = self.files[name][0]
        command: click.Command = getattr(importlib.import_module(f"{self.package}.{file}"), file)
        return command

    def told(self, ctx: click.Context) -> list[tuple[str, str]]:  # noqa: ARG002
        return [(name, sentence) for name, (_, sentence) in self.files.items()]


def first_sentence(text: str) -> str:
    """Return the first sentence of a help text."""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=\.) ", paragraph)[0]


class Days(click.IntRange):
    """A number of days, as 30 or 30d."""

    name = "days"

    def __init__(self, least: int = 1, most: int = 36_500) -> None:
        super().__init__(least, most)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"([0-9]{1,18})d?", str(value))
        if found is None:
            self.fail(f"{shown(value)} is no number of days such as 30d", param, ctx)
        return super().convert(int(found[1]), param, ctx)


class Seconds(click.FloatRange):
    """A number of seconds. It can be compared with every other one, which not-a-number cannot."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{shown(value)} is no number of seconds", param, ctx)
        return found


class Host(StringParamType):
    """A host name or an IP address."""

    name = "host"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return host_or_address(value)
        except Rejected as e:
            self.fail(str(e), param, ctx)


def named_place(text: str) -> tuple[str, str]:
    """Return name and address of ``NAME=IP``, either of which may be a host name.

    Raises:
        UsageError: it is none.
    """
    name, sign, at = text.partition("=")
    if not sign:
        raise click.UsageError(f"{shown(text)} is no NAME=IP")
    return Host().convert(name, None, None), Host().convert(at, None, None)


class Reason(StringParamType):
    """One line for people. It is kept in the store and shown on other people's terminals, which obey control characters."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not text.isprintable():
            self.fail(f"{shown(text)} holds characters that cannot be shown", param, ctx)
        if len(text) > _LONGEST_REASON:
            self.fail(f"{len(text)} characters are too many; {_LONGEST_REASON} are the most", param, ctx)
        return text


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


def directory_option(command: F) -> F:
    return click.option(
        "--dir",
        "directory",
        type=_DIRECTORY,
        default=DEFAULT_LOCAL,
        show_default=True,
        envvar="MUSTER_DIR",
        help="Where the local cluster keeps its files.",
    )(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done and do nothing.")


def pki_directory(cluster_path: Path, pki_path: Path | None) -> Path:
    return pki_path if pki_path is not None else cluster_path.parent / "pki"


def print_json(content: object) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
    # JSON leaves the other control characters (C1, those that turn the direction of writing) to themselves.
    click.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def store_url(named_by: str) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """Return what refuses a store's URL that members would refuse, and a password; ``named_by`` names its file instead."""

    def checked(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
        # It brings the database's library with it, which most commands never need.
        from muster.store.place import Place

        if given is None:
            return None
        try:
            place = Place.parsed(Secret(given))
        except Misconfigured as e:
            raise click.BadParameter(str(e)) from e
        # Never repeated, because it may hold one.
        if place.holds_secret:
            raise click.BadParameter(
                "it holds a password, which every account of this host can read in the list of processes; put the password "
                f"into a file of mode 0600 and name that with {named_by}"
            )
        return given

    return checked


def print_parts(parts: Callable[[int], Iterable[RenderableType]]) -> None:
    """Print what a rich console shows; ``parts`` makes it for a width.

    A terminal breaks sentences between words. Who reads a pipe or a file reads by lines: there each is whole.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for part in parts(console.width):
        console.print(part, soft_wrap=isinstance(part, Text) and not console.is_terminal)


def line(said: object, style: str = "") -> Text:
    """Return a line for a rich console, without markup and as :func:`one_line`."""
    from rich.text import Text

    return Text(one_line(said), style=style)


def one_line(said: object) -> str:
    """Return what somebody else said (a member, the store, another administrator) as it may stand on a terminal."""
    return shown(said, _LONGEST_LINE)
