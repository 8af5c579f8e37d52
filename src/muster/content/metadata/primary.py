"""``primary.xml``: the packages of a yum repository, with what their bytes are, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from muster.content.metadata.malformed import Malformed
from muster.content.metadata.markup import Record, records
from muster.content.metadata.names import Algorithm, checksum, is_inside, whole_number
from muster.kernel.names import shown

LIMIT_PACKAGES = 1_000_000
_WANTED = {"package": frozenset({"checksum", "size", "location"})}


class Package(NamedTuple):
    """A package and what its bytes are.

    Attributes:
        href: the path below the repository, plain text: in a URL it has to be quoted.
        size: in bytes.
        digest: hex, lower case; a proof for the algorithms in :data:`muster.content.metadata.names.PROOFS`.
    """

    href: str
    size: int
    algorithm: Algorithm
    digest: str


LeftOut = Callable[[str], None]
"""Hears the path of each package that is left out, as metadata writes it."""


class Listing(Protocol):
    """Tells the packages of a list, unpacked; ``of`` is what errors call it."""

    def __call__(self, pieces: Iterable[bytes], of: str, left_out: LeftOut = ..., /) -> Iterator[Package]: ...


def unheard(_: str) -> None:
    """Nobody asks what is left out."""


def packages(
    pieces: Iterable[bytes],
    *,
    of: str = "primary.xml",
    limit_packages: int = LIMIT_PACKAGES,
    left_out: LeftOut = unheard,
) -> Iterator[Package]:
    """Yield the packages of an unpacked primary, in its order, while it comes; memory does not grow with it.

    Left out are those that no client fetches by that path below the repository: they lie on another server (``xml:base``),
    or the path leads out of it, or is written in a way that clients change before they ask.

    Source: docs/facts/content-and-boot.md §9.1.

    Raises:
        Malformed: no such XML, more than ``limit_packages`` packages, one without a location, a size, or a checksum of its
            algorithm's length. What was yielded before is worth nothing without the rest.
    """
    for record in records(pieces, "metadata", _WANTED, of=of, limit_records=limit_packages):
        if record.attributes.get("type") != "rpm":
            continue
        package = _package(record, of)
        if package is not None:
            yield package
        else:
            left_out(record.fields["location"].attributes["href"])


def _package(record: Record, of: str) -> Package | None:
    fields = record.fields
    if len(fields) < len(_WANTED["package"]):
        missing = ", ".join(sorted(_WANTED["package"] - fields.keys()))
        raise Malformed.reading(of, f"a package has no {missing}")
    place, said = fields["location"].attributes, fields["checksum"]
    href = place.get("href", "")
    if not href:
        raise Malformed.reading(of, "a package has an empty location")
    if "xml:base" in place or not is_inside(href):
        return None
    size = whole_number(fields["size"].attributes.get("package", ""))
    if size is None:
        raise Malformed.reading(of, f"package {shown(href)!r} has no size that is one")
    proof = checksum(said.attributes.get("type", ""), said.text)
    if proof is None:
        raise Malformed.reading(of, f"package {shown(href)!r} has no checksum that is one")
    return Package(href, size, *proof)
