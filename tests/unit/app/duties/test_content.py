from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from muster.app.duties.content import BackendAsked
from muster.content.backend import Answer
from muster.kernel.errors import Unavailable

pytestmark = pytest.mark.anyio


@dataclass
class Asked:
    """A backend that answers as it is told: a status, an error, or never."""

    says: list[int | Exception | None]
    name: str = "the backend"
    paths: list[str] = field(default_factory=list)
    ended: int = 0

    async def ask(self, _: str, path: str, __: Sequence[tuple[str, str]]) -> Answer:
        self.paths.append(path)
        said = self.says.pop(0)
        if said is None:
            await asyncio.sleep(3600)
        if isinstance(said, Exception):
            raise said
        assert said is not None
        return Answer("Pulp", said, [], _nothing(), self._end)

    def _end(self) -> None:
        self.ended += 1


async def _nothing() -> AsyncGenerator[bytes, None]:
    pieces: tuple[bytes, ...] = ()
    for piece in pieces:
        yield piece


def duty(asked: Asked) -> BackendAsked:
    backend: Any = asked
    return BackendAsked(backend, "/pulp/content/", ["https", "http"], patience_s=0.05)


async def found(*says: int | Exception | None) -> list[str]:
    """Return why ``https`` is down after each beat, empty where it is not."""
    asked = Asked(list(says))
    it = duty(asked)
    out = []
    for _ in says:
        await it.beat()
        out.append(it.found().down.get("https", ""))
    assert asked.paths == ["/pulp/content/"] * len(says)
    return out


async def test_nobody_gets_clients_before_it_has_answered() -> None:
    assert duty(Asked([])).found().down == dict.fromkeys(("https", "http"), "the backend was not asked yet")


@pytest.mark.parametrize("status", [200, 302, 401, 403, 404])
async def test_any_answer_below_500_will_do(status: int) -> None:
    assert await found(status) == [""]


async def test_a_registry_without_its_path_is_none() -> None:
    backend: Any = Asked([404, 404, 401])
    it = BackendAsked(backend, "/v2/", ["docker"], absent=404)
    for _ in range(2):
        await it.beat()
    assert it.found().down == {"docker": "the backend answers 404 to /v2/"}
    await it.beat()
    assert it.found().down == {}


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (503, "the backend answers 503 to /pulp/content/"),
        (Unavailable("the backend cannot be reached"), "the backend cannot be reached"),
        (None, "the backend did not answer within 0.05 s"),
    ],
)
async def test_two_that_fail_in_a_row_take_it_out_and_one_that_does_not_brings_it_back(
    says: int | Exception | None, why: str
) -> None:
    assert await found(200, says, 200, says, says, 200) == ["", "", "", "", why, ""]
