"""What createrepo_c and gpg write is read, in every packing they know; and the bytes are what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from muster.content import index
from muster.content.metadata import packages as lists
from muster.content.metadata import release, repomd
from muster.content.metadata.packed import unpacked
from muster.content.metadata.primary import packages
from tests.servers import origins, signing
from tests.servers.packages import Package

PACKAGES = [Package("alpha"), Package("beta+x", version="1.0~rc1^git"), Package("gamma", padding=5000)]


@pytest.mark.parametrize(("compression", "suffix"), [("gz", "gz"), ("bz2", "bz2"), ("xz", "xz"), ("zstd", "zst")])
def test_a_repository_is_read(needs: Callable[[str], None], tmp_path: Path, compression: str, suffix: str) -> None:
    needs("pulp")
    root = origins.yum(tmp_path / "repository", PACKAGES, revision=7, compression=compression)
    found = repomd.read((root / "repodata" / "repomd.xml").read_bytes())
    assert (found.order_key[0], [f.kind for f in found.files]) == (7, ["primary", "filelists", "other"])
    plain = {}
    for named in found.files:
        body = (root / named.href).read_bytes()
        assert named.href.endswith(f".xml.{suffix}")
        assert (named.size, named.digest) == (len(body), hashlib.new(named.algorithm, body).hexdigest())
        plain[named.kind] = b"".join(unpacked([body], of=named.href, limit_bytes=named.opened_size or 0))
        assert len(plain[named.kind]) == named.opened_size
    told = list(packages([plain["primary"]]))
    assert sorted(p.href for p in told) == sorted(f"Packages/{p.name[0]}/{p.rpm_name}" for p in PACKAGES)
    assert index.write(tmp_path / "index", told) == len(PACKAGES)
    with closing(index.Index.opened(tmp_path / "index")) as opened:
        for one in told:
            body = (root / one.href).read_bytes()
            assert opened.find(one.href) == (len(body), "sha256", hashlib.sha256(body).hexdigest())


def test_a_deb_archive_is_read(needs: Callable[[str], None], tmp_path: Path) -> None:
    needs("gpg")
    with signing.made() as signer:
        root = origins.deb(tmp_path / "archive", PACKAGES, revision=7, by_hash=True, signer=signer)
    suite = root / "dists" / "stable"
    found = release.read((suite / "InRelease").read_bytes())
    assert found == release.read((suite / "Release").read_bytes())
    assert (found.suite, found.components, found.architectures, found.has_by_hash) == (
        "stable",
        ("main",),
        ("amd64",),
        True,
    )
    for listed in found.files:
        body = (suite / listed.href).read_bytes()
        assert (listed.size, listed.sha256) == (len(body), hashlib.sha256(body).hexdigest())
        for one in lists.packages(unpacked([body], of=listed.href, limit_bytes=1 << 20)):
            data = (root / one.href).read_bytes()
            assert (one.size, one.digest) == (len(data), hashlib.sha256(data).hexdigest())
    told = list(lists.packages([(suite / "main/binary-amd64/Packages").read_bytes()]))
    assert sorted(p.href for p in told) == sorted(f"pool/main/{p.name[0]}/{p.deb_name}" for p in PACKAGES)
