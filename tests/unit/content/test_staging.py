"""Bringing a version to the disk, whole: from a Pulp that may change, break or lie meanwhile, or from another member."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from muster.content import staging as module
from muster.content.backend import Answer
from muster.content.call import Call
from muster.content.fill import Behind
from muster.content.index import Expected, Index
from muster.content.kept import Differs, Full, Oversized
from muster.content.manifest import REPOMD
from muster.content.metadata.malformed import Malformed
from muster.content.staging import Staging
from muster.kernel.errors import MusterError, Unavailable
from tests.servers import deb_stand_in
from tests.servers.pulp_stand_in import Version, version
from tests.unit.content.world import PATH, Member, World, digest, pieces, world

pytestmark = pytest.mark.anyio

ONE, TWO = (version(n, {"a": b"package %d" % n, "b": b"same"}) for n in (1, 2))
PLAIN = version(3, {"a": b"x"}, signed=False)
CERTIFICATE = b"certificate"
NOBODY = Behind("127.0.0.1", None)
ARCHIVE = "/pulp/content/deb"
SUITE = f"{ARCHIVE}/{deb_stand_in.SUITE}"
IN_RELEASE, RELEASE = (f"{deb_stand_in.SUITE}/{name}" for name in ("InRelease", "Release"))
DEB_ONE, DEB_TWO = (deb_stand_in.version(n, {"a": b"package %d" % n}) for n in (1, 2))


@pytest.fixture
async def members(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as it:
        yield it


@pytest.fixture
async def one(members: World) -> Member:
    found = members["p1"]
    found.pulp.carries[PATH] = ONE
    return found


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


async def test_what_a_pulp_has_it_is_asked_as_nobody_first(one: Member) -> None:
    said = await one.staging.polled(PATH, CERTIFICATE)
    assert (said.reached, said.is_open, said.body) == (True, True, ONE.repomd)
    assert one.pulp.asked == [("GET", f"{PATH}/{REPOMD}")]


async def test_what_is_guarded_is_asked_as_who_was_let_in_and_is_not_open(one: Member) -> None:
    one.pulp.allowed = {CERTIFICATE}
    said = await one.staging.polled(PATH, CERTIFICATE)
    assert (said.reached, said.is_open, said.body) == (True, False, ONE.repomd)


@pytest.mark.parametrize("certificate", [None, b"of somebody else"])
async def test_a_guard_that_lets_nobody_in_says_nothing_of_what_there_is(
    one: Member, certificate: bytes | None
) -> None:
    one.pulp.allowed = {CERTIFICATE}
    said = await one.staging.polled(PATH, certificate)
    assert (said.reached, said.is_refused, said.is_open, said.body) == (False, True, False, None)
    assert "guard" in said.why


@pytest.mark.parametrize("status", [404, 410])
async def test_a_pulp_that_has_no_such_repository_was_reached(one: Member, status: int) -> None:
    one.pulp.status = status
    said = await one.staging.polled(PATH, None)
    assert (said.reached, said.body) == (True, None)


@pytest.mark.parametrize("status", [500, 503, 302, 204])
async def test_any_other_answer_says_nothing(one: Member, status: int) -> None:
    one.pulp.status = status
    said = await one.staging.polled(PATH, None)
    assert (said.reached, said.body) == (False, None)
    assert f"answers {status}" in said.why


async def test_a_pulp_that_is_away_or_hangs_says_nothing(one: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    one.pulp.why = "it cannot be reached"
    assert (await one.staging.polled(PATH, None)).why == "it cannot be reached"
    monkeypatch.setattr(module, "_POLL_S", 0.01)

    async def hang(*_: Any) -> Answer:
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr(one.pulp, "ask", hang)
    assert "no answer within" in (await one.staging.polled(PATH, None)).why


async def test_a_repomd_larger_than_such_files_are_is_not_read_whole(
    one: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ENTRY_BYTES", len(ONE.repomd) - 1)
    assert "more than" in (await one.staging.polled(PATH, None)).why
    assert one.pulp.ended == 1


async def test_all_that_a_version_names_lies_on_the_disk(one: Member) -> None:
    found = await one.staging.staged(PATH, ONE.repomd, None)
    named = {name: body for name, body in ONE.files.items() if not name.startswith("Packages/")}
    assert found.files == {name: sha256(body) for name, body in named.items()}
    assert (found.revision, found.timestamp, found.digest) == (1, 1_700_000_001, digest(ONE))
    assert await one.staging.has(found)
    index = await one.kept.path(found.packages)
    assert index is not None
    package = Index.opened(index).find("Packages/a.rpm")
    assert package is not None
    assert (package.digest, package.size) == (sha256(ONE.files["Packages/a.rpm"]), len(ONE.files["Packages/a.rpm"]))
    assert one.pulp.ended == len(one.pulp.asked)


async def test_what_is_not_wanted_is_not_fetched_and_is_given_as_packages_are(one: Member) -> None:
    one.pulp.carries[ARCHIVE] = DEB_ONE
    text = "main/binary-amd64/Release"
    own: Any = one.pulp
    narrow = Staging(lambda _: Call(own, None, (), NOBODY), one.kept, wanted=lambda file: file.href != text)
    found = await narrow.staged(SUITE, DEB_ONE.files[IN_RELEASE], None)
    whole = await one.staging.staged(SUITE, DEB_ONE.files[IN_RELEASE], None)
    assert whole.files.keys() - found.files.keys() == {text}
    assert [path for _, path in one.pulp.asked].count(f"{SUITE}/{text}") == 1
    index = await one.kept.path(found.packages)
    assert index is not None
    with contextlib.closing(Index.opened(index)) as opened:
        body = DEB_ONE.files[f"{deb_stand_in.SUITE}/{text}"]
        assert opened.find(f"{deb_stand_in.SUITE}/{text}") == Expected(len(body), "sha256", sha256(body))


async def test_other_bytes_are_refused_by_the_name_of_the_file(one: Member) -> None:
    one.pulp.instead[f"{PATH}/{ONE.primary}"] = b"x"
    with pytest.raises(
        Differs, match=rf"gives another {PATH}/{ONE.primary}: Of sha256:.* bytes were expected, and 1 came"
    ):
        await one.staging.staged(PATH, ONE.repomd, None)


async def test_two_members_make_the_same_manifest_of_a_version(members: World, one: Member) -> None:
    two = members["p2"]
    two.pulp.carries[PATH] = ONE
    made = [await m.staging.keep(await m.staging.staged(PATH, ONE.repomd, None)) for m in (one, two)]
    assert made[0] == made[1]
    assert await one.staging.manifest(made[0]) == await two.staging.manifest(made[0])


async def test_a_version_without_a_signature_has_none(one: Member) -> None:
    one.pulp.carries[PATH] = PLAIN
    assert f"{REPOMD}.asc" not in (await one.staging.staged(PATH, PLAIN.repomd, None)).files


async def test_what_lies_on_the_disk_is_not_fetched_again(one: Member) -> None:
    await one.staging.staged(PATH, ONE.repomd, None)
    one.pulp.asked.clear()
    await one.staging.staged(PATH, ONE.repomd, None)
    assert not [path for _, path in one.pulp.asked if path.endswith(".xml.gz")]


async def test_one_that_changes_while_it_is_fetched_is_none(one: Member) -> None:
    body = ONE.repomd
    one.pulp.carries[PATH] = Version(2, TWO.packages, {**ONE.files, **TWO.files})
    with pytest.raises(Unavailable, match="changed while it was fetched"):
        await one.staging.staged(PATH, body, None)


async def test_a_file_with_other_bytes_than_are_named_is_not_believed(one: Member) -> None:
    one.pulp.instead[f"{PATH}/{ONE.primary}"] = b"x" * len(ONE.files[ONE.primary])
    with pytest.raises(Differs):
        await one.staging.staged(PATH, ONE.repomd, None)
    assert one.pulp.ended == len(one.pulp.asked)


async def test_a_file_that_is_missing_is_sought_at_other_members(members: World, one: Member) -> None:
    without = {name: body for name, body in ONE.files.items() if name != ONE.primary}
    one.pulp.carries[PATH] = Version(1, ONE.packages, without)
    with pytest.raises(Unavailable, match="answers 404"):
        await one.staging.staged(PATH, ONE.repomd, None)
    members["p2"].pulp.carries[PATH] = ONE
    assert await one.staging.has(await one.staging.staged(PATH, ONE.repomd, None))


async def test_a_signature_is_the_own_pulps_alone(members: World, one: Member) -> None:
    """Another Pulp may have signed another version."""
    one.pulp.carries[PATH] = Version(1, ONE.packages, {k: v for k, v in ONE.files.items() if not k.endswith(".asc")})
    members["p2"].pulp.carries[PATH] = ONE
    assert f"{REPOMD}.asc" not in (await one.staging.staged(PATH, ONE.repomd, None)).files


async def test_a_signature_as_large_as_no_signature_is_is_refused(one: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ENTRY_BYTES", 1000)
    one.pulp.instead[f"{PATH}/{REPOMD}.asc"] = bytes(1001)
    with pytest.raises(Oversized):
        await one.staging.staged(PATH, ONE.repomd, None)


@pytest.fixture
def suites(members: World) -> World:
    for member in members.members.values():
        member.pulp.carries = {ARCHIVE: DEB_ONE}
    return members


async def test_a_suite_that_changes_while_it_is_fetched_is_none(suites: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it names and is not there may be so because Pulp has gone on."""
    pulp = suites["p1"].pulp
    real = pulp.ask

    def entries(version: Version) -> Version:
        return Version(1, {}, {name: version.files[name] for name in (IN_RELEASE, RELEASE)})

    async def asked(method: str, path: str, *more: Any) -> Answer:
        answer = await real(method, path, *more)
        if path.endswith("/Release.gpg"):
            pulp.carries[ARCHIVE] = entries(DEB_ONE)
        elif path.endswith("/Packages"):
            pulp.carries[ARCHIVE] = entries(DEB_TWO)
        return answer

    monkeypatch.setattr(pulp, "ask", asked)
    with pytest.raises(Unavailable, match="changed while it was fetched"):
        await suites["p1"].staging.staged(SUITE, DEB_ONE.files[IN_RELEASE], None)


async def test_what_a_release_says_of_itself_is_nothing(suites: World) -> None:
    """``apt-ftparchive`` lists the file that it is writing, as it is then."""
    itself = f" {sha256(b'')} 0 Release\n".encode()
    files = {**DEB_ONE.files, RELEASE: DEB_ONE.files[RELEASE] + itself}
    del files[IN_RELEASE]
    one = suites["p1"]
    one.pulp.carries[ARCHIVE] = Version(1, {}, files)
    found = await one.staging.staged(SUITE, files[RELEASE], None)
    assert found.digest == sha256(files[RELEASE])


async def test_what_all_pulps_have_of_a_suite_is_asked_by_the_entry_that_it_has(suites: World) -> None:
    one, two = suites["p1"], suites["p2"]
    signed, plain = (sha256(DEB_ONE.files[name]) for name in (IN_RELEASE, RELEASE))
    assert await one.staging.carried(SUITE, None) == {signed}
    two.pulp.carries[ARCHIVE] = DEB_TWO
    assert await one.staging.carried(SUITE, None) == {signed, sha256(DEB_TWO.files[IN_RELEASE])}
    unsigned = Version(1, {}, {k: v for k, v in DEB_ONE.files.items() if k != IN_RELEASE})
    two.pulp.carries[ARCHIVE] = unsigned
    assert await one.staging.carried(SUITE, None) == {signed, plain}
    one.pulp.carries[ARCHIVE] = unsigned
    assert await one.staging.carried(SUITE, None) == {plain}
    assert two.pulp.ended == len(two.pulp.asked)
    two.pulp.carries[ARCHIVE] = None
    assert await one.staging.carried(SUITE, None) == frozenset()
    two.pulp.why = "away"
    assert await one.staging.carried(SUITE, None) == frozenset()


async def test_what_is_no_metadata_is_named_so(one: Member) -> None:
    with pytest.raises(Malformed):
        await one.staging.staged(PATH, b"<html/>", None)


async def test_a_full_disk_says_so(one: Member) -> None:
    one.kept.limit_bytes = 10
    with pytest.raises(Full, match="of 10 bytes are taken"):
        await one.staging.staged(PATH, ONE.repomd, None)


async def test_a_guarded_version_is_fetched_as_who_was_let_in(one: Member) -> None:
    one.pulp.allowed = {CERTIFICATE}
    assert await one.staging.has(await one.staging.staged(PATH, ONE.repomd, CERTIFICATE))
    with pytest.raises(MusterError):
        await one.staging.staged(PATH, TWO.repomd, None)


async def test_a_version_is_copied_from_a_member_that_has_it(members: World, one: Member) -> None:
    two = members["p2"]
    manifest = await one.staging.keep(await one.staging.staged(PATH, ONE.repomd, None))
    asked = list(two.pulp.asked)
    found = await two.staging.copied(manifest)
    assert await two.staging.has(found)
    assert found.digest == digest(ONE)
    # No Pulp was asked for it.
    assert two.pulp.asked == asked


async def test_what_is_damaged_is_copied_anew(members: World, one: Member) -> None:
    two = members["p2"]
    manifest = await one.staging.keep(await one.staging.staged(PATH, ONE.repomd, None))
    await two.staging.copied(manifest)
    for damaged in (manifest, sha256(ONE.files[ONE.primary])):
        at = await two.kept.path(damaged)
        assert at is not None
        at.write_bytes(at.read_bytes()[:-1] + b"?")
        found = await two.staging.copied(manifest)
        assert None not in [await two.kept.read(one) for one in (manifest, *found.needed)]


async def test_what_no_member_has_is_not_copied(members: World, one: Member) -> None:
    two = members["p2"]
    manifest = await one.staging.keep(await one.staging.staged(PATH, ONE.repomd, None))
    await one.kept.drop(sha256(ONE.files[ONE.primary]))
    with pytest.raises(Unavailable, match="answers 404"):
        await two.staging.copied(manifest)
    with pytest.raises(Unavailable, match="answers 404"):
        await two.staging.copied("0" * 64)


async def test_other_bytes_than_were_asked_for_are_not_copied(members: World, one: Member, monkeypatch: Any) -> None:
    manifest = await one.staging.keep(await one.staging.staged(PATH, ONE.repomd, None))

    async def lie(_: str) -> bytes:
        return b"something else"

    monkeypatch.setattr(one.kept, "read", lie)
    with pytest.raises(Differs):
        await members["p2"].staging.copied(manifest)
    assert await members["p2"].kept.counted() == 0


async def test_where_there_is_no_other_member_nothing_is_copied(tmp_path: Path) -> None:
    async with world(tmp_path, "alone") as it:
        with pytest.raises(Unavailable):
            await it["alone"].staging.copied("0" * 64)


async def test_a_manifest_that_is_not_on_the_disk_is_none(one: Member) -> None:
    assert await one.staging.manifest("0" * 64) is None


async def test_what_is_read_ends_when_it_breaks_off(one: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    async def broken(*_: Any) -> Answer:
        return Answer("Pulp", 200, (), pieces(ONE.repomd, breaks_at=10), lambda: ended.append(1))

    monkeypatch.setattr(one.pulp, "ask", broken)
    assert (await one.staging.polled(PATH, None)).why == "it broke off"
    assert ended == [1]
