from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.kernel.errors import Misconfigured, Rejected, Unavailable
from muster.kernel.files import (
    Account,
    give_to_owner,
    make_directory,
    read_bounded,
    replace_for_readers,
    write_atomically,
    write_for_group,
    write_new,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o077, 0o000], ids=["umask 022", "umask 077", "umask 000"])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_umask")
def test_the_mode_asked_for_is_the_mode_whatever_the_umask(tmp_path: Path) -> None:
    write_atomically(tmp_path / "key", "k", mode=0o600)
    write_atomically(tmp_path / "cert", b"c", mode=0o644)
    make_directory(tmp_path / "a" / "b", mode=0o750)
    assert [mode(tmp_path / n) for n in ("key", "cert", "a/b")] == [0o600, 0o644, 0o750]


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "f"
    write_atomically(target, "old")
    write_atomically(target, "nëw")
    assert target.read_text() == "nëw"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_who_holds_the_old_file_keeps_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "f"
    write_atomically(target, "old")
    with target.open() as held:
        write_atomically(target, "new")
        assert held.read() == "old"


def test_a_link_is_replaced_and_never_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "f").symlink_to(victim)
    write_atomically(tmp_path / "f", "new")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "f").is_symlink()


def test_a_write_the_disk_refuses_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"Writing .*missing/f failed: No such file or directory"):
        write_atomically(tmp_path / "missing" / "f", "x")
    # What has to be made first, and of an old file that cannot be nothing.
    with pytest.raises(Unavailable, match=rf"; there is no directory {tmp_path}/missing\Z"):
        write_atomically(tmp_path / "missing" / "f", "x")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "inside").touch()
    with pytest.raises(Unavailable, match="the old file is untouched"):
        write_atomically(tmp_path / "d", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_directory_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    make_directory(tmp_path / "d", mode=0o755)
    assert mode(tmp_path / "d") == 0o700


def test_a_directory_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(Unavailable, match="Making directory"):
        make_directory(tmp_path / "f" / "d")


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert read_bounded(tmp_path / "f", what="file", limit_bytes=5) == b"12345"
    with pytest.raises(Misconfigured, match=r"Reading key file .*/f failed: larger than 4 bytes"):
        read_bounded(tmp_path / "f", what="key file", limit_bytes=4)
    with pytest.raises(Misconfigured, match=r"Reading key file .*/g failed: No such file or directory"):
        read_bounded(tmp_path / "g", what="key file")


def test_a_new_file_is_written_once_and_never_over_another(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    assert write_new(path, "first", mode=0o600)
    assert not write_new(path, "second")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("first", 0o600)
    assert [p.name for p in tmp_path.iterdir()] == ["key.pem"]
    with pytest.raises(Unavailable, match="No such file or directory"):
        write_new(tmp_path / "absent" / "key.pem", "x")


def test_a_file_for_other_readers_keeps_mode_and_owner(tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    replace_for_readers(path, "new")
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o640)
    owner = (12_345, 23_456) if os.geteuid() == 0 else (os.geteuid(), path.stat().st_gid)
    os.chown(path, *owner)
    replace_for_readers(path, b"newer")
    found = path.stat()
    assert (path.read_text(), found.st_mode & 0o777, found.st_uid, found.st_gid) == ("newer", 0o640, *owner)
    assert [p.name for p in tmp_path.iterdir()] == ["crl.pem"]


def test_a_file_for_a_group_is_the_groups_before_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key.pem"
    path.write_text("old")
    seen = []
    replace = Path.replace

    def replaced(self: Path, target: Path) -> Path:
        found = self.stat()
        seen.append((found.st_mode & 0o777, found.st_uid, found.st_gid))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replaced)
    gid = 23_456 if os.geteuid() == 0 else os.getegid()
    if os.geteuid() == 0:
        os.chown(path, 12_345, 1)
    write_for_group(path, "new", mode=0o440, gid=gid)
    found = path.stat()
    assert seen == [(0o440, os.geteuid(), gid)]
    assert (path.read_text(), found.st_mode & 0o777, found.st_uid, found.st_gid) == ("new", *seen[0])
    write_for_group(path, "newer", mode=0o400, gid=None)
    assert [p.name for p in tmp_path.iterdir()] == ["key.pem"]


def test_a_group_that_is_not_ours_to_give_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key.pem"
    path.write_text("old")

    def refused(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refused)
    with pytest.raises(Unavailable, match="untouched; run this as root"):
        write_for_group(path, "new", mode=0o440, gid=0)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("key.pem", "old")]


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another account")
SERVICE = (12_345, 23_456)


@needs_root
def test_a_file_for_readers_is_given_away_itself_and_not_what_stands_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, other = tmp_path / "ssl", tmp_path / "other"
    directory.mkdir()
    other.write_text("root's")
    before = owner(other)
    path = directory / "crl.pem"
    path.write_text("old")
    os.chown(path, *SERVICE)
    # The group is another one only behind the link, so that it is not what the new file has from the start.
    (tmp_path / "link").write_text("")
    os.chown(tmp_path / "link", SERVICE[0], SERVICE[1] + 1)
    path.unlink()
    path.symlink_to(tmp_path / "link")
    sync = os.fsync

    def swapped(fd: int) -> None:
        sync(fd)
        for beside in directory.glob(".crl.pem.*"):
            beside.unlink()
            beside.symlink_to(other)

    monkeypatch.setattr(os, "fsync", swapped)
    replace_for_readers(path, "new")
    assert owner(other) == before


def owner(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


@needs_root
def test_what_root_writes_belongs_to_the_owner_of_the_directory_or_of_what_was_there(tmp_path: Path) -> None:
    os.chown(tmp_path, *SERVICE)
    write_atomically(tmp_path / "key.pem", "x", mode=0o600)
    assert write_new(tmp_path / "new.pem", "x", mode=0o600)
    make_directory(tmp_path / "a" / "b", mode=0o700)
    write_atomically(tmp_path / "a" / "b" / "key.pem", "x", mode=0o600)
    for path in tmp_path.rglob("*"):
        assert owner(path) == SERVICE, path
    kept = (34_567, 45_678)
    os.chown(tmp_path / "key.pem", *kept)
    write_atomically(tmp_path / "key.pem", "y", mode=0o600)
    assert owner(tmp_path / "key.pem") == kept
    write_atomically(tmp_path / "other.pem", "y", mode=0o600, like=tmp_path / "key.pem")
    assert owner(tmp_path / "other.pem") == kept


@needs_root
def test_a_link_chooses_no_owner_for_what_replaces_it(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("x")
    os.chown(theirs, 34_567, 45_678)
    (tmp_path / "key.pem").symlink_to(theirs)
    os.chown(tmp_path / "key.pem", *SERVICE, follow_symlinks=False)
    write_atomically(tmp_path / "key.pem", "y")
    assert (owner(tmp_path / "key.pem"), theirs.read_text(), owner(theirs)) == (SERVICE, "x", (34_567, 45_678))
    (tmp_path / "link").symlink_to(theirs)
    with pytest.raises(OSError, match="symbolic links"):
        give_to_owner(tmp_path / "link")
    assert owner(theirs) == (34_567, 45_678)


@needs_root
def test_who_cannot_write_into_a_directory_is_known_before_it_is_tried(tmp_path: Path) -> None:
    service, root = Account.named(str(SERVICE[0])), Account.named("0")
    for mode, may in ((0o755, False), (0o757, True), (0o756, False), (0o753, True), (0o775, False)):
        tmp_path.chmod(mode)
        assert service.may_write_into(tmp_path) is may, oct(mode)
        assert root.may_write_into(tmp_path)
    os.chown(tmp_path, *SERVICE)
    tmp_path.chmod(0o577)
    assert not service.may_write_into(tmp_path)
    tmp_path.chmod(0o755)
    assert service.may_write_into(tmp_path)
    with pytest.raises(FileNotFoundError):
        service.may_write_into(tmp_path / "nowhere")


@needs_root
def test_who_cannot_read_a_file_is_known_before_it_is_tried(tmp_path: Path) -> None:
    # pytest's own directories are closed to others.
    with tempfile.TemporaryDirectory() as open_to_all:
        home = Path(open_to_all)
        home.chmod(0o755)
        key = home / "inner" / "key.pem"
        make_directory(key.parent, mode=0o750)
        write_atomically(key, "x", mode=0o600)
        service = Account.named(str(SERVICE[0]))
        root = Account.owner_of(key)
        assert root is not None
        assert root.refused_by(key) is None
        assert service.refused_by(key) == key.parent.resolve()
        key.parent.chmod(0o751)
        assert service.refused_by(key) == key.resolve()
        os.chown(key, 0, SERVICE[1])
        key.chmod(0o640)
        assert service.refused_by(key) == key.resolve()
        assert Account(service.name, service.uid, frozenset({SERVICE[1]})).refused_by(key) is None
        os.chown(key, *SERVICE)
        assert service.refused_by(key) is None
        # The owner's bits count for the owner, whatever others may.
        key.chmod(0o044)
        assert service.refused_by(key) == key.resolve()
        assert service.refused_by(home / "absent") is None


def test_an_account_is_named_or_numbered(tmp_path: Path) -> None:
    own = Account.owner_of(tmp_path)
    assert own is not None
    assert own.uid == Account.named(str(own.uid)).uid
    assert Account.named("4000000000").uid == 4_000_000_000
    for name in ("no such account", "", "-1", "4294967296", "9" * 40, "\0", "²"):
        with pytest.raises(Rejected):
            Account.named(name)
    assert Account.owner_of(tmp_path / "absent") is None


def test_an_empty_path_names_no_file_to_write() -> None:
    with pytest.raises(Unavailable, match=r"Writing \. failed: Is a directory"):
        write_atomically(Path(), b"x")
