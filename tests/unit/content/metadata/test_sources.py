from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.content.metadata.malformed import Malformed
from muster.content.metadata.primary import Package
from muster.content.metadata.sources import files
from tests.unit.content.metadata.documents import A, C, bytewise

MD5, SHA1 = A[:32], A[:40]
DIRECTORY = "Directory: pool/main/n/name\n"


def stanza(
    *, directory: str = DIRECTORY, listed: str = f"Checksums-Sha256:\n {A} 12 name_1.dsc\n {A} 9 name_1.tar.xz\n"
) -> str:
    return (
        "Package: name\nBinary: name, name-doc\nVersion: 1\nBuild-Depends: a (>= 1),\n b\n"
        f"{directory}Package-List:\n name deb misc optional arch=any\n{listed}Section: misc\n\n"
    )


def read(*listed: str) -> list[Package]:
    body = "".join(listed).encode()
    found = list(files([body]))
    assert found == list(files(bytewise(body)))
    return found


def test_files_of_source_packages_are_told_with_what_their_bytes_are() -> None:
    assert read(
        stanza(),
        stanza(
            directory="directory: .\n",
            listed=(
                f"Files:\n {MD5} 12 a.dsc\n {MD5} 5 a.asc\n {MD5} 3 w\nChecksums-Sha1:\n {SHA1} 5 a.asc\n {SHA1} 12 a.dsc\n"
                f"Checksums-Sha512:\n {C.upper()} 5 a.asc\n {C} 12 a.dsc\nChecksums-Sha256:\n {A} 12 a.dsc\n"
            ),
        ),
    ) == [
        Package("pool/main/n/name/name_1.dsc", 12, "sha256", A),
        Package("pool/main/n/name/name_1.tar.xz", 9, "sha256", A),
        Package("a.dsc", 12, "sha256", A),
        Package("a.asc", 5, "sha512", C),
        Package("w", 3, "md5", MD5),
    ]


def test_an_empty_list_has_none() -> None:
    assert read() == read("\n") == []


@pytest.mark.parametrize("directory", ["../pool", "/pool", "pool//x", "pool/%2e%2e", "http://a.test/pool", "pool/./x"])
def test_what_leads_out_of_the_archive_is_left_out(directory: str) -> None:
    assert read(stanza(directory=f"Directory: {directory}\n"), stanza()) == read(stanza())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (stanza(directory=""), "has no Directory"), (stanza(directory="Directory:\n a\n b\n"), "several lines"),
        (stanza(listed=""), "has no files"), (stanza(listed="Files:\n"), "has no files"),
        (stanza(listed=f"Checksums-Sha256:\n {A} 12 ../name.dsc\n"), "no digest, size and name"),
        (stanza(listed=f"Checksums-Sha256:\n {A} 12 a/name.dsc\n"), "no digest, size and name"),
        (stanza(listed=f"Checksums-Sha256:\n {A} name.dsc\n"), "no digest, size and name"),
        (stanza(listed=f"Checksums-Sha256:\n {A} 12 a b\n"), "no digest, size and name"),
        (stanza(listed=f"Checksums-Sha256:\n {A} -1 a\n"), "no digest, size and name"),
        (stanza(listed=f"Checksums-Sha256:\n {SHA1} 12 a\n"), "no digest, size and name"),
        (stanza(listed=f"Files:\n {A} 12 a\n"), "no digest, size and name"),
        (stanza(directory=DIRECTORY * 2), "directory is there twice"), ("no field\n", "line 1 is no field"),
    ],
)  # fmt: skip
def test_a_list_that_is_none_is_refused(text: str, why: str) -> None:
    with pytest.raises(Malformed, match=f"^Reading main/source/Sources failed: .*{why}"):
        list(files([text.encode()], of="main/source/Sources"))


def test_more_files_than_are_read_are_refused() -> None:
    body = (stanza() * 3).encode()
    assert len(list(files([body], limit_files=6))) == 6
    with pytest.raises(Malformed, match="more than 5 files"):
        list(files([body], limit_files=5))


@given(st.text("af0 \n.:/-", max_size=80))
def test_whatever_comes_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(Malformed):
        list(files([stanza(listed=f"Files:\n {text}\n").encode()]))
