"""``Sources``: the source packages of one component of a deb archive, with what the bytes of their files are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from muster.content.metadata import deb822
from muster.content.metadata.deb822 import Stanza
from muster.content.metadata.malformed import Malformed
from muster.content.metadata.names import Algorithm, checksum, is_inside, whole_number
from muster.content.metadata.primary import LIMIT_PACKAGES, Package
from muster.kernel.names import shown

_STANZA_BYTES = 1 << 20
# Of each file the first that is there is told, as of packages.
_FIELDS: dict[str, Algorithm] = {
    "checksums-sha256": "sha256", "checksums-sha512": "sha512", "checksums-sha1": "sha1", "files": "md5",
}  # fmt: skip
_WANTED = frozenset({"directory", *_FIELDS})
_WORDS = 3


def files(pieces: Iterable[bytes], *, of: str = "Sources", limit_files: int = LIMIT_PACKAGES) -> Iterator[Package]:
    """Yield the files of the source packages of an unpacked list, in its order, while it comes.

    Their paths are relative to the archive's root, which is what ``dists`` lies in. Left out are those whose path leads out
    of it, or is written in a way that is another one when it is asked for.

    Raises:
        Malformed: no such list, more than ``limit_files`` files, a source package without ``Directory`` or without files, a
            line that is not a digest of its algorithm's length, a size and a name, or an entry larger than 1 MiB. What was
            yielded before is worth nothing without the rest.
    """
    count = 0
    for stanza in deb822.stanzas(pieces, _WANTED, of=of, limit_stanzas=limit_files, limit_bytes=_STANZA_BYTES):
        for one in _files(stanza, of):
            count += 1
            if count > limit_files:
                raise Malformed.reading(of, f"it has more than {limit_files} files")
            if is_inside(one.href):
                yield one


def _files(stanza: Stanza, of: str) -> Iterable[Package]:
    place = deb822.single(stanza, "directory", of=of)
    if not place:
        raise Malformed.reading(of, "a source package has no Directory")
    above = "" if place == "." else f"{place}/"
    found: dict[str, Package] = {}
    for field, algorithm in _FIELDS.items():
        for line in stanza.get(field, ()):
            # What stands behind the field's name is empty.
            if not line:
                continue
            words = line.split()
            digest, size, name = words if len(words) == _WORDS else ("", "", "")
            proof, length = checksum(algorithm, digest), whole_number(size)
            if proof is None or length is None or "/" in name:
                raise Malformed.reading(
                    of, f"{shown(place)!r} has a line that is no digest, size and name: {shown(line)!r}"
                )
            found.setdefault(name, Package(f"{above}{name}", length, *proof))
    if not found:
        raise Malformed.reading(of, f"the source package in {shown(place)!r} has no files")
    return found.values()
