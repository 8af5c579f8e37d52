from __future__ import annotations

import io
import subprocess
import tarfile
from dataclasses import replace

import pytest

from muster.content.consumer.deb import deb
from tests.unit.content.consumer.example import EXAMPLE


def members(package: bytes) -> dict[str, bytes]:
    assert package.startswith(b"!<arch>\n")
    at, found = 8, {}
    while at < len(package):
        name, size = package[at : at + 16].decode().strip(), int(package[at + 48 : at + 58])
        assert package[at + 58 : at + 60] == b"`\n"
        found[name] = package[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    return found


def files(archive: bytes) -> dict[str, tuple[int, str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        found = {}
        for one in opened:
            assert (one.uid, one.gid, one.uname, one.gname, one.mtime) == (0, 0, "root", "root", 1_767_225_600)
            file = opened.extractfile(one)
            found[one.name] = (one.mode, "file" if file else "directory", file.read() if file else b"")
        return found


def test_equal_arguments_give_equal_bytes_and_others_do_not() -> None:
    assert deb(EXAMPLE, "1.7") == deb(EXAMPLE, "1.7") != deb(EXAMPLE, "1.8")


def test_it_has_files_directories_and_scripts_of_roots() -> None:
    found = members(deb(EXAMPLE, "1.7"))
    assert list(found) == ["debian-binary", "control.tar.gz", "data.tar.gz"]
    assert found["debian-binary"] == b"2.0\n"
    data = files(found["data.tar.gz"])
    assert [n for n, (_, kind, _) in data.items() if kind == "directory"] == [
        ".", "./usr", "./usr/share", "./usr/share/muster-client",
    ]  # fmt: skip
    assert {n[1:]: (mode, text.decode()) for n, (mode, kind, text) in data.items() if kind == "file"} == {
        f.path: (f.mode, f.text) for f in EXAMPLE.files
    }
    control = files(found["control.tar.gz"])
    fields = dict(line.split(": ", 1) for line in control["./control"][2].decode().splitlines())
    assert (fields["Package"], fields["Version"], fields["Architecture"]) == (EXAMPLE.name, "1.7-1", "all")
    assert fields["Conflicts"] == fields["Replaces"] == fields["Provides"] == "katello-ca-consumer"
    # Or dpkg may run the script before its dependencies' ones, and it is that of ca-certificates that makes the directory.
    assert fields["Depends"] == "ca-certificates, python3"
    assert "Recommends" not in fields


@pytest.mark.parametrize(
    ("script", "arguments", "says"),
    [
        # How dpkg calls them: deb-postinst(5), deb-prerm(5).
        ("./postinst", ["configure", ""], "installed"),
        ("./postinst", ["configure", "1.6-1"], "installed"),
        # A removal that came to nothing after prerm had taken all back.
        ("./postinst", ["abort-remove"], "installed"),
        ("./postinst", ["abort-remove", "in-favour", "other", "1.1-1"], "installed"),
        ("./postinst", ["abort-upgrade", "1.8-1"], ""),
        ("./prerm", ["remove"], "removed"),
        ("./prerm", ["remove", "in-favour", "other", "1.1-1"], "removed"),
        ("./prerm", ["upgrade", "1.8-1"], ""),
        ("./prerm", ["failed-upgrade", "1.6-1", "1.7-1"], ""),
    ],
)
def test_scripts_do_what_dpkg_calls_them_for(script: str, arguments: list[str], says: str) -> None:
    said = replace(EXAMPLE, installed="echo installed\n", removed="echo removed\n")
    mode, _, text = files(members(deb(said, "1.7"))["control.tar.gz"])[script]
    assert mode == 0o755
    done = subprocess.run(
        ["/bin/sh", "-c", text.decode(), "script", *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == says
