from __future__ import annotations

from typing import Any

import pytest

from muster.content.backend import BadGateway, GatewayTimeout
from muster.content.handed import Said
from muster.edge.budget import Budget
from muster.edge.replies import Reply
from muster.edge.request import Peer
from muster.features.registration import api
from muster.features.registration.scripts import Scripts
from muster.features.registration.service import FAILED, Registration
from muster.kernel.errors import MusterError, Unavailable
from tests.unit.content.test_handed import FORGED
from tests.unit.edge.calls import request
from tests.unit.features.templates.test_service import Foreman

pytestmark = pytest.mark.anyio

URL = "https://proxy.example.com:9090"
TOLD = "url=https%3A%2F%2Fproxy.example.com%3A9090"
TOKEN = {"Authorization": f"Bearer {'t' * 40}"}


async def called(foreman: Foreman, method: str, target: str, *, kept: Scripts | None = None, **given: Any) -> Reply:
    kept = kept or Scripts("https://foreman.test", None, kept_s=300, asked_within_s=5)
    registration = Registration(foreman, URL, kept)  # type: ignore[arg-type]
    if (body := given.get("body")) is not None:
        given["headers"] = {"Content-Length": str(sum(map(len, body))), **given.get("headers", {})}
    asked = request(method, target, **given)
    return await (api.script if method == "GET" else api.register)(registration, asked)


async def test_a_script_is_asked_for_with_the_cluster_s_url_and_the_token_alone() -> None:
    foreman = Foreman(body=b"#!/bin/sh\n")
    reply = await called(
        foreman, "GET", "/register?activation_keys=a,b&url=http://other.test&repo_data[][repo]=x",
        headers={**FORGED, "User-Agent": "curl/8", "Accept": "text/plain", **TOKEN}, by=Peer("192.0.2.9"),
    )  # fmt: skip
    assert (reply.status, reply.body, dict(reply.headers)[b"content-type"]) == (
        200, b"#!/bin/sh\n", b"text/html;charset=utf-8",
    )  # fmt: skip
    ((method, path, headers, _, _),) = foreman.asked
    assert (method, path) == ("GET", f"/register?activation_keys=a%2Cb&repo_data%5B%5D%5Brepo%5D=x&{TOLD}")
    assert headers == {"Accept": "*/*, application/json,version=2, */*", **TOKEN}, "nothing of one host's own"


@pytest.mark.parametrize(
    "query",
    [
        "url=http://other.test",
        "u%72l=x",
        "url[]=x",
        "url",
        "url=x&url=y",
        "a=1;url=x",
        "[url]=x",
        "url]=x",
        "url=x&]url[a]=y",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nobody_has_a_host_register_elsewhere(query: str, method: str) -> None:
    foreman = Foreman()
    more: dict[str, Any] = (
        {"body": [b"{}"], "headers": {"Content-Type": "application/json"}} if method == "POST" else {}
    )
    assert (await called(foreman, method, f"/register?{query}", **more)).status == 200
    path = foreman.asked[0][1]
    assert path.count("url") == 1
    assert path.endswith(TOLD)


async def test_facts_go_on_as_they_came() -> None:
    foreman = Foreman()
    form = b"host[name]=h.example.com&url=http%3A%2F%2Fother.test"
    sent = {"Content-Type": "application/x-www-form-urlencoded; charset=UTF-8", "User-Agent": "curl/8", **TOKEN}
    await called(foreman, "POST", "/register?a=b", body=[form[:5], form[5:]], headers={**FORGED, **sent})
    await called(foreman, "POST", "/register?a=b", body=[b'{"host": {}}'], headers={"Content-Type": "application/json"})
    await called(foreman, "POST", "/register?a=b", body=[b"x"], headers={"Content-Type": "text/plain"})
    first, second, third = foreman.asked
    assert (first[1], first[3], first[4]) == (f"/register?{TOLD}", form, len(form))
    assert first[2] == {
        "Accept": "*/*, application/json,version=2",
        "user-agent": "curl/8",
        **TOKEN,
        "Content-Type": sent["Content-Type"],
    }
    assert (second[1], second[3]) == (f"/register?a=b&{TOLD}", b'{"host": {}}')
    assert {second[2]["Content-Type"], third[2]["Content-Type"]} == {"application/json"}


async def test_facts_are_sent_each_time() -> None:
    foreman, kept = Foreman(), Scripts("https://foreman.test", None, kept_s=300, asked_within_s=5)
    for _ in range(2):
        await called(foreman, "POST", "/register", body=[b"a=b"], headers=TOKEN, kept=kept)
        await called(foreman, "GET", "/register", headers=TOKEN, kept=kept)
    assert [a[0] for a in foreman.asked] == ["POST", "GET", "POST"]


@pytest.mark.parametrize(
    ("error", "status"), [(Unavailable("away"), 503), (GatewayTimeout("late"), 504), (BadGateway("odd"), 502)]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_shell_is_told_that_there_is_no_script(error: MusterError, status: int, method: str) -> None:
    reply = await called(Foreman(error=error), method, "/register", headers=TOKEN)
    assert (reply.status, reply.body) == (status, FAILED)
    assert FAILED == b'echo "Internal Server Error"\nexit 1\n'
    assert (b"retry-after" in dict(reply.headers)) == (status == 503)


@pytest.mark.parametrize(
    ("target", "headers", "body", "status"),
    [
        ("/register?a=%ff", {}, None, 400),
        ("/register", {"Authorization": "Bearer \x01"}, None, 400),
        ("/register", {}, [b"x" * (1 << 20), b"x"], 413),
    ],
)
async def test_what_is_malformed_or_too_long_never_reaches_foreman(
    target: str, headers: dict[str, str], body: list[bytes] | None, status: int
) -> None:
    foreman = Foreman()
    more: dict[str, Any] = {"body": body} if body else {}
    reply = await called(foreman, "POST" if body else "GET", target, headers=headers, **more)
    assert (reply.status, reply.body, foreman.asked) == (status, FAILED, [])


async def test_neither_a_token_nor_a_query_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    for foreman in (Foreman(401), Foreman(error=Unavailable("away"))):
        await called(foreman, "GET", "/register?activation_keys=secret1", headers={"Authorization": "Bearer secret2"})
    said = "".join(capsys.readouterr())
    assert "secret" not in said
    assert "Foreman answers 401" in said


async def test_foreman_s_own_text_is_given_to_a_shell_and_a_page_is_not() -> None:
    class Html(Foreman):
        async def ask(self, *a: Any, **k: Any) -> Said:
            return Said(500, "text/html", b"<html>")

    assert (await called(Foreman(422, b"echo no\nexit 1\n"), "GET", "/register")).body == b"echo no\nexit 1\n"
    assert (await called(Html(), "GET", "/register")).body == FAILED


async def test_a_host_that_leaves_within_its_facts_is_nobody_s_matter(capsys: pytest.CaptureFixture[str]) -> None:
    foreman = Foreman()
    reply = await called(foreman, "POST", "/register", body=[b"host[name]="], gone=True)
    assert (reply.status, reply.body, foreman.asked) == (400, FAILED, [])
    assert "Failed to register" not in "".join(capsys.readouterr())


async def test_a_script_is_counted_while_it_comes_and_no_longer() -> None:
    budget = Budget(1000)

    class Slow(Foreman):
        async def ask(self, *given: Any, **more: Any) -> Said:
            more["hold"](600)
            assert budget.held_bytes == 600
            more["hold"](600)
            return await super().ask(*given, **more)

    reply = await called(Slow(), "GET", "/register", headers=TOKEN, budget=budget)
    assert (reply.status, reply.body, budget.held_bytes) == (503, FAILED, 0)
