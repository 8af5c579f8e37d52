"""What pages for administrators have them type is there: every command, and every option of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from muster.cli import muster

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md", "packaging/README.md",
    *(f"docs/{of}/{p.name}" for of in ("admin", "tutorial", "explanation") for p in (ROOT / "docs" / of).glob("*.md")),
]  # fmt: skip

_BLOCK = re.compile(r"^ *```[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_TYPED = re.compile(r"(?:\$ )?(?:sudo )?(?:[A-Z_]+=\S+ )*(muster [a-z].*)")
_INLINE = re.compile(r"`(muster [a-z][^`\n]*)`")
# Behind the command: a comment, a column of a table, another command.
_END = re.compile(r" #|  |[|;…]|&&")
# A word that stands for any, and a table of several.
_PLACEHOLDERS = (
    "render WORD",
    "add/remove",
    "backup/restore",
    "config/certs/render",
    "up / down",
    "drain/ready/maintenance/roll",
)


def typed(text: str) -> Iterator[str]:
    for block in _BLOCK.findall(text):
        lines = (_TYPED.match(line.strip()) for line in re.sub(r"\\\n", " ", block).splitlines())
        yield from (found[1] for found in lines if found)
    yield from _INLINE.findall(_BLOCK.sub("", text))


def why_not(command: str) -> str | None:
    """Return what of a command there is not, or None."""
    words = _END.split(command)[0].split()[1:]
    if " ".join(words).startswith(_PLACEHOLDERS):
        return None
    at: click.Command = muster
    while isinstance(at, click.Group) and words and not words[0].startswith("-"):
        below = at.get_command(click.Context(at), words[0])
        if below is None:
            return f"no command {words[0]}: {command}"
        at, words = below, words[1:]
    options = {name for o in at.params for name in (*o.opts, *o.secondary_opts)} | {"--help", "--version"}
    for word in words:
        if word == "--":
            break
        if word.startswith("--") and (name := word.partition("=")[0].rstrip(".,")) not in options:
            return f"no option {name}: {command}"
    return None


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_names_is_there(page: str) -> None:
    assert not [why for c in typed((ROOT / page).read_text("utf-8")) if (why := why_not(c))]


def test_commands_are_found_in_pages() -> None:
    assert sum(len(list(typed((ROOT / page).read_text("utf-8")))) for page in PAGES) > 250


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("```\n$ muster config check bad.yaml\n```\n", None),
        ("```\nmuster certs issue \\\n  --all && muster nothing\n```\n", None),
        ("see `muster roll -- ssh {member} reboot --now`", None),
        ("`muster render prometheus --output DIR`", None),
        ("```\n$ MUSTER_LOG=json muster balanced\n```\n", "no command balanced: muster balanced"),
        ("`muster certs renew`", "no command renew: muster certs renew"),
        ("`muster certs issue --every`", "no option --every: muster certs issue --every"),
    ],
)
def test_of_a_wrong_command_it_is_said_what_is_wrong(text: str, why: str | None) -> None:
    assert [w for c in typed(text) if (w := why_not(c))] == ([why] if why else [])
