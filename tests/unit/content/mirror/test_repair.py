from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from muster.content.kept import Kept
from muster.content.mirror.repair import Outcome, verified
from muster.kernel.errors import Rejected, Unavailable

pytestmark = pytest.mark.anyio

BODIES = [b"a" * 3000, b"b" * 2000, b"c" * 1000]


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    with contextlib.closing(Kept(tmp_path, limit_bytes=1 << 20)) as made:
        yield made


@pytest.fixture
async def names(kept: Kept) -> list[str]:
    return [await kept.add_bytes(body) for body in BODIES]


def damage(root: Path, name: str) -> None:
    path = root / "sha256" / name[:2] / name
    path.write_bytes(b"x" * path.stat().st_size)


async def quiet(done: int, of: int, sentence: str) -> None:
    pass


async def test_where_nothing_is_damaged_nothing_is_asked_for(kept: Kept, names: list[str]) -> None:
    said: list[tuple[int, int, str]] = []

    async def tell(done: int, of: int, sentence: str) -> None:
        said.append((done, of, sentence))

    async def mend(name: str) -> bool:
        raise AssertionError(name)

    assert await verified(kept, bytes_per_s=1e9, mend=mend, progress=tell) == Outcome(6000, (), (), ())
    assert said[-1] == (6000, 6000, "No file is damaged so far")


async def test_what_is_damaged_goes_and_is_mended_or_lost(kept: Kept, names: list[str], tmp_path: Path) -> None:
    for name in names:
        damage(tmp_path, name)
    said: list[str] = []

    async def tell(done: int, of: int, sentence: str) -> None:
        said.append(sentence)

    async def mend(name: str) -> bool:
        assert not await kept.has(name)
        if name == names[0]:
            return await kept.add_bytes(BODIES[0]) == name
        if name == names[1]:
            raise Unavailable("nobody has it")
        # It says so, and is wrong.
        return True

    with capture_logs() as logs:
        found = await verified(kept, bytes_per_s=1e9, mend=mend, progress=tell)
    assert found.damaged == tuple(sorted(names))
    assert (found.mended, set(found.lost)) == ((names[0],), set(names[1:]))
    assert await kept.read(names[0]) == BODIES[0]
    assert (await kept.has(names[1]), await kept.has(names[2])) == (False, False)
    assert [line["why"] for line in logs if "why" in line] == ["nobody has it"]
    assert said[-1] == "3 files were damaged: 1 came again, 2 are lost"
    assert (await verified(kept, bytes_per_s=1e9, mend=mend, progress=tell)).damaged == ()


async def test_whoever_hears_of_progress_may_end_it(kept: Kept, names: list[str]) -> None:
    async def refuse(done: int, of: int, sentence: str) -> None:
        raise Rejected("somebody cancelled it")

    async def mend(name: str) -> bool:
        return False

    with pytest.raises(Rejected, match="somebody cancelled it"):
        await verified(kept, bytes_per_s=1.0, mend=mend, progress=refuse)


async def test_what_breaks_while_mending_ends_it_as_it_is(kept: Kept, names: list[str], tmp_path: Path) -> None:
    damage(tmp_path, names[0])

    async def mend(name: str) -> bool:
        raise ValueError("a fault of ours")

    with pytest.raises(ValueError, match="a fault of ours"):
        await verified(kept, bytes_per_s=1e9, mend=mend, progress=quiet)
