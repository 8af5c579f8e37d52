"""``Release`` and ``InRelease``: which files are the lists of one suite of a deb archive, and of when this version is.

A signature is carried, and checked by clients alone: of a text that is signed where it stands the text is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo

from muster.content.metadata import deb822
from muster.content.metadata.deb822 import Stanza
from muster.content.metadata.malformed import Malformed
from muster.content.metadata.names import Algorithm, checksum, is_inside, whole_number
from muster.kernel.names import shown

LIMIT_BYTES = 4 << 20
# Debian's own have some hundreds.
_LIMIT_FILES = 10_000
_LIMIT_WORDS = 1000
_LIMIT_TEXT = 256
_DIGESTS = ("sha256", "sha512")
_WANTED = frozenset({"date", "suite", "codename", "components", "architectures", "acquire-by-hash", *_DIGESTS})
_BEGIN, _SIGNATURE, _END = (
    f"-----{what}-----".encode() for what in ("BEGIN PGP SIGNED MESSAGE", "BEGIN PGP SIGNATURE", "END PGP SIGNATURE")
)
_ARMOUR_HEADER = re.compile(rb"[A-Za-z]{1,32}: [ -~]{1,200}\Z")
# RFC 2822's, as archives write them; names of months are English whatever the locale.
_DATE = re.compile(
    r"(?:[A-Z][a-z]{2}, {1,2})?(?P<day>[0-9]{1,2}) (?P<month>[A-Z][a-z]{2}) (?P<year>[0-9]{4})"
    r" (?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
    r" (?:UTC|GMT|Z|(?P<zone>[+-])(?P<hours>[0-9]{2})(?P<minutes>[0-9]{2}))\Z"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Listed:
    """A file that a Release lists, be it there or not: many list what is there packed, or not at all.

    Attributes:
        href: the path below the suite, plain text.
        sha256: hex, lower case; empty where the Release says none. One of the two is there.
        sha512: as that.
    """

    href: str
    size: int
    sha256: str
    sha512: str

    @property
    def proof(self) -> tuple[Algorithm, str]:
        """An algorithm and a digest."""
        return ("sha256", self.sha256) if self.sha256 else ("sha512", self.sha512)


@dataclass(frozen=True, slots=True)
class Release:
    """What a Release says.

    Attributes:
        date: when it was made, seconds since 1970; 0 where it does not say.
        has_by_hash: clients may ask for its files by their digests.
        files: in the order of the document.
    """

    date: float
    suite: str
    codename: str
    components: tuple[str, ...]
    architectures: tuple[str, ...]
    has_by_hash: bool
    files: tuple[Listed, ...]


def is_signed(body: bytes) -> bool:
    """Whether a text is signed where it stands, as an ``InRelease`` is."""
    return body.startswith(_BEGIN)


def read(body: bytes, *, of: str = "Release") -> Release:
    """Return what a Release says, signed where it stands or not; ``of`` is what an error calls it.

    Raises:
        Malformed: larger than 4 MiB, several stanzas, a signed text that does not end as one or has something around it,
            more than 10,000 files, or one without a place inside the suite, without a digest of its algorithm's length, or
            with two sizes; or nothing but digests that prove nothing.
    """
    if len(body) > LIMIT_BYTES:
        raise Malformed.reading(of, f"it is larger than {LIMIT_BYTES} bytes")
    text = _signed(body, of) if is_signed(body) else body
    # The second would be told before it is counted.
    found = list(deb822.stanzas([text], _WANTED, of=of, limit_stanzas=2, limit_bytes=LIMIT_BYTES))
    if len(found) != 1:
        raise Malformed.reading(of, f"it has {'several entries' if found else 'nothing in it'}")
    stanza = found[0]
    return Release(
        _date(deb822.single(stanza, "date", of=of), of), _text(stanza, "suite", of), _text(stanza, "codename", of),
        _words(stanza, "components", of), _words(stanza, "architectures", of),
        deb822.single(stanza, "acquire-by-hash", of=of).lower() == "yes", _files(stanza, of),
    )  # fmt: skip


def _signed(body: bytes, of: str) -> bytes:
    """Return the text within its armour (RFC 9580 §7)."""
    # White space at their ends is not signed.
    lines = [line.rstrip() for line in body.split(b"\n")]
    if lines[0] != _BEGIN:
        raise Malformed.reading(of, "what says that it is signed is nothing of the kind")
    at = 1
    while at < len(lines) and lines[at]:
        if not _ARMOUR_HEADER.match(lines[at]):
            raise Malformed.reading(of, f"line {at + 1} is no header of a signed text")
        at += 1
    if _SIGNATURE not in lines[at:]:
        raise Malformed.reading(of, "its signed text does not end")
    end = lines.index(_SIGNATURE, at)
    text, signature = lines[at + 1 : end], lines[end + 1 :]
    if signature.count(_END) != 1 or any(signature[signature.index(_END) + 1 :]):
        raise Malformed.reading(of, "its signature does not end, or something follows it")
    if any(line.startswith(b"-") and not line.startswith(b"- ") for line in text):
        raise Malformed.reading(of, "in its signed text a line begins with a dash that is not escaped")
    return b"\n".join(line.removeprefix(b"- ") for line in text)


def _files(stanza: Stanza, of: str) -> tuple[Listed, ...]:
    if not any(name in stanza for name in _DIGESTS):
        raise Malformed.reading(of, "it lists no file with a digest that proves anything")
    found: dict[str, Listed] = {}
    for algorithm in _DIGESTS:
        lines = stanza.get(algorithm, [""])
        if lines[0]:
            raise Malformed.reading(of, f"{algorithm} says something where its list begins")
        for line in lines[1:]:
            digest, size, href = _listed(line, algorithm, of)
            before = found.get(href, Listed(href, size, "", ""))
            if before.size != size or digest != (getattr(before, algorithm) or digest):
                raise Malformed.reading(of, f"it says two things of {shown(href)!r}")
            sha256, sha512 = (digest, before.sha512) if algorithm == "sha256" else (before.sha256, digest)
            found[href] = Listed(href, size, sha256, sha512)
            if len(found) > _LIMIT_FILES:
                raise Malformed.reading(of, f"it lists more than {_LIMIT_FILES} files")
    return tuple(found.values())


def _listed(line: str, algorithm: str, of: str) -> tuple[str, int, str]:
    words = line.split(None, 2)
    size = whole_number(words[1]) if len(words) == 3 else None
    proof = checksum(algorithm, words[0]) if words else None
    if size is None or proof is None:
        raise Malformed.reading(of, f"{shown(line)!r} is no digest, size and path")
    if not is_inside(words[2]):
        raise Malformed.reading(of, f"the path {shown(words[2])!r} is none inside the suite")
    return proof[1], size, words[2]


def _date(text: str, of: str) -> float:
    if not text:
        return 0.0
    found = _DATE.match(text)
    try:
        if found is None:
            raise ValueError
        month = _MONTHS.index(found["month"]) + 1
        zone: tzinfo = UTC
        if found["zone"]:
            away = timedelta(hours=int(found["hours"]), minutes=int(found["minutes"]))
            zone = timezone(away if found["zone"] == "+" else -away)
        day, hour, minute, second = (int(found[name]) for name in ("day", "hour", "minute", "second"))
        return datetime(int(found["year"]), month, day, hour, minute, second, tzinfo=zone).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        raise Malformed.reading(of, f"{shown(text)!r} is no date") from None


def _text(stanza: Stanza, name: str, of: str) -> str:
    text = deb822.single(stanza, name, of=of)
    if len(text) > _LIMIT_TEXT or not text.isprintable():
        raise Malformed.reading(of, f"{name} is not a short line of text")
    return text


def _words(stanza: Stanza, name: str, of: str) -> tuple[str, ...]:
    words = " ".join(stanza.get(name, [])).split()
    if len(words) > _LIMIT_WORDS or any(len(w) > _LIMIT_TEXT or not w.isprintable() for w in words):
        raise Malformed.reading(of, f"{name} is not a list of short words")
    return tuple(words)
