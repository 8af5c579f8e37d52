from __future__ import annotations

import pytest

from muster.cluster.mirror import Mirrored
from muster.content.kinds import File
from muster.content.mirror.narrowing import Of, narrowed, of

HREFS = (
    "main/binary-amd64/Packages.xz", "main/binary-all/Packages.gz", "main/binary-arm64/Release",
    "main/debian-installer/binary-amd64/Packages.xz", "main/source/Sources.xz", "main/i18n/Translation-en.xz",
    "main/sub/binary-amd64/Packages", "contrib/binary-amd64/Packages.xz", "contrib/i18n/Translation-en.xz", "Packages.gz",
)  # fmt: skip


def fetched(*components: str, architectures: tuple[str, ...] = (), sources: bool = False) -> set[str]:
    mirrored = Mirrored(
        kind="deb", url="https://origin.test/x", suites=("stable",), components=components, architectures=architectures,
        sources=sources,
    )  # fmt: skip
    is_wanted = narrowed(mirrored)
    return {href for href in HREFS if is_wanted(File(href, 1, "sha256", "a" * 64))}


@pytest.mark.parametrize(
    ("href", "expected"),
    [
        (HREFS[0], ("main", "amd64")), (HREFS[1], ("main", "all")), (HREFS[3], ("main", "amd64")),
        (HREFS[4], ("main", "source")), (HREFS[5], ("main", "")), (HREFS[6], ("main/sub", "amd64")),
        ("Packages.gz", ("", "")),
        ("binary-amd64/Packages", ("", "")), ("source/Sources", ("", "")), ("main/other/Release", ("", "")), ("", ("", "")),
    ],
)  # fmt: skip
def test_a_list_lies_where_it_says_of_what_it_is(href: str, expected: tuple[str, str]) -> None:
    assert of(href) == Of(*expected)


def test_all_is_fetched_where_nothing_is_named() -> None:
    assert fetched() == set(HREFS)


def test_components_are_whole_paths() -> None:
    assert fetched("contrib") == {HREFS[7], HREFS[8], "Packages.gz"}
    assert fetched("main/sub") == {HREFS[6], "Packages.gz"}
    assert fetched("main") == {*HREFS[:6], "Packages.gz"}


def test_architectures_are_those_that_are_named_and_no_others() -> None:
    translations = {HREFS[5], HREFS[8]}
    assert fetched(architectures=("all", "source")) == {HREFS[1], HREFS[4], "Packages.gz", *translations}
    assert fetched("main", architectures=("amd64",)) == {HREFS[0], HREFS[3], HREFS[5], "Packages.gz"}


def test_lists_of_sources_are_fetched_where_sources_are_whatever_architectures_are_named() -> None:
    assert fetched("main", architectures=("amd64",), sources=True) == {
        HREFS[0], HREFS[3], HREFS[4], HREFS[5], "Packages.gz",
    }  # fmt: skip
    assert fetched("contrib", sources=True) == fetched("contrib")
    assert fetched(sources=True) == fetched()


def test_a_component_may_be_named_with_what_its_paths_do_not_have() -> None:
    assert fetched("updates/main") == fetched("main")
    assert fetched("updates/main/sub") == fetched("main/sub")
