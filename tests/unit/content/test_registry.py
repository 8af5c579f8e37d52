from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from muster.content import registry
from muster.content.backend import Answer, BadGateway
from muster.content.fill import Behind, Sibling
from muster.content.registry import Registry
from muster.content.uploads import Uploads
from muster.edge.replies import Reply
from muster.kernel.errors import Unavailable
from tests.unit.edge.calls import request as call

pytestmark = pytest.mark.anyio

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"
BLOB = f"/v2/r/blobs/{DIGEST}"
SIGNED = f"/pulp/container/r/blobs/{DIGEST}?validate_token=ab:cd&expires=9"
WHO = Behind("192.0.2.9", None)


class Standing:
    """A backend that answers by method and path, or by path, and remembers what it was asked."""

    def __init__(self, url: str, answers: Mapping[str, tuple[int, Mapping[str, str], bytes]]) -> None:
        self.url, self.name = url, url
        self.answers = answers
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.open = 0

    async def ask(
        self,
        method: str,
        path: str,
        sent: Sequence[tuple[str, str]],
        body: AsyncIterator[bytes] | None = None,
        _length: int | None = None,
    ) -> Answer:
        whole = b"".join([piece async for piece in body]) if body is not None else b""
        self.asked.append((method, path, dict(sent), whole))
        status, headers, said = self.answers.get(f"{method} {path}", self.answers.get(path, (404, {}, b"")))
        self.open += 1

        def end() -> None:
            self.open -= 1

        return Answer(self.name, status, list(headers.items()), _pieces(said), end)


async def _pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def standing(registry_url: str = "http://registry.test:5000", **answers: Any) -> tuple[Registry, Any, Any]:
    own: Any = Standing(registry_url, answers.get("own", {}))
    content: Any = Standing("http://localhost", answers.get("content", {}))
    return Registry(own, content), own, content


def moved(location: str, status: int = 302) -> Mapping[str, tuple[int, Mapping[str, str], bytes]]:
    return {BLOB: (status, {"Location": location, "Docker-Content-Digest": DIGEST}, b"")}


@pytest.mark.parametrize("origin", ["https://pulp.example.com", "http://192.0.2.7:24816", ""])
@pytest.mark.parametrize("status", [302, 307])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_pulp_redirects_to_its_content_is_fetched_here_by_whichever_name(
    origin: str, status: int, method: str
) -> None:
    it, own, content = standing(own=moved(origin + SIGNED, status), content={SIGNED: (200, {}, b"blob")})
    sent = [
        ("Authorization", "Bearer x"), ("Cookie", "a=b"), ("Range", "bytes=1-2"), ("Accept-Encoding", "gzip"),
        ("X_RHSM_SSL_CLIENT_CERT", "-----BEGIN"),
    ]  # fmt: skip
    got = await it.ask(method, BLOB, sent)
    assert (got.status, dict(got.headers)["Docker-Content-Digest"]) == (200, DIGEST)
    assert own.open == 0
    told = {"Range": "bytes=1-2", "X-CLIENT-CERT": "-----BEGIN", "Accept-Encoding": "identity"}
    assert content.asked == [(method, SIGNED, told, b"")]


async def test_what_the_registry_redirects_to_itself_is_fetched_there() -> None:
    there = "/v2/r/blobs/elsewhere?x=1"
    answers = {**moved("https://gateway.test:9443/container_gateway" + there), there: (200, {}, b"blob")}
    it, own, content = standing("https://gateway.test:9443/container_gateway", own=answers)
    assert (await it.ask("GET", BLOB, [("Authorization", "Bearer x")])).status == 200
    assert [(path, sent.get("Authorization")) for _, path, sent, _ in own.asked] == [
        (BLOB, "Bearer x"), (there, "Bearer x"),
    ]  # fmt: skip
    assert content.asked == []


@pytest.mark.parametrize(
    "location",
    [
        "https://store.example.com/bucket/blob?signature=1",
        "http://127.0.0.1:22/",
        "//metadata.test/pulp/api/v3/",
        "http://registry.test:5001/v2/r/blobs/x",
        "http://registry.test:5000/admin",
        "http://registry.test:5000/v2/../admin",
        "https://pulp.example.com/pulp/container/../api/v3/",
        "https://pulp.example.com/pulp/containers/x",
        "https://pulp.example.com/pulp/container/%2e%2e/api",
        "ftp://pulp.example.com" + SIGNED,
        "http://[",
        "file:///pulp/container/x",
    ],
)
async def test_what_is_elsewhere_is_the_clients_to_follow(location: str) -> None:
    it, own, content = standing(own=moved(location))
    got = await it.ask("GET", BLOB, [])
    assert (got.status, dict(got.headers)["Location"]) == (302, location)
    assert (len(own.asked), content.asked, own.open) == (1, [], 1)


TAGS = "/v2/r/tags/list?n=1"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        # Pulp says the whole of the URL that it was asked at.
        ("<http://registry.test:5000/v2/r/tags/list?n=1&last=a>", "</v2/r/tags/list?n=1&last=a>"),
        ("<http://proxy.example.com:5000/v2/r/tags/list?n=1&last=a>", "</v2/r/tags/list?n=1&last=a>"),
        ("</v2/r/tags/list?n=1&last=a>", "</v2/r/tags/list?n=1&last=a>"),
        ("<?n=1&last=a>", "</v2/r/tags/list?n=1&last=a>"),
        ("<http://elsewhere.test/v2/r/tags/list?n=1>", "<http://elsewhere.test/v2/r/tags/list?n=1>"),
        ("<http://registry.test:5000/v1/x>", "<http://registry.test:5000/v1/x>"),
        ("<http://[/v2/x>", "<http://[/v2/x>"),
        ("/v2/r/tags/list", "/v2/r/tags/list"),
    ],
)
@pytest.mark.parametrize("path", [TAGS, "/v2/_catalog?n=1"])
async def test_the_next_page_is_asked_for_here(path: str, said: str, told: str) -> None:
    said, told = (one.replace("/v2/r/tags/list", path.partition("?")[0]) for one in (said, told))
    it, _, _ = standing(own={path: (200, {"Link": f'{said}; rel="next"', "X": "y"}, b"{}")})
    sent = [("X-Forwarded-Host", "proxy.example.com:5000")]
    if path == TAGS:
        got = await it.ask("GET", path, sent)
    else:
        changed = await it.change(
            call("GET", path, headers={"Host": "proxy.example.com:5000"}), path, sent, WHO, is_handed_on=False
        )
        assert isinstance(changed, Answer)
        got = changed
    assert dict(got.headers) == {"Link": f'{told}; rel="next"', "X": "y"}


async def test_redirects_that_lead_round_end() -> None:
    it, own, _ = standing(own=moved(BLOB))
    assert (await it.ask("GET", BLOB, [])).status == 302
    assert (len(own.asked), own.open) == (4, 1)


async def test_what_is_said_to_have_another_digest_is_no_answer() -> None:
    other = {"Docker-Content-Digest": DIGEST.replace("0", "1")}
    it, own, _ = standing(own={BLOB: (200, other, b"blob")})
    with pytest.raises(BadGateway, match="says that what it gives"):
        await it.ask("GET", BLOB, [])
    assert own.open == 0


@pytest.mark.parametrize(
    ("path", "is_read"),
    [
        (BLOB, True),
        ("/v2/a/b/manifests/1.0?x=1", True),
        (f"/v2/r/manifests/{DIGEST}", True),
        ("/v2/r/tags/list?n=3", True),
        (f"/v2/r/referrers/{DIGEST}", True),
        (f"/extensions/v2/a/b/signatures/{DIGEST}", True),
        ("/v2/", False),
        ("/v2/_catalog", False),
        ("/v2/r/blobs/uploads/", False),
        ("/v2/r/blobs/uploads", False),
        ("/v2/r/blobs/uploads/7d9c?x=1", False),
        ("/v2/token?service=x", False),
        ("/v1/search", False),
    ],
)
def test_what_any_member_may_have_is_told_by_its_path(path: str, is_read: bool) -> None:
    assert registry.is_read(path) is is_read


def uploading(own: Any, other: Any) -> Registry:
    it = Registry(own, None, None, Uploads("Proxy01.example.com", lambda _: other))
    assert it.uploads is not None
    it.uploads.know([Sibling("Proxy02.example.com", "192.0.2.2", 443)], ["proxy01.example.com", "proxy02.example.com"])
    return it


@pytest.mark.parametrize(
    "location",
    [
        "https://proxy.example.com/v2/r/blobs/uploads/7d9c?_state=a%3D",
        "http://registry.test:5000/v2/r/blobs/uploads/7d9c?_state=a%3D",
        "/v2/r/blobs/uploads/7d9c?_state=a%3D",
        "7d9c?_state=a%3D",
    ],
)
async def test_an_uploads_location_names_the_member_and_no_host(location: str) -> None:
    own: Any = Standing("http://registry.test:5000", {"/v2/r/blobs/uploads/": (202, {"Location": location}, b"")})
    request = call("POST", "/v2/r/blobs/uploads/", headers={"host": "proxy.example.com"})
    got = await uploading(own, None).change(request, "/v2/r/blobs/uploads/", [], WHO, is_handed_on=False)
    assert isinstance(got, Answer)
    assert got.headers == [("Location", "/v2/r/blobs/uploads/7d9c?_state=a%3D&_muster=proxy01.example.com")]


@pytest.mark.parametrize(
    "location",
    [
        "https://store.example.com/v2/r/blobs/uploads/7d9c",
        f"/v2/r/blobs/{DIGEST}",
        "/v2/r/blobs/uploads/../7d9c",
        "http://[",
    ],
)
async def test_any_other_location_stays_as_it_is(location: str) -> None:
    own: Any = Standing("http://registry.test:5000", {"/v2/r/blobs/uploads/": (201, {"Location": location}, b"")})
    got = await uploading(own, None).change(
        call("POST", "/v2/r/blobs/uploads/"), "/v2/r/blobs/uploads/", [], WHO, is_handed_on=False
    )
    assert isinstance(got, Answer)
    assert got.headers == [("Location", location)]


@pytest.mark.parametrize("named", ["proxy01.example.com", "PROXY01.example.com", None])
async def test_the_registry_hears_of_its_own_uploads_what_it_said(named: str | None) -> None:
    own: Any = Standing("http://registry.test:5000", {})
    path = "/v2/r/blobs/uploads/7d9c?_state=a%3D"
    marked = f"{path}&_muster={named}" if named else path
    await uploading(own, None).change(call("PUT", marked), f"{marked}&digest={DIGEST}", [], WHO, is_handed_on=False)
    assert [asked[1] for asked in own.asked] == [f"{path}&digest={DIGEST}"]


async def test_anothers_upload_is_handed_on_as_it_came_and_by_a_member_no_further() -> None:
    own: Any = Standing("http://registry.test:5000", {})
    path = "/v2/r/blobs/uploads/7d9c?_state=a%3D&_muster=proxy02.example.com"
    other: Any = Standing("https://192.0.2.2", {path: (202, {"Location": "/there"}, b"")})
    it = uploading(own, other)
    headers = {"host": "proxy.example.com", "content-length": "4"}
    sent = [
        ("Authorization", "Basic x"), ("X-Forwarded-For", "192.0.2.9"), ("X-Forwarded-Host", "proxy.example.com"),
        ("X_RHSM_SSL_CLIENT_CERT", "x"),
    ]  # fmt: skip
    request = call("PATCH", path, headers=headers, body=[b"part"])
    got = await it.change(request, path, sent, WHO, is_handed_on=False)
    assert isinstance(got, Answer)
    assert got.headers == [("Location", "/there")]
    told = {
        "Authorization": "Basic x", "X-Muster-Fill": "1", "X-Muster-Client-Address": "192.0.2.9",
        "Host": "proxy.example.com",
    }  # fmt: skip
    assert other.asked == [("PATCH", path, told, b"part")]
    refused = await it.change(call("PATCH", path), path, [], WHO, is_handed_on=True)
    assert isinstance(refused, Reply)
    assert (refused.status, json.loads(refused.body)["errors"][0]["code"]) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert (own.asked, len(other.asked)) == ([], 1)


async def test_who_is_a_member_no_longer_is_handed_nothing() -> None:
    uploads = Uploads("proxy01.example.com", lambda _: Standing("x", {}))  # type: ignore[arg-type, return-value]
    one = Sibling("proxy02.example.com", "192.0.2.2", 443)
    uploads.know([one], [one.name])
    uploads.know([], [one.name])
    assert uploads.other(one.name) is not None, "it drains"
    uploads.know([], [])
    assert uploads.other(one.name) is None


class Others:
    """Stands for the other members: gives what it has."""

    siblings = (Sibling("proxy02.example.com", "192.0.2.2", 443),)

    def __init__(self, has: Mapping[str, bytes], *, away: bool = False, registry: Any = None) -> None:
        self.has, self.away = has, away
        self.asked_for: list[str] = []
        self.registry = registry or Standing("https://192.0.2.2", {})

    def other(self, _: Sibling) -> Any:
        return self.registry

    async def elsewhere(self, _method: str, path: str, _sent: object, _behind: Behind) -> Answer:
        self.asked_for.append(path)
        if self.away:
            raise Unavailable("nobody could be asked")
        body = self.has.get(path)
        headers = [("Content-Length", str(len(body)))] if body is not None else []
        return Answer("another", 404 if body is None else 200, headers, _pieces(body or b""), lambda: None)


class Remembering(Standing):
    """A registry that refuses a manifest until it has the blob that it names."""

    has = False

    async def ask(self, method: str, path: str, *rest: Any) -> Answer:
        got = await super().ask(method, path, *rest)
        if path.startswith("/v2/r/blobs/uploads/7d9c") and method == "PUT":
            self.has = True
        if "/manifests/" in path and method == "PUT" and not self.has:
            got.end()
            self.open += 1
            error = json.dumps({"errors": [{"code": "MANIFEST_BLOB_UNKNOWN"}]}).encode()
            return Answer(self.name, 400, [], _pieces(error), got.end)
        return got


MANIFEST = json.dumps({"config": {"digest": DIGEST, "mediaType": "x/config"}, "layers": [{"digest": DIGEST}]}).encode()
WHERE = "/v2/r/blobs/uploads/7d9c?_state=a"


def lacking() -> Any:
    return Remembering(
        "http://registry.test:5000",
        {
            "POST /v2/r/blobs/uploads/": (202, {"Location": f"https://registry.test:5000{WHERE}"}, b""),
            f"PATCH {WHERE}": (202, {"Location": WHERE}, b""),
            f"PUT {WHERE}&digest={DIGEST}": (201, {}, b""),
            "PUT /v2/r/manifests/1": (201, {}, b""),
        },
    )


async def put(own: Any, others: Others) -> Answer:
    fill: Any = others
    request = call("PUT", "/v2/r/manifests/1", headers={"content-length": str(len(MANIFEST))}, body=[MANIFEST])
    sent = [("Authorization", "Basic x"), ("Content-Type", "x/manifest"), ("X-Forwarded-Host", "proxy.example.com")]
    got = await Registry(own, None, fill).change(request, "/v2/r/manifests/1", sent, WHO, is_handed_on=False)
    assert isinstance(got, Answer)
    return got


async def test_what_a_manifest_names_is_brought_once_with_the_clients_account() -> None:
    own, others = lacking(), Others({BLOB: b"blob"})
    assert (await put(own, others)).status == 201
    assert others.asked_for == [BLOB]
    assert [(method, path.partition("?")[0], body) for method, path, _, body in own.asked] == [
        ("PUT", "/v2/r/manifests/1", MANIFEST),
        ("HEAD", BLOB, b""),
        ("POST", "/v2/r/blobs/uploads/", b""),
        ("PATCH", "/v2/r/blobs/uploads/7d9c", b"blob"),
        ("PUT", "/v2/r/blobs/uploads/7d9c", b""),
        ("PUT", "/v2/r/manifests/1", MANIFEST),
    ]
    assert all(sent["Authorization"] == "Basic x" for _, _, sent, _ in own.asked)
    # So that it says where the upload is by its own address.
    assert all("X-Forwarded-Host" not in sent for _, _, sent, _ in own.asked[1:5])
    assert own.open == 1


def held(digest: str) -> Any:
    """Return another member at which a tag leads to what has this digest."""
    path = "/v2/r/manifests/1"
    had = {f"HEAD {path}": (200, {"Docker-Content-Digest": digest}, b""), f"PUT {path}": (201, {}, b"")}
    return Standing("https://192.0.2.2", had)


async def test_a_tag_is_moved_where_it_leads_elsewhere_and_only_there() -> None:
    own_digest = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
    for registry_, methods in (
        (held(DIGEST), ["HEAD", "PUT"]),
        (held(own_digest), ["HEAD"]),
        (Standing("https://192.0.2.2", {}), ["HEAD"]),
    ):
        own = lacking()
        own.has = True
        assert (await put(own, Others({}, registry=registry_))).status == 201
        assert [method for method, *_ in registry_.asked] == methods
        assert registry_.open == 0
        assert all(sent["X-Muster-Fill"] == "1" for _, _, sent, _ in registry_.asked)
        assert all(sent["Host"] == "proxy.example.com" for _, _, sent, _ in registry_.asked)


class Away(Standing):
    async def ask(self, *_: Any) -> Answer:
        raise Unavailable("it is away")


async def test_another_member_that_is_away_costs_no_push() -> None:
    own = lacking()
    own.has = True
    assert (await put(own, Others({}, registry=Away("https://192.0.2.2", {})))).status == 201


class Hanging(Standing):
    given_up = 0

    async def ask(self, *_: Any) -> Answer:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        raise AssertionError


async def test_another_member_whose_registry_hangs_holds_up_no_push_and_no_deletion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "_EACH_S", 0.01)
    hanging = Hanging("https://192.0.2.2", {})
    own = lacking()
    own.has = True
    path = f"/v2/r/manifests/{DIGEST}"
    own.answers = {**own.answers, path: (202, {}, b"")}
    fill: Any = Others({}, registry=hanging)
    async with asyncio.timeout(30):
        assert (await put(own, fill)).status == 201
        got = await Registry(own, None, fill).change(call("DELETE", path), path, [], WHO, is_handed_on=False)
    assert (got.status, hanging.given_up) == (202, 2)


@pytest.mark.parametrize(
    ("here", "there", "status", "asked"),
    [
        (202, 202, 202, True),
        (404, 202, 202, True),
        (202, 404, 202, True),
        (404, 404, 404, True),
        (401, 202, 401, False),
    ],
)
async def test_what_is_deleted_is_deleted_everywhere(here: int, there: int, status: int, asked: bool) -> None:
    path = f"/v2/r/manifests/{DIGEST}"
    own: Any = Standing("http://registry.test:5000", {path: (here, {}, b"")})
    other = Standing("https://192.0.2.2", {path: (there, {}, b"")})
    fill: Any = Others({}, registry=other)
    it = Registry(own, None, fill)
    got = await it.change(call("DELETE", path), path, [], WHO, is_handed_on=False)
    assert isinstance(got, Answer)
    assert (got.status, bool(other.asked), own.open + other.open) == (status, asked, 1)
    handed = await it.change(call("DELETE", path), path, [], WHO, is_handed_on=True)
    assert isinstance(handed, Answer)
    assert (handed.status, len(other.asked)) == (here, int(asked))


async def test_a_registry_that_goes_away_while_a_manifest_is_put_is_left_no_answer_to_hold() -> None:
    class Going(Remembering):
        async def ask(self, method: str, path: str, *rest: Any) -> Answer:
            if method == "HEAD":
                raise Unavailable("it went away")
            return await super().ask(method, path, *rest)

    class Breaking(Remembering):
        async def ask(self, method: str, path: str, *rest: Any) -> Answer:
            return replace(await super().ask(method, path, *rest), pieces=_broken())

    for kind in (Going, Breaking):
        own = kind("http://registry.test:5000", lacking().answers)
        with pytest.raises(Unavailable):
            await put(own, Others({BLOB: b"blob"}))
        assert (len(own.asked), own.open) == (1, 0)


async def _broken() -> AsyncGenerator[bytes, None]:
    yield b'{"errors": ['
    raise Unavailable("it broke off")


@pytest.mark.parametrize("away", [False, True])
async def test_what_nobody_has_is_refused_in_the_registrys_words(away: bool) -> None:
    own = lacking()
    got = await put(own, Others({}, away=away))
    said = b"".join([piece async for piece in got.pieces])
    assert (got.status, json.loads(said)["errors"][0]["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert [method for method, *_ in own.asked] == ["PUT", "HEAD"]
    assert own.open == 1


async def test_a_manifest_larger_than_they_are_is_not_taken() -> None:
    own, fill = lacking(), Others({})
    pieces = [b" " * (1 << 20)] * 5
    request = call("PUT", "/v2/r/manifests/1", headers={"transfer-encoding": "chunked"}, body=pieces)
    with_others: Any = fill
    got = await Registry(own, None, with_others).change(request, "/v2/r/manifests/1", [], WHO, is_handed_on=False)
    assert isinstance(got, Reply)
    assert (got.status, own.asked) == (413, [])
