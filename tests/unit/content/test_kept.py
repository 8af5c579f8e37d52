from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from muster.content import kept as module
from muster.content.files import Opened
from muster.content.kept import Differs, Full, Kept, Oversized
from muster.content.validators import Digest
from muster.edge.replies import Reply, Streamed
from muster.kernel.clock import FakeClock
from muster.kernel.errors import Rejected, Unavailable
from tests.unit.edge.calls import request

pytestmark = pytest.mark.anyio

MB = 1 << 20
BODY = b"metadata\n" * 1000
NAME = hashlib.sha256(BODY).hexdigest()
LARGE = os.urandom(MB) * 5
LARGE_NAME = hashlib.sha256(LARGE).hexdigest()
ABSENT = "0" * 64


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
async def kept(root: Path) -> AsyncIterator[Kept]:
    with contextlib.closing(Kept(root, limit_bytes=64 * MB)) as made:
        yield made


async def pieces(body: bytes, of: int = 64 << 10) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(body), of):
        yield body[at : at + of]


def all_of(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def at(root: Path, name: str) -> Path:
    return root / "sha256" / name[:2] / name


async def read(kept: Kept, name: str) -> bytes | None:
    found = await kept.open(name)
    if found is None:
        return None
    with contextlib.closing(found):
        return found.read(found.size, 0)


def aged(root: Path, name: str, seconds: float = 3600) -> None:
    found = at(root, name).stat()
    os.utime(at(root, name), (found.st_atime - seconds, found.st_mtime - seconds))


def spoilt(root: Path, name: str) -> None:
    """Change a byte in place, as a disk does, at a time of its own."""
    with at(root, name).open("r+b") as file:
        file.seek(100)
        before = file.read(1)
        file.seek(100)
        file.write(bytes([before[0] ^ 1]))
    os.utime(at(root, name), (1, 1))


async def test_what_is_kept_is_found_by_its_digest_also_after_a_restart(kept: Kept, root: Path) -> None:
    assert await kept.add_bytes(BODY) == NAME
    assert await kept.add(pieces(LARGE), digest=LARGE_NAME, size=len(LARGE), largest=len(LARGE)) == LARGE_NAME
    assert kept.size_bytes == len(BODY) + len(LARGE)
    assert all_of(root) == sorted(f"sha256/{n[:2]}/{n}" for n in (NAME, LARGE_NAME))
    modes = {p.stat().st_mode & 0o777 for p in (root, *root.rglob("*")) if p.is_dir()}
    assert (modes, at(root, NAME).stat().st_mode & 0o777) == ({0o700}, 0o600)
    with contextlib.closing(Kept(root, limit_bytes=MB)) as again:
        assert await again.counted() == len(BODY) + len(LARGE)
        assert [await read(again, n) for n in (NAME, LARGE_NAME, ABSENT)] == [BODY, LARGE, None]
        assert await again.path(NAME) == at(root, NAME)
        assert await again.path(ABSENT) is None


async def test_an_empty_file_and_one_that_is_kept_twice_are_counted_as_they_are(kept: Kept, root: Path) -> None:
    assert await kept.add_bytes(b"") == hashlib.sha256().hexdigest()
    assert kept.size_bytes == 0
    for _ in range(2):
        await kept.add_bytes(BODY)
    assert kept.size_bytes == len(BODY)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
async def test_the_digest_expected_may_be_another_kind(kept: Kept, root: Path, algorithm: str) -> None:
    digest = hashlib.new(algorithm, BODY).hexdigest()
    assert await kept.add(pieces(BODY), algorithm=algorithm, digest=digest, largest=MB) == NAME
    wrong = hashlib.new(algorithm, b"else").hexdigest()
    with pytest.raises(Differs, match=f"{algorithm}:{wrong} was expected.* {len(LARGE)} bytes of {algorithm}:"):
        await kept.add(pieces(LARGE), algorithm=algorithm, digest=wrong, largest=len(LARGE))
    assert all_of(root) == [f"sha256/{NAME[:2]}/{NAME}"]


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("md5", "0" * 32), ("sha1", "0" * 40), ("sha256", "0" * 96), ("sha512", "0" * 64), ("sha256", NAME.upper()),
        ("sha256", f"{NAME}\n"), ("sha256", f"{NAME[:-1]}/"), ("sha256", ""), ("sha256", "é" * 64), ("sha256", "٣" * 64),
    ],
)  # fmt: skip
async def test_what_is_no_digest_is_refused_before_anything_is_asked_for(
    kept: Kept, root: Path, algorithm: str, digest: str
) -> None:
    coming = pieces(BODY)
    with pytest.raises(Rejected, match="no digest"):
        await kept.add(coming, algorithm=algorithm, digest=digest, largest=MB)
    assert await anext(coming) == BODY
    assert not root.exists()


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "a" * 63, "A" * 64, f"{NAME}\n", f"{'a' * 63}\0"])
async def test_a_name_that_is_no_digest_is_refused(kept: Kept, name: str) -> None:
    for call in (kept.open, kept.path, kept.drop):
        with pytest.raises(Rejected):
            await call(name)


@pytest.mark.parametrize(("size", "said"), [(len(LARGE) - 1, "and more came"), (len(LARGE) + 1, f"and {len(LARGE)}")])
async def test_of_another_length_nothing_is_kept(kept: Kept, root: Path, size: int, said: str) -> None:
    with pytest.raises(Differs, match=f"{size} bytes were expected, {said}"):
        await kept.add(pieces(LARGE), digest=LARGE_NAME, size=size, largest=10 * MB)
    assert (all_of(root), kept.size_bytes) == ([], 0)


async def test_what_is_too_large_is_ended_at_once(kept: Kept, root: Path) -> None:
    coming = pieces(LARGE, MB)
    with pytest.raises(Oversized, match=f"{LARGE_NAME} was ended: more than {2 * MB} bytes"):
        await kept.add(coming, digest=LARGE_NAME, largest=2 * MB)
    assert await anext(coming) == LARGE[3 * MB : 4 * MB]
    untouched = pieces(LARGE, MB)
    with pytest.raises(Oversized):
        await kept.add(untouched, digest=None, size=5 * MB, largest=2 * MB)
    assert await anext(untouched) == LARGE[:MB]
    assert all_of(root) == []


async def test_the_limit_is_kept_by_all_that_is_written_together(root: Path) -> None:
    with contextlib.closing(Kept(root, limit_bytes=8 * MB)) as kept:
        await kept.add(pieces(LARGE), digest=None, largest=8 * MB)
        untouched = pieces(LARGE, MB)
        with pytest.raises(Full, match=f"{5 * MB} of {8 * MB} bytes are taken"):
            await kept.add(untouched, digest=None, size=5 * MB, largest=8 * MB)
        assert await anext(untouched) == LARGE[:MB]
        with pytest.raises(Full):
            await kept.add(pieces(LARGE[1:]), digest=None, largest=8 * MB)
        others = [kept.add(pieces(bytes([n]) * 2 * MB), digest=None, largest=2 * MB) for n in range(2)]
        done = await asyncio.gather(*others, return_exceptions=True)
        assert [type(d) for d in done].count(Full) >= 1
        # What failed takes no room any more.
        await kept.add(pieces(b"\xff" * MB), digest=None, size=MB, largest=MB)
        assert kept.size_bytes == sum(p.stat().st_size for p in root.rglob("*") if p.is_file()) <= 8 * MB
        assert len(list(root.glob(".new-*"))) == 0


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of two megabytes: a real one where we may, else one that says so."""
    made = tmp_path / "disk"
    made.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(made)], capture_output=True, check=False
    )
    if mounted.returncode:
        write, written = os.write, [0]

        def writing(fd: int, some: bytes) -> int:
            if written[0] + len(some) > 2 * MB:
                raise OSError(28, "No space left on device")
            written[0] += len(some)
            return write(fd, some)

        monkeypatch.setattr("muster.content.kept.os.write", writing)
    yield made
    if not mounted.returncode:
        subprocess.run(["umount", str(made)], check=True)


async def test_of_what_the_disk_has_no_room_for_nothing_is_left(small_disk: Path) -> None:
    root = small_disk / "kept"
    with contextlib.closing(Kept(root, limit_bytes=64 * MB)) as kept:
        await kept.add_bytes(BODY)
        with pytest.raises(Full, match="No space left on device"):
            await kept.add(pieces(LARGE), digest=LARGE_NAME, largest=8 * MB)
        assert (all_of(root), kept.size_bytes) == ([f"sha256/{NAME[:2]}/{NAME}"], len(BODY))
        assert await read(kept, NAME) == BODY


async def test_a_disk_that_refuses_is_named(kept: Kept, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("muster.content.kept.os.fsync", failing)
        with pytest.raises(Unavailable, match=f"Writing a file in {root} failed: Input/output error"):
            await kept.add(pieces(LARGE), digest=None, largest=8 * MB)
    assert (all_of(root), kept.size_bytes) == ([], 0)
    await kept.add_bytes(BODY)
    with monkeypatch.context() as patched:
        patched.setattr("muster.content.kept.os.scandir", failing)
        with contextlib.closing(Kept(root, limit_bytes=MB)) as again:
            for _ in range(2):
                with pytest.raises(Unavailable, match=f"Counting what {root} holds failed"):
                    await again.add_bytes(BODY)
            patched.undo()
            # It may have begun to count before.
            with contextlib.suppress(Unavailable):
                await again.counted()
            assert await again.counted() == len(BODY)


async def test_pieces_that_break_off_leave_nothing_and_say_why_themselves(kept: Kept, root: Path) -> None:
    async def breaking() -> AsyncGenerator[bytes, None]:
        yield LARGE
        raise ConnectionResetError("theirs")

    with pytest.raises(ConnectionResetError, match="theirs"):
        await kept.add(breaking(), digest=None, largest=64 * MB)
    assert (all_of(root), kept.size_bytes) == ([], 0)


async def half_and_no_more(begun: asyncio.Event) -> AsyncGenerator[bytes, None]:
    yield LARGE
    begun.set()
    await asyncio.sleep(60)


async def test_a_call_that_is_cancelled_leaves_nothing(kept: Kept, root: Path) -> None:
    begun = asyncio.Event()
    adding = asyncio.create_task(kept.add(half_and_no_more(begun), digest=None, size=40 * MB, largest=64 * MB))
    await begun.wait()
    assert [p.name[:5] for p in root.iterdir()] == [".new-"]
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert (all_of(root), kept.size_bytes) == ([], 0)
    # Nor does it take room any more.
    with pytest.raises(Full, match=f" 0 of {64 * MB} bytes are taken"):
        await kept.add(pieces(b""), digest=None, size=65 * MB, largest=65 * MB)


async def test_a_call_that_is_cancelled_while_the_disk_writes_leaves_nothing(
    kept: Kept, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, writes, goes_on = os.write, threading.Event(), threading.Event()

    def slowly(fd: int, some: bytes) -> int:
        writes.set()
        goes_on.wait(30)
        return write(fd, some)

    monkeypatch.setattr("muster.content.kept.os.write", slowly)
    adding = asyncio.create_task(kept.add(pieces(LARGE), digest=None, largest=64 * MB))
    await asyncio.to_thread(writes.wait, 30)
    adding.cancel()
    asyncio.get_running_loop().call_later(0.05, goes_on.set)
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert all_of(root) == []


async def test_a_call_that_is_cancelled_while_its_file_is_synced_leaves_nothing(
    kept: Kept, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.add_bytes(NAME.encode())
    (root / "sha256" / NAME[:2]).mkdir()
    before, sync, syncs, goes_on = all_of(root), os.fsync, threading.Event(), threading.Event()

    def slowly(fd: int) -> None:
        syncs.set()
        goes_on.wait(30)
        sync(fd)

    monkeypatch.setattr("muster.content.kept.os.fsync", slowly)
    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    adding = asyncio.create_task(kept.add(pieces(BODY), digest=NAME, largest=MB))
    await asyncio.to_thread(syncs.wait, 30)
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    goes_on.set()
    kept._threads.shutdown(wait=True)
    assert all_of(root) == before
    assert kept.size_bytes == len(NAME)


async def test_what_a_thread_begins_too_late_is_not_begun(root: Path) -> None:
    new = module._New(root, "sha256")
    new.is_wanted = False
    new.abandon()
    new.write([BODY])
    with pytest.raises(FileNotFoundError):
        new.rename(root / "x")
    assert not root.exists()


async def test_bytes_are_on_the_disk_before_their_name_is_and_the_name_before_it_is_told(
    kept: Kept, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, synced = os.fsync, list[tuple[str, bool]]()

    def seen(fd: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{fd}").readlink()), at(root, NAME).exists()))
        sync(fd)

    monkeypatch.setattr("muster.content.kept.os.fsync", seen)
    await kept.add_bytes(BODY)
    base, files, directory = str(root), str(root / "sha256"), str(at(root, NAME).parent)
    assert [(where.partition("/.new-")[0], is_there) for where, is_there in synced] == [
        (str(root.parent), False), (base, False), (files, False), (base, False), (directory, True),
    ]  # fmt: skip
    assert [where.startswith(f"{base}/.new-") for where, _ in synced] == [False, False, False, True, False]


async def test_a_disk_that_hangs_holds_up_neither_who_gives_up_nor_anybody_else(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    await kept.add_bytes(BODY)
    goes_on = threading.Event()
    monkeypatch.setattr("muster.content.kept.os.write", lambda _, some: goes_on.wait(30) and len(some))
    try:
        async with asyncio.timeout(20):
            adding = [asyncio.create_task(kept.add_bytes(b"%d" % n)) for n in range(40)]
            await asyncio.sleep(0.1)
            assert await asyncio.to_thread(lambda: "others") == "others"
            for one in adding:
                one.cancel()
            done = await asyncio.gather(*adding, return_exceptions=True)
            assert {type(d) for d in done} == {asyncio.CancelledError}
    finally:
        goes_on.set()


async def test_two_who_keep_the_same_at_once_both_do(kept: Kept, root: Path) -> None:
    same = [kept.add(pieces(LARGE), digest=LARGE_NAME, largest=8 * MB) for _ in range(6)]
    assert await asyncio.gather(*same) == [LARGE_NAME] * 6
    assert kept.size_bytes == len(LARGE)
    assert all_of(root) == [f"sha256/{LARGE_NAME[:2]}/{LARGE_NAME}"]
    assert await read(kept, LARGE_NAME) == LARGE


WRITING = """
import asyncio, sys
from pathlib import Path
from muster.content.kept import Kept

async def half():
    yield b"x" * (3 << 20)
    print("half", flush=True)
    await asyncio.sleep(60)

asyncio.run(Kept(Path(sys.argv[1]), limit_bytes=1 << 30).add(half(), digest=None, largest=1 << 30))
"""


async def test_a_process_that_is_killed_while_it_writes_leaves_nothing_that_a_living_one_would_lose(
    kept: Kept, root: Path
) -> None:
    await kept.add_bytes(BODY)
    writing = subprocess.Popen([sys.executable, "-c", WRITING, str(root)], stdout=subprocess.PIPE)
    with writing:
        assert writing.stdout is not None
        try:
            assert await asyncio.to_thread(writing.stdout.readline) == b"half\n"
            left = list(root.glob(".new-*"))
            assert [p.stat().st_size for p in left] == [3 * MB]
            with contextlib.closing(Kept(root, limit_bytes=MB)) as beside:
                # What is being written by somebody who lives is not there yet, and stays.
                assert await beside.counted() == len(BODY)
            assert left[0].exists()
        finally:
            writing.send_signal(signal.SIGKILL)
    assert left[0].exists()
    (root / ".new-notes").touch()
    with contextlib.closing(Kept(root, limit_bytes=MB)) as after:
        assert await after.counted() == len(BODY)
        assert await read(after, NAME) == BODY
    assert all_of(root) == [".new-notes", f"sha256/{NAME[:2]}/{NAME}"]


async def test_a_file_that_is_taken_for_one_that_was_left_is_begun_anew(
    kept: Kept, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, times = fcntl.flock, list[int]()

    def late(fd: int, how: int) -> None:
        if how == fcntl.LOCK_EX and not times:
            times.append(1)
            with contextlib.closing(Kept(root, limit_bytes=MB)) as other:
                other._counting.result(30)
        flock(fd, how)

    monkeypatch.setattr("muster.content.kept.fcntl.flock", late)
    assert await kept.add_bytes(BODY) == NAME
    assert (times, all_of(root)) == ([1], [f"sha256/{NAME[:2]}/{NAME}"])


async def test_only_files_of_the_store_are_counted_and_reclaimed(kept: Kept, root: Path) -> None:
    await kept.add_bytes(BODY)
    for path in (root / "notes", at(root, NAME).with_name("notes"), root / "sha256" / "zz"):
        path.write_text("not ours")
    at(root, NAME).with_name(ABSENT).write_text("in a wrong place")
    (root / "sha256" / "ff").mkdir()
    at(root, "f" * 64).symlink_to("/etc/passwd")
    with contextlib.closing(Kept(root, limit_bytes=MB)) as again:
        assert await again.counted() == len(BODY)
        assert await again.open("f" * 64) is None
        assert await again.reclaim(set(), older_than_s=-10) == len(BODY)
        assert again.size_bytes == 0
    assert len(all_of(root)) == 5


@pytest.mark.parametrize("body", [BODY, LARGE])
@pytest.mark.parametrize("is_opened_before", [False, True])
async def test_a_damaged_file_is_never_served(kept: Kept, root: Path, body: bytes, is_opened_before: bool) -> None:
    name = await kept.add(pieces(body), digest=None, largest=8 * MB)
    if is_opened_before:
        assert await read(kept, name) == body
    spoilt(root, name)
    call = request("GET", "/x")
    with capture_logs() as said:
        for _ in range(2):
            assert (await kept.open(name), await kept.path(name)) == (None, None)
            assert await kept.answer(name, call, content_type=b"text/xml") is None
    assert [line["event"].partition(" is damaged")[0] for line in said] == [str(at(root, name))]
    # The right bytes take its place.
    await kept.add(pieces(body), digest=name, largest=8 * MB)
    assert (await read(kept, name), kept.size_bytes) == (body, len(body))


async def test_a_file_that_is_shorter_than_it_was_or_whose_bytes_the_disk_lost_is_damaged(
    kept: Kept, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (await kept.add_bytes(BODY), await kept.add(pieces(LARGE), digest=None, largest=8 * MB)):
        os.truncate(at(root, name), 100)
        assert await kept.open(name) is None
    name = await kept.add_bytes(b"third")

    def lost(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Opened, "read", lost)
    assert await kept.open(name) is None
    assert {n async for n in kept.verify(bytes_per_s=1e9)} == {NAME, LARGE_NAME, name}


async def test_bytes_are_looked_at_once_by_all_who_ask(kept: Kept, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    look = module._is_whole

    def looking(descriptor: int, name: str, identity: tuple[int, int, int, int]) -> bool:
        looks.append(name)
        return look(descriptor, name, identity)

    monkeypatch.setattr(module, "_is_whole", looking)
    name = await kept.add(pieces(LARGE), digest=None, largest=8 * MB)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert await asyncio.gather(*(read(kept, name) for _ in range(20))) == [LARGE] * 20
    assert await read(kept, name) == LARGE
    assert looks == [name]
    os.utime(at(root, name), (1, 1))
    assert await read(kept, name) == LARGE
    assert looks == [name, name]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_who_goes_away_while_bytes_are_looked_at_takes_nothing_from_the_others(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on, look = threading.Event(), threading.Event(), module._is_whole

    def slowly(descriptor: int, name: str, identity: tuple[int, int, int, int]) -> bool:
        begun.set()
        goes_on.wait(30)
        return look(descriptor, name, identity)

    monkeypatch.setattr(module, "_is_whole", slowly)
    await kept.add_bytes(BODY)
    before = len(list(Path("/proc/self/fd").iterdir()))
    first, second = (asyncio.create_task(read(kept, NAME)) for _ in range(2))
    await asyncio.to_thread(begun.wait, 30)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    goes_on.set()
    assert await second == BODY
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_a_call_is_answered_from_a_file_with_its_digest_for_a_validator(kept: Kept) -> None:
    await kept.add_bytes(BODY)
    tag = f'"sha256:{NAME}"'
    found = await kept.answer(NAME, request("GET", "/x", headers={"range": "bytes=0-7"}), content_type=b"text/xml")
    assert isinstance(found, Streamed)
    assert [p async for p in found.pieces] == [BODY[:8]]
    found.end()
    assert (found.status, dict(found.headers)[b"etag"]) == (206, tag.encode())
    other = Digest("sha512", "0" * 128)
    for digest, sent in ((None, tag), (other, other.tag)):
        call = request("GET", "/x", headers={"if-none-match": sent})
        found = await kept.answer(NAME, call, content_type=b"text/xml", digest=digest)
        assert isinstance(found, Reply)
        assert (found.status, dict(found.headers)[b"etag"]) == (304, sent.encode())
    refused = await kept.answer(NAME, request("PUT", "/x"), content_type=b"text/xml")
    assert refused is not None
    assert refused.status == 405
    assert await kept.answer(ABSENT, request("GET", "/x"), content_type=b"text/xml") is None


async def test_what_is_not_to_be_kept_and_was_not_touched_goes(kept: Kept, root: Path) -> None:
    names = [await kept.add_bytes(b"%d" % n * 1000) for n in range(4)]
    wanted, opened, young, old = names
    for name in (wanted, opened, old):
        aged(root, name)
    await read(kept, opened)
    # Looking at all of them is not using them.
    assert [n async for n in kept.verify(bytes_per_s=1e9)] == []
    assert await kept.reclaim({wanted}, older_than_s=1800) == 1000
    assert (await read(kept, old), kept.size_bytes) == (None, 3000)
    for name in (wanted, opened, young):
        assert await read(kept, name) is not None
        aged(root, name, 7200)
    assert await kept.reclaim(lambda name: name == wanted, older_than_s=1800) == 2000
    assert (all_of(root), kept.size_bytes) == ([f"sha256/{wanted[:2]}/{wanted}"], 1000)


async def test_what_was_used_longest_ago_goes_first_until_there_is_room(kept: Kept, root: Path) -> None:
    names = [await kept.add_bytes(b"%d" % n * 1000) for n in range(6)]
    for age, name in enumerate(reversed(names)):
        aged(root, name, 3600 + 100 * age)
    # It was the oldest.
    await read(kept, names[0])
    # Looking at all of them is not using them.
    assert [n async for n in kept.verify(bytes_per_s=1e9)] == []
    assert await kept.shrink(6000, set()) == 0
    assert await kept.shrink(3500, {names[1]}) == 3000
    assert [n for n in names if await kept.has(n)] == [names[0], names[1], names[5]]
    assert (kept.size_bytes, await kept.shrink(0, lambda name: name == names[1])) == (3000, 2000)
    assert await kept.shrink(0, {names[1]}) == 0
    assert (all_of(root), kept.size_bytes) == ([f"sha256/{names[1][:2]}/{names[1]}"], 1000)


async def test_of_many_files_no_more_go_than_have_to(kept: Kept, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMOVED_AT_ONCE", 3)
    names = [await kept.add_bytes(b"%02d" % n * 50) for n in range(20)]
    for age, name in enumerate(names):
        aged(root, name, 3600 - 10 * age)
    assert await kept.shrink(850, set()) == 1200
    assert [n for n in names if await kept.has(n)] == names[12:]


async def test_what_is_opened_while_others_go_stays(kept: Kept, root: Path) -> None:
    names = [await kept.add_bytes(b"%d" % n * 1000) for n in range(3)]
    for age, name in enumerate(names):
        aged(root, name, 7200 - 100 * age)

    def keep(name: str) -> bool:
        # Somebody opens the next one just before its turn.
        if name == names[0]:
            os.utime(at(root, names[1]))
        return False

    assert await kept.shrink(1000, keep) == 2000
    assert [n for n in names if await kept.has(n)] == [names[1]]


async def test_who_reads_what_goes_for_room_goes_on(kept: Kept) -> None:
    name = await kept.add(pieces(LARGE), digest=None, largest=8 * MB)
    found = await kept.answer(name, request("GET", "/x"), content_type=b"text/xml")
    assert isinstance(found, Streamed)
    body = await anext(found.pieces)
    assert await kept.shrink(0, set()) == len(LARGE)
    assert (await kept.open(name), kept.size_bytes) == (None, 0)
    async for piece in found.pieces:
        body += piece
    found.end()
    assert body == LARGE


async def test_a_disk_that_refuses_while_room_is_made_is_named(
    kept: Kept, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.add_bytes(BODY)

    def refusing(self: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refusing)
    with pytest.raises(Unavailable, match=r"Removing a file in .* failed: Read-only file system"):
        await kept.shrink(0, set())
    assert kept.size_bytes == len(BODY)


async def test_what_is_found_to_be_there_is_in_use(kept: Kept, root: Path) -> None:
    await kept.add_bytes(BODY)
    aged(root, NAME)
    assert await kept.has(NAME)
    assert await kept.reclaim(set(), older_than_s=1800) == 0


async def test_what_cannot_be_opened_is_not_there(kept: Kept, root: Path) -> None:
    await kept.add_bytes(BODY)
    path = at(root, NAME)
    path.unlink()
    assert not await kept.has(NAME)
    path.symlink_to(root)
    assert not await kept.has(NAME)
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert not await kept.has(NAME)
    path.unlink()
    path.mkdir()
    assert not await kept.has(NAME)


async def test_what_is_added_again_is_young_again(kept: Kept, root: Path) -> None:
    await kept.add_bytes(BODY)
    aged(root, NAME)
    await kept.add_bytes(BODY)
    assert await kept.reclaim(set(), older_than_s=1800) == 0


async def test_who_reads_what_is_reclaimed_goes_on(kept: Kept, root: Path) -> None:
    name = await kept.add(pieces(LARGE), digest=None, largest=8 * MB)
    found = await kept.answer(name, request("GET", "/x"), content_type=b"text/xml")
    assert isinstance(found, Streamed)
    body = await anext(found.pieces)
    assert await kept.reclaim(set(), older_than_s=-10) == len(LARGE)
    assert await kept.open(name) is None
    async for piece in found.pieces:
        body += piece
    found.end()
    assert body == LARGE


async def test_all_are_verified_at_a_pace(root: Path) -> None:
    clock = FakeClock()
    with contextlib.closing(Kept(root, limit_bytes=64 * MB, clock=clock)) as kept:
        name = await kept.add(pieces(LARGE), digest=None, largest=8 * MB)
        await kept.add_bytes(BODY)
        third = await kept.add_bytes(b"third")
        assert await read(kept, NAME) == BODY
        said: list[tuple[int, int]] = []
        of = len(LARGE) + len(BODY) + len(b"third")
        verified = kept.verify(bytes_per_s=MB, progress=lambda done, of: said.append((done, of)))
        assert [n async for n in verified] == []
        assert (said[-1], len(said)) == ((of, of), 7)
        assert sum(clock.slept) == pytest.approx(of / MB)
        for one in (NAME, name):
            spoilt(root, one)
        found = [n async for n in kept.verify(bytes_per_s=1e9)]
        assert found == sorted((NAME, name))
        for one in found:
            assert await kept.drop(one)
            assert not await kept.drop(one)
        assert (all_of(root), kept.size_bytes) == ([f"sha256/{third[:2]}/{third}"], len(b"third"))


async def test_what_is_replaced_while_it_is_verified_is_not_called_damaged(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    with contextlib.closing(Kept(root, limit_bytes=64 * MB, clock=clock)) as kept:
        name = await kept.add(pieces(LARGE), digest=None, largest=8 * MB)
        spoilt(root, name)
        is_mended = False

        async def mending(_: float) -> None:
            nonlocal is_mended
            if not is_mended:
                is_mended = True
                await kept.add(pieces(LARGE), digest=name, largest=8 * MB)

        monkeypatch.setattr(clock, "sleep", mending)
        assert [n async for n in kept.verify(bytes_per_s=MB)] == []
        assert await read(kept, name) == LARGE
