from __future__ import annotations

import asyncio

import pytest

from muster.content.fill import Behind
from muster.content.given import COUNTS_S, Given, Remembered, key

A, B = "a" * 64, "b" * 64


def noted(it: Remembered, name: str) -> Given | None:
    return asyncio.run(it.noted(name))


def test_what_a_client_was_given_last_counts_for_a_while() -> None:
    now = [100.0]
    it = Remembered(now=lambda: now[0])
    one, other = key("/r/dists/a", Behind("192.0.2.1", None)), key("/r/dists/a", Behind("192.0.2.2", None))
    assert noted(it, one) is None
    asyncio.run(it.note(one, A))
    now[0] += 10
    assert noted(it, one) == (A, 10.0)
    assert noted(it, other) is None
    asyncio.run(it.note(one, B))
    now[0] += COUNTS_S - 1
    assert noted(it, one) == (B, COUNTS_S - 1)
    now[0] += 1
    assert noted(it, one) is None


def test_who_was_given_something_longest_ago_is_forgotten_first() -> None:
    it = Remembered(most=2)
    names = [key("/r/dists/a", Behind(f"192.0.2.{n}", None)) for n in range(3)]
    for name in (names[0], names[1], names[0], names[2]):
        asyncio.run(it.note(name, A))
    assert [noted(it, name) is not None for name in names] == [True, False, True]
    assert len(it) == 2


def test_another_process_asks_and_says_in_one_question() -> None:
    it = Remembered(now=lambda: 5.0)
    name = key("/r/dists/a", Behind("192.0.2.1", None))
    assert asyncio.run(it.asked([name, ""])) is None
    assert asyncio.run(it.asked([name, A])) == (A, 0.0)
    assert asyncio.run(it.asked([name, ""])) == (A, 0.0)


def test_a_client_is_its_certificate_or_else_its_address() -> None:
    path = "/r/dists/a"
    here, there = Behind("192.0.2.1", b"certificate"), Behind("192.0.2.2", b"certificate")
    assert key(path, here) == key(path, there)
    names = {
        key(path, here), key(path, Behind("192.0.2.1", None)), key(path, Behind("192.0.2.2", None)),
        key("/r/dists/b", here), key(path, Behind("192.0.2.1", b"another")),
    }  # fmt: skip
    assert len(names) == 5
    assert {len(name) for name in names} == {32}


def test_members_tell_it_to_each_other() -> None:
    assert Given.read(Given(A, 12.3456).written()) == (A, 12.346)


@pytest.mark.parametrize(
    "body",
    [b"", A.encode(), b"x" + A[1:].encode() + b" 1", A.encode() + b" 1\n", A.encode() + b" -1", A.encode() + b" 1e9"],
)
def test_what_is_no_word_of_a_member_is_none(body: bytes) -> None:
    assert Given.read(body) is None
