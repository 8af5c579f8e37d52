from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from muster.cluster.mirror import Mirrored
from muster.content.backend import Answer, BadGateway, once
from muster.content.mirror.targets import Target
from muster.content.mirror.tokens import Challenge, Tokens, challenges
from muster.kernel.clock import FakeClock
from muster.kernel.errors import Misconfigured, Unavailable

pytestmark = pytest.mark.anyio

REALM = "https://auth.test/token"
WANTED = f'Bearer realm="{REALM}",service="registry.test",scope="repository:other:push"'
PASSWORD = "s3cr3t"


class Registry:
    """One that remembers where a token was asked for, and with what."""

    name = "origin r"

    def __init__(self, url: str = "https://registry.test") -> None:
        self.root = Target.of(url)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.said: tuple[int, bytes] = (200, b"")
        self.given = 0

    async def ask_at(self, target: Target, headers: Sequence[tuple[str, str]], why: str, /) -> Answer:
        self.asked.append((f"{target.base}{target.path}", dict(headers)))
        await asyncio.sleep(0)
        self.given += 1
        status, body = self.said
        body = body or json.dumps({"token": f"t{self.given}"}).encode()
        return Answer("the realm", status, (), once(body), lambda: None)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def tokens(registry: Registry, clock: FakeClock, tmp_path: Path | None = None, password: str = PASSWORD) -> Tokens:
    more: dict[str, Any] = {}
    if tmp_path is not None:
        (tmp_path / "password").write_text(f"{password}\n")
        more = {"user": "me", "password_file": tmp_path / "password"}
    mirrored = Mirrored.model_validate({"kind": "container", "url": "https://registry.test", "upstream": "a/b", **more})
    return Tokens("r", mirrored, registry, clock=clock)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([WANTED], [Challenge("bearer", REALM, "registry.test")]),
        (["bearer REALM = \"x\" , Service=y"], [Challenge("bearer", "x", "y")]),
        (['Basic realm="a, b"'], [Challenge("basic", "a, b", "")]),
        (["Basic"], [Challenge("basic", "", "")]),
        (['Basic realm="a", Bearer realm="b"'], [Challenge("basic", "a", ""), Challenge("bearer", "b", "")]),
        (['Negotiate', 'Bearer realm="b"'], [Challenge("bearer", "b", "")]),
        (["Bearer service=x"], []), (["Digest realm=x"], []), ([""], []), (["=,=,"], []), ([], []),
        (['Bearer realm="open'], []), (["Bearer realm=x" + "a" * 9000], []),
    ],
)  # fmt: skip
def test_what_is_wanted(said: list[str], expected: list[Challenge]) -> None:
    assert challenges(said) == expected


async def test_a_token_is_had_where_the_registry_says_for_what_is_mirrored_alone(clock: FakeClock) -> None:
    registry = Registry()
    it = tokens(registry, clock)
    assert it.shown == ""
    assert await it.renew([WANTED], "") == it.shown == "Bearer t1"
    assert registry.asked == [(f"{REALM}?service=registry.test&scope=repository%3Aa%2Fb%3Apull", {})]
    await it.renew([f'Bearer realm="{REALM}?a=b"'], it.shown)
    assert registry.asked[1][0] == f"{REALM}?a=b&scope=repository%3Aa%2Fb%3Apull"


@pytest.mark.parametrize(
    ("said", "lasts_s"),
    [
        ({"token": "t"}, 54), ({"access_token": "t", "expires_in": 300}, 270), ({"token": "t", "expires_in": 5}, 54),
        ({"token": "t", "expires_in": 10**9}, 3240), ({"token": "t", "expires_in": "never"}, 54),
        ({"token": "t", "expires_in": None}, 54), ({"token": "t", "expires_in": 1e400}, 54),
    ],
)  # fmt: skip
async def test_it_is_used_until_shortly_before_it_expires(
    clock: FakeClock, said: dict[str, Any], lasts_s: float
) -> None:
    registry = Registry()
    registry.said = 200, json.dumps(said).encode()
    it = tokens(registry, clock)
    await it.renew([WANTED], "")
    clock.advance(lasts_s - 1)
    assert it.shown == "Bearer t"
    clock.advance(2)
    assert it.shown == ""


async def test_of_many_who_need_one_at_once_one_asks(clock: FakeClock) -> None:
    registry = Registry()
    it = tokens(registry, clock)
    assert await asyncio.gather(*(it.renew([WANTED], "") for _ in range(9))) == ["Bearer t1"] * 9
    assert await it.renew([WANTED], "Bearer t1") == "Bearer t2"
    assert len(registry.asked) == 2


async def test_the_account_is_told_to_who_gives_out_tokens(clock: FakeClock, tmp_path: Path) -> None:
    registry = Registry()
    it = tokens(registry, clock, tmp_path)
    await it.renew([WANTED], "")
    told = {"Authorization": f"Basic {base64.b64encode(f'me:{PASSWORD}'.encode()).decode()}"}
    assert registry.asked[0][1] == told
    assert PASSWORD not in repr(it) + repr(vars(it))
    # To the registry itself where that says so.
    assert await it.renew(['Basic realm="x"'], it.shown) == told["Authorization"]
    (tmp_path / "password").write_text("another\n")
    assert await it.renew(['Basic realm="x"'], it.shown) != told["Authorization"]


async def test_a_refusal_names_the_account_and_nothing_of_its_password(clock: FakeClock, tmp_path: Path) -> None:
    registry = Registry()
    registry.said = 401, b"no"
    with pytest.raises(Unavailable, match="refuses the account me: 401") as refused:
        await tokens(registry, clock, tmp_path).renew([WANTED], "")
    assert PASSWORD not in str(refused.value)
    with pytest.raises(Unavailable, match="anybody without an account"):
        await tokens(registry, clock).renew([WANTED], "")
    with pytest.raises(Unavailable, match="wants an account"):
        await tokens(registry, clock).renew(["Basic"], "")
    registry.said = 503, b""
    with pytest.raises(Unavailable, match="answers 503"):
        await tokens(registry, clock).renew([WANTED], "")


async def test_who_was_refused_does_not_knock_all_the_time(clock: FakeClock, tmp_path: Path) -> None:
    """Each blob that clients want is a question, and accounts are locked that are tried too often."""
    registry = Registry()
    registry.said = 401, b"no"
    it = tokens(registry, clock, tmp_path)
    for _ in range(20):
        with pytest.raises(Unavailable, match=r"refuse[sd] the account me"):
            await it.renew([WANTED], "")
    assert len(registry.asked) == 1
    # Another password is tried at once, and the same one after a while.
    (tmp_path / "password").write_text("another\n")
    for _ in range(5):
        with pytest.raises(Unavailable, match=r"refuse[sd] the account me"):
            await it.renew([WANTED], "")
    assert len(registry.asked) == 2
    clock.advance(31)
    registry.said = 200, b""
    assert await it.renew([WANTED], "") == "Bearer t3"


async def test_a_registry_that_refuses_an_account_is_not_shown_it_all_the_time(
    clock: FakeClock, tmp_path: Path
) -> None:
    it = tokens(Registry(), clock, tmp_path)
    basic = await it.renew(["Basic"], "")
    for had in (basic, "", ""):
        with pytest.raises(Unavailable, match=r"refuse[sd] the account me"):
            await it.renew(["Basic"], had)
        assert it.shown == ""
    clock.advance(31)
    assert await it.renew(["Basic"], "") == basic
    with pytest.raises(Unavailable):
        await it.renew(["Basic"], basic)
    (tmp_path / "password").write_text("another\n")
    assert await it.renew(["Basic"], "") not in ("", basic)


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b"{", b"\xff", b'{"token": 5}', b'{"token": ""}', b'{"token": "a\\r\\nb"}', b'{"token": "a b"}',
        b" " * (65 << 10), json.dumps({"token": "a" * 17_000}).encode(),
    ],
)  # fmt: skip
async def test_what_is_no_token_is_not_shown(clock: FakeClock, body: bytes) -> None:
    registry = Registry()
    registry.said = 200, body
    it = tokens(registry, clock)
    with pytest.raises(BadGateway, match="holds none"):
        await it.renew([WANTED], "")
    assert it.shown == ""


@pytest.mark.parametrize(
    "realm", ["http://auth.test/token", "ftp://auth.test", "/token", "https://me:too@auth.test/", "https://a b/", ""]
)
async def test_nobody_is_led_to_where_an_account_could_be_read(clock: FakeClock, tmp_path: Path, realm: str) -> None:
    registry = Registry()
    with pytest.raises(BadGateway, match="says that tokens are had at"):
        await tokens(registry, clock, tmp_path).renew([f'Bearer realm="{realm}"'], "")
    assert registry.asked == []


async def test_a_registry_in_the_clear_may_have_its_tokens_there(clock: FakeClock) -> None:
    registry = Registry("http://registry.test:5000")
    assert await tokens(registry, clock).renew(['Bearer realm="http://registry.test:5001/t"'], "") == "Bearer t1"


@pytest.mark.parametrize("password", ["", "\n", "ä", "a\tb"])
async def test_a_password_that_cannot_be_shown_is_said_by_its_file(
    clock: FakeClock, tmp_path: Path, password: str
) -> None:
    with pytest.raises(Misconfigured, match=r"content\.mirror\.repositories\.r"):
        await tokens(Registry(), clock, tmp_path, password).renew(["Basic"], "")
