from __future__ import annotations

import pytest

from muster.content.validators import Digest, digest, matches, named, said
from muster.edge import ranges
from muster.kernel.errors import Rejected

HEX = "0123456789abcdef" * 4
TAG = f'"sha256:{HEX}"'


@pytest.mark.parametrize(
    ("path", "algorithm"),
    [
        (f"/pulp/content/r/repodata/{HEX}-primary.xml.gz", "sha256"),
        (f"/pulp/content/r/repodata/{HEX}-primary.xml.gz?x=1", "sha256"),
        (f"/pulp/content/r/repodata/{HEX * 2}-filelists.xml.zst", "sha512"),
        (f"/pulp/content/r/repodata/{HEX[:32]}{HEX}-other.xml.gz", "sha384"),
        (f"/pulp/content/d/dists/x/main/by-hash/SHA256/{HEX}", "sha256"),
        (f"/pulp/content/d/dists/x/main/by-hash/SHA512/{HEX * 2}", "sha512"),
        (f"/v2/library/x/blobs/sha256:{HEX}", "sha256"),
        (f"/v2/library/x/manifests/sha256:{HEX}", "sha256"),
        (f"/v2/library/x/manifests/sha512:{HEX * 2}", "sha512"),
        (f"/v2/library/x/manifests/sha512:{HEX}", None),
        ("/v2/library/x/manifests/1.0", None),
        ("/pulp/content/r/repodata/repomd.xml", None),
        (f"/pulp/content/r/repodata/{HEX[:40]}-primary.xml.gz", None),
        (f"/pulp/content/r/Packages/{HEX}-1.rpm", None),
        (f"/pulp/content/r/repodata/{HEX.upper()}-primary.xml.gz", None),
        (f"/pulp/content/r/repodata/{HEX}-a/b", None),
    ],
)
def test_a_name_that_holds_a_digest_tells_it(path: str, algorithm: str | None) -> None:
    found = named(path)
    assert (found.algorithm if found else None) == algorithm


def test_a_digest_in_two_words_is_one_only_in_its_own_length_and_digits() -> None:
    for algorithm, value in (("sha256", HEX), ("sha384", HEX[:32] + HEX), ("sha512", HEX * 2)):
        assert digest(algorithm, value).tag == f'"{algorithm}:{value}"'
    for algorithm, value in (
        ("sha256", HEX * 2), ("sha512", HEX), ("sha1", HEX[:40]), ("", HEX), ("sha256", HEX.upper()), ("sha256", ""),
        ("sha256", f"{HEX}\n"), ("sha256", f"{HEX[1:]}g"), ("sha256", "٣" * 64), ("sha256", "a" * 10_000),
    ):  # fmt: skip
        with pytest.raises(Rejected, match="no digest"):
            digest(algorithm, value)


@pytest.mark.parametrize(
    ("field", "weakly", "strongly"),
    [
        (TAG, True, True),
        (f"W/{TAG}", True, False),
        (f'"a", W/"b" , {TAG}', True, True),
        ("*", True, True),
        ('"a"', False, False),
        ("", False, False),
        (f"a, {TAG}", False, False),
        (TAG.strip('"'), False, False),
        ("Sat, 28 Nov 2026 10:00:00 GMT", False, False),
    ],
)
def test_a_condition_names_the_tag_or_not(field: str, weakly: bool, strongly: bool) -> None:
    assert (matches(field, TAG, weakly=True), matches(field, TAG, weakly=False)) == (weakly, strongly)


@pytest.mark.parametrize(
    ("field", "length", "part"),
    [
        (None, 10, None), ("bytes=0-0", 10, (0, 0)), ("bytes=2-", 10, (2, 9)), ("bytes=-3", 10, (7, 9)),
        ("bytes=-30", 10, (0, 9)), ("bytes=5-99", 10, (5, 9)), ("bytes=0-1,3-4", 10, None), ("bytes=5-2", 10, None),
        ("bytes=-", 10, None), ("items=0-1", 10, None), ("Bytes= 1-2 ", 10, (1, 2)),
        (f"bytes=3-{'9' * 40}", 10, (3, 9)), (f"bytes=-{'9' * 40}", 10, (0, 9)), (f"bytes=0-{'9' * 5000}", 10, None),
    ],
)  # fmt: skip
def test_one_range_is_read(field: str | None, length: int, part: tuple[int, int] | None) -> None:
    assert ranges.asked(field, length) == part


@pytest.mark.parametrize(
    ("field", "length"),
    [(f"bytes={'9' * 40}-", 10), ("bytes=10-", 10), ("bytes=0-", 0), ("bytes=-0", 10), ("bytes=-1", 0)],
)
def test_a_range_outside_cannot_be_given(field: str, length: int) -> None:
    with pytest.raises(ranges.Unsatisfiable):
        ranges.asked(field, length)


@pytest.mark.parametrize(
    ("value", "digest"),
    [
        (f"sha256:{HEX}", Digest("sha256", HEX)),
        (f" sha512:{HEX * 2} ", Digest("sha512", HEX * 2)),
        (f"sha256:{HEX}x", None),
        (f"md5:{HEX}", None),
        ("", None),
    ],
)
def test_a_registry_tells_the_digest_of_what_a_tag_leads_to(value: str, digest: Digest | None) -> None:
    assert said([("Content-Type", "x"), ("docker-Content-Digest", value)]) == digest
    assert said([]) is None
