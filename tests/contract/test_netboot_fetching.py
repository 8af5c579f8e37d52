"""Who of the members fetches a boot file, and how the others hear of it, on both databases; and what dies in between."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from muster.kernel import failpoints
from muster.kernel.errors import NotFound, Rejected, Unavailable
from muster.kernel.process import end_with_parent
from muster.netboot import fetching
from muster.netboot.answers import Told
from muster.netboot.contract import HIDDEN, BootPath, Link, Remove
from muster.netboot.disk import Disk
from muster.netboot.fetches import Claim, Fetches
from muster.netboot.fetching import Fetching, InTree
from muster.netboot.ledger import Ledger
from muster.netboot.origin import Known, Outcome
from muster.netboot.tree import Tree
from muster.store.engine import Store
from muster.store.reading import Query
from muster.store.writing import Change
from tests import scale
from tests.servers import boot_origins

pytestmark = pytest.mark.anyio

KERNEL, INITRD = BootPath.parse("boot/debian-vmlinuz"), BootPath.parse("boot/debian-initrd")
URL, OTHER = "http://origin.example/vmlinuz", "http://other.example/vmlinuz"
SECRET = "http://admin:s3cret@origin.example/vmlinuz"
BODY = bytes(range(256)) * 20_000


@dataclass
class Member:
    """A member whose downloads end when a test lets them, and what it did.

    Attributes:
        came: what the next downloads bring, or raise.
    """

    store: Store
    name: str
    directory: Path
    may: asyncio.Event = field(default_factory=asyncio.Event)
    came: Outcome | Exception | None = None
    known: Known | None = None
    asked: list[str] = field(default_factory=list)
    committed: list[tuple[BootPath, Outcome]] = field(default_factory=list)
    told: Told | None = None
    commit_fails: Exception | None = None

    def __post_init__(self) -> None:
        self.it = self.lives()

    def lives(self, *, at_once: int = 4) -> Fetching:
        return Fetching(
            Fetches(self.store, member=self.name), directory=self.directory, bring=self._bring, known=self._known,
            commit=self._commit, at_once=at_once,
        )  # fmt: skip

    async def _bring(self, url: str, into: Path, known: Known | None, told: Told) -> Outcome:
        self.asked.append(url)
        self.told = told
        told(3, 10)
        await self.may.wait()
        if isinstance(self.came, Exception):
            raise self.came
        if known is not None:
            told(known.size, known.size)
        else:
            told(10, 10)
        return self.came or Outcome(URL, 10, into, "d" * 64)

    async def _known(self, _path: BootPath) -> Known | None:
        return self.known

    async def _commit(self, path: BootPath, came: Outcome) -> None:
        if self.commit_fails is not None:
            raise self.commit_fails
        self.committed.append((path, came))


@pytest.fixture
async def members(store: Store, tmp_path: Path) -> AsyncIterator[Callable[[str], Member]]:
    made: list[Member] = []

    def member(name: str) -> Member:
        made.append(Member(store, name, tmp_path / name))
        return made[-1]

    yield member
    for one in made:
        await one.it.close()


async def row(store: Store, path: BootPath = KERNEL) -> dict[str, Any]:
    async with store.read() as uow:
        found = await uow.rows(Query("SELECT * FROM netboot_fetches WHERE path = :path"), path=path.text)
    return found[0]


async def silenced(store: Store, seconds: float = 11) -> None:
    """Let whoever fetches have said nothing for so long."""
    async with store.write() as uow:
        await uow.changed(Change("UPDATE netboot_fetches SET beat_at = beat_at - :s"), {"s": seconds})


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.01)


async def test_who_is_asked_fetches_and_everybody_hears_what_came(
    members: Callable[[str], Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    m1, m2 = members("m1"), members("m2")
    asks, ask = 0, Fetches.ask

    async def counted(*given: Any) -> Any:
        nonlocal asks
        found = await ask(*given)
        asks += 1
        return found

    monkeypatch.setattr(Fetches, "ask", counted)
    begun = await m1.it.fetch(KERNEL, URL, wait_s=0)
    assert (begun.path, begun.url, begun.member, begun.ended_at) == (KERNEL, URL, "m1", None)
    assert begun.state in ("waiting", "running")
    waiting = [asyncio.create_task(m.it.fetch(KERNEL, URL, wait_s=20)) for m in (m1, m2, m2, m1)]
    # Whoever asked after its end would have it fetched again; m1 knows by itself that it is under way.
    await until(lambda: asks == 3)
    async with asyncio.timeout(10):
        while (found := await m2.it.fetch(KERNEL, URL, wait_s=0)).state == "waiting" or not found.done_bytes:
            await asyncio.sleep(0.05)
    assert (found.state, found.done_bytes, found.total_bytes, found.member) == ("running", 3, 10, "m1")
    assert found.started_at is not None
    assert not m1.committed
    m1.may.set()
    ended = await asyncio.gather(*waiting)
    assert {(e.state, e.member, e.done_bytes, e.total_bytes, e.why) for e in ended} == {("done", "m1", 10, 10, "")}
    assert all(e.started_at is not None and e.ended_at is not None and e.ended_at >= e.started_at for e in ended)
    assert [path for path, _ in m1.committed] == [KERNEL]
    assert (m1.asked, m2.asked) == ([URL], [])
    assert await m2.it.fetches() == [ended[0]]


async def test_of_many_members_at_once_one_fetches(members: Callable[[str], Member]) -> None:
    all_of_them = [members(f"m{n}") for n in range(5)]
    for one in all_of_them:
        one.may.set()
    found = await asyncio.gather(*(m.it.fetch(KERNEL, URL, wait_s=10) for m in all_of_them for _ in range(3)))
    assert {f.state for f in found} == {"done"}
    # Whoever came after its end has it asked for again, one at a time.
    assert len([m for m in all_of_them if m.asked]) <= 2


async def test_what_stands_already_is_asked_for_each_time_and_does_not_come(
    members: Callable[[str], Member],
) -> None:
    m1 = members("m1")
    m1.may.set()
    m1.known, m1.came = Known(URL, 7), Outcome(URL, 7)
    for _ in range(2):
        found = await m1.it.fetch(KERNEL, URL, wait_s=10)
        assert (found.state, found.done_bytes, found.total_bytes) == ("done", 7, 7)
    assert (len(m1.asked), m1.committed) == (2, [(KERNEL, m1.came)] * 2)


async def test_one_that_failed_says_why_and_is_begun_anew_when_asked_again(members: Callable[[str], Member]) -> None:
    m1, m2 = members("m1"), members("m2")
    m1.may.set()
    m2.may.set()
    m1.came = NotFound("Fetching it failed: it answered 404")
    found = await m1.it.fetch(KERNEL, URL, wait_s=10)
    assert (found.state, found.why) == ("failed", "Fetching it failed: it answered 404")
    m1.came = ZeroDivisionError("s3cret")
    found = await m1.it.fetch(KERNEL, URL, wait_s=10)
    assert (found.state, found.why) == ("failed", "Fetching it broke: ZeroDivisionError")
    m1.came, m1.commit_fails = None, Unavailable("the store went away")
    found = await m1.it.fetch(KERNEL, URL, wait_s=10)
    assert (found.state, found.why) == ("failed", "the store went away")
    assert (await m2.it.fetch(KERNEL, URL, wait_s=10)).state == "done"


async def test_a_password_lies_in_the_store_while_it_is_needed_and_is_shown_nowhere(
    store: Store, members: Callable[[str], Member]
) -> None:
    m1, m2 = members("m1"), members("m2")
    shown: list[object] = [await m1.it.fetch(KERNEL, SECRET, wait_s=0), await m2.it.fetch(KERNEL, SECRET, wait_s=0)]
    assert (await row(store))["url"] == SECRET
    shown.append(await m1.it.fetches())
    m1.may.set()
    shown.append(await m2.it.fetch(KERNEL, URL, wait_s=10))
    assert m1.asked == [SECRET]
    assert (await row(store))["url"] == URL
    shown.append(Claim(KERNEL, SECRET, "holder"))
    assert "s3cret" not in repr(shown)
    for url in (
        "ftp://x/y",
        "nfs:/x",
        "/etc/passwd",
        "http://",
        "http://a b/",
        "http://x/\n",
        "http://x:0/",
        "x" * 3000,
    ):
        with pytest.raises(Rejected):
            await m1.it.fetch(INITRD, url, wait_s=0)
    assert len(await m1.it.fetches()) == 1


async def test_another_url_for_the_same_path_has_its_turn_afterwards(members: Callable[[str], Member]) -> None:
    m1, m2 = members("m1"), members("m2")
    await m1.it.fetch(KERNEL, URL, wait_s=0)
    assert (await m2.it.fetch(KERNEL, OTHER, wait_s=0.2)).url == URL
    second = asyncio.create_task(m2.it.fetch(KERNEL, OTHER, wait_s=20))
    await asyncio.sleep(0.2)
    assert m2.asked == []
    m1.may.set()
    m2.may.set()
    assert (await second).url == OTHER
    assert (m1.asked, m2.asked) == ([URL], [OTHER])


async def test_another_member_goes_on_when_the_first_is_silent(store: Store, members: Callable[[str], Member]) -> None:
    m1, m2, m3 = members("m1"), members("m2"), members("m3")
    await m1.it.fetch(KERNEL, SECRET, wait_s=0)
    await until(lambda: m1.asked == [SECRET])
    await m2.it.beat()
    assert m2.asked == []
    # It is paused: nothing of it moves, while the others find it silent.
    await silenced(store, 3600)
    m2.may.set()
    m3.may.set()
    await asyncio.gather(m2.it.beat(), m3.it.beat())
    await until(lambda: len([*m2.committed, *m3.committed]) == 1)
    taker = m2 if m2.asked else m3
    found = await taker.it.fetch(INITRD, URL, wait_s=10)
    assert found.state == "done"
    assert (await row(store))["member"] == taker.name
    # It wakes up, and does not come in between.
    m1.may.set()
    again = await m1.it.fetch(KERNEL, URL, wait_s=10)
    assert again.state == "done"
    assert (m2.asked + m3.asked).count(SECRET) == 1


async def test_whoever_lost_what_it_fetches_stops_and_commits_nothing(
    store: Store, members: Callable[[str], Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_TOLD_EVERY_S", 60.0)
    m1, m2 = members("m1"), members("m2")
    waiting = asyncio.create_task(m1.it.fetch(KERNEL, URL, wait_s=20))
    await until(lambda: m1.told is not None)
    await asyncio.sleep(0.2)
    await silenced(store)
    await m2.it.beat()
    await until(lambda: m2.told is not None)
    m1.may.set()
    await asyncio.sleep(0.2)
    assert m1.committed == []
    m2.may.set()
    found = await waiting
    assert (found.state, found.member) == ("done", "m2"), "who waits at the first member hears of the second's"
    assert len(m2.committed) == 1
    assert m1.asked == [URL]


async def test_a_caller_takes_over_what_nobody_fetches_any_more(store: Store, members: Callable[[str], Member]) -> None:
    m1, m2 = members("m1"), members("m2")
    ghost = Fetches(store, member="dead")
    assert await ghost.ask(KERNEL, URL, "") is not None
    waiting = asyncio.create_task(m1.it.fetch(KERNEL, URL, wait_s=20))
    await asyncio.sleep(0.2)
    m1.may.set()
    await silenced(store)
    assert (await waiting).member == "m1"
    # A clock of the store that was set back keeps nobody from it.
    assert await ghost.ask(INITRD, URL, "") is not None
    await silenced(store, -3600)
    m2.may.set()
    await m2.it.beat()
    assert (await m2.it.fetch(INITRD, URL, wait_s=10)).state == "done"


async def test_what_nobody_could_fetch_for_hours_is_given_up(store: Store, members: Callable[[str], Member]) -> None:
    m1 = members("m1")
    assert await Fetches(store, member="dead").ask(KERNEL, URL, "") is not None
    async with store.write() as uow:
        await uow.changed(Change("UPDATE netboot_fetches SET asked_at = asked_at - :s, beat_at = 0"), {"s": 7300})
    await m1.it.beat()
    await until(lambda: not m1.it._jobs)
    found = (await m1.it.fetches())[0]
    assert (found.state, found.why, m1.asked) == ("failed", "Nobody could fetch it in 2 hours", [])


async def test_who_ends_leaves_it_to_another_at_once(members: Callable[[str], Member]) -> None:
    m1, m2 = members("m1"), members("m2")
    waiting = asyncio.create_task(m1.it.fetch(KERNEL, URL, wait_s=20))
    await until(lambda: m1.asked == [URL])
    await m1.it.close()
    with pytest.raises(Unavailable, match="another goes on with it"):
        await waiting
    m2.may.set()
    await m2.it.beat()
    assert (await m2.it.fetch(KERNEL, URL, wait_s=10)).state == "done"
    assert m2.asked == [URL]


async def test_so_many_are_fetched_at_once_and_those_that_wait_are_not_lost(
    store: Store, members: Callable[[str], Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_TOLD_EVERY_S", 0.05)
    m1 = members("m1")
    m1.it = m1.lives(at_once=1)
    await m1.it.fetch(KERNEL, URL, wait_s=0)
    await until(lambda: len(m1.asked) == 1)
    await m1.it.fetch(INITRD, OTHER, wait_s=0)
    before = (await row(store, INITRD))["beat_at"]
    await asyncio.sleep(0.3)
    now = await row(store, INITRD)
    assert (now["state"], now["started_at"], len(m1.asked)) == ("waiting", None, 1)
    assert now["beat_at"] > before
    m1.may.set()
    assert (await m1.it.fetch(INITRD, OTHER, wait_s=10)).state == "done"


async def test_what_came_of_it_is_kept_for_a_day(
    store: Store, members: Callable[[str], Member], tmp_path: Path
) -> None:
    m1 = members("m1")
    m1.may.set()
    await m1.it.fetch(KERNEL, URL, wait_s=10)
    await m1.it.beat()
    assert len(await m1.it.fetches()) == 1
    async with store.write() as uow:
        await uow.changed(Change("UPDATE netboot_fetches SET ended_at = ended_at - :s"), {"s": 86400})
    other = members("m2")
    await other.it.beat()
    assert await other.it.fetches() == []


async def test_a_store_that_is_away_ends_no_download(
    store: Store, members: Callable[[str], Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_TOLD_EVERY_S", 0.05)
    m1 = members("m1")
    waiting = asyncio.create_task(m1.it.fetch(KERNEL, URL, wait_s=20))
    await until(lambda: m1.told is not None)
    failpoints.arm({failpoints.VARIABLE: "boot-fetch-told.before-commit=error,boot-fetch-ended.before-commit=error"})
    try:
        await asyncio.sleep(0.3)
        assert not waiting.done()
        m1.may.set()
        await asyncio.sleep(0.3)
        assert not waiting.done()
    finally:
        failpoints.arm({})
    assert (await waiting).state == "done"
    assert len(m1.committed) == 1
    failpoints.arm({failpoints.VARIABLE: "boot-fetch-asked.before-commit=error"})
    try:
        with pytest.raises(Unavailable):
            await m1.it.fetch(INITRD, URL, wait_s=1)
    finally:
        failpoints.arm({})


# A process that is killed.


KILLS = [
    f"{step}.{place}={kill}"
    for step, kill in (
        ("boot-fetch-asked", "kill"), ("boot-fetch-told", "kill"), ("boot-fetch-told", "kill@3"),
        ("boot-changed", "kill"), ("boot-fetch-ended", "kill"), ("boot-fetch-taken", "kill"),
    )
    for place in ("before-commit", "after-commit")
]  # fmt: skip


async def fetcher(url: str, directory: Path, name: str, asked: str = "", armed: str = "") -> tuple[int, str]:
    """Run a member until its fetch has ended, or it was killed; return how it ended, and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.servers.boot_fetcher", url, directory, name, KERNEL.text, *([asked] if asked else []),
        stdout=asyncio.subprocess.PIPE, env={**os.environ, failpoints.VARIABLE: armed}, preexec_fn=end_with_parent,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            said, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return process.returncode or 0, said.decode().strip()


def stands(directory: Path) -> bytes | None:
    """Return what this member serves."""
    path = directory / KERNEL.text
    return path.read_bytes() if path.exists() else None


@pytest.mark.proof
@pytest.mark.parametrize("url", ["postgresql", "sqlite"][: scale.KILLED_STORES], indirect=True)
@pytest.mark.parametrize("kill", KILLS)
async def test_killed_at_any_step_nothing_is_half_there_and_somebody_goes_on(
    url: str, store: Store, tmp_path: Path, kill: str
) -> None:
    m1, m2 = tmp_path / "m1", tmp_path / "m2"
    async with boot_origins.serving() as origin:
        origin.files["/vmlinuz"] = BODY
        if kill.endswith("@3"):
            # So slow that its progress is told, now and then.
            origin.next = [boot_origins.slow(500_000, 0.25)]
        asked = origin.url()
        if "taken" in kill:
            assert await Fetches(store, member="dead").ask(KERNEL, asked, "") is not None
            await silenced(store)
            asked = ""
        ended, _ = await fetcher(url, m1, "m1", asked, armed=kill)
        assert ended == -signal.SIGKILL, kill
        assert stands(m1) in (None, BODY)
        if kill == "boot-fetch-asked.before-commit=kill":
            # Nobody was told that it is fetched, and nobody does.
            assert await Fetches(store, member="m2").of(KERNEL) is None
            asked = origin.url()
        else:
            await silenced(store)
            asked = ""
        # Whoever finds it goes on: the same member with what it has, or another from the beginning.
        again, name = (m1, "m1") if "told" in kill or "ended" in kill else (m2, "m2")
        assert await fetcher(url, again, name, asked) == (0, "done")
        assert stands(again) == BODY
        assert hashlib.sha256(BODY).hexdigest() in {p.name for p in (again / HIDDEN / "blobs").iterdir()}
        assert list((again / HIDDEN / "coming").iterdir()) == []
        if kill.startswith("boot-fetch-told") and kill.endswith("@3"):
            assert origin.asked("Range")[-1] is not None, "what had come, came again"
        # And it is as its origin has it.
        origin.heads.clear()
        assert await fetcher(url, again, name, origin.url()) == (0, "done")
        assert origin.asked("If-None-Match") == [f'"{hashlib.sha256(BODY).hexdigest()[:16]}"']


async def test_the_tree_hears_of_what_came_and_what_stood_is_known(store: Store, tmp_path: Path) -> None:
    tree = Tree(Ledger(store), Disk(tmp_path / "m1"), "m1", confirm_s=0.5)
    it = InTree(tree)
    await tree.beat()
    assert await it.known(KERNEL) is None
    file = tree.beside() / "came"
    file.write_bytes(BODY)
    digest = hashlib.sha256(BODY).hexdigest()
    await it.commit(KERNEL, Outcome(URL, len(BODY), file, digest, boot_origins.WHEN, '"tag"'))
    assert await it.known(KERNEL) == Known(URL, len(BODY), boot_origins.WHEN, '"tag"')
    assert stands(tmp_path / "m1") == BODY
    assert (tmp_path / "m1" / KERNEL.text).stat().st_mtime == boot_origins.WHEN
    assert not file.exists()
    # What is as its origin has it is waited for until members serve it; and what has gone meanwhile is not.
    unchanged = Outcome(URL, len(BODY))
    await it.commit(KERNEL, unchanged)
    await tree.change([Link(INITRD, "debian-vmlinuz")])
    assert await it.known(INITRD) is None
    await tree.change([Remove(KERNEL)])
    with pytest.raises(Unavailable, match="was removed while"):
        await it.commit(KERNEL, unchanged)
    await tree.close()
