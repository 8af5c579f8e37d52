"""One client's call as it is asked: of the own backend, and of other members where that has not what is wanted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from muster.content.backend import Answer
from muster.content.fill import Behind, Fill

Judge = Callable[[Answer], Awaitable[Answer]]
# Of these answers the next one may have what is asked for.
_NOT_HERE = frozenset({401, 403, 404, 410})


def _nowhere_else(_: str) -> Sequence[str]:
    return ()


class Asked(Protocol):
    """A backend, or what stands for one."""

    @property
    def name(self) -> str:
        """What its answers say that they are of."""

    @property
    def url(self) -> str:
        """Where it is."""

    async def ask(self, method: str, path: str, headers: Sequence[tuple[str, str]], /) -> Answer:
        """Return its answer, as :meth:`muster.content.backend.Backend.ask`."""


class Program(Protocol):
    """A backend that is asked for anything."""

    @property
    def name(self) -> str:
        """What its answers say that they are of."""

    @property
    def url(self) -> str:
        """Where it is."""

    async def ask(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: AsyncIterator[bytes] | None = None,
        length: int | None = None,
    ) -> Answer:
        """Return its answer, as :meth:`muster.content.backend.Backend.ask`."""


@dataclass(frozen=True)
class Call:
    """Whose call it is, and who can be asked for it.

    Attributes:
        own: this member's backend.
        fill: asks the others; None: there are none, or it is one of them that asks.
        sent: the headers that the backend gets.
        client: whose call it is.
        keepers: returns at which paths the backend may have what it has no more at a path.
    """

    own: Asked
    fill: Fill | None
    sent: Sequence[tuple[str, str]]
    client: Behind
    keepers: Callable[[str], Sequence[str]] = _nowhere_else

    async def ask(
        self,
        method: str,
        path: str,
        *,
        theirs: str | None = None,
        sent: Sequence[tuple[str, str]] | None = None,
        own_last: bool = False,
        judged: Judge | None = None,
    ) -> Answer:
        """Return the answer of the first who has one.

        ``path`` is the backend's, ``theirs`` what other members are asked, where that is another; ``judged`` as in
        :meth:`muster.content.fill.Fill.asked`.

        Raises:
            Unavailable, GatewayTimeout, BadGateway: as :meth:`muster.content.backend.Backend.ask`, or nobody could be asked.
        """
        headers = self.sent if sent is None else sent

        async def at(one: str) -> Answer:
            answer = await self.own.ask(method, one, headers)
            return answer if judged is None else await judged(answer)

        async def own() -> Answer:
            # Only who is told that it is not here may ask for it elsewhere: the guard lets in or refuses before that.
            answer = await at(path)
            return await self._kept(answer, at, path) if answer.status == 404 else answer

        if self.fill is None:
            return await own()
        return await self.fill.asked(
            own, method, theirs or path, headers, self.client, own_last=own_last, judged=judged
        )  # fmt: skip

    def rest(
        self, path: str, sent: Sequence[tuple[str, str]], *, theirs: str, judged: Judge | None = None
    ) -> Callable[[int, int], Awaitable[Answer]]:
        """Return what asks for a part of what is at a path, from one position to another, as :meth:`ask` does."""
        without = [(k, v) for k, v in sent if k.lower() != "range"]

        async def part(first: int, last: int) -> Answer:
            wanted = [*without, ("Range", f"bytes={first}-{last}")]
            # The own backend's may be what broke.
            return await self.ask("GET", path, theirs=theirs, sent=wanted, own_last=True, judged=judged)

        return part

    async def _kept(self, missing: Answer, at: Callable[[str], Awaitable[Answer]], path: str) -> Answer:
        """Return what a keeper has of what is missing at a path, else what is said of that."""
        try:
            for one in self.keepers(path):
                answer = await at(one)
                if answer.status not in _NOT_HERE:
                    missing.end()
                    return answer
                answer.end()
        except BaseException:
            missing.end()
            raise
        return missing
