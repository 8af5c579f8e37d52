from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

import pytest

from muster.content.backend import Answer
from muster.content.resume import resumed
from muster.kernel.errors import MusterError, Unavailable

pytestmark = pytest.mark.anyio

FILE = bytes(range(100))


@dataclass(frozen=True)
class Given:
    """What a backend says and gives.

    Attributes:
        breaks: it breaks off behind its body.
        length: what it says of its length; None: nothing.
    """

    body: bytes
    status: int = 206
    range: str | None = None
    length: int | None = None
    breaks: bool = False

    def answer(self) -> Answer:
        said = [("Content-Range", f"bytes {self.range}")] if self.range else []
        said += [("Content-Length", str(self.length))] if self.length is not None else []

        async def pieces() -> AsyncGenerator[bytes, None]:
            for at in range(0, len(self.body), 7):
                yield self.body[at : at + 7]
            if self.breaks:
                raise Unavailable("broke off")

        return Answer("other", self.status, said, pieces(), lambda: None)


CUT = Given(FILE[:30], 200, length=100, breaks=True)
CUT_AGAIN = Given(FILE[30:50], range="30-99/100", breaks=True)
ENDS_EARLY = Given(FILE[30:50], range="30-99/100")
REST = Given(FILE[50:], range="50-99/100", length=50)


async def read(first: Given, *rest: Given) -> tuple[bytes, int]:
    """Return what comes, and how often the rest was asked for.

    Raises:
        MusterError: it was cut.
    """
    coming: Iterator[Given] = iter(rest)
    times = 0

    async def following(_: int, __: int) -> Answer:
        nonlocal times
        times += 1
        return next(coming).answer()

    got = b"".join([piece async for piece in resumed(first.answer(), following).pieces])
    return got, times


@pytest.mark.parametrize("second", [CUT_AGAIN, ENDS_EARLY], ids=["breaks off", "ends early"])
async def test_what_breaks_off_or_ends_early_goes_on(second: Given) -> None:
    assert await read(CUT, second, REST) == (FILE, 2)


@pytest.mark.parametrize(
    "rest",
    [
        Given(FILE, 200, length=100),
        Given(FILE[:70], range="0-69/100", length=70),
        Given(FILE[30:], range="30-99/101", length=70),
        Given(FILE[30:50], range="30-99/100", length=20),
        Given(FILE[30:] + b"more", range="30-99/100", length=74),
        Given(FILE[30:] + b"more", range="30-99/100"),
        Given(b"", 404),
    ],
    ids=["the whole", "another part", "of another length", "shorter", "longer", "more than it said", "nothing"],
)
async def test_what_is_not_exactly_the_rest_is_no_rest(rest: Given) -> None:
    with pytest.raises(MusterError):
        await read(CUT, rest)


async def test_it_does_not_go_on_for_ever() -> None:
    nothing = Given(b"", range="30-99/100", breaks=True)
    with pytest.raises(Unavailable):
        await read(CUT, *[nothing] * 10)


async def test_what_says_two_lengths_is_passed_on_as_it_is() -> None:
    odd = Given(FILE[:10], range="0-4/100", length=10)
    assert await read(odd) == (FILE[:10], 0)
