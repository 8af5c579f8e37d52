"""A backend that may be elsewhere from one moment to the next, while members run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from muster.content.backend import Answer, Backend


class Led:
    """Asks whatever there is at the moment; what was asked before goes on where it was asked.

    Attributes:
        place: where that is, as somebody wrote it down.
    """

    def __init__(self, to: Backend, place: str) -> None:
        self._to = to
        self.place = place

    @property
    def name(self) -> str:
        return self._to.name

    @property
    def url(self) -> str:
        return self._to.url

    def lead(self, to: Backend, place: str) -> None:
        """Ask another one from now on."""
        self._to, self.place = to, place

    async def ask(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: AsyncIterator[bytes] | None = None,
        length: int | None = None,
    ) -> Answer:
        """As :meth:`muster.content.backend.Backend.ask`."""
        return await self._to.ask(method, path, headers, body, length)
