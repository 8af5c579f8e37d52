from __future__ import annotations

import pytest

from muster.content import conditions
from muster.content.validators import Digest
from tests.unit.edge.calls import request

DIGEST = Digest("sha256", "ab" * 32)


@pytest.mark.parametrize(
    ("sent", "digest", "asks"),
    [
        ({}, DIGEST, False),
        ({"range": "bytes=0-1"}, DIGEST, True),
        ({"range": "bytes=0-1"}, None, True),
        ({"range": "bytes=0-1", "if-range": DIGEST.tag}, DIGEST, True),
        ({"range": "bytes=0-1", "if-range": DIGEST.tag}, None, False),
        ({"range": "bytes=0-1", "if-range": f"W/{DIGEST.tag}"}, DIGEST, False),
        ({"if-range": DIGEST.tag}, DIGEST, False),
    ],
)
def test_a_range_counts_when_it_is_of_these_bytes(sent: dict[str, str], digest: Digest | None, asks: bool) -> None:
    assert conditions.asks_range(request(headers=sent), digest) is asks


def test_a_range_said_twice_is_none() -> None:
    call = request(headers={"range": "bytes=0-1"})
    call.sent_headers.append((b"range", b"bytes=2-3"))
    assert conditions.asks_range(call, DIGEST) is False


@pytest.mark.parametrize(
    ("sent", "with_digest", "without"),
    [
        ({}, None, None),
        ({"if-none-match": DIGEST.tag}, 304, None),
        ({"if-none-match": "*"}, 304, None),
        ({"if-match": DIGEST.tag}, None, 412),
        ({"if-match": "*"}, None, None),
        ({"if-match": '"x"', "if-none-match": "*"}, 412, 412),
    ],
)
def test_what_is_said_instead(sent: dict[str, str], with_digest: int | None, without: int | None) -> None:
    passed = [(b"etag", b"t"), (b"cache-control", b"c"), (b"content-type", b"x"), (b"content-length", b"1")]
    for digest, status in ((DIGEST, with_digest), (None, without)):
        found = conditions.instead(request(headers=sent), digest, passed)
        assert (found.status if found is not None else None) == status
        if found is not None and found.status == 304:
            assert [name for name, _ in found.headers] == [b"etag", b"cache-control", b"server"]
