from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from muster.cli.render.places import differences, put, shown_difference
from muster.derived.output import Document, Output
from muster.kernel.errors import Unavailable

ONE = Output("one", "One.", lambda balancing, cluster, site: ())


def difference(lies: bytes, text: str, tmp_path: Path) -> str:
    place = tmp_path / "one.conf"
    place.write_bytes(lies)
    place.chmod(0o644)
    (found,) = differences(ONE, [Document("one.conf", text, "one")], place)
    assert found.differs is bool(found.text)
    return found.text


def test_what_is_the_same_has_no_difference(tmp_path: Path) -> None:
    assert difference(b"a\nb\n", "a\nb\n", tmp_path) == ""


@pytest.mark.parametrize("lies", [b"a\r\nb\n", b"a\nb", b"\xffa\nb\n", b"a\x85b\n", b""])
def test_every_other_byte_is_one(lies: bytes, tmp_path: Path) -> None:
    assert difference(lies, "a\nb\n", tmp_path) != ""


def test_an_end_without_a_line_break_is_named_as_patch_wants_it(tmp_path: Path) -> None:
    assert difference(b"a\nb", "a\nb\n", tmp_path).endswith("-b\n\\ No newline at end of file\n+b\n")


def test_a_terminal_is_sent_no_control_characters_of_a_file(tmp_path: Path) -> None:
    text = difference(b"a\x1b[2J\tb\r\n", "a\n", tmp_path)
    assert "-a\\x1b[2J\tb\\r\n" in shown_difference(text)


def test_a_place_that_cannot_be_read_is_not_called_absent(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        differences(ONE, [Document("x", "x", "one")], tmp_path)


def test_what_is_no_file_is_neither_waited_for_nor_written_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "second")
    several = replace(ONE, in_directory=True)
    documents = [Document("first", "1\n", "one"), Document("second", "2\n", "one")]
    for does in (
        lambda: differences(several, documents, tmp_path),
        lambda: put(several, documents, tmp_path, dry_run=True),
        lambda: put(several, documents, tmp_path, dry_run=False),
    ):
        with pytest.raises(Unavailable, match="second is no file"):
            does()
    assert [p.name for p in tmp_path.iterdir()] == ["second"]
    assert (tmp_path / "second").is_fifo()


def test_a_mode_that_writing_would_change_is_a_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = [Document("script", "#!/bin/sh\n", "one", 0o755)]
    place = tmp_path / "script"
    place.write_text("#!/bin/sh\n")
    place.chmod(0o644)
    (found,) = differences(ONE, script, place)
    assert found.text == "old mode 100644\nnew mode 100755\n"
    put(ONE, script, place, dry_run=True)
    assert capsys.readouterr().out == f"Would write {place}: 10 bytes\n"
    put(ONE, script, place, dry_run=False)
    (found,) = differences(ONE, script, place)
    assert not found.differs
