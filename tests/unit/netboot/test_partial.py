from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from muster.netboot import partial
from muster.netboot.partial import Note

pytestmark = pytest.mark.anyio


async def test_what_came_is_there_again_for_the_same_and_for_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    async with partial.opened(path, "http://o/x") as one:
        assert one.size == 0
        await one.anew(Note("http://o/x", '"tag"', 10, '"tag"', 7.0))
        await one.write(b"01234")
        assert one.size == 5
    async with partial.opened(path, "http://o/x") as one:
        assert (one.size, one.note.if_range, one.note.total, one.note.etag) == (5, '"tag"', 10, '"tag"')
        assert one.note.modified_at == 7.0
        await one.write(b"56789")
        assert await one.whole() == hashlib.sha256(b"0123456789").hexdigest()
    async with partial.opened(path, "http://o/y") as one:
        assert (one.size, one.note) == (0, Note("http://o/y"))


@pytest.mark.parametrize("note", [b"", b"[]", b"{}", b"\xff", b"null", b'{"of": "http://o/x"}', b"[" * 20_000, None])
async def test_a_note_that_says_nothing_begins_anew(tmp_path: Path, note: bytes | None) -> None:
    path = tmp_path / "file"
    async with partial.opened(path, "http://o/x") as one:
        await one.anew(Note("http://o/x"))
        await one.write(b"01234")
    if note is not None:
        (tmp_path / "file.note").write_bytes(note)
    else:
        (tmp_path / "file.note").unlink()
    async with partial.opened(path, "http://o/x") as one:
        assert one.size == 0


async def test_a_note_shows_nothing_to_others_and_a_link_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    async with partial.opened(path, "http://o/x") as one:
        await one.anew(Note("http://o/x"))
    note = tmp_path / "file.note"
    assert note.stat().st_mode & 0o777 == 0o600
    assert json.loads(note.read_text())["of"] == "http://o/x"
    other = tmp_path / "other"
    other.write_bytes(b"another's")
    (tmp_path / "link").symlink_to(other)
    with pytest.raises(Exception, match="opening"):
        async with partial.opened(tmp_path / "link", "http://o/x"):
            pass
    assert other.read_bytes() == b"another's"


def test_notes_beside_nothing_are_swept(tmp_path: Path) -> None:
    for name in ("a.note", "b.note", "b"):
        (tmp_path / name).write_bytes(b"")
    assert partial.sweep(tmp_path / "absent", older_than_s=0) == 0
    assert partial.sweep(tmp_path, older_than_s=60) == 0
    assert partial.sweep(tmp_path, older_than_s=-1) == 2
    assert list(tmp_path.iterdir()) == []
