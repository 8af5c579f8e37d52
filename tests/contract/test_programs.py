"""A member's question to the programs beside it: what hangs, lies or is gone is named in a sentence."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from muster.balancer.generations import KNOWN, Proof
from muster.balancer.model import Question
from muster.observed.programs import Asker, believing
from tests.servers.haproxy import CLUSTER_NAME, Pki, free_ports
from tests.servers.program import Mood, Program, running

pytestmark = pytest.mark.anyio

HERE = "127.0.0.14"
PUPPET = replace(KNOWN["puppet"].proof, timeout_s=0.5)
PULP = replace(KNOWN["https"].proof, timeout_s=0.5)
GOOD_PULP = '{"versions":[],"database_connection":{"connected":true},"redis_connection":{"connected":false}}'
BAD_PULP = '{"versions":[],"database_connection":{"connected":false}}'


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.made(tmp_path_factory.mktemp("pki"))


@asynccontextmanager
async def program(pki: Pki | None) -> AsyncIterator[Program]:
    (port,) = free_ports(HERE, 1)
    context = None
    if pki is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.directory / "check.pem")
        context.load_verify_locations(pki.directory / "ca.pem")
        context.verify_mode = ssl.CERT_OPTIONAL
    async with running(Program(HERE, port, context=context)) as it:
        yield it


async def why(it: Program, proof: Proof, pki: Pki) -> str:
    asker = Asker(CLUSTER_NAME, believing(pki.directory / "check.pem", pki.directory / "check.pem"))
    return await asker.unproven(it.address, Question("connect", it.port, proof=proof))


async def test_a_puppetserver_that_runs_is_proven_and_asked_under_the_clusters_name(pki: Pki) -> None:
    async with program(pki) as it:
        assert await why(it, PUPPET, pki) == ""
        assert it.asked == [("GET /status/v1/simple HTTP/1.1", CLUSTER_NAME)]
        assert it.clients == [""]


async def test_an_answer_of_another_ca_is_an_answer(pki: Pki, tmp_path: Path) -> None:
    async with program(Pki.made(tmp_path / "other")) as it:
        assert await why(it, PUPPET, pki) == ""


@pytest.mark.parametrize("mood", ["hangs", "stalls"])
async def test_what_takes_connections_and_never_answers_is_not_ready(pki: Pki, mood: Mood) -> None:
    async with program(pki) as it:
        it.mood = mood
        said = await why(it, PUPPET, pki)
        assert said == f"GET https://{HERE}:{it.port}/status/v1/simple got no answer within 0.5 s"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, "starting", "was answered with 503, and 200 is good"),
        (404, "no such service", "was answered with 404, and 200 is good"),
        (200, "error", "was answered 200 without running"),
    ],
)
async def test_a_bad_answer_is_told(pki: Pki, status: int, body: str, said: str) -> None:
    async with program(pki) as it:
        it.status, it.body = status, body
        assert (await why(it, PUPPET, pki)).endswith(said)


async def test_a_pulp_without_its_database_answers_200_and_is_not_ready(pki: Pki) -> None:
    async with program(pki) as it:
        it.body = GOOD_PULP
        assert await why(it, PULP, pki) == ""
        it.body = BAD_PULP
        assert "was answered 200 with" in await why(it, PULP, pki)
        it.body = "x" * 100_000 + GOOD_PULP
        assert await why(it, PULP, pki) == ""


@pytest.mark.parametrize(("mood", "said"), [("babbles", "no HTTP: "), ("hangs up", "it hung up")])
async def test_what_speaks_no_http_is_told(pki: Pki, mood: Mood, said: str) -> None:
    async with program(pki) as it:
        it.mood = mood
        assert said in await why(it, PUPPET, pki)


async def test_plain_ports_are_asked_in_plain_text_and_tls_ports_in_tls(pki: Pki) -> None:
    plain = replace(KNOWN["anaconda"].proof, timeout_s=0.5)
    async with program(None) as it:
        assert await why(it, plain, pki) == ""
        assert await why(it, PUPPET, pki) != ""


async def test_a_handshake_is_enough_where_nothing_is_asked_and_ours_is_shown_where_it_is_wanted(pki: Pki) -> None:
    mqtt = replace(KNOWN["mqtt"].proof, timeout_s=0.5)
    async with program(pki) as it:
        assert await why(it, mqtt, pki) == ""
        it.mood = "hangs"
        assert await why(it, mqtt, pki) == f"A TLS handshake with {HERE}:{it.port} got no answer within 0.5 s"
    assert CLUSTER_NAME in it.clients


async def test_a_port_nobody_has_is_told(pki: Pki) -> None:
    async with program(pki) as it:
        assert await why(it, Proof(), pki) == ""
    assert await why(it, Proof(), pki) == f"Connecting to {HERE}:{it.port} failed: Connection refused"
    assert "Connection refused" in await why(it, PUPPET, pki)
