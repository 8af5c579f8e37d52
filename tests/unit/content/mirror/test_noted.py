from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from muster.content.kept import Differs, Kept
from muster.content.mirror.noted import Noted, is_relied_on

pytestmark = pytest.mark.anyio

ONE, TWO, THREE = (hashlib.sha256(body).hexdigest() for body in (b"one", b"two", b"three"))


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    with contextlib.closing(Kept(tmp_path, limit_bytes=1 << 20)) as made:
        yield made


async def pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


async def test_what_was_added_goes_and_what_was_there_stays(kept: Kept) -> None:
    await kept.add_bytes(b"one")
    noted = Noted(kept)
    assert await noted.add_bytes(b"one") == ONE
    assert await noted.add(pieces(b"two"), digest=TWO, largest=9) == TWO
    # Its name is known when it is whole.
    sha512 = hashlib.sha512(b"three").hexdigest()
    assert await noted.add(pieces(b"three"), algorithm="sha512", digest=sha512, largest=9) == THREE
    assert await noted.add(pieces(b"one"), digest=None, largest=9) == ONE
    await noted.dropped({TWO}, lambda name: name == "x")
    assert [await kept.has(name) for name in (ONE, TWO, THREE)] == [True, True, False]
    await noted.dropped(frozenset(), lambda _: False)
    assert [await kept.has(name) for name in (ONE, TWO)] == [True, False]
    noted.close()


async def test_what_another_one_relies_on_stays(kept: Kept) -> None:
    one, other = Noted(kept), Noted(kept)
    await one.add_bytes(b"one")
    await one.add_bytes(b"two")
    assert await other.has(ONE)
    assert is_relied_on(kept, ONE)
    await one.dropped(frozenset(), lambda _: False)
    one.close()
    assert [await kept.has(name) for name in (ONE, TWO)] == [True, False]
    assert (is_relied_on(kept, ONE), is_relied_on(kept, TWO)) == (True, False)
    other.close()
    other.close()
    assert not is_relied_on(kept, ONE)
    # Who added nothing removes nothing.
    await other.dropped(frozenset(), lambda _: False)
    assert await kept.has(ONE)


async def test_what_did_not_come_whole_is_not_there(kept: Kept) -> None:
    noted = Noted(kept)
    with pytest.raises(Differs):
        await noted.add(pieces(b"one"), digest=TWO, largest=9)
    await noted.dropped(frozenset(), lambda _: False)
    assert kept.size_bytes == 0
    noted.close()
