from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from muster.content.backend import Answer
from muster.edge.replies import Reply, Streamed
from muster.edge.request import Peer, Request
from muster.features.container_gateway.grants import Subject
from muster.features.container_gateway.katello import Said
from muster.features.container_gateway.service import Gateway
from muster.pki.trust import RevocationLists, Trust
from tests.servers.certificates import CA
from tests.unit.edge.calls import request as call

pytestmark = pytest.mark.anyio

BASIC = "Basic " + base64.b64encode(b"alice:pass:word").decode()
HOST = Subject("host", "5c5be8b4-2b0f-4f0f-8e0c-6f6a3b1d2c3e")
DIGEST = f"sha256:{'ab' * 32}"


class Pulp:
    """Answers everything, and remembers what it was asked."""

    url = "http://pulp.test:24817"

    def __init__(self, *, status: int = 200, body: bytes = b"{}", headers: Sequence[tuple[str, str]] = ()) -> None:
        self.status, self.body, self.headers = status, body, headers
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    async def ask(self, method: str, path: str, sent: Sequence[tuple[str, str]], *_: object) -> Answer:
        self.asked.append((method, path, dict(sent)))
        return Answer("Pulp", self.status, self.headers, _pieces(self.body), lambda: None)


async def _pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


class Katello:
    def __init__(self, **answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def token(self, authorization: str, query: dict[str, str]) -> Said:
        self.asked.append((authorization, query))
        return Said(200, json.dumps(self.answer).encode(), "application/json")

    async def repositories_of_user(self, *_: object) -> Said:
        return Said(200, b'{"repositories": ["secret", "../x", 3]}', "application/json")


class Grants:
    def __init__(self) -> None:
        self.said: dict[Subject, set[str]] = {}

    async def may_read(self, name: str, subject: Subject | None) -> bool:
        return name == "open" or (subject is not None and name in self.said.get(subject, ()))

    async def catalog(self, subject: Subject | None) -> list[str]:
        return sorted({"open", *(self.said.get(subject, ()) if subject is not None else ())})

    async def is_known(self, subject: Subject) -> bool:
        return subject in self.said

    async def set(self, subject: Subject, names: set[str]) -> None:
        self.said[subject] = names


class Tokens:
    """Those of this test name their user."""

    lifetime_s = 0.0

    async def issued(self, user: str, lifetime_s: float) -> tuple[str, float]:
        self.lifetime_s = lifetime_s
        return f"of-{user}", lifetime_s

    async def user(self, token: str) -> str | None:
        return token.removeprefix("of-") if token.startswith("of-") else None


def gateway(pulp: Any = None, katello: Any = None, **more: Any) -> tuple[Gateway, Any, Any, Any]:
    grants: Any = Grants()
    tokens: Any = Tokens()
    pulp, katello = pulp or Pulp(), katello or Katello(token="unauthenticated")
    return Gateway("proxy01.example.com", grants, tokens, katello, pulp, **more), grants, tokens, pulp


async def got(it: Gateway, target: str, method: str = "GET", **headers: str) -> Reply | Streamed:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await it.answer(target.partition("?")[0], asking(target, method, sent))


def asking(target: str, method: str, headers: dict[str, str]) -> Request:
    return call(method, f"/container_gateway{target}", headers={"Host": "proxy.example.com:5000", **headers})


async def test_a_token_is_the_users_whose_password_it_was_and_lasts_as_long_as_katellos() -> None:
    made = datetime(2020, 1, 1, tzinfo=UTC)
    left = (datetime.now(UTC) - made).total_seconds() + 300
    katello = Katello(token="katellos", expires_in=left, issued_at="2020-01-01T00:00:00Z")
    it, grants, tokens, _ = gateway(katello=katello)
    answer = await got(it, "/v2/token?account=bob&scope=repository:secret:pull&x=1", authorization=BASIC)
    assert isinstance(answer, Reply)
    said = json.loads(answer.body)
    assert (said["token"], said["access_token"]) == ("of-alice", "of-alice")
    assert 290 <= tokens.lifetime_s <= 300
    assert grants.said == {Subject("user", "alice"): {"secret"}}
    assert katello.asked == [(BASIC, {"scope": "repository:secret:pull", "account": "bob"})]


@pytest.mark.parametrize(
    "authorization", ["", "Bearer x", "Basic", "Basic !!", "Basic " + base64.b64encode(b":x").decode()]
)
async def test_without_a_password_there_is_no_token_of_ours(authorization: str) -> None:
    it, grants, _, _ = gateway(katello=Katello(token="katellos"))
    answer = await got(it, "/v2/token", authorization=authorization)
    assert (answer.status, grants.said) == (401, {})


async def test_what_katello_says_of_those_without_account_is_said() -> None:
    it, *_ = gateway(katello=Katello(token="unauthenticated", expires_in=180))
    answer = await got(it, "/v2/token")
    assert isinstance(answer, Reply)
    assert json.loads(answer.body) == {"token": "unauthenticated", "expires_in": 180}
    it, *_ = gateway(katello=Katello(token="unauthorized"))
    assert (await got(it, "/v2/token", authorization=BASIC)).status == 401
    it, *_ = gateway(katello=Katello())
    assert (await got(it, "/v2/token", authorization=BASIC)).status == 502


@pytest.mark.parametrize(
    "path",
    [
        "/v2/../manifests/1", "/v2/open/../secret/manifests/1", "/v2/UPPER/manifests/1", "/v2/open/manifests/..",
        "/v2/open%2fx/manifests/1", "/v2/open/blobs/..", "/v2/open/tags/other", "/v2/open/manifests/-x",
    ],
)  # fmt: skip
async def test_pulp_hears_no_name_that_was_not_looked_up(path: str) -> None:
    it, _, _, pulp = gateway()
    assert (await got(it, path)).status == 404
    assert pulp.asked == []


async def test_pulp_hears_what_is_read_and_nothing_of_who_reads() -> None:
    it, _, _, pulp = gateway(
        Pulp(headers=[("Docker-Content-Digest", DIGEST), ("Set-Cookie", "x"), ("X-Registry", "1")])
    )
    answer = await got(
        it,
        f"/v2/open/blobs/{DIGEST}",
        authorization="Bearer of-alice",
        cookie="a=b",
        remote_user="root",
        range="bytes=1-2",
    )
    assert pulp.asked == [
        (
            "GET",
            f"/v2/open/blobs/{DIGEST}",
            {"range": "bytes=1-2", "Accept-Encoding": "identity", "Remote-User": "admin"},
        )
    ]
    assert [n for n, _ in answer.headers] == [b"docker-content-digest", b"docker-distribution-api-version", b"server"]
    await got(it, "/v2/open/tags/list?n=3&last=a%26b&x[]=1")
    assert pulp.asked[-1][1] == "/v2/open/tags/list?n=3&last=a%26b"


async def test_of_pulps_index_everybody_sees_what_he_may_read() -> None:
    index = {"Results": [{"Name": "open"}, {"Name": "secret"}, "x"], "Registry": "r"}
    it, grants, _, _ = gateway(Pulp(body=json.dumps(index).encode()))
    grants.said[Subject("user", "alice")] = {"secret"}
    for headers, names in (({}, ["open"]), ({"authorization": "Bearer of-alice"}, ["open", "secret"])):
        answer = await got(it, "/index/static?tag=latest", **headers)
        assert isinstance(answer, Reply)
        assert [r["Name"] for r in json.loads(answer.body)["Results"]] == names
    it, *_ = gateway(Pulp(body=b"no JSON"))
    assert (await got(it, "/index/static")).status == 502


@pytest.mark.parametrize(
    "index", ['{"Results": 3}', '{"Results": null}', "[]", '{"Results": {"Name": "open"}}', "[" * 900]
)
async def test_what_is_no_index_of_pulps_is_passed_on_to_nobody(index: str) -> None:
    it, *_ = gateway(Pulp(body=index.encode()))
    assert (await got(it, "/index/static")).status == 502


async def test_of_an_index_what_has_no_name_is_nobodys() -> None:
    it, *_ = gateway(Pulp(body=b'{"Results": [{"Name": ["open"]}, {"Name": {}}, {}, {"Name": "open"}]}'))
    answer = await got(it, "/index/static")
    assert isinstance(answer, Reply)
    assert json.loads(answer.body)["Results"] == [{"Name": "open"}]


@pytest.mark.parametrize("lifetime", [float("nan"), float("inf"), 10**400, "x", None, True, [], -5, 1e300])
@pytest.mark.parametrize("issued_at", [None, "x", 5, "2020-01-01T00:00:00", "0001-01-01T00:00:00+23:59"])
async def test_whatever_katello_says_of_a_tokens_life_there_is_one(lifetime: object, issued_at: object) -> None:
    it, _, tokens, _ = gateway(katello=Katello(token="katellos", expires_in=lifetime, issued_at=issued_at))
    answer = await got(it, "/v2/token", authorization=BASIC)
    assert isinstance(answer, Reply)
    assert answer.status == 200
    assert 60 <= tokens.lifetime_s < 1e301


async def test_a_token_lasts_for_as_long_as_clients_believe_any_to_last() -> None:
    """They ask for no other one before a minute has passed (the distribution project's token specification)."""
    made = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    it, _, tokens, _ = gateway(katello=Katello(token="katellos", expires_in=3605, issued_at=made))
    answer = await got(it, "/v2/token", authorization=BASIC)
    assert isinstance(answer, Reply)
    assert (tokens.lifetime_s, json.loads(answer.body)["expires_in"]) == (60, 60)


async def test_a_host_whose_certificate_is_revoked_is_nobody() -> None:
    ca = CA("katello")
    revoked = RevocationLists({ca.name: frozenset({55})})
    it, grants, _, _ = gateway(is_revoked=lambda c: revoked.revoke(c))
    grants.said[HOST] = {"secret"}
    for serial, status in ((54, 200), (55, 404)):
        peer = Peer(
            "192.0.2.9",
            ca.issue(HOST.name, serial=serial).public_bytes(Encoding.DER),
            trust=Trust((), (ca.certificate,)),
        )
        asked = call("GET", "/container_gateway/v2/secret/manifests/1", by=peer)
        assert (await it.answer("/v2/secret/manifests/1", asked)).status == status
        greeted = await it.answer(
            "/v2/", call("GET", "/container_gateway/v2/", by=peer, headers={"Host": "proxy.test"})
        )
        assert greeted.status == (200 if status == 200 else 401)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("<http://pulp.test:24817/v2/open/tags/list?n=1&last=a%26b>", "</v2/open/tags/list?n=1&last=a%26b>"),
        ("</v2/open/tags/list?n=1&last=a>", "</v2/open/tags/list?n=1&last=a>"),
        ("<https://elsewhere.test/v2/open/tags/list?n=1>", "<https://elsewhere.test/v2/open/tags/list?n=1>"),
    ],
)
async def test_the_next_page_of_pulps_tags_is_asked_for_here(said: str, told: str) -> None:
    it, *_ = gateway(Pulp(headers=[("Link", f'{said}; rel="next"')]))
    answer = await got(it, "/v2/open/tags/list?n=1")
    assert (b"link", f'{told}; rel="next"'.encode()) in answer.headers


async def test_any_other_path_is_not_there() -> None:
    it, _, _, pulp = gateway()
    for path in ("/", "", "/v2/x", "/v3/", "/users/x", "/v2/open/manifests/", "/v2//manifests/1"):
        assert (await got(it, path)).status == 404
    assert pulp.asked == []
