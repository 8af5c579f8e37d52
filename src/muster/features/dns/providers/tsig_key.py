"""The TSIG key the settings name, read from a file as BIND reads one.

A file holds one ``key NAME { algorithm WORD; secret TEXT; };``: the two clauses in any order, each text bare or quoted,
comments of all three kinds between any two words, blanks and line ends inside a quoted secret. Two things BIND does not take
are taken: a bare text with slashes, and a missing last semicolon.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import dns.exception
import dns.name
import dns.tsig

from muster.features.dns.settings import Algorithm, NSUpdateSettings
from muster.kernel.errors import Misconfigured
from muster.kernel.files import read_bounded

_LIMIT_BYTES = 64 << 10
# Comments begin where a word may, so a bare secret in base64 may hold two slashes. What is opened and not closed is one
# odd word up to the end: no text is looked at twice.
_TOKEN = re.compile(
    r"(?P<blank>[ \t\r\n\f\v]+)|(?P<comment>#[^\n]*|//[^\n]*|/\*(?:[^*]|\*(?!/))*\*/)"
    r'|(?P<mark>[{};])|"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<odd>".*|/\*.*)|(?P<bare>[^\s{};"]+)',
    re.DOTALL,
)
_ALGORITHM = re.compile(r"hmac-[a-z0-9-]{2,20}\Z")
_SECRET = re.compile(r"[A-Za-z0-9+/]{2,1024}={0,2}\Z")
_LONGEST_NAME = 255


class _Token(NamedTuple):
    """A word of the file; ``is_mark``: one of ``{ } ;``."""

    text: str
    is_mark: bool = False


_OPEN, _CLOSE, _END = _Token("{", True), _Token("}", True), _Token(";", True)


def key_from(settings: NSUpdateSettings) -> dns.tsig.Key | None:
    """Return the TSIG key the settings name, or None for unsigned updates.

    Raises:
        Misconfigured: the key file cannot be read, is not in BIND's form or names an algorithm nobody has. The secret never
            stands in the message.
    """
    if settings.key_file is not None:
        name, algorithm, secret = _read(settings.key_file)
        if algorithm not in get_args(Algorithm):
            known = ", ".join(get_args(Algorithm))
            raise Misconfigured(f"DNS key file {settings.key_file} has algorithm {algorithm}, which is none of {known}")
        return _key(name, secret, algorithm, str(settings.key_file))
    if settings.key_name is not None and settings.key_secret is not None:
        return _key(settings.key_name, settings.key_secret.reveal(), settings.key_algorithm, "the settings")
    return None


def _read(path: Path) -> tuple[str, str, str]:
    """Return name, algorithm and secret of a key file."""
    text = read_bounded(path, what="DNS key file", limit_bytes=_LIMIT_BYTES).decode("utf-8", "replace")
    found = parsed(text)
    if found is None:
        raise Misconfigured(f"DNS key file {path} is not of the form key NAME {{ algorithm hmac-...; secret ...; }};")
    return found


def parsed(text: str) -> tuple[str, str, str] | None:
    """Return name, algorithm and secret of the one key in a text, None when it is not of that form."""
    tokens = _tokens(text)
    first, name, brace = next(tokens, None), next(tokens, None), next(tokens, None)
    if first is None or name is None or first.is_mark or name.is_mark:
        return None
    if first.text.lower() != "key" or brace != _OPEN:
        return None
    clauses = _clauses(tokens)
    # BIND wants a last semicolon; it is passed over where it is missing.
    if clauses is None or next(tokens, _END) != _END or next(tokens, None) is not None:
        return None
    algorithm, secret = clauses["algorithm"].lower(), "".join(clauses["secret"].split())
    is_name = name.text.isascii() and 0 < len(name.text) <= _LONGEST_NAME
    if not is_name or not _ALGORITHM.match(algorithm) or not _SECRET.match(secret):
        return None
    return name.text, algorithm, secret


def _clauses(tokens: Iterator[_Token]) -> dict[str, str] | None:
    """Return the two clauses up to the closing brace, in whichever order; None when they are not those two, once each."""
    found: dict[str, str] = {}
    while (word := next(tokens, None)) is not None and word != _CLOSE:
        value, end = next(tokens, None), next(tokens, None)
        clause = word.text.lower()
        if word.is_mark or value is None or value.is_mark or end != _END or clause in found:
            return None
        found[clause] = value.text
    return found if word == _CLOSE and found.keys() == {"algorithm", "secret"} else None


def _tokens(text: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(text):
        if match.lastgroup == "quoted":
            yield _Token(match["quoted"].replace('\\"', '"'))
        elif match.lastgroup == "mark":
            yield _Token(match[0], True)
        elif match.lastgroup in ("bare", "odd"):
            yield _Token(match[0])


def _key(name: str, secret: str, algorithm: str, where: str) -> dns.tsig.Key:
    try:
        key = dns.tsig.Key(name, secret, dns.name.from_text(_on_the_wire(algorithm)))
        # Only now, and not at the first update, a machine says that it has no MD5 (FIPS 140).
        dns.tsig.get_context(key)  # type: ignore[no-untyped-call]
        return key
    except (ValueError, NotImplementedError, dns.exception.DNSException) as e:
        raise Misconfigured(f"DNS key {name} from {where} cannot be used: {type(e).__name__}") from e


def _on_the_wire(algorithm: str) -> str:
    """Return the name an algorithm of BIND's configuration has in messages."""
    if algorithm == "hmac-md5":
        return "hmac-md5.sig-alg.reg.int"
    # BIND's hmac-sha256-128 is hmac-sha256 of which it also takes the first 128 bits. It knows no algorithm by the
    # longer name, which dnspython would send.
    stem, _, bits = algorithm.rpartition("-")
    return stem if bits.isdecimal() else algorithm
