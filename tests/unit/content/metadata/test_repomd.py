from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.content.metadata.malformed import Malformed
from muster.content.metadata.repomd import LIMIT_BYTES, Named, read
from tests.unit.content.metadata.documents import A, B, C, entry, repomd


def test_what_it_names_is_told_in_its_order() -> None:
    found = read(
        repomd(
            "<tags><content>binary</content><distro cpeid='x'>y</distro></tags>",
            entry(),
            entry(
                "primary_db",
                href="repodata/p.sqlite.bz2",
                checksum=f'<checksum type="sha512">{C}</checksum><open-checksum type="sha512">{C}</open-checksum>',
                more="<timestamp>1700000002.25</timestamp><database_version>10</database_version><size>5</size>",
            ),
            entry(
                "primary_zck",
                href="repodata/p.zck",
                more=f'<header-checksum type="sha256">{A}</header-checksum><header-size>9</header-size>',
            ),
            entry("group_gz", href="repodata/comps.xml.gz"),
            entry("modules", href="repodata/modules.yaml.zst", checksum=f'<checksum type="sha384">{B}</checksum>'),
            entry("updateinfo", href="repodata/u.xml.xz"),
            entry("prestodelta", href="repodata/d.xml", checksum=f'<checksum type="sha">{A[:40]}</checksum>'),
        )
    )
    assert (found.revision, found.timestamp, found.elsewhere) == ("7", 1700000002.25, ())
    assert [f.kind for f in found.files] == [
        "primary", "primary_db", "primary_zck", "group_gz", "modules", "updateinfo", "prestodelta",
    ]  # fmt: skip
    assert found.files[0] == Named("primary", f"repodata/{A}-primary.xml.gz", "sha256", A, 766, 2866)
    assert found.files[1] == Named("primary_db", "repodata/p.sqlite.bz2", "sha512", C, 5, None)
    assert found.files[2].size is None
    assert (found.files[4].algorithm, found.files[4].digest) == ("sha384", B)
    assert found.files[6].algorithm == "sha1"
    assert [f.is_proven for f in found.files] == [True] * 6 + [False]


@pytest.mark.parametrize(
    ("written", "revision", "number"),
    [
        ("<revision>1700000000</revision>", "1700000000", 1700000000), ("<revision> 12\n</revision>", "12", 12),
        ("<revision>0</revision>", "0", 0), ("<revision/>", "", -1), ("", "", -1),
        ("<revision>el9 &amp; ä</revision>", "el9 & ä", -1),
        ("<revision>-5</revision>", "-5", -1), ("<revision>1.5</revision>", "1.5", -1),
        ("<revision>٣</revision>", "٣", -1),
        (f"<revision>{'9' * 18}</revision>", "9" * 18, 10**18 - 1),
        (f"<revision>{'9' * 256}</revision>", "9" * 256, -1),
    ],
)  # fmt: skip
def test_a_revision_is_a_number_or_any_text(written: str, revision: str, number: int) -> None:
    found = read(repomd(entry(), revision=written))
    assert (found.revision, found.order_key) == (revision, (number, 1700000000.0))


def test_the_order_is_revision_then_time() -> None:
    def key(revision: str, time: int) -> tuple[int, float]:
        more = f"<timestamp>{time}</timestamp>"
        return read(repomd(entry(more=more), revision=f"<revision>{revision}</revision>")).order_key

    assert key("text", 9) < key("0", 8) < key("2", 7) < key("10", 5) < key("10", 6)


def test_an_empty_repomd_names_nothing() -> None:
    found = read(repomd(revision=""))
    assert (found.files, found.timestamp, found.order_key) == ((), 0.0, (-1, 0.0))


def test_what_lies_on_another_server_is_no_file_here() -> None:
    away = '<location xml:base="http://other.test/r/" href="repodata/f.xml.gz"/>'
    found = read(repomd(entry(), entry("filelists", location=away), entry("other", location=away, checksum="")))
    assert ([f.kind for f in found.files], found.elsewhere) == (["primary"], ("filelists", "other"))


@pytest.mark.parametrize("href", ["", "/a", "../a", "a/../b", "./a", "a//b", "a%2fb", "a&#10;b", "a\\b", "x" * 1025])
def test_a_location_out_of_the_repository_is_refused(href: str) -> None:
    with pytest.raises(Malformed, match="no path inside the repository"):
        read(repomd(entry(href=href)))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (entry(location=""), "no path inside"), (entry(location="<location/>"), "no path inside"),
        (entry(checksum=""), "no checksum"), (entry(checksum="<checksum/>"), "no checksum"),
        (entry(checksum=f'<checksum type="sha256">{C}</checksum>'), "no checksum"),
        (entry(checksum=f'<checksum type="other">{A}</checksum>'), "no checksum"),
        (entry(checksum=f'<checksum type="sha256">{A}</checksum>' * 2), "checksum is there twice"),
        (entry(""), "no kind"), (entry("a b"), "no kind"), (entry("x" * 129), "no kind"),
        (entry(more="<size/>"), "no size"), (entry(more="<size>-1</size>"), "no size"),
        (entry(more="<open-size>x</open-size>"), "no size"),
        (entry(more="<timestamp/>"), "no time"), (entry(more="<timestamp>inf</timestamp>"), "no time"),
        (entry(more="<timestamp>1e9</timestamp>"), "no time"),
        (entry(more=f"<timestamp>{'9' * 13}</timestamp>"), "no time"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_said_whole_is_refused(wrong: str, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        read(repomd(entry("other", href="o"), wrong))


def test_its_limits_hold() -> None:
    assert len(read(repomd(*[entry(href=f"r/{n}") for n in range(1000)])).files) == 1000
    for body, why in (
        (repomd(*[entry(href=f"r/{n}") for n in range(1001)]), "more than 1001 entries"),
        (repomd(revision=f"<revision>{'x' * 257}</revision>"), "longer than 256 characters"),
        (repomd(revision="<revision/><revision/>"), "several revisions"),
        (repomd() + b" " * LIMIT_BYTES, f"larger than {LIMIT_BYTES} bytes"),
        (repomd(head="<!DOCTYPE repomd [<!ENTITY e 'x'>]>", revision="<revision>&e;</revision>"), "document type"),
        (repomd(entry())[:-5], "no well-formed XML"),
        (b"<html><body>404</body></html>", "root is not repomd"),
        (b"", "no well-formed XML"),
    ):
        with pytest.raises(Malformed, match=f"^Reading /r/repomd.xml failed: .*{why}"):
            read(body, of="/r/repomd.xml")


@given(st.binary(max_size=4), st.integers(0, 10_000))
def test_whatever_comes_is_read_or_refused(change: bytes, at: int) -> None:
    body = repomd(entry(), entry("other", href="repodata/o.xml"))
    at %= len(body)
    with contextlib.suppress(Malformed):
        read(body[:at] + change + body[at + 1 :])
