"""Images: what a registry's manifests name, and ``TAGS``, which names the state of a mirrored repository.

Sources: the OCI image specification 1.1, "manifest" and "index"; the Docker image manifest, version 2, schema 2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from muster.content.metadata.malformed import Malformed
from muster.content.metadata.names import checksum
from muster.content.metadata.primary import Package
from muster.kernel.names import shown

IMAGES: Final = frozenset({
    "application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json",
})  # fmt: skip
"""Media types of manifests that name blobs."""

INDEXES: Final = frozenset({
    "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json",
})  # fmt: skip
"""Media types of those that name manifests."""

LIMIT_BYTES: Final = 4 << 20
"""Of a manifest. Source: the distribution specification asks registries to take as much."""

LIMIT_TAGS: Final = 2000
LIMIT_MANIFESTS: Final = 25_000
"""A version that names more would be described by more than members tell each other while one waits."""

_LARGEST_BLOB = 10**15 - 1
_LIMIT_NAMED = 10_000
TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}\Z")
_HEX = re.compile(r"[0-9a-f]{64}\Z")
# What a manifest of 2015 names its layers with.
_OLD = ("fsLayers",)
# They lie elsewhere by agreement, and clients fetch them there.
_ELSEWHERE = (
    "application/vnd.docker.image.rootfs.foreign.", "application/vnd.oci.image.layer.nondistributable.",
)  # fmt: skip


class Described(NamedTuple):
    """A manifest, as whoever names it describes it.

    Attributes:
        hex: its SHA-256.
    """

    hex: str
    media: str
    size: int


@dataclass(frozen=True)
class Tags:
    """What a repository has.

    Attributes:
        tags: the SHA-256 of the manifest that each tag names.
        manifests: the media type and the size of each manifest, by its SHA-256: of those, and of what indexes name.
    """

    tags: Mapping[str, str]
    manifests: Mapping[str, tuple[str, int]]

    def written(self) -> bytes:
        """Return the same bytes for the same state, on every member."""
        by_type: dict[str, dict[str, int]] = {}
        for hex_digest, (media, size) in self.manifests.items():
            by_type.setdefault(media, {})[hex_digest] = size
        said = {"manifests": by_type, "tags": dict(self.tags)}
        return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def read(cls, body: bytes) -> Tags:
        """Return what :meth:`written` wrote.

        Raises:
            Malformed: this is none, or a tag names a manifest that it does not describe.
        """
        of = "TAGS"
        said = _object(body, of)
        tags, by_type = said.get("tags"), said.get("manifests")
        if not isinstance(tags, dict) or not isinstance(by_type, dict):
            raise Malformed.reading(of, "it is no list of tags and manifests")
        manifests: dict[str, tuple[str, int]] = {}
        for media, sizes in by_type.items():
            if media not in IMAGES | INDEXES or not isinstance(sizes, dict):
                raise Malformed.reading(of, f"it has manifests of the type {shown(media)}")
            for hex_digest, size in sizes.items():
                if not _HEX.match(hex_digest) or not _is_size(size, LIMIT_BYTES):
                    raise Malformed.reading(of, f"{shown(hex_digest)} is no digest of a manifest, or its size none")
                manifests[hex_digest] = media, size
        if len(tags) > LIMIT_TAGS or len(manifests) > LIMIT_MANIFESTS:
            raise Malformed.reading(of, f"it has {len(tags)} tags and {len(manifests)} manifests")
        for tag, hex_digest in tags.items():
            if not TAG.match(tag) or hex_digest not in manifests:
                raise Malformed.reading(of, f"the tag {shown(tag)} is none, or names no manifest")
        return cls(tags, manifests)


def blobs(body: bytes, *, of: str) -> tuple[Package, ...]:
    """Return the blobs that an image's manifest names, its configuration among them; what lies elsewhere is left out.

    Raises:
        Malformed: it is none, may be taken for another, or names something without a digest and a size.
    """
    said = _object(body, of)
    _refuse_ambiguous(said, IMAGES, ("manifests", *_OLD), of)
    layers, config = _list(said, "layers"), said.get("config")
    if layers is None or not isinstance(config, dict):
        raise Malformed.reading(of, "it is no manifest of an image")
    if len(layers) > _LIMIT_NAMED:
        raise Malformed.reading(of, f"it names more than {_LIMIT_NAMED} layers")
    found: dict[str, Package] = {}
    for one in (config, *layers):
        media = one.get("mediaType") if isinstance(one, dict) else None
        if isinstance(media, str) and media.startswith(_ELSEWHERE):
            continue
        proof, size = _described(one, of)
        href = f"blobs/{proof[0]}:{proof[1]}"
        found[href] = Package(href, size, *proof)
    return tuple(found.values())


def manifests(body: bytes, *, of: str) -> tuple[Described, ...]:
    """Return the manifests that an index names; what is neither an image nor an index is left out.

    Raises:
        Malformed: it is none, may be taken for another, or names a manifest without a SHA-256 and a size, or one larger than
            4 MiB.
    """
    said = _object(body, of)
    _refuse_ambiguous(said, INDEXES, ("layers", "config", *_OLD), of)
    named = _list(said, "manifests")
    if named is None:
        raise Malformed.reading(of, "it is no index of images")
    if len(named) > _LIMIT_NAMED:
        raise Malformed.reading(of, f"it names more than {_LIMIT_NAMED} manifests")
    found: dict[str, Described] = {}
    for one in named:
        media = one.get("mediaType") if isinstance(one, dict) else None
        if isinstance(media, str) and media not in IMAGES | INDEXES:
            continue
        (algorithm, digest), size = _described(one, of)
        if not isinstance(media, str) or algorithm != "sha256" or size > LIMIT_BYTES:
            raise Malformed.reading(of, f"{algorithm}:{digest} has no media type, no SHA-256, or more than 4 MiB")
        found[digest] = Described(digest, media, size)
    return tuple(found.values())


def media(body: bytes, *, of: str) -> str:
    """Return the media type that a manifest says of itself, empty: it says none.

    Raises:
        Malformed: it is none.
    """
    said = _object(body, of).get("mediaType", "")
    return said if isinstance(said, str) else ""


def tags(body: bytes, *, of: str) -> list[str]:
    """Return what a registry's list of tags names, be it a tag or not.

    Raises:
        Malformed: it is no such list.
    """
    named = _object(body, of).get("tags")
    if named is None:
        # So say some of a repository without tags.
        return []
    if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
        raise Malformed.reading(of, "it is no list of tags")
    return named


def _refuse_ambiguous(said: Mapping[str, Any], types: Collection[str], others: Iterable[str], of: str) -> None:
    """Refuse what says that it is of another type, or has what only that has: clients would differ in what they read.

    Source: the OCI image specification 1.1, "manifest" and "index", ``mediaType``.
    """
    own = said.get("mediaType")
    if own is not None and not (isinstance(own, str) and own in types):
        raise Malformed.reading(of, f"it says of itself that it is {shown(str(own), 100)}, and others say otherwise")
    for one in others:
        if said.get(one) is not None:
            raise Malformed.reading(of, f"it may be taken for something else: it has {one}, too")


def _list(said: Mapping[str, Any], name: str) -> list[Any] | None:
    """Return a list; None: there is none. One that nobody has made is written as null by what is written in Go."""
    if name in said and said[name] is None:
        return []
    found = said.get(name)
    return found if isinstance(found, list) else None


def _described(one: object, of: str) -> tuple[tuple[Any, str], int]:
    """Return the digest and the size of what a descriptor names."""
    said = one if isinstance(one, dict) else {}
    digest, size = said.get("digest"), said.get("size")
    algorithm, _, value = digest.partition(":") if isinstance(digest, str) else ("", "", "")
    proof = checksum(algorithm, value) if algorithm in ("sha256", "sha512") and value == value.lower() else None
    if proof is None or not isinstance(size, int) or not _is_size(size, _LARGEST_BLOB):
        raise Malformed.reading(of, f"it names something without a digest and a size: {shown(str(digest), 100)}")
    return proof, size


def _is_size(size: object, most: int) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= most


def _object(body: bytes, of: str) -> dict[str, Any]:
    if len(body) > LIMIT_BYTES:
        raise Malformed.reading(of, f"it is larger than {LIMIT_BYTES} bytes")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed.reading(of, "it is no JSON") from None
    if not isinstance(said, dict):
        raise Malformed.reading(of, "it is no JSON object")
    return said
