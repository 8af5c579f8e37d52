"""Repositories are fetched from origins over HTTP, whole or not at all; and apt takes one that is published again."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from muster.cluster.mirror import Kind, Mirrored, Policy
from muster.content import backend
from muster.content.backend import Patience
from muster.content.index import Index
from muster.content.kept import Differs, Full, Kept
from muster.content.manifest import REPOMD, Manifest
from muster.content.mirror.again import republished
from muster.content.mirror.publications import Publication
from muster.content.mirror.repair import verified
from muster.content.mirror.sync import Synchronised, synchronised
from muster.kernel.errors import MusterError, Unavailable
from tests.servers import origins
from tests.servers.changing import Changing, served
from tests.servers.clients import Apt
from tests.servers.packages import Package
from tests.servers.pulp_stand_in import version

pytestmark = pytest.mark.anyio

MB = 1 << 20
KINDS: tuple[Kind, ...] = ("yum", "deb", "file")
MADE = [Package("alpha"), Package("beta+x", version="1.0~rc1^git"), Package("gamma", padding=300_000)]
ONE, TWO = (
    version(n, {p.name: p.rpm() for p in (*MADE, Package("each", version=str(n)))}) for n in (1, 2)
)  # fmt: skip


def read(directory: Path) -> dict[str, bytes]:
    """Return the files of a directory by their paths below it."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def made(kind: Kind, directory: Path) -> tuple[dict[str, bytes], set[str]]:
    """Return the files of a repository, and the SHA-256s of its packages."""
    if kind == "yum":
        return {**ONE.files}, {sha256(body) for body in ONE.packages.values()}
    if kind == "file":
        contents = {p.rpm_name: p.rpm() for p in MADE}
        return read(origins.files(directory, contents)), {sha256(body) for body in contents.values()}
    for number, suite in enumerate(("stable", "stable/updates")):
        origins.deb(directory / str(number), MADE[number:], revision=1, by_hash=True, suite=suite)
    return {**read(directory / "0"), **read(directory / "1")}, {sha256(p.deb()) for p in MADE}


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class Here:
    """A member's disks before an origin."""

    def __init__(
        self, root: Path, origin: Changing, asked: backend.Backend, kind: Kind, limit_bytes: int = 64 * MB
    ) -> None:
        self.kind, self.origin, self.asked, self.root = kind, origin, asked, root
        self.suites: tuple[str, ...] = ("stable", "stable/updates")
        self.kept = Kept(root / "kept", limit_bytes=limit_bytes)
        self.packages = Kept(root / "packages", limit_bytes=limit_bytes)

    async def sync(self, policy: Policy = "immediate", last: Publication | None = None, **more: Any) -> Synchronised:
        async def quiet(*_: object) -> None: ...

        return await synchronised(
            "r", self.mirrored(policy, **more), self.asked, self.kept, self.packages, last=last, progress=quiet,
            connections=4,
        )  # fmt: skip

    def mirrored(self, policy: Policy = "immediate", **more: Any) -> Mirrored:
        suites = self.suites if self.kind == "deb" else ()
        return Mirrored(kind=self.kind, url=self.origin.url, policy=policy, suites=suites, **more)

    def names(self, disk: str) -> set[str]:
        return {p.name for p in (self.root / disk).rglob("*") if p.is_file()}

    async def manifest(self, publication: Publication, part: str = "") -> Manifest:
        return Manifest.read(await self.kept.read(publication.parts[part]) or b"")


@contextlib.asynccontextmanager
async def before(
    root: Path, kind: Kind, files: Mapping[str, bytes], *, limit_bytes: int = 64 * MB
) -> AsyncIterator[Here]:
    """Yield a member before an origin with these files."""
    with served(files) as origin:
        async with backend.opened("the origin", origin.url, Patience(5.0, 5.0, 5.0)) as asked:
            here = Here(root, origin, asked, kind, limit_bytes)
            try:
                yield here
            finally:
                here.kept.close()
                here.packages.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_all_of_a_repository_comes_and_comes_once(tmp_path: Path, kind: Kind) -> None:
    files, packages = made(kind, tmp_path / "origin")
    async with before(tmp_path, kind, files) as here:
        lazy = await here.sync("on_demand")
        assert (lazy.fetched, here.names("packages")) == (0, set())
        whole = await here.sync("immediate", lazy.publication)
        assert whole.publication is lazy.publication
        assert (whole.fetched, here.names("packages")) == (len(packages), packages)
        assert whole.publication.packages == len(packages)
        here.origin.asked.clear()
        assert (await here.sync("immediate", whole.publication)).fetched == 0
        assert not [path for path, _ in here.origin.asked if path.endswith((".rpm", ".deb", ".xz", ".gz", "Packages"))]


async def test_of_a_suite_what_is_wanted_comes_and_the_rest_is_named(tmp_path: Path) -> None:
    files, _ = made("deb", tmp_path / "origin")
    async with before(tmp_path, "deb", files) as here:
        found = await here.sync("immediate", architectures=("arm64",))
        assert (found.publication.packages, here.names("packages")) == (0, set())
        manifest = await here.manifest(found.publication, "dists/stable/updates")
        assert manifest.files.keys() == {"Release"}
        at = await here.kept.path(manifest.packages)
        assert at is not None
        name = "dists/stable/updates/main/binary-amd64/Packages.gz"
        with contextlib.closing(Index.opened(at)) as index:
            assert index.find(name) == (len(files[name]), "sha256", sha256(files[name]))


async def test_what_breaks_off_goes_on_where_it_broke(tmp_path: Path) -> None:
    path = "Packages/gamma.rpm"
    async with before(tmp_path, "yum", ONE.files) as here:
        here.origin.breaks_at = {path: 100_000, ONE.primary: 50}
        assert (await here.sync()).fetched == 4
        assert here.names("packages") == {sha256(body) for body in ONE.packages.values()}
        # From where depends on how much of it was read when that was seen.
        parts = {path: part.partition("-")[2] for path, part in here.origin.asked if part}
        assert parts == {name: str(len(ONE.files[name]) - 1) for name in (path, ONE.primary)}


LIES = [
    ("Packages/gamma.rpm", lambda body: body[:-1] + b"x", Differs, r"/x/Packages/gamma\.rpm: sha256:\w+ was expected, and"),
    ("Packages/gamma.rpm", lambda body: body[:100], Differs, r"/x/Packages/gamma\.rpm: .* were expected, and 100 came"),
    ("Packages/gamma.rpm", None, Unavailable, r"answers 404 for http://\S+/x/Packages/gamma\.rpm"),
    (ONE.primary, lambda body: body[:-1] + b"x", Differs, rf"/x/{ONE.primary}: sha256:\w+ was expected, and"),
    (ONE.primary, lambda body: body[:-1], Differs, rf"/x/{ONE.primary}: .* bytes were expected, and"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "lie", "kind", "why"), LIES)
async def test_what_an_origin_gives_wrongly_is_named_and_leaves_nothing(
    tmp_path: Path, path: str, lie: Any, kind: type[MusterError], why: str
) -> None:
    files = {**ONE.files}
    body = files.pop(path)
    if lie is not None:
        files[path] = lie(body)
    async with before(tmp_path, "yum", files) as here:
        with pytest.raises(kind, match=why):
            await here.sync()
        assert here.names("kept") == here.names("packages") == set()


async def test_an_origin_that_changes_in_the_middle_is_fetched_as_it_is_afterwards(tmp_path: Path) -> None:
    async with before(tmp_path, "yum", ONE.files) as here:

        def change(path: str) -> None:
            if path == "Packages/each.rpm":
                here.origin.files = TWO.files

        here.origin.before = change
        found = await here.sync()
        assert (await here.manifest(found.publication)).revision == 2
        assert here.names("packages") == {sha256(body) for body in TWO.packages.values()}


async def test_a_full_disk_is_named_and_is_free_again(tmp_path: Path) -> None:
    async with before(tmp_path, "yum", ONE.files, limit_bytes=200_000) as here:
        with pytest.raises(Full, match="no room for the packages of r"):
            await here.sync()
        assert here.names("kept") == here.names("packages") == set()
        assert (await here.sync("on_demand")).publication.packages == 4


async def test_what_a_disk_loses_comes_again(tmp_path: Path) -> None:
    async with before(tmp_path, "yum", ONE.files) as here:
        publication = (await here.sync()).publication
        name = sha256(ONE.packages["gamma"])
        file = tmp_path / "packages" / "sha256" / name[:2] / name
        file.write_bytes(file.read_bytes()[:-1] + b"x")

        async def mend(lost: str) -> bool:
            return lost == name and (await here.sync("immediate", publication)).fetched == 1

        async def quiet(*_: object) -> None: ...

        found = await verified(here.packages, bytes_per_s=1e9, mend=mend, progress=quiet)
        assert (found.mended, found.lost) == ((name,), ())
        assert await here.packages.read(name) == ONE.packages["gamma"]


async def test_older_content_is_published_again_as_newer(tmp_path: Path) -> None:
    plain = version(1, dict(ONE.packages), signed=False)
    async with before(tmp_path, "yum", plain.files) as here:
        one = (await here.sync()).publication
        again = await republished(here.mirrored(), one, here.kept, now=1_900_000_000.0)
        assert again.of == one.digest
        manifest = await here.manifest(again)
        assert manifest.revision == 1_900_000_000
        entry = await here.kept.read(manifest.files[REPOMD]) or b""
        assert entry == plain.repomd.replace(b"<revision>1<", b"<revision>1900000000<")


async def test_apt_takes_older_content_that_is_published_again_and_stays_with_the_newer_otherwise(
    needs: Callable[[str], None], tmp_path: Path
) -> None:
    needs("apt")
    suite, name = "dists/stable", "main_binary-amd64_Packages"
    old, new = (
        read(origins.deb(tmp_path / f"origin-{n}", MADE[:n], revision=n, by_hash=False)) for n in (1, 2)
    )  # fmt: skip
    async with before(tmp_path, "deb", old) as here:
        here.suites = ("stable",)
        one = (await here.sync("on_demand")).publication
        with served(new, address="127.0.0.72") as given:
            apt = Apt(tmp_path / "apt", [f"{given.url} stable main"])

            async def listed() -> list[str]:
                run = await asyncio.to_thread(apt.update)
                assert run.is_whole, run
                return [digest for list_, digest in apt.lists().items() if list_.endswith(name)]

            def of(files: Mapping[str, bytes]) -> list[str]:
                return [sha256(files[f"{suite}/main/binary-amd64/Packages"])]

            assert await listed() == of(new)
            given.files = old
            assert await listed() == of(new)
            again = await republished(here.mirrored(), one, here.kept, now=time.time())
            manifest = await here.manifest(again, suite)
            files = {f"{suite}/{path}": await here.kept.read(digest) for path, digest in manifest.files.items()}
            given.files = {path: body for path, body in files.items() if body is not None}
            assert await listed() == of(old)
