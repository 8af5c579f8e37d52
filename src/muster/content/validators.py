"""Validators that are the same on every member: the digest of the bytes, where it is known, and nothing else.

A backend's entity tags are its own (docs/facts/content-and-boot.md): equal bytes have different ones on two of them, and one
that is passed on makes a client's ``If-None-Match`` a matter of which member it meets.

Source: RFC 9110 §8.8, §13, §14.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from muster.kernel.errors import Rejected
from muster.kernel.names import shown

# repodata/<digest>-primary.xml.gz, by-hash/SHA256/<digest>, blobs/sha256:<digest>, manifests/sha256:<digest>; which kind
# of the first two it is its length says.
_IN_NAME = re.compile(
    r"(?:/repodata/(?P<repodata>[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128})-[^/]+|"
    r"/by-hash/(?:SHA256|SHA512)/(?P<byhash>[0-9a-f]{64}|[0-9a-f]{128})|"
    r"/(?:blobs|manifests)/(?:sha256:(?P<sha256>[0-9a-f]{64})|sha512:(?P<sha512>[0-9a-f]{128})))\Z"
)
_ALGORITHM = {64: "sha256", 96: "sha384", 128: "sha512"}
_HEX = re.compile(r"[0-9a-f]{1,128}\Z")
_SAID = re.compile(r"(?:sha256:(?P<sha256>[0-9a-f]{64})|sha512:(?P<sha512>[0-9a-f]{128}))\Z")
_TAG = re.compile(r'\s*(?P<weak>W/)?(?P<opaque>"[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|\Z)')


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest that names bytes."""

    algorithm: str
    value: str

    @property
    def tag(self) -> str:
        """The entity tag: strong, because the bytes are the same wherever the digest is."""
        return f'"{self.algorithm}:{self.value}"'


def digest(algorithm: str, value: str) -> Digest:
    """Return a digest that was given in two words: sha256, sha384 or sha512, and lower-case hexadecimal digits.

    Raises:
        Rejected: it is none.
    """
    if _HEX.match(value) is None or _ALGORITHM.get(len(value)) != algorithm:
        raise Rejected(f"{shown(value)} is no digest of {shown(algorithm)} in lower-case hexadecimal digits")
    return Digest(algorithm, value)


def named(path: str) -> Digest | None:
    """Return the digest that a path's name holds; None when it holds none."""
    return _digest(_IN_NAME.search(path.partition("?")[0]))


def said(headers: Iterable[tuple[str, str]]) -> Digest | None:
    """Return the digest that a registry says of what it gives under a tag; None when it says none."""
    value = next((v for k, v in headers if k.lower() == "docker-content-digest"), "")
    return _digest(_SAID.match(value.strip()))


def _digest(found: re.Match[str] | None) -> Digest | None:
    value = next((g for g in found.groups() if g), None) if found else None
    return Digest(_ALGORITHM[len(value)], value) if value is not None else None


def matches(field: str, tag: str | None, *, weakly: bool) -> bool:
    """Return whether an ``If-None-Match`` (compared weakly) or ``If-Match``/``If-Range`` (strongly) names the tag.

    A field that is malformed names nothing from there on; ``*`` names whatever there is.
    """
    if field.strip() == "*":
        return True
    at = 0
    while tag is not None and at < len(field) and (one := _TAG.match(field, at)):
        if one["opaque"] == tag and (weakly or not one["weak"]):
            return True
        at = one.end()
    return False
