"""One client's call as it is asked: of the own backend, and of other members where that has not what is wanted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from muster.content.backend import Answer
from muster.content.fill import Behind, Fill

Judge = Callable[[Answer], Awaitable[Answer]]


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


@dataclass(frozen=True)
class Call:
    """Whose call it is, and who can be asked for it.

    Attributes:
        own: this member's backend.
        fill: asks the others; None: there are none, or it is one of them that asks.
        sent: the headers that the backend gets.
        client: whose call it is.
    """

    own: Asked
    fill: Fill | None
    sent: Sequence[tuple[str, str]]
    client: Behind

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
        asked = partial(self.own.ask, method, path, headers)

        async def own() -> Answer:
            answer = await asked()
            return answer if judged is None else await judged(answer)

        if self.fill is None:
            return await own()
        return await self.fill.asked(
            own, method, theirs or path, headers, self.client, own_last=own_last, judged=judged
        )  # fmt: skip
