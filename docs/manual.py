"""Writes the manual: one page a command and a group, and one of the cluster file, out of the code.

``make man`` writes them into ``build/man``, from where packages take them; they are not committed. The pages of the same
source are the same, byte for byte: their date is that of ``SOURCE_DATE_EPOCH``, else of the last commit.

They are written here and not by click-man (MIT, maintained): it knows nothing of exit codes, variables, files and
examples, nor of a file's own page, and a command's page there has no way to the others.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import generate

from muster.cli import autosign
from muster.cli import muster as command_line
from muster.cli.options import Commands, first_sentence
from muster.version import VERSION

HERE = Path(__file__).parent.parent

_EXIT_CODES: Sequence[tuple[str, str]] = (
    ("0", "Done, nothing wrong."),
    ("1", "Something examined is wrong: findings, not ready, not alike."),
    ("2", "Wrong usage."),
    ("3", "The cluster file is invalid."),
    ("4", "It could not be done: unreachable, refused, failed."),
    ("130", "Interrupted."),
)
# What a command's options lead to, by the option that does.
_FILES: Mapping[str, tuple[str, str]] = {
    "--cluster": ("/etc/muster/cluster.yaml", "The cluster file, the same on every host; see muster-cluster.yaml(5)."),
    "--pki": ("/etc/muster/pki", "The cluster's own CA and certificates, beside the cluster file."),
    "--run": ("/run/muster", "Sockets and running state."),
}
EXAMPLES: Mapping[str, Sequence[tuple[str, str]]] = {
    "muster": (
        ("muster demo", "Try a cluster of three members on this host's loopback addresses."),
        ("muster status", "Who is ready for what, and why not?"),
        ("muster doctor", "What is wrong, and what mends it?"),
    ),
    "muster status": (("muster status --watch", "Look on while members come and go."),),
    "muster drain": (
        (
            'muster drain proxy02.example.com --reason "new kernel"',
            "Take a member out; muster ready takes it in again.",
        ),
    ),
    "muster ready": (("muster ready proxy02.example.com", "Take it in again."),),
    "muster roll": (
        ("muster roll -- ssh {member} apt-get -y upgrade", "One member after the other, each drained before."),
        ("muster roll --resume", "Go on where the last one stopped."),
    ),
    "muster config init": (
        (
            "muster config init --address proxy.example.com --member proxy01.example.com=192.0.2.11 "
            "--member proxy02.example.com=192.0.2.12 --balancer lb01.example.com=192.0.2.10",
            "A first cluster file of two members.",
        ),
    ),
    "muster config check": (("muster config check", "What is wrong with the file, line by line."),),
    "muster certs issue": (
        ("muster certs issue --all --balancer --client foreman.example.com", "Everybody's certificates, at once."),
    ),
    "muster certs verify": (("muster certs verify proxy01.example.com:9090", "Would clients believe that port?"),),
    "muster explain": (("muster explain 192.0.2.77 --failed", "Which of a host's connections ended early, and why?"),),
    "muster render": (("muster render haproxy --check", "HAProxy's configuration, and what HAProxy thinks of it."),),
    "muster support-bundle": (
        ("muster support-bundle --list", "What would be in it? Nothing is written."),
        ("muster support-bundle --doctor --anonymous", "One that names no host and no address."),
    ),
    "muster completion": (
        ("muster completion bash > /etc/bash_completion.d/muster", "Completion for everybody on this host."),
    ),
}
_WIDTH = 78


def pages(date: str) -> dict[str, str]:
    """Return every page by the name of its file; ``date`` as 2026-11-30."""
    found = dict(_commands(command_line, click.Context(command_line, info_name="muster"), date))
    found["muster-autosign.1"] = _of_autosign(date)
    found["muster-cluster.yaml.5"] = _of_cluster_file(date)
    return dict(sorted(found.items()))


def _commands(command: click.Command, context: click.Context, date: str) -> Iterator[tuple[str, str]]:
    below = _below(command, context)
    yield f"{_page_name(context)}.1", _of_command(command, context, below, date)
    for inner, at in below:
        yield from _commands(inner, at, date)


def _below(command: click.Command, context: click.Context) -> list[tuple[click.Command, click.Context]]:
    if not isinstance(command, click.Group):
        return []
    found = ((n, command.get_command(context, n)) for n in command.list_commands(context))
    return [(c, click.Context(c, info_name=n, parent=context)) for n, c in found if c is not None and not c.hidden]


def _page_name(context: click.Context) -> str:
    return context.command_path.replace(" ", "-")


def _of_command(
    command: click.Command,
    context: click.Context,
    below: Sequence[tuple[click.Command, click.Context]],
    date: str,
) -> str:
    name, text = _page_name(context), command.help or ""
    told = [(p, r) for p in command.get_params(context) if (r := p.get_help_record(context)) is not None]
    # An argument without words of its own stands in the synopsis.
    options = [(p, r) for p, r in told if r[1] or isinstance(p, click.Option)]
    parts = [_head(name, 1, date), *_named(name, first_sentence(text))]
    parts += [".SH SYNOPSIS", f".B {_escaped(context.command_path)}"]
    parts += _lines(_escaped(" ".join(command.collect_usage_pieces(context))))
    parts += [".SH DESCRIPTION", *_paragraphs(text)]
    if isinstance(command, Commands) and below:
        parts.append(".SH COMMANDS")
        for (_, at), (_, sentence) in zip(below, command.told(context), strict=True):
            parts += _item(f"{_page_name(at)}(1)", _escaped(sentence))
    if options:
        parts.append(".SH OPTIONS")
        for _, (words, meaning) in options:
            parts += _item(words, _escaped(" ".join(meaning.split())))
    variables = [(str(p.envvar), p.opts[0]) for p, _ in options if p.envvar]
    if variables:
        parts.append(".SH ENVIRONMENT")
        for variable, option in variables:
            parts += _item(variable, f"Counts where {_bold(option)} is absent.")
    parts += [".SH EXIT STATUS", *(line for code, says in _EXIT_CODES for line in _item(code, _escaped(says)))]
    files = [_FILES[o] for p, _ in options for o in p.opts if o in _FILES]
    if files:
        parts += [".SH FILES", *(line for path, says in files for line in _item(path, _escaped(says)))]
    if examples := EXAMPLES.get(context.command_path, ()):
        parts.append(".SH EXAMPLES")
        for i, (typed, says) in enumerate(examples):
            typed_lines = textwrap.wrap(typed, _WIDTH - 6, break_long_words=False, break_on_hyphens=False)
            shown = [_escaped(line) for line in " \\\n  ".join(typed_lines).split("\n")]
            parts += [*([".PP"] if i else []), *_lines(_escaped(says)), ".PP", ".RS 4", ".nf", *shown, ".fi", ".RE"]
    return _ended([*parts, *_see_also(context, below)])


def _see_also(context: click.Context, below: Sequence[tuple[click.Command, click.Context]]) -> list[str]:
    around = []
    at = context.parent
    while at is not None:
        around.append(f"{_page_name(at)}(1)")
        at = at.parent
    around += [f"{_page_name(at)}(1)" for _, at in below]
    return [".SH SEE ALSO", *_lines(", ".join(_reference(r) for r in (*around, "muster-cluster.yaml(5)")))]


def _of_autosign(date: str) -> str:
    sentence, *rest = (autosign.__doc__ or "").split("\n\n")
    parts = [
        _head("muster-autosign", 1, date),
        *_named("muster-autosign", sentence.split(": ", 1)[1]),
        *(".SH SYNOPSIS", f".B {_escaped('muster-autosign')}", r"\fICERTNAME\fR < \fIREQUEST\fR"),
        *(".SH DESCRIPTION", *_paragraphs("\n\n".join(rest))),
        *(".SH ENVIRONMENT", *_item("MUSTER_AUTOSIGN", _escaped("Another file of settings."))),
        ".SH EXIT STATUS",
    ]
    for code, says in (
        ("0", "Sign."),
        ("1", "Do not."),
        ("2", "It could not be asked; puppetserver does not sign then."),
    ):
        parts += _item(code, _escaped(says))
    parts += [".SH FILES", *_item(str(autosign.DEFAULT_SETTINGS), _escaped("url, ca, certificate and key."))]
    return _ended([*parts, ".SH SEE ALSO", _reference("muster-ca(1)")])


def _of_cluster_file(date: str) -> str:
    name = "muster-cluster.yaml"
    parts = [
        _head(name, 5, date),
        *_named(name, "the file from which everything of a cluster of Foreman Smart Proxies follows"),
        ".SH DESCRIPTION",
        *_paragraphs(
            "One YAML file, the same on every host, by default /etc/muster/cluster.yaml. Unknown keys are errors.\n\n"
            "muster config check finds what is wrong with a file, muster config show prints it with all defaults, muster "
            "config init writes a first one and muster config schema prints its JSON Schema."
        ),
    ]
    for place, meaning, rows in generate.settings():
        parts += [f".SS {_escaped(place or 'The file')}", *_lines(_from_markdown(meaning))]
        for key, kind, default, said in rows:
            type_and_default = f"{kind}; {default}" if default == "**required**" else f"{kind}; default: {default}"
            parts += [*_item(_plain(key), _from_markdown(type_and_default + ".")), ".br" if said else ""]
            parts += _lines(_from_markdown(said))
    parts += [".SH FILES", *_item("/etc/muster/cluster.yaml", "The file itself.")]
    see = ("muster(1)", "muster-config(1)", "muster-config-check(1)", "muster-config-init(1)")
    return _ended([*parts, ".SH SEE ALSO", *_lines(", ".join(_reference(r) for r in see))])


def _head(name: str, section: int, date: str) -> str:
    return f'.TH {_escaped(name.upper())} {section} {date} "Muster {VERSION}" Muster'


def _named(name: str, sentence: str) -> list[str]:
    return [".SH NAME", *_lines(f"{_escaped(name)} \\- {_escaped(sentence.rstrip('.'))}")]


def _item(term: str, meaning: str) -> list[str]:
    return [".TP", _bold(term), *_lines(meaning)]


def _paragraphs(text: str) -> list[str]:
    parts = [" ".join(p.split()) for p in re.split(r"\n\s*\n", text.strip())]
    return [line for i, p in enumerate(parts) for line in ([".PP"] if i else []) + _lines(_escaped(p))]


def _lines(escaped: str) -> list[str]:
    """Return text in lines, sentences on lines of their own, none of which is a request."""
    out: list[str] = []
    for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", escaped):
        out += textwrap.wrap(sentence, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return [rf"\&{line}" if line.startswith((".", "'")) else line for line in out]


def _reference(page: str) -> str:
    name, _, section = page.partition("(")
    return f"\\fB{_escaped(name)}\\fR({section}"


def _bold(text: str) -> str:
    return f"\\fB{_escaped(text)}\\fR"


def _escaped(text: str) -> str:
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("`", r"\(ga")
    text = text.replace("^", r"\(ha").replace("~", r"\(ti")
    return "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in text)


def _from_markdown(text: str) -> str:
    """Return what a page of the reference says, with its code in bold and its links as plain words."""
    text = re.sub(r"\[(`[^`]*`|[^\]`]*)\]\([^)]*\)", r"\1", text).replace("**", "").replace("\\|", "|")
    parts = text.split("`")
    return "".join(_bold(p) if i % 2 and p else _escaped(p) for i, p in enumerate(parts))


def _plain(text: str) -> str:
    return text.replace("`", "")


def _ended(parts: Iterable[str]) -> str:
    return "\n".join(p for p in parts if p) + "\n"


def date_of_source() -> str:
    """Return the day that the pages bear."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH") or _committed() or "0"
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d")


def _committed() -> str:
    try:
        asked = ["git", "-C", str(HERE), "log", "-1", "--format=%ct"]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        # An unpacked archive of the source.
        return str(int((HERE / "CHANGELOG.md").stat().st_mtime))


def main() -> None:
    """Write the pages, and remove those of commands that are no more."""
    parser = argparse.ArgumentParser(description="Write the manual's pages from the code.")
    parser.add_argument("directory", type=Path, nargs="?", default=HERE / "build" / "man")
    directory: Path = parser.parse_args().directory
    written = pages(date_of_source())
    for section in ("1", "5"):
        (directory / f"man{section}").mkdir(parents=True, exist_ok=True)
    for old in directory.glob("man[15]/muster*.[15]"):
        if old.name not in written:
            old.unlink()
    for name, text in written.items():
        (directory / f"man{name[-1]}" / name).write_text(text, "ascii")
    print(f"{len(written)} pages in {directory}")  # noqa: T201


if __name__ == "__main__":
    main()
