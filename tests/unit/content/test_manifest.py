"""What a version consists of, as members tell each other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from muster.content.manifest import REPOMD, Manifest
from muster.kernel.errors import Unavailable

A, B, C = "a" * 64, "b" * 64, "c" * 64
ONE = Manifest(7, 1.5, {REPOMD: A, "repodata/x": B}, C)


def test_what_was_written_is_read() -> None:
    assert Manifest.read(ONE.written()) == ONE
    bare = Manifest(-1, 0.0, {REPOMD: A}, "")
    assert Manifest.read(bare.written()) == bare


def test_the_same_version_is_the_same_bytes_on_every_member() -> None:
    turned = Manifest(7, 1.5, {"repodata/x": B, REPOMD: A}, C)
    assert turned.written() == ONE.written()


def test_it_is_named_by_its_repomd_and_needs_all_of_its_files() -> None:
    assert (ONE.digest, ONE.needed) == (A, frozenset({A, B, C}))
    assert Manifest(1, 1.0, {REPOMD: A}, "").needed == {A}


SAID: dict[str, Any] = {"revision": 1, "timestamp": 1.0, "files": {REPOMD: A}, "packages": ""}


@pytest.mark.parametrize(
    "said",
    [
        b"", b"\xff", b"[]", b"null", b'"x"',
        *(json.dumps(one).encode() for one in (
            {k: v for k, v in SAID.items() if k != "revision"}, {**SAID, "revision": "x"}, {**SAID, "timestamp": None},
            {**SAID, "files": {}}, {**SAID, "files": {"repodata/x": A}}, {**SAID, "files": [A]}, {**SAID, "files": "ab"},
            {**SAID, "files": {REPOMD: A.upper()}}, {**SAID, "files": {REPOMD: f"{A}\n"}},
            {**SAID, "files": {REPOMD: "../x"}},
            {**SAID, "files": {REPOMD: 7}}, {**SAID, "packages": "no digest"}, {**SAID, "packages": 7},
        )),
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(said: bytes) -> None:
    with pytest.raises(Unavailable, match="no list of its files"):
        Manifest.read(said)
