"""What members that follow repositories show, and what they say of themselves when they cannot."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muster.app.duties.repositories import RepositoriesFollowed
from muster.content import following as module
from muster.content import shelf, views
from muster.content.following import Following
from muster.content.view import Report, Version, View, lagging, passed_since
from muster.content.views import Told, Views
from muster.kernel.errors import Unavailable
from muster.store.writing import Change
from tests.servers.pulp_stand_in import version
from tests.unit.content.world import MB, PATH, World, digest, large, world

pytestmark = pytest.mark.anyio

LAG_S = 0.3
OTHER = "/pulp/content/other"
ONE, TWO, THREE = (version(n, {"a": b"package %d" % n}) for n in (1, 2, 3))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing rests between two questions."""
    monkeypatch.setattr(module, "_POLL_EVERY_S", 0.0)
    monkeypatch.setattr(module, "_LESS_OFTEN", 0.0)
    monkeypatch.setattr(module, "_POLLS_EACH_S", 1e6)
    for name in ("_AGAIN_S", "_FULL_AGAIN_S"):
        monkeypatch.setattr(shelf, name, 0.0)


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, lag_s=LAG_S) as it:
        yield it


@pytest.fixture
async def patient(tmp_path: Path) -> AsyncIterator[World]:
    """Two members that wait for each other."""
    async with world(tmp_path) as it:
        yield it


def carry(it: World, *versions: object, path: str = PATH) -> None:
    for member, one in zip(it.members.values(), versions, strict=True):
        member.pulp.carries[path] = one  # type: ignore[assignment]


async def whole(it: World, name: str, one: object, path: str = PATH) -> bool:
    """Whether a member's disk has all of a version's metadata."""
    files = {n: b for n, b in one.files.items() if not n.startswith("Packages/")}  # type: ignore[attr-defined]
    return all([await it[name].kept.has(hashlib.sha256(body).hexdigest()) for body in files.values()])


async def test_what_both_carry_is_shown_and_lies_on_both_disks(patient: World) -> None:
    carry(patient, ONE, ONE)
    await patient.ask()
    await patient.until_shown(ONE)
    assert [await whole(patient, name, ONE) for name in ("p1", "p2")] == [True, True]
    known = [m.following.known.of(f"{PATH}/repodata/x") for m in patient.members.values()]
    assert known == [(PATH, "repodata/x")] * 2
    assert [m.following.trouble for m in patient.members.values()] == ["", ""]


async def test_one_that_is_newer_waits_for_the_second_pulp(patient: World) -> None:
    carry(patient, ONE, ONE)
    await patient.ask()
    await patient.until_shown(ONE)
    carry(patient, ONE, TWO)
    for _ in range(20):
        await patient.beat()
    assert await patient.shown() == digest(ONE)
    # It lies on the disk of the member whose Pulp has not got it, too.
    assert await whole(patient, "p1", TWO)
    carry(patient, TWO, TWO)
    await patient.until_shown(TWO)


async def test_the_first_client_waits_until_members_have_looked(patient: World) -> None:
    carry(patient, ONE, ONE)
    asked = asyncio.create_task(patient["p1"].following.current(PATH, None))
    await patient.until(asked.done)
    found = asked.result()
    assert found is not None
    assert found.digest == digest(ONE)


async def test_of_what_no_pulp_has_nothing_is_shown_and_nobody_waits_long(patient: World) -> None:
    asked = asyncio.create_task(patient["p1"].following.current(PATH, None))
    await patient.until(asked.done)
    assert asked.result() is None


async def test_two_clients_of_one_repository_wait_together(patient: World) -> None:
    carry(patient, ONE, ONE)
    asked = [asyncio.create_task(patient["p1"].following.current(PATH, None)) for _ in range(3)]
    await patient.until(lambda: all(a.done() for a in asked))
    assert {found.digest for a in asked if (found := a.result()) is not None} == {digest(ONE)}


async def test_without_the_store_what_was_shown_last_is_shown_and_nobody_waits(
    patient: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It has been away for that long.
    monkeypatch.setattr(module, "_STORE_PATIENCE_S", 0.0)
    carry(patient, ONE, ONE)
    await patient.ask()
    await patient.until_shown(ONE)
    one = patient["p1"]
    assert await one.following.current(PATH, None) is not None
    one.views.why = "the store is away"
    await one.following.beat()
    found = await one.following.current(PATH, None)
    assert found is not None
    assert found.digest == digest(ONE)
    assert await one.following.current(OTHER, None) is None


async def test_one_that_never_read_the_store_takes_no_clients_for_a_while(
    patient: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = patient["p1"]
    assert not one.stays
    one.views.why = "the store is away"
    await one.following.beat()
    assert "was not read from the store" in one.following.trouble
    assert not one.stays
    # Then it shows what it has: nobody may be better off.
    monkeypatch.setattr(module, "_STORE_PATIENCE_S", -1.0)
    await one.following.beat()
    assert one.stays


async def test_a_pulp_that_lags_is_named_and_its_member_leaves(two: World) -> None:
    carry(two, ONE, ONE)
    await two.ask()
    await two.until_shown(ONE)
    carry(two, ONE, TWO)
    await two.until_shown(TWO)
    await two.until(lambda: bool(two["p1"].following.trouble))
    assert "still carries revision 1" in two["p1"].following.trouble
    assert two["p2"].following.trouble == ""
    assert not two["p1"].following.is_alone


async def full(it: World, *names: str, but: int = 0) -> None:
    """Leave no room on disks, but for so many bytes."""
    for name in names:
        kept = it[name].kept
        kept.limit_bytes = await kept.counted() + but


async def test_a_full_disk_takes_its_member_out_and_the_others_go_on(two: World) -> None:
    carry(two, ONE, ONE)
    await two.ask()
    await two.until_shown(ONE)
    await full(two, "p1")
    carry(two, TWO, TWO)
    await two.until_shown(TWO)
    one = two["p1"].following
    await two.until(lambda: bool(one.trouble))
    assert "it has not all metadata of revision 2" in one.trouble
    assert "bytes are taken" in one.trouble
    assert not one.is_alone
    # Each that follows is shown as well.
    carry(two, THREE, THREE)
    await two.until_shown(THREE)
    two["p1"].kept.limit_bytes = 64 * MB
    await two.until(lambda: not one.trouble)
    assert await whole(two, "p1", THREE)


async def test_a_full_disk_takes_nobody_out_who_is_alone(two: World) -> None:
    carry(two, ONE, ONE)
    await two.ask()
    await two.until_shown(ONE)
    two["p2"].is_ready = False
    await full(two, "p1")
    carry(two, TWO, TWO)
    one = two["p1"].following
    await two.until(lambda: bool(one.note))
    for _ in range(20):
        await two.beat()
        assert two["p1"].stays
    assert await two.shown() == digest(ONE)
    duty = RepositoriesFollowed(one, ["https"])
    assert dict(duty.found().down) == {}
    assert "bytes are taken" in duty.found().notes[0]


async def test_a_new_repository_is_not_kept_back_by_a_full_disk(two: World) -> None:
    await full(two, "p1")
    carry(two, ONE, ONE)
    await two.ask()
    await two.until_shown(ONE)
    assert not two["p1"].stays


async def test_of_several_that_are_behind_one_stays(two: World) -> None:
    for path in (PATH, OTHER):
        carry(two, ONE, ONE, path=path)
    await two.ask(PATH, OTHER)
    await two.until_shown(ONE)
    await two.until_shown(ONE, OTHER)
    # Each lacks what the other one has.
    carry(two, TWO, ONE)
    carry(two, ONE, TWO, path=OTHER)
    for _ in range(60):
        await two.beat()
        await asyncio.sleep(0.01)
        assert any(m.stays for m in two.members.values())
    assert [m.stays for m in two.members.values()] == [True, False]
    assert all(m.following.trouble for m in two.members.values())


async def test_a_disk_that_takes_up_as_many_versions_as_come_is_not_behind_for_the_last(patient: World) -> None:
    carry(patient, ONE, ONE)
    await patient.ask()
    await patient.until_shown(ONE)
    carry(patient, TWO, TWO)
    await patient.until_shown(TWO)
    assert all(not m.following.trouble and not m.following.note for m in patient.members.values())


async def test_what_workers_could_not_be_told_is_said_and_told_again(two: World) -> None:
    one = two["p1"]
    one.untold = "Writing known.json failed: No space left on device"
    carry(two, ONE, ONE)
    await two.ask()
    await two.until_shown(ONE)
    await two.until(lambda: bool(one.following.trouble))
    assert "No space left on device" in one.following.trouble
    one.untold = ""
    await two.until(lambda: one.told > 0)
    await two.beat()
    assert one.following.trouble == ""


async def test_what_was_wrong_with_a_version_nobody_has_any_more_is_forgotten(two: World) -> None:
    carry(two, ONE, ONE)
    await two.ask()
    await two.until_shown(ONE)
    await full(two, "p1")
    carry(two, TWO, TWO)
    one = two["p1"]
    await two.until(lambda: bool(one.following.note))
    # It is withdrawn, and nothing is missing.
    carry(two, ONE, ONE)
    await two.until_shown(ONE)
    await two.until(lambda: not one.following.note and not one.following.trouble)
    told = (await Views(two.store).picture(60.0)).told[PATH]["p1"]
    assert told.trouble == ""


async def test_metadata_that_cannot_be_read_is_said_of_the_repository(two: World) -> None:
    for member in two.members.values():
        member.pulp.carries[PATH] = ONE
        member.pulp.instead[f"{PATH}/repodata/repomd.xml"] = b"<html>no metadata</html>"
    await two.ask()
    await two.until(lambda: all(m.following.note for m in two.members.values()))
    told = (await Views(two.store).picture(60.0)).told[PATH]
    assert told["p1"].trouble
    # Nobody knows whether it is newer.
    assert not told["p1"].reached
    assert await two.shown() == ""
    assert all(m.stays for m in two.members.values())


async def test_a_pulp_that_is_not_reached_is_told_with_the_reason(two: World) -> None:
    carry(two, ONE, ONE)
    await two.ask()
    await two.until_shown(ONE)
    two["p2"].pulp.status = 500
    await two.beat()
    await two.beat()
    told = (await Views(two.store).picture(60.0)).told[PATH]["p2"]
    assert (told.reached, told.carried) == (False, digest(ONE))
    assert "answers 500" in told.trouble
    assert told.unreached_since is not None


async def test_no_more_repositories_are_followed_than_there_may_be(
    patient: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "MOST", 1)
    for path in (PATH, OTHER):
        carry(patient, ONE, ONE, path=path)
    await patient.ask()
    await patient.until_shown(ONE)
    asked = asyncio.create_task(patient["p1"].following.current(OTHER, None))
    await patient.until(asked.done)
    assert asked.result() is None
    assert OTHER not in (await Views(patient.store).picture(60.0)).rows


async def test_what_a_member_holds_is_counted(patient: World) -> None:
    carry(patient, ONE, ONE)
    await patient.ask()
    await patient.until_shown(ONE)
    one = patient["p1"]
    await patient.beat()
    assert one.counted("muster_content_repositories") == 1
    assert one.counted("muster_content_versions") == 1
    assert one.counted("muster_content_kept_bytes") == one.kept.size_bytes > 0
    assert one.counted("muster_content_kept_limit_bytes") == 64 * MB
    assert one.counted("muster_content_polls_total", outcome="carried") > 0
    assert one.counted("muster_content_stagings_total", outcome="brought") > 0
    assert one.counted("muster_content_waiting_seconds") == 0
    carry(patient, ONE, TWO)
    await patient.until(lambda: one.counted("muster_content_waiting_seconds") > 0)
    one.pulp.why = "away"
    await patient.beat()
    assert one.counted("muster_content_polls_total", outcome="unreached") > 0
    assert one.counted("muster_content_behind") == 0


async def test_large_metadata_that_does_not_fit_leaves_what_is_shown(two: World) -> None:
    carry(two, ONE, ONE)
    await two.ask()
    await two.until_shown(ONE)
    await full(two, "p1", "p2", but=MB)
    carry(two, *[large(2, 2 * MB)] * 2)
    await two.until(lambda: all(m.following.note for m in two.members.values()))
    # Neither has what the other lacks: both stay with what they have.
    for _ in range(20):
        await two.beat()
        assert all(m.stays for m in two.members.values())
    assert await two.shown() == digest(ONE)


async def test_what_nobody_needs_is_taken_from_the_disk(patient: World, monkeypatch: pytest.MonkeyPatch) -> None:
    carry(patient, ONE, ONE)
    await patient.ask()
    await patient.until_shown(ONE)
    one = patient["p1"]
    left = await one.kept.add_bytes(b"of a version that did not come whole")
    monkeypatch.setattr(module, "_RECLAIM_EVERY_S", -1.0)
    monkeypatch.setattr(module, "STAGE_S", -1.0)
    monkeypatch.setattr(module, "_ALL_EVERY_S", 0.0)
    due: Following = one.following
    due._all_at = due._reclaim_at = 0.0
    await patient.until(lambda: due._reclaim_at != 0.0)
    assert not await one.kept.has(left)
    assert await whole(patient, "p1", ONE)


@pytest.mark.parametrize("is_all", [True, False], ids=["all of it", "what says what it consists of"])
async def test_what_goes_from_the_disk_is_brought_again(
    patient: World, monkeypatch: pytest.MonkeyPatch, is_all: bool
) -> None:
    carry(patient, ONE, ONE)
    await patient.ask()
    await patient.until_shown(ONE)
    one = patient["p1"]
    manifest = one.following._shelf.whole(PATH)[digest(ONE)]
    path = await one.kept.path(manifest)
    assert path is not None
    if is_all:
        shutil.rmtree(path.parent.parent)
    else:
        path.unlink()
    monkeypatch.setattr(module, "_ALL_EVERY_S", 0.0)
    one.following._all_at = 0.0
    await one.following.beat()
    assert not one.following._shelf.has(PATH, digest(ONE))
    # Meanwhile it has nothing that others lack.
    assert "not all metadata" in one.following.trouble
    await patient.until(lambda: one.following._shelf.has(PATH, digest(ONE)))
    assert await whole(patient, "p1", ONE)
    assert await one.kept.has(manifest)
    await one.following.beat()
    assert one.following.trouble == ""


async def test_a_disk_that_hangs_does_not_keep_a_member_from_asking_pulp(
    patient: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry(patient, ONE, ONE)
    await patient.ask()
    await patient.until_shown(ONE)
    one = patient["p1"]

    async def hangs(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(module, "_SEEN_WITHIN_S", 0.05)
    monkeypatch.setattr(one.following._shelf, "see", hangs)
    one.pulp.allowed = set()
    one.following._all_at = 0.0
    await one.following.beat()
    assert "takes longer" in one.following.trouble
    assert one.following.known.repositories[PATH].is_open is False


async def test_what_may_belong_to_a_version_that_still_comes_stays(patient: World) -> None:
    carry(patient, ONE, ONE)
    await patient.ask()
    await patient.until_shown(ONE)
    one = patient["p1"]
    came = await one.kept.add_bytes(b"the first file of many")
    path = await one.kept.path(came)
    assert path is not None
    a_while_ago = time.time() - 1500
    os.utime(path, (a_while_ago, a_while_ago))
    one.following._all_at = one.following._reclaim_at = 0.0
    await one.following.beat()
    assert one.following._reclaim_at != 0.0
    assert path.is_file()


async def test_what_two_repositories_have_in_common_stays_as_long_as_one_of_them_has_it(
    patient: World,
) -> None:
    other = "/pulp/content/another"
    for member in patient.members.values():
        member.pulp.carries = {PATH: ONE, other: ONE}
    await patient.ask(PATH, other)
    await patient.until_shown(ONE)
    await patient.until_shown(ONE, other)
    shelf = patient["p1"].following._shelf
    (manifest,) = shelf.whole(other).values()
    needed = shelf.needed([manifest])
    shelf.drop(PATH, ())
    assert shelf.needed([manifest]) == needed
    assert len(needed) > 1


async def test_what_nobody_asked_for_is_brought_again_when_somebody_does(
    patient: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry(patient, ONE, ONE)
    await patient.ask()
    await patient.until_shown(ONE)
    monkeypatch.setattr(module, "_RECLAIM_EVERY_S", -1.0)
    monkeypatch.setattr(module, "STAGE_S", -1.0)
    async with patient.store.write("long ago") as uow:
        await uow.change(Change("UPDATE content_repositories SET asked_at = {now} - 1000000"), [{}])
    await patient.ask("/pulp/content/another")
    for member in patient.members.values():
        member.following._all_at = member.following._reclaim_at = 0.0
    await patient.beat()
    assert not await whole(patient, "p1", ONE)
    await patient.ask()
    one = patient["p1"]
    await patient.until(lambda: one.following._shelf.has(PATH, digest(ONE)))
    assert await whole(patient, "p1", ONE)


async def test_a_pulp_that_stands_still_is_named_also_where_what_is_shown_never_stands_still(tmp_path: Path) -> None:
    async with world(tmp_path, "p1", "p2", "p3") as it:
        carry(it, ONE, ONE, ONE)
        await it.ask()
        await it.until_shown(ONE)
        carry(it, ONE, TWO, TWO)
        await it.until_shown(TWO)
        await it.beat()
        assert it["p1"].following.trouble == ""
        # What it carries was left long ago; what is shown now has been for a moment.
        async with it.store.write("long ago") as uow:
            await uow.change(
                Change("UPDATE content_versions SET left_at = {now} - 700 WHERE digest = :d"), [{"d": digest(ONE)}]
            )
        await it.beat()
        assert "still carries revision 1" in it["p1"].following.trouble
        assert it["p2"].following.trouble == ""


def test_a_version_is_passed_since_the_first_newer_one_was_shown() -> None:
    one, two, three = (Version(f"{n}" * 64, 0, n, float(n), 0.0) for n in (1, 2, 3))
    versions = {v.digest: v for v in (one, two, three)}
    view, report = View(0, three.digest, 950.0), Told(True, one.digest, frozenset(versions), None)
    said = Report("p1", report.carried, report.staged, True)
    left = {one.digest: 300.0, two.digest: 950.0}
    assert passed_since(one, view, versions, left) == 300.0
    assert passed_since(two, view, versions, left) == 950.0
    assert "700 s after something newer" in lagging(view, versions, said, 1000.0, 600.0, left=left)
    assert lagging(view, versions, said, 1000.0, 701.0, left=left) == ""


async def test_a_disk_that_cannot_be_read_is_said_and_the_beat_goes_on(
    two: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry(two, ONE, ONE)
    await two.ask()
    await two.until_shown(ONE)
    one = two["p1"]
    monkeypatch.setattr(module, "_ALL_EVERY_S", 0.0)

    async def refuse(*_: object) -> bytes:
        raise Unavailable("Reading a file failed: Input/output error")

    with monkeypatch.context() as broken:
        # It has just started anew.
        one.following._all_at = 0.0
        one.following._shelf._whole.clear()
        one.following._shelf._manifests.clear()
        broken.setattr(one.kept, "read", refuse)
        await two.beat()
        assert "Input/output error" in one.following.trouble
        assert not one.following.is_alone
    one.following._all_at = 0.0
    await two.until(lambda: not one.following.trouble)


async def test_what_gets_a_guard_is_given_to_nobody_without_asking_from_the_next_poll_on(patient: World) -> None:
    carry(patient, ONE, ONE)
    await patient.ask()
    await patient.until_shown(ONE)
    one = patient["p1"]
    await patient.until(lambda: one.following.known.repositories[PATH].is_open is True)
    # Clients showed no certificates, so none is known that its guard lets in.
    one.pulp.allowed = set()
    await patient.beat()
    assert one.following.known.repositories[PATH].is_open is False
    one.pulp.allowed = None
    await patient.beat()
    assert one.following.known.repositories[PATH].is_open is True
    # That it cannot be asked changes nothing.
    one.pulp.why = "it is away"
    await patient.beat()
    assert one.following.known.repositories[PATH].is_open is True


@pytest.mark.parametrize("is_away", [False, True], ids=["nobody asks for it any more", "the store is away"])
async def test_what_was_open_long_ago_may_have_a_guard(
    patient: World, monkeypatch: pytest.MonkeyPatch, is_away: bool
) -> None:
    carry(patient, ONE, ONE)
    await patient.ask()
    await patient.until_shown(ONE)
    one = patient["p1"]
    await patient.until(lambda: one.following.known.repositories[PATH].is_open is True)
    monkeypatch.setattr(module, "_OPEN_S", 0.0)
    if is_away:
        one.views.why = "the store is away"
    else:
        monkeypatch.setattr(module, "HOT_S", 0.0)
    await one.following.beat()
    assert one.following.known.repositories[PATH].is_open is None
    # Nobody holds what Pulp said of what nobody asks for.
    assert is_away or not one.following._own
