from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.content.metadata import release
from muster.content.metadata.malformed import Malformed
from muster.content.metadata.release import Listed, Release
from tests.unit.content.metadata.documents import A, C

PLACE = "main/binary-amd64/Packages"
HEAD = (
    "Origin: Debian\nLabel: Debian\nSuite: stable\nCodename: bookworm\nDate: Sat, 10 Feb 2024 10:02:03 UTC\n"
    "Acquire-By-Hash: yes\nArchitectures: all amd64\nComponents: main updates/main\nDescription: x\n"
)
SHA256 = f"SHA256:\n {A}  100 {PLACE}\n {A[::-1]} 10 {PLACE}.xz\n"


def text(head: str = HEAD, lists: str = SHA256) -> bytes:
    return (head + lists).encode()


def signed(body: bytes = b"", *, header: str = "Hash: SHA512\n", after: str = "", signature: str = "") -> bytes:
    escaped = b"\n".join(b"- " + line if line.startswith(b"-") else line for line in (body or text()).split(b"\n"))
    return (
        f"-----BEGIN PGP SIGNED MESSAGE-----\n{header}\n".encode() + escaped
        + f"{signature or SIGNATURE}{after}".encode()
    )  # fmt: skip


SIGNATURE = "-----BEGIN PGP SIGNATURE-----\n\niQIz\n=abcd\n-----END PGP SIGNATURE-----\n"


def test_a_release_is_read() -> None:
    assert release.read(text()) == Release(
        1707559323.0, "stable", "bookworm", ("main", "updates/main"), ("all", "amd64"), True,
        (Listed(PLACE, 100, A, ""), Listed(f"{PLACE}.xz", 10, A, "")),
    )  # fmt: skip


def test_it_need_say_no_more_than_its_files() -> None:
    assert release.read(b"SHA256:\n") == Release(0.0, "", "", (), (), False, ())


def test_both_digests_of_a_file_are_told() -> None:
    files = release.read(text(lists=f"SHA512:\n {C} 7 a\n {C} 8 c\nSHA256:\n {A} 7 a\n {A} 9 b\n")).files
    assert files == (Listed("a", 7, A, C), Listed("b", 9, A, ""), Listed("c", 8, "", C))
    assert [f.proof for f in files] == [("sha256", A), ("sha256", A), ("sha512", C)]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Sat, 10 Feb 2024 10:02:03 UTC", 1707559323.0), ("Sat, 10 Feb 2024 10:02:03 GMT", 1707559323.0),
        ("Sat, 10 Feb 2024 11:32:03 +0130", 1707559323.0), ("10 Feb 2024 09:02:03 -0100", 1707559323.0),
        ("Sat,  3 Feb 2024  9:02:03 Z", None), ("Sat, 3 Feb 2024 9:02:03 Z", 1706950923.0),
        ("", 0.0), ("yesterday", None), ("Sat, 31 Feb 2024 10:02:03 UTC", None), ("Sat, 10 Fev 2024 10:02:03 UTC", None),
        ("Sat, 10 Feb 2024 25:02:03 UTC", None), ("Sat, 10 Feb 0000 10:02:03 UTC", None),
        ("Sat, 10 Feb 2024 10:02:03 +9900", None), ("Fri, 01 Jan 0001 00:00:00 +0100", None),
    ],
)  # fmt: skip
def test_its_date_is_seconds(said: str, expected: float | None) -> None:
    body = text(head=f"Date: {said}\n")
    if expected is not None:
        assert release.read(body).date == expected
        return
    with pytest.raises(Malformed, match="is no date"):
        release.read(body)


def test_of_a_signed_text_the_text_is_read() -> None:
    body = signed()
    assert release.is_signed(body)
    assert not release.is_signed(text())
    assert release.read(body) == release.read(text())
    assert release.read(signed(header="Hash: SHA256\nHash: SHA512\n", after="\n\n")) == release.read(text())
    assert release.read(signed(text().replace(b"\n", b" \t\r\n"))) == release.read(text())


def test_dashes_are_escaped_in_it() -> None:
    with pytest.raises(Malformed, match="a line begins with a dash that is not escaped"):
        release.read(signed().replace(b"Origin", b"-Origin"))
    assert release.read(signed().replace(b"Origin", b"- Origin")) == release.read(text())


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"-----BEGIN PGP SIGNED MESSAGE-----x\n\nA: 1\n", "nothing of the kind"),
        (signed(header="not a header\n"), "line 2 is no header"),
        (signed(header=f"Hash: {'x' * 300}\n"), "line 2 is no header"),
        (b"-----BEGIN PGP SIGNED MESSAGE-----\n\n" + text(), "does not end"),
        (b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512", "does not end"),
        (signed(signature="-----BEGIN PGP SIGNATURE-----\n\niQIz\n"), "its signature does not end"),
        (signed(after="SHA256:\n"), "something follows it"),
        (signed(after=SIGNATURE), "something follows it"),
        (signed() + signed(), "something follows it"),
        (b"", "nothing in it"), (b"\n\n", "nothing in it"), (text() + b"\n" + text(), "several entries"),
        (b"<html>\n", "line 1 is no field"),
        (text(lists=""), "no file with a digest that proves"), (text(lists=f"MD5Sum:\n {A[:32]} 1 x\n"), "no file with"),
        (text(lists=f"SHA256: {A} 1 x\n"), "says something where its list begins"),
        (text(lists=f"SHA256:\n {A[1:]} 1 x\n"), "no digest, size and path"),
        (text(lists=f"SHA256:\n {A} x\n"), "no digest, size and path"),
        (text(lists=f"SHA256:\n {A} -1 x\n"), "no digest, size and path"),
        (text(lists=f"SHA256:\n {A}\n"), "no digest, size and path"),
        (text(lists=f"SHA256:\n {A} 1 ../x\n"), "none inside the suite"),
        (text(lists=f"SHA256:\n {A} 1 /x\n"), "none inside the suite"),
        (text(lists=f"SHA256:\n {A} 1 a\x01b\n"), "none inside the suite"),
        (text(lists=f"SHA256:\n {A} 1 a%2fb\n"), "none inside the suite"),
        (text(lists=f"SHA256:\n {A} 1 x\n {'b' * 64} 1 x\n"), "says two things of 'x'"),
        (text(lists=f"SHA256:\n {A} 1 x\nSHA512:\n {C} 2 x\n"), "says two things of 'x'"),
        (text(lists="SHA256:\n" + "".join(f" {A} 1 x{n}\n" for n in range(10_001))), "more than 10000 files"),
        (text(head="Suite: a\nSuite: b\n"), "suite is there twice"),
        (text(head=f"Suite: {'x' * 257}\n"), "suite is not a short line"),
        (text(head=f"Components: {'x ' * 1001}\n"), "components is not a list of short words"),
        (text(head="Suite: a\n b\n"), "suite has several lines"),
        (b"x" * ((4 << 20) + 1), "larger than 4194304 bytes"),
    ],
)  # fmt: skip
def test_what_is_no_release_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=f"^Reading /r/Release failed: .*{why}"):
        release.read(body, of="/r/Release")


@given(st.binary(max_size=200))
def test_whatever_is_signed_is_read_or_refused(inner: bytes) -> None:
    for body in (inner, b"-----BEGIN PGP SIGNED MESSAGE-----\n" + inner):
        with contextlib.suppress(Malformed):
            release.read(body)
