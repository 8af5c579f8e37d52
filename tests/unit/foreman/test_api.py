"""Foreman's API over the wire: who asks, by which name, and what comes of every answer."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from muster.foreman.api import ForemanAPI, Login, opened
from muster.kernel.errors import Denied, Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.secrets import Secret
from muster.pki.authority import ClusterCA, ca_paths
from muster.pki.context import client_context
from tests.servers import foreman as servers
from tests.servers.certificates import NOW
from tests.servers.foreman import NAME, TOKEN, USER, Foreman

pytestmark = pytest.mark.anyio

LOGIN = Login(USER, Secret(TOKEN))
BASIC = base64.b64encode(f"{USER}:{TOKEN}".encode()).decode()


@pytest.fixture
def foreman(tmp_path: Path) -> Iterator[Foreman]:
    with servers.running(tmp_path) as one:
        yield one


@contextlib.asynccontextmanager
async def asking(foreman: Foreman, login: Login = LOGIN, *, url: str = "") -> AsyncIterator[ForemanAPI]:
    context = client_context(ca_paths(foreman.ca.directory)[0])
    async with opened(url or foreman.url, login, context=context, timeout_s=5) as api:
        yield api


async def test_an_object_comes_to_who_shows_the_token_and_asks_by_foremans_name(foreman: Foreman) -> None:
    async with asking(foreman) as api:
        assert (await api.get("/api/v2/status"))["version"] == "3.19.0"
        foreman.version = "5.0.0"
        assert (await api.get("/api/v2/status"))["version"] == "5.0.0"
    assert foreman.server_names == {NAME}


async def test_a_foreman_below_a_path_is_asked_there(foreman: Foreman) -> None:
    async with asking(foreman, url=f"{foreman.url}/foreman/") as api:
        with pytest.raises(NotFound):
            await api.get("/api/v2/status")
    assert foreman.asked == ["/foreman/api/v2/status"]


async def test_a_token_that_foreman_does_not_take_is_said_in_its_words(foreman: Foreman) -> None:
    foreman.token = "another"
    async with asking(foreman) as api:
        with pytest.raises(Denied, match=r"answered 401 to GET /api/v2/status of user muster: Unable to authenticate"):
            await api.get("/api/v2/status")


async def test_a_name_that_foreman_does_not_know_is_no_word_of_its_api(foreman: Foreman) -> None:
    foreman.raw = (403, "<html>Blocked hosts: x</html>")
    async with asking(foreman) as api:
        with pytest.raises(Denied, match=r"answered 403 .*and not in the words of Foreman's API"):
            await api.get("/api/v2/status")


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (403, '{"error": {"message": "Access denied"}}', Denied, "Access denied"),
        (403, '{"error": "Access denied"}', Denied, ": Access denied"),
        (403, "[]", Denied, "answered 403"),
        (404, "{}", NotFound, "answered 404"),
        (500, "broken", Rejected, "broken"),
        (503, "later", Unavailable, "later"),
        (301, "", Rejected, "answered 301"),
        (200, "<html>", Unavailable, "is not JSON"),
        (200, "[1]", Unavailable, "no JSON object"),
        (200, "[" * 200_000, Unavailable, "is not JSON"),
        (200, '"' + "x" * (1 << 20) + '"', Unavailable, "more than 1048576 bytes"),
    ],
)
async def test_what_is_no_object_is_one_sentence(
    foreman: Foreman, status: int, body: str, kind: type[MusterError], said: str
) -> None:
    foreman.raw = (status, body)
    async with asking(foreman) as api:
        with pytest.raises(kind) as refused:
            await api.get("/api/v2/status")
    assert type(refused.value) is kind
    assert said in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("status", [200, 401, 403, 404, 500, 503])
@pytest.mark.parametrize("repeated", [TOKEN, BASIC, f"Basic {BASIC}"])
async def test_what_repeats_the_token_brings_it_into_no_sentence(foreman: Foreman, status: int, repeated: str) -> None:
    for body in (repeated, json.dumps({"error": {"message": repeated}}), json.dumps([repeated])):
        foreman.raw = (status, body if status > 200 else json.dumps([repeated]))
        async with asking(foreman) as api:
            with pytest.raises(MusterError) as refused:
                await api.get("/api/v2/status")
        assert TOKEN not in str(refused.value)
        assert BASIC not in str(refused.value)
        assert refused.value.__suppress_context__


def test_a_login_shows_its_token_nowhere() -> None:
    assert TOKEN not in repr(LOGIN) + str(LOGIN) + repr(LOGIN.authorization)
    assert BASIC not in repr(LOGIN.authorization)
    assert LOGIN.authorization.reveal() == f"Basic {BASIC}"


async def test_a_foreman_of_another_ca_is_shown_no_token(foreman: Foreman, tmp_path: Path) -> None:
    other = client_context(ca_paths(ClusterCA.create(tmp_path / "other", "other", now=NOW).directory)[0])
    async with opened(foreman.url, LOGIN, context=other) as api:
        with pytest.raises(Misconfigured, match="failed in TLS"):
            await api.get("/api/v2/status")
    assert foreman.asked == []


async def test_plain_http_is_shown_no_token(foreman: Foreman) -> None:
    with pytest.raises(Misconfigured, match="is not https"):
        async with asking(foreman, url="http://localhost:1"):
            pass


async def test_a_foreman_that_is_away_is_named_with_where_it_was_asked(foreman: Foreman) -> None:
    foreman.stop()
    async with asking(foreman) as api:
        with pytest.raises(Unavailable, match=rf"GET {foreman.url}/api/v2/status failed: "):
            await api.get("/api/v2/status")
