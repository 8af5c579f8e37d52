from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from muster.features.puppetca import autosign_file
from muster.features.puppetca.autosign_file import BEGIN, END, AutosignFile, merged
from muster.kernel.errors import Misconfigured
from muster.kernel.files import replace_for_readers

NAMES = ["*.example.com", "web01.example.net"]
OURS = f"{BEGIN}\n*.example.com\nweb01.example.net\n{END}\n"


@pytest.mark.parametrize(
    ("content", "names", "expected"),
    [
        ("", [], ""),
        ("", NAMES, OURS),
        ("hand.example.org\n", [], "hand.example.org\n"),
        ("hand.example.org\n", NAMES, f"hand.example.org\n{OURS}"),
        ("no-end-of-line", NAMES, f"no-end-of-line\n{OURS}"),
        (f"a\n{BEGIN}\nold\n{END}\nb", NAMES, f"a\n{OURS}b"),
        (f"a\n{BEGIN}\nold\n{END}\nb\n", [], f"a\n{BEGIN}\n{END}\nb\n"),
        (f"{BEGIN}\n{END}", NAMES, OURS.removesuffix("\n")),
        (f"# one\r\n  {BEGIN} \r\nx\r\n{END}\r\nb\r\n", NAMES, f"# one\r\n{OURS}b\r\n"),
        ("x\x0by\u2028z\n", NAMES, f"x\x0by\u2028z\n{OURS}"),
    ],
)
def test_the_lists_part_is_replaced_and_every_other_line_stays(content: str, names: list[str], expected: str) -> None:
    assert merged(content, names) == expected
    assert merged(expected, names) == expected


@pytest.mark.parametrize(
    "content",
    [f"{BEGIN}\nx\n", f"x\n{END}\n", f"{END}\nx\n{BEGIN}\n", f"{BEGIN}\n{BEGIN}\n{END}\n", f"{BEGIN}\n{END}\n" * 2],
)
def test_a_part_whose_bounds_are_damaged_is_not_guessed_at(content: str) -> None:
    with pytest.raises(Misconfigured, match="cannot be said"):
        merged(content, NAMES)


async def test_a_new_file_can_be_read_by_everybody_and_run_by_nobody(tmp_path: Path) -> None:
    path = tmp_path / "autosign.conf"
    before = os.umask(0o077)
    try:
        await AutosignFile(path).hold(NAMES)
    finally:
        os.umask(before)
    assert (path.read_text(), path.stat().st_mode & 0o777) == (OURS, 0o644)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


async def test_no_names_make_no_file(tmp_path: Path) -> None:
    await AutosignFile(tmp_path / "autosign.conf").hold([])
    assert list(tmp_path.iterdir()) == []


async def test_a_file_is_replaced_in_one_step_with_mode_and_owner_kept(tmp_path: Path) -> None:
    path = tmp_path / "autosign.conf"
    path.write_bytes(b"caf\xe9.example.org\n")
    path.chmod(0o640)
    owner = (12_345, 23_456) if os.geteuid() == 0 else (os.geteuid(), path.stat().st_gid)
    os.chown(path, *owner)
    with path.open("rb") as reader:
        await AutosignFile(path).hold(NAMES)
        assert reader.read() == b"caf\xe9.example.org\n", "who reads meanwhile has the old file whole"
    found = path.stat()
    assert path.read_bytes() == b"caf\xe9.example.org\n" + OURS.encode()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o640, *owner)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("mode", "in_group", "written"),
    [(0o640, True, True), (0o640, False, False), (0o600, True, False), (0o644, False, True)],
)
async def test_an_ordinary_account_replaces_what_its_readers_can_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, in_group: bool, written: bool
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of somebody else")
    path = tmp_path / "autosign.conf"
    path.write_text("hand.example.org\n")
    path.chmod(mode)
    os.chown(path, 12_345, 23_456)
    change = os.fchown

    def as_an_ordinary_account(fd: int, user: int, group: int) -> None:
        if user != -1 or not in_group:
            raise PermissionError(1, "Operation not permitted")
        change(fd, user, group)

    group = os.getegid()
    monkeypatch.setattr(os, "fchown", as_an_ordinary_account)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    file = AutosignFile(path)
    await file.hold(NAMES)
    refused = f"Replacing {path} for its readers failed: Operation not permitted; the old file is untouched"
    assert file.trouble == ("" if written else refused)
    assert path.read_text() == "hand.example.org\n" + (OURS if written else "")
    assert path.stat().st_gid == (23_456 if in_group or not written else group)
    assert (path.stat().st_mode & 0o777, [p.name for p in tmp_path.iterdir()]) == (mode, [path.name])


async def test_what_is_held_already_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "autosign.conf"
    file = AutosignFile(path)
    await file.hold(NAMES)
    before = path.stat()
    await file.hold(NAMES)
    await AutosignFile(path).hold(NAMES)
    assert path.stat() == before


@pytest.mark.parametrize("change", [lambda p: p.unlink(), lambda p: p.write_text(f"{BEGIN}\nevil\n{END}\n")])
async def test_what_others_do_to_the_lists_part_is_undone(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "autosign.conf"
    file = AutosignFile(path)
    await file.hold(NAMES)
    change(path)
    await file.hold(NAMES)
    assert path.read_text() == OURS


async def test_what_others_do_the_moment_it_was_written_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "autosign.conf"
    file = AutosignFile(path)

    def overtaken(to: Path, content: bytes) -> None:
        replace_for_readers(to, content)
        to.write_text("evil\n")

    with monkeypatch.context() as patched:
        patched.setattr(autosign_file, "replace_for_readers", overtaken)
        await file.hold(NAMES)
    await file.hold(NAMES)
    assert path.read_text() == f"evil\n{OURS}"


async def test_a_program_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "autosign.conf"
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    file = AutosignFile(path)
    await file.hold(NAMES)
    assert file.trouble == f"{path} is executable: puppetserver runs it as a program and reads no names from it"
    assert path.read_text() == "#!/bin/sh\nexit 1\n"
    path.chmod(0o644)
    await file.hold(NAMES)
    assert (file.trouble, path.read_text()) == ("", f"#!/bin/sh\nexit 1\n{OURS}")


async def test_a_file_that_cannot_be_written_is_trouble_until_it_can(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "autosign.conf"
    file = AutosignFile(path)
    await file.hold([])
    assert file.trouble == ""
    await file.hold(NAMES)
    assert file.trouble == f"Writing {path} failed: No such file or directory; there is no directory {path.parent}"
    path.parent.mkdir()
    await file.hold(NAMES)
    assert (file.trouble, path.read_text()) == ("", OURS)


async def test_trouble_ends_also_when_the_list_returns_to_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "autosign.conf"
    file = AutosignFile(path)
    await file.hold(NAMES)
    path.chmod(0o755)
    await file.hold([*NAMES, "web02.example.net"])
    assert "executable" in file.trouble
    path.chmod(0o644)
    await file.hold(NAMES)
    assert (file.trouble, path.read_text()) == ("", OURS)


async def test_damaged_bounds_are_told_with_the_files_name_and_nothing_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "autosign.conf"
    path.write_text(f"{BEGIN}\nhand.example.org\n")
    file = AutosignFile(path)
    await file.hold(NAMES)
    assert file.trouble.startswith(f"{path} has not exactly one line")
    assert path.read_text() == f"{BEGIN}\nhand.example.org\n"


async def test_a_directory_in_its_place_is_trouble(tmp_path: Path) -> None:
    path = tmp_path / "autosign.conf"
    path.mkdir(mode=0o600)
    file = AutosignFile(path)
    await file.hold(NAMES)
    assert str(path) in file.trouble
    assert path.is_dir()
