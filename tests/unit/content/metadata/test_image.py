from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.content.manifest import TAGS, Manifest
from muster.content.metadata import image
from muster.content.metadata.image import Described, Tags
from muster.content.metadata.malformed import Malformed
from muster.content.metadata.primary import Package
from tests.servers import registry_stand_in as made
from tests.unit.content.metadata.documents import A

C = "c" * 64
OCI, LIST = made.MANIFEST, made.DOCKER_LIST
DEEP = b"[" * 20_000


def descriptor(digest: str = f"sha256:{A}", size: Any = 5, media: Any = "application/x") -> dict[str, Any]:
    return {"mediaType": media, "digest": digest, "size": size}


def manifest(*layers: Any, config: Any = None) -> bytes:
    return json.dumps({"schemaVersion": 2, "config": config or descriptor(), "layers": list(layers)}).encode()


def index(*named: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": list(named)}).encode()


def test_an_image_names_its_configuration_and_its_layers_each_once() -> None:
    body = manifest(descriptor(f"sha256:{C}", 7), descriptor(f"sha256:{C}", 7), descriptor(f"sha512:{'e' * 128}", 0))
    assert image.blobs(body, of="it") == (
        Package(f"blobs/sha256:{A}", 5, "sha256", A), Package(f"blobs/sha256:{C}", 7, "sha256", C),
        Package(f"blobs/sha512:{'e' * 128}", 0, "sha512", "e" * 128),
    )  # fmt: skip


@pytest.mark.parametrize(
    "media",
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ],
)
def test_layers_that_lie_elsewhere_are_left_there(media: str) -> None:
    assert len(image.blobs(manifest(descriptor(f"sha256:{C}", media=media)), of="it")) == 1


def test_an_index_names_images_and_indexes_and_whatever_else_is_left_out() -> None:
    body = index(
        descriptor(media=OCI), descriptor(f"sha256:{C}", 9, LIST), descriptor("sha512:x", 9, "application/x"),
    )  # fmt: skip
    assert image.manifests(body, of="it") == (Described(A, OCI, 5), Described(C, LIST, 9))


@pytest.mark.parametrize(
    "one",
    [
        {}, 5, None, descriptor("sha256:short"), descriptor(f"md5:{'a' * 32}"), descriptor(A), descriptor(f"sha256:{A}x"),
        descriptor(f"sha256:{'A' * 64}"), descriptor(size=-1), descriptor(size="5"), descriptor(size=True),
        descriptor(size=5.5),
        descriptor(size=10**16), descriptor(f"sha256:{A}\n"), descriptor(f"SHA256:{A}"),
    ],
)  # fmt: skip
def test_what_has_no_digest_and_size_breaks_all_of_it(one: Any) -> None:
    with pytest.raises(Malformed):
        image.blobs(manifest(one), of="it")
    with pytest.raises(Malformed):
        image.manifests(index({**one, "mediaType": OCI} if isinstance(one, dict) else one), of="it")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"5", b"{", b"\xff", DEEP, b'{"layers": {}, "config": {}}', index()]
)
def test_what_is_no_manifest_of_an_image_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed, match="Reading it failed"):
        image.blobs(body, of="it")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", DEEP, manifest(), b'{"manifests": 5}'])
def test_what_is_no_index_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed, match="Reading it failed"):
        image.manifests(body, of="it")


@pytest.mark.parametrize(
    "more",
    [
        {"manifests": []}, {"manifests": [descriptor(media=OCI)]}, {"mediaType": made.INDEX}, {"mediaType": LIST},
        {"mediaType": "application/vnd.docker.distribution.manifest.v1+json"}, {"mediaType": 5}, {"fsLayers": []},
    ],
)  # fmt: skip
def test_what_may_be_taken_for_something_else_is_no_image(more: dict[str, Any]) -> None:
    # Source: the OCI image specification, "manifest": what clients read of it must not depend on who told its type.
    body = json.loads(manifest(descriptor()))
    assert image.blobs(json.dumps({**body, "mediaType": OCI, "manifests": None}).encode(), of="it")
    with pytest.raises(Malformed):
        image.blobs(json.dumps({**body, **more}).encode(), of="it")


@pytest.mark.parametrize(
    "more",
    [
        {"layers": []},
        {"config": descriptor()},
        {"mediaType": OCI},
        {"mediaType": made.DOCKER_MANIFEST},
        {"fsLayers": [{}]},
    ],
)
def test_what_may_be_taken_for_something_else_is_no_index(more: dict[str, Any]) -> None:
    body = json.loads(index(descriptor(media=OCI)))
    assert image.manifests(json.dumps({**body, "mediaType": LIST, "layers": None}).encode(), of="it")
    with pytest.raises(Malformed):
        image.manifests(json.dumps({**body, **more}).encode(), of="it")


def test_nothing_may_be_written_as_null() -> None:
    # So does what is written in Go, of a list that nobody has made.
    said = {"schemaVersion": 2, "config": descriptor(), "layers": None}
    assert image.blobs(json.dumps(said).encode(), of="it") == (Package(f"blobs/sha256:{A}", 5, "sha256", A),)
    assert image.manifests(b'{"schemaVersion": 2, "manifests": null}', of="it") == ()


def test_a_manifest_larger_than_they_are_is_refused() -> None:
    with pytest.raises(Malformed):
        image.manifests(index(descriptor(size=image.LIMIT_BYTES + 1, media=OCI)), of="it")
    with pytest.raises(Malformed, match="larger than"):
        image.blobs(b" " * (image.LIMIT_BYTES + 1), of="it")


def test_the_same_state_is_the_same_bytes_whoever_wrote_it() -> None:
    one = Tags({"b": A, "a": C}, {A: (OCI, 5), C: (LIST, 6)})
    two = Tags({"a": C, "b": A}, {C: (LIST, 6), A: (OCI, 5)})
    assert one.written() == two.written()
    assert Tags.read(one.written()) == one


@pytest.mark.parametrize(
    "said",
    [
        {}, {"tags": {}}, {"tags": [], "manifests": {}}, {"tags": {"a": C}, "manifests": {OCI: {A: 5}}},
        {"tags": {"a b": A}, "manifests": {OCI: {A: 5}}}, {"tags": {"a": A}, "manifests": {"text/x": {A: 5}}},
        {"tags": {"a": A}, "manifests": {OCI: {A: -1}}}, {"tags": {"a": A}, "manifests": {OCI: {A: True}}},
        {"tags": {"a": A}, "manifests": {OCI: {A: image.LIMIT_BYTES + 1}}},
        {"tags": {"a": "x"}, "manifests": {OCI: {"x": 5}}},
        {"tags": {"a": A}, "manifests": {OCI: [A]}}, {"tags": {f"t{n}": A for n in range(2001)}, "manifests": {OCI: {A: 5}}},
    ],
)  # fmt: skip
def test_what_is_no_state_is_refused(said: Any) -> None:
    with pytest.raises(Malformed, match="Reading TAGS failed"):
        Tags.read(json.dumps(said).encode())


def test_the_largest_state_is_no_larger_than_what_is_read() -> None:
    manifests = {f"{n:064x}": (OCI, image.LIMIT_BYTES) for n in range(image.LIMIT_MANIFESTS)}
    body = Tags({f"{n:0128}": f"{n:064x}" for n in range(image.LIMIT_TAGS)}, manifests).written()
    assert len(Tags.read(body).manifests) == image.LIMIT_MANIFESTS
    assert len(body) <= 4 << 20
    files = {f"manifests/sha256:{one}": one for one in manifests}
    assert len(Manifest(-1, 0.0, {**files, TAGS: A}, A).written()) <= 4 << 20


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b'{"tags": ["a", "?"]}', ["a", "?"]), (b'{"name": "x", "tags": null}', []), (b'{"errors": []}', [])],
)
def test_a_list_of_tags_is_read_as_it_is(body: bytes, expected: list[str]) -> None:
    assert image.tags(body, of="it") == expected
    for bad in (b'{"tags": {}}', b'{"tags": [1]}', b"x"):
        with pytest.raises(Malformed):
            image.tags(bad, of="it")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from([A, f"sha256:{A}", OCI]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["manifests", "layers", "config", "digest", "size", "mediaType", "tags", OCI, A]), inner, max_size=4
    ),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_nothing_else_is_raised_whatever_it_is(said: Any) -> None:
    body = json.dumps(said).encode()
    for read in (image.blobs, image.manifests, image.tags, image.media):
        with contextlib.suppress(Malformed):
            read(body, of="it")
    with contextlib.suppress(Malformed):
        Tags.read(body)
