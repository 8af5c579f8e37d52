"""ISC's grammar as a tree of statements: words up to a semicolon, or words and a block in braces.

What a statement means is nobody's matter here, so whatever dhcpd.conf may hold is passed over as a whole: classes,
conditions, keys, zones, expressions. Linear in the text's length. Source: dhcpd.conf(5), dhcpd.leases(5).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_NESTING = 32
"""Blocks within blocks; what is deeper is left out. dhcpd's own files have five at most."""

_MAX_WRONG = 5

_TOKEN = re.compile(
    r"""\s++|\#[^\n]*+|(?P<text>"(?:[^"\\]|\\.)*+")|(?P<mark>[{};,=])|(?P<word>[^\s{};,="\#]++)|(?P<open>")""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.))", re.DOTALL)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b"}


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement.

    Attributes:
        words: as they stand there, texts with their quotes; commas and equals signs are words of their own.
        block: what stands in its braces; None: it ended with a semicolon.
    """

    words: Sequence[str]
    block: Sequence[Statement] | None = None


def statements(text: str) -> tuple[list[Statement], list[str]]:
    """Return the statements of a whole file, and what is wrong with it, a clause each.

    Whatever is wrong, the statements that are whole are there.
    """
    outer: list[Statement] = []
    # Of each open block what it is called and what it is in; None stands for a block that is too deep.
    opened: list[tuple[list[str], list[Statement] | None]] = []
    into: list[Statement] | None = outer
    words: list[str] = []
    wrong: dict[str, None] = {}
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind is None:
            continue
        found = token.group()
        if kind == "open":
            wrong[f"a quote is not closed in {_line(text, token.start())}"] = None
            break
        if kind != "mark" or found in ",=":
            # dhcpd's keywords have no case; what follows them may.
            words.append(found if words or kind == "text" else found.lower())
        elif found == ";":
            if into is not None and words:
                into.append(Statement(words))
            words = []
        elif found == "{":
            opened.append((words, into))
            is_too_deep = len(opened) > MAX_NESTING
            # Said of the first one alone: to find the line takes time.
            if is_too_deep and into is not None and len(wrong) < _MAX_WRONG:
                wrong[f"more than {MAX_NESTING} blocks within each other in {_line(text, token.start())}"] = None
            into, words = None if is_too_deep or into is None else [], []
        elif not opened:
            if len(wrong) < _MAX_WRONG:
                wrong[f"a brace too many in {_line(text, token.start())}"] = None
            words = []
        else:
            called, around = opened.pop()
            if around is not None:
                around.append(Statement(called, into or ()))
            into, words = around, []
    if opened:
        wrong["a block is not closed"] = None
    while opened:
        called, around = opened.pop()
        if around is not None:
            around.append(Statement(called, into or ()))
        into = around
    return outer, list(wrong)


def end_of_statement(text: str, start: int = 0) -> int:
    """Return where the first statement ends, after its semicolon or closing brace; -1: the text ends before."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        if token.lastgroup == "open":
            return -1
        if token.lastgroup != "mark":
            continue
        mark = token.group()
        if mark == "{":
            depth += 1
        elif mark == "}":
            depth -= 1
        if (mark == "}" and depth <= 0) or (mark == ";" and depth == 0):
            return token.end()
    return -1


def unquoted(word: str) -> str:
    """Return what a word says: of a text what is between its quotes, escapes resolved."""
    if not word.startswith('"'):
        return word
    inner = word[1:-1]
    return _ESCAPE.sub(_resolved, inner) if "\\" in inner else inner


def _resolved(escape: re.Match[str]) -> str:
    octal, hexadecimal, other = escape.groups()
    if octal:
        return chr(int(octal, 8) & 0xFF)
    if hexadecimal:
        return chr(int(hexadecimal, 16))
    return _CONTROLS.get(other, other)


def _line(text: str, at: int) -> str:
    return f"line {text.count(chr(10), 0, at) + 1}"
