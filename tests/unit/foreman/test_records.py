"""What Foreman says of Smart Proxies may be anything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest

from muster.foreman.answers import Answer
from muster.foreman.api import ForemanAPI, Login
from muster.foreman.questions import Questions
from muster.foreman.records import Record, Records
from muster.foreman.smart_proxy import SmartProxy
from muster.kernel.errors import MusterError, NotFound, Unavailable
from muster.kernel.secrets import Secret

LOGIN = Login("muster", Secret("to/ken-1234"))
HEADER = LOGIN.authorization.reveal()
ROW = {"id": 3, "name": "proxy01.test", "url": "https://proxy01.test:9090"}


class Foreman:
    """Answers a path with what is told; both clients are this one."""

    url = "https://foreman.test"

    def __init__(self, answers: Callable[[str], Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def ask(self, *given: str, document: Mapping[str, Any] | None = None, headers: Any = None) -> Answer:
        self.asked.append(given[-1])
        found = self.answers(given[-1])
        return found if isinstance(found, Answer) else Answer(200, json.dumps(found))


@asynccontextmanager
async def asking(answers: Callable[[str], Any]) -> AsyncIterator[tuple[Records, Foreman]]:
    foreman = Foreman(answers)
    api = ForemanAPI(cast(Questions, foreman), "", LOGIN)
    yield Records(api, cast(SmartProxy, foreman), LOGIN), foreman


def _always(answer: Answer, _: str) -> Answer:
    return answer


async def test_pages_that_repeat_are_not_asked_for_without_end() -> None:
    page = [{**ROW, "id": n} for n in range(1, 101)]
    async with asking(lambda _: {"results": page}) as (records, foreman):
        with pytest.raises(Unavailable, match="page 1 once more for page 2"):
            await records.listed()
        assert len(foreman.asked) == 2


@pytest.mark.parametrize("row", [None, [], "x", {}, {"id": "3"}, {"id": True}, {"id": 0}, {"id": -1}, {"id": 1.5}])
async def test_what_is_no_smart_proxy_is_one_sentence(row: object) -> None:
    async with asking(lambda _: {"results": [row]}) as (records, _):
        with pytest.raises(Unavailable, match="no Smart Proxy"):
            await records.listed()


@pytest.mark.parametrize("secret", [LOGIN.token.reveal(), HEADER, HEADER.removeprefix("Basic ")])
@pytest.mark.parametrize("escaped", [False, True])
async def test_what_repeats_the_token_brings_it_nowhere(secret: str, escaped: bool) -> None:
    # So near to where a sentence ends that it would be cut in the middle.
    texts = [f'{{"results": [{json.dumps("x" * n + secret)}]}}' for n in range(0, 120, 3)]
    texts += [f'{{"error": {{"full_messages": [{json.dumps("x" * n + secret)}]}}}}' for n in range(0, 120, 3)]
    part = secret[-8:].replace("/", "")[:6]
    for text in texts:
        said = text.replace("/", "\\/") if escaped else text
        for status in (200, 201, 422, 500):
            async with asking(partial(_always, Answer(status, said))) as (records, _):
                for does in (records.listed(), records.register("n", "u", organizations=(), locations=())):
                    with pytest.raises(MusterError) as refused:
                        await does
                    assert part not in str(refused.value)
                    assert secret[:8] not in str(refused.value)
    async with asking(lambda _: {**ROW, "features": [{"name": secret}]}) as (records, _):
        assert not any(secret in name for name in (await records.refresh(Record.read(ROW))).features)


async def test_one_place_within_another_is_found_by_its_title() -> None:
    rows = [
        {"id": 4, "name": "Berlin", "title": "Europe/Berlin"},
        {"id": 5, "name": "Berlin", "title": "Berlin"},
        {"id": 6, "name": "Berlin", "title": "Europe/Germany/Berlin"},
    ]
    async with asking(lambda _: {"results": rows}) as (records, foreman):
        assert await records.ids("locations", ["Europe/Germany/Berlin", "Berlin", "Europe/Berlin"]) == [6, 5, 4]
        assert {path.partition("&")[0] for path in foreman.asked} == {"/api/locations?search=name%3D%22Berlin%22"}
        with pytest.raises(NotFound, match="no location 'Asia/Berlin'"):
            await records.ids("locations", ["Asia/Berlin"])
