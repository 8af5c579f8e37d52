"""``Packages``: the packages of one component of a deb archive, with what their bytes are, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from muster.content.metadata import deb822
from muster.content.metadata.deb822 import Stanza
from muster.content.metadata.malformed import Malformed
from muster.content.metadata.names import Algorithm, checksum, is_inside, whole_number
from muster.content.metadata.primary import LIMIT_PACKAGES, LeftOut, Package, unheard
from muster.kernel.names import shown

_STANZA_BYTES = 1 << 20
# The first that is there is told: any proof is as good, and the one that all archives have makes one validator of all.
_ALGORITHMS: tuple[Algorithm, ...] = ("sha256", "sha512", "sha1", "md5")
_FIELDS: dict[Algorithm, str] = {"sha256": "sha256", "sha512": "sha512", "sha1": "sha1", "md5": "md5sum"}
_WANTED = frozenset({"filename", "size", *_FIELDS.values()})


def packages(
    pieces: Iterable[bytes],
    *,
    of: str = "Packages",
    limit_packages: int = LIMIT_PACKAGES,
    left_out: LeftOut = unheard,
) -> Iterator[Package]:
    """Yield the packages of an unpacked list, in its order, while it comes; memory does not grow with it.

    Their paths are relative to the archive's root, which is what ``dists`` lies in. Left out are those whose path leads out
    of it, or is written in a way that is another one when it is asked for.

    Raises:
        Malformed: no such list, more than ``limit_packages`` packages, one without ``Filename``, ``Size`` or a digest of its
            algorithm's length, or an entry larger than 1 MiB. What was yielded before is worth nothing without the rest.
    """
    for stanza in deb822.stanzas(pieces, _WANTED, of=of, limit_stanzas=limit_packages, limit_bytes=_STANZA_BYTES):
        package = _package(stanza, of)
        if package is not None:
            yield package
        else:
            left_out(deb822.single(stanza, "filename", of=of))


def _package(stanza: Stanza, of: str) -> Package | None:
    href = deb822.single(stanza, "filename", of=of)
    if not href:
        raise Malformed.reading(of, "a package has no Filename")
    if not is_inside(href):
        return None
    size = whole_number(deb822.single(stanza, "size", of=of))
    if size is None:
        raise Malformed.reading(of, f"package {shown(href)!r} has no Size that is one")
    algorithm = next((a for a in _ALGORITHMS if _FIELDS[a] in stanza), None)
    proof = checksum(algorithm, deb822.single(stanza, _FIELDS[algorithm], of=of)) if algorithm is not None else None
    if proof is None:
        raise Malformed.reading(of, f"package {shown(href)!r} has no digest that is one")
    return Package(href, size, *proof)
