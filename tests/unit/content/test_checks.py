"""What the doctor says of content: who answers a port that members should, and which program behind a member does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import yaml

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.content.checks import checks, of_states, repositories
from muster.content.states import states
from muster.kernel.errors import Unavailable
from muster.kernel.findings import Finding
from muster.kernel.settings import parse
from muster.store.reading import Readable
from tests.servers.haproxy import CLUSTER_NAME, Pki
from tests.unit.content.pictures import LAG_S, MEMBERS, both, picture, told, version

pytestmark = pytest.mark.anyio

Said = Callable[[str], tuple[int, str] | None]
MEMBER = "Server: foreman-proxy muster/0.1.0"
PULP, API, REGISTRY, FOREMAN = "/pulp/content/", "/pulp/api/v3/status/", "/v2/", "/rhsm/status"
URLS = {
    PULP: "http://127.0.0.1:24816", API: "http://127.0.0.1:24817", REGISTRY: "http://127.0.0.1:5001",
    FOREMAN: "https://foreman.test",
}  # fmt: skip


@contextlib.asynccontextmanager
async def answering(pki: Pki, said: Said, server: str) -> AsyncIterator[dict[str, int]]:
    """Yield the ports, with TLS and without, of what answers as ``said`` has it; None: it does not."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
            answer = said(path)
            if answer is None:
                await reader.read()
            else:
                status, text = answer
                head = f"HTTP/1.1 {status} X\r\n{server}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
                writer.write((head + text).encode())
        writer.close()

    tls = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=pki.server_context())
    plain = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield {"https": tls.sockets[0].getsockname()[1], "http": plain.sockets[0].getsockname()[1]}
    finally:
        tls.close()
        plain.close()


def cluster(ports: dict[str, int], **more: object) -> ClusterFile:
    content = {
        "schema": 1,
        "cluster": "site",
        "address": CLUSTER_NAME,
        "store": {"url": "sqlite:////nowhere/x.db"},
        "members": [
            {"id": 1, "name": "proxy01.test", "address": "127.0.0.1"},
            {"id": 2, "name": "ruby.test", "address": "127.0.0.1", "kind": "foreman"},
        ],
        "signer": "proxy01.test",
        "services": {name: {"member_port": port} for name, port in ports.items()},
        "content": {"services": ["https", "http"], "registry_url": "http://{address}:5001"},
        "foreman": {"url": "https://foreman.test"},
    }
    return parse(yaml.safe_dump(content | more)).parsed(ClusterFile)


async def found(
    tmp_path: Path, said: Said, *, server: str = MEMBER, timeout_s: float = 5.0, **more: object
) -> Sequence[Finding]:
    pki = Pki.made(tmp_path)
    async with answering(pki, said, server) as ports:
        asked = cluster(ports, **more)
        (check,) = checks(asked, modelled(asked), pki.client_context, timeout_s=timeout_s)
        return await check.run()


def well(path: str) -> tuple[int, str]:
    return {PULP: 200, API: 200, REGISTRY: 401, FOREMAN: 200}.get(path, 404), "x"


def without(gone: str, *answer: tuple[int, str]) -> Said:
    """All is well but one path."""
    return lambda path: (answer[0] if answer else None) if path == gone else well(path)


async def test_a_member_in_front_of_what_answers_has_no_findings(tmp_path: Path) -> None:
    assert await found(tmp_path, well) == []


@pytest.mark.parametrize(
    ("path", "who", "places"),
    [
        (PULP, "Pulp's content application", ["https on proxy01.test", "http on proxy01.test"]),
        (API, "Pulp's API", ["Pulp's API behind proxy01.test"]),
        (REGISTRY, "The registry", ["The registry behind proxy01.test"]),
        (FOREMAN, "Foreman", ["Foreman behind proxy01.test"]),
    ],
)
async def test_each_program_that_does_not_answer_is_named(
    path: str, who: str, places: list[str], tmp_path: Path
) -> None:
    for answer, why in (
        ((503, f"{who} cannot be reached: Connection refused"), f"{who} cannot be reached: Connection refused"),
        ((500, "<html>\n<p>no</p></html>"), f"{who} answers 500"),
    ):
        told = await found(tmp_path, without(path, answer))
        assert [(f.code, f.place) for f in told] == [("CONTENT-BACKEND", place) for place in places]
        assert told[0].sentence == f"proxy01.test gets no answer for https: {why} ({URLS[path]})"
        assert told[0].cause.startswith(who)


async def test_one_that_hangs_is_named_and_holds_up_no_other(tmp_path: Path) -> None:
    told = await found(tmp_path, without(FOREMAN), timeout_s=0.5)
    assert [f.code for f in told] == ["CONTENT-BACKEND"]
    assert "/rhsm/status got no answer in time" in told[0].sentence


async def test_what_the_cluster_has_not_is_not_asked(tmp_path: Path) -> None:
    told = await found(
        tmp_path,
        lambda path: (503, "x") if path in (REGISTRY, FOREMAN) else well(path),
        foreman={}, content={"services": ["https"]},
    )  # fmt: skip
    assert told == []


@pytest.mark.parametrize(("server", "who"), [("Server: Apache/2.4.62", "Apache/2.4.62"), ("X: y", "another program")])
async def test_another_program_on_a_port_of_the_members_is_named(server: str, who: str, tmp_path: Path) -> None:
    told = await found(tmp_path, well, server=server)
    assert [(f.code, f.place) for f in told] == [
        ("CONTENT-ELSEWHERE", "https on proxy01.test"), ("CONTENT-ELSEWHERE", "http on proxy01.test"),
    ]  # fmt: skip
    assert told[0].sentence.startswith(f"{who} answers port ")
    assert "PROXY header" in told[0].cause


async def test_without_content_and_without_credentials_nothing_is_asked(tmp_path: Path) -> None:
    pki = Pki.made(tmp_path)
    none = cluster({}, content=None)
    assert checks(none, modelled(none), pki.client_context) == []
    some = cluster({"https": 1, "http": 2})
    (check,) = checks(some, modelled(some), lambda: None)
    assert await check.run() == []


async def test_a_port_that_nothing_answers_is_the_matrix_s_to_say(tmp_path: Path) -> None:
    pki = Pki.made(tmp_path)
    async with answering(pki, well, MEMBER) as ports:
        pass
    gone = cluster(ports)
    (check,) = checks(gone, modelled(gone), pki.client_context)
    assert await check.run() == []


@contextlib.asynccontextmanager
async def no_store() -> AsyncIterator[Readable]:
    raise Unavailable("The store did not answer")
    yield


async def test_without_a_store_or_one_version_nothing_is_said_of_repositories() -> None:
    (check,) = repositories(cluster({"https": 1, "http": 2}), no_store)
    assert await check.run() == []
    assert repositories(cluster({}, content=None), no_store) == []


def test_what_lasts_is_found_by_repository_and_what_passes_is_not() -> None:
    one, two = version(1), version(2)
    well = {m: told(two, two) for m in MEMBERS}
    of = both(
        picture({**well, "p1.test": told(one, two)}, one, two, shown=two, path="/a"),
        picture({**well, "p1.test": told(two, one, trouble="full")}, one, two, shown=one, newer_s=900, path="/b"),
        picture({"p1.test": told(two, two), "p2.test": told(None, two)}, two, shown=two, path="/c"),
        picture({**well, "p2.test": told(two, two, unreached_s=900)}, two, shown=two, path="/d"),
        # These are young, or wait as they should.
        picture({**well, "p1.test": told(one, two)}, one, two, shown=two, shown_s=60, path="/e"),
        picture({**well, **{m: told(one, two) for m in MEMBERS[1:]}}, one, two, shown=one, newer_s=900, path="/f"),
    )
    found = of_states(states(of, MEMBERS, ["https"], LAG_S))
    assert sorted((f.code, f.place, f.severity) for f in found) == [
        ("CONTENT-ALONE", "/c", "error"), ("CONTENT-BEHIND", "/a", "error"), ("CONTENT-UNREACHED", "/d", "warning"),
        ("CONTENT-UNSTAGED", "/b", "error"),
    ]  # fmt: skip
    assert all(f.sentence.startswith(f"{f.place}: ") and f.cause and f.remedy for f in found)
