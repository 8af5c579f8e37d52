from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage
import pytest

from muster.app.backup.entries import header
from muster.app.backup.opened import opened
from muster.kernel.errors import Misconfigured
from tests.unit.app.backup.conftest import Entries, World

Change = Callable[[Entries, str, Callable[[Any], None]], Entries]


def refused(world: World, at: Path, why: str) -> None:
    with pytest.raises(Misconfigured, match=why), opened(at, world.identity):
        pass


async def test_a_backup_is_what_it_was_made_from(world: World) -> None:
    at = await world.backed_up()
    with opened(at, world.identity) as archive:
        assert archive.files["cluster.yaml"] == world.cluster_file.read_bytes()
        assert archive.files["pki/members/proxy01.example.net/key.pem"].startswith(b"-----BEGIN")
        assert (archive.manifest.cluster, archive.manifest.generation) == ("small", "installer")
        assert list(archive.parts()) == []
    assert at.stat().st_mode & 0o777 == 0o600


async def test_what_is_no_backup_or_not_ours_to_open_is_said(world: World) -> None:
    at = await world.backed_up()
    other = world.directory / "other.txt"
    other.write_text(str(pyrage.x25519.Identity.generate()))
    with pytest.raises(Misconfigured, match="encrypted for others"), opened(at, other):
        pass
    for content, why in (
        (b"", "is no age file"),
        (b"hello" * 99, "is no age file"),
        (at.read_bytes()[:-1], "is damaged"),
    ):
        world.directory.joinpath("it").write_bytes(content)
        refused(world, world.directory / "it", why)
    refused(world, world.directory / "absent", "No such file")
    refused(world, world.directory, "is no file|Is a directory")
    os.mkfifo(world.directory / "pipe")
    refused(world, world.directory / "pipe", "cannot come from a pipe")
    flipped = bytearray(at.read_bytes())
    flipped[-2000] ^= 1
    world.directory.joinpath("it").write_bytes(flipped)
    refused(world, world.directory / "it", "is damaged")
    refused(world, world.sealed(b"x" * 5000), "no archive that muster backup made")
    refused(world, world.sealed(b""), "no archive that muster backup made")


async def test_an_archive_is_only_taken_with_what_its_manifest_names_and_as_its_sums_say(
    world: World, changed: Change
) -> None:
    some = world.entries_of(await world.backed_up())
    with opened(world.crafted(some), world.identity) as archive:
        assert archive.manifest.cluster == "small"
    first, last = some[0], some[-1]
    refused(world, world.crafted(some[1:]), "begins with 'cluster.yaml'|begins with cluster.yaml")
    refused(world, world.crafted([("pki/ca.pem", b"x"), *some[2:]], summed=False), "it begins with")
    refused(world, world.crafted(some[:-1], summed=False), "ends before its sums")
    refused(world, world.crafted([*some, ("more", b"x")], summed=False), "behind its sums")
    refused(world, world.crafted([*some[:-1], ("pki/evil", b"x"), last]), "pki/evil, which its manifest does not name")
    refused(world, world.crafted([some[0], some[1], some[1], *some[2:]]), "cluster.yaml twice")
    refused(world, world.crafted([s for s in some if s[0] != "pki/ca.key"]), r"lacks pki/ca\.key")
    worse = [(n, c.replace(b"Anna", b"Otto")) for n, c in some]
    refused(world, world.crafted(worse, summed=False), r"cluster\.yaml differs from its sums")
    refused(world, world.crafted(some, end=bytes(512) + b"x" * 512), "behind its end")
    refused(world, world.crafted(some, end=b""), "no archive|ends")
    newer = changed(some, first[0], lambda m: m.update(format=2, muster="9.0"))
    refused(world, world.crafted(newer), r"format 2, made by Muster 9\.0; this Muster reads 1")
    for how in (lambda m: m.pop("id"), lambda m: m.update(id="../x"), lambda m: m.update(files=3)):
        refused(world, world.crafted(changed(some, first[0], how)), "MANIFEST.json in .* cannot be read")
    good, bad = ("store/wishes/000001.jsonl", b"{}\n"), ("store/wishes/000002.jsonl", b"{}\n")
    refused(world, world.crafted([*some[:-1], bad, last]), "not next of what its manifest names")
    refused(world, world.crafted([*some[:-1], ("store/users/000001.jsonl", b""), last]), "not next")
    with (
        opened(world.crafted([*some[:-1], good, last]), world.identity) as archive,
        pytest.raises(Misconfigured, match="none of"),
    ):
        list(archive.parts())


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"x", b"L"]
)
async def test_nothing_but_plain_files_is_taken(world: World, kind: bytes) -> None:
    entry = tarfile.TarInfo("cluster.yaml")
    entry.type, entry.linkname = kind, "somewhere"
    head = entry.tobuf(tarfile.USTAR_FORMAT)
    refused(world, world.sealed(head + bytes(1024)), "no plain file|no archive")


async def test_sizes_are_looked_at_before_anything_is_read(world: World) -> None:
    some = world.entries_of(await world.backed_up())
    manifest = header(some[0][0], len(some[0][1]), 0) + some[0][1] + bytes(-len(some[0][1]) % 512)
    refused(
        world, world.sealed(manifest + header("cluster.yaml", 2 << 20, 0)), "has 2097152 bytes; 1048576 are the most"
    )
    refused(world, world.sealed(header("MANIFEST.json", 1 << 30, 0)), "are the most")
    # It says that it is longer than it is.
    refused(world, world.sealed(manifest + header("cluster.yaml", 1000, 0) + b"x" * 10), "ends within an entry")
