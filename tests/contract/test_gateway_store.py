"""What the container gateway keeps in the store: grants, and the keys of tokens, which members have in common."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from muster.features.container_gateway import api
from muster.features.container_gateway.grants import Grants, Subject, in_turn
from muster.features.container_gateway.tokens import Tokens
from muster.kernel.errors import Unavailable
from muster.kernel.secrets import Secret
from muster.store.documents import Documents
from muster.store.engine import Store, opened
from muster.store.writing import Change
from tests.unit.edge.calls import request

pytestmark = pytest.mark.anyio

ALICE, BOB, HOST = Subject("user", "alice"), Subject("user", "bob"), Subject("host", "5c5be8b4")
DAY_S = 86_400.0
KEYS = "container_gateway/keys"


async def test_who_may_read_what_is_what_foreman_said_last(store: Store) -> None:
    grants = Grants(store)
    await grants.list_repositories({"open": False, "closed": True, "other": True})
    assert await grants.catalog(None) == ["open"]
    assert await grants.may_read("open", None)
    for nobody in (None, ALICE, HOST):
        assert not await grants.may_read("closed", nobody)
        assert not await grants.may_read("absent", nobody)
    await grants.set(ALICE, ["closed", "absent"])
    await grants.set(HOST, ["other"])
    assert await grants.may_read("closed", ALICE)
    assert not await grants.may_read("closed", Subject("host", "alice")), "a host is no user"
    assert not await grants.may_read("absent", ALICE)
    assert await grants.catalog(ALICE) == ["closed", "open"]
    assert await grants.catalog(HOST) == ["open", "other"]
    assert (await grants.users(), await grants.is_known(HOST), await grants.is_known(BOB)) == (["alice"], True, False)
    await grants.replace("user", {"bob": ["other"]})
    assert await grants.catalog(ALICE) == ["open"]
    assert await grants.catalog(BOB) == ["open", "other"]
    assert await grants.catalog(HOST) == ["open", "other"], "of another kind"
    await grants.list_hosts(["another"])
    assert not await grants.is_known(HOST)
    await grants.list_repositories({"other": False})
    assert await grants.catalog(None) == ["other"]
    assert not await grants.may_read("open", BOB)


async def test_what_a_host_may_read_goes_with_the_host(store: Store) -> None:
    grants = Grants(store)
    await grants.list_repositories({"closed": True})
    await grants.list_hosts(["one", "two"])
    await grants.replace("host", {"one": ["closed"], "two": ["closed"]})
    await grants.replace("user", {"one": ["closed"]})
    await grants.list_hosts(["two"])
    assert not await grants.may_read("closed", Subject("host", "one"))
    assert await grants.may_read("closed", Subject("host", "two"))
    assert await grants.may_read("closed", Subject("user", "one")), "of another kind"


async def test_what_several_hosts_may_read_is_changed_for_all_of_them_or_for_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    grants, known = Grants(store), ["one", "two", "three"]
    await grants.list_repositories({"closed": True, "other": True})
    await grants.set_each("host", {name: ["closed"] for name in known})
    written, write = [], store.write

    def breaking(step: str = "", **more: Any) -> Any:
        written.append(step)
        if len(written) > 1:
            raise Unavailable("the store went away")
        return write(step, **more)

    monkeypatch.setattr(store, "write", breaking)
    form = b"&".join(
        b"hosts[][%s][][repository]=other&hosts[][%s][][auth_required]=true" % (n, n) for n in (b"one", b"two")
    )
    gateway: Any = SimpleNamespace(grants=grants)
    await api.update_host_repositories(gateway, request("PUT", "/", body=[form]))
    assert [await grants.catalog(Subject("host", name)) for name in known] == [["other"], ["other"], ["closed"]]


async def test_of_two_lists_at_once_one_counts_and_not_both(store: Store) -> None:
    """Two members hear of Foreman's two syncs at the same moment."""
    here, there = Grants(store), Grants(store)
    for _ in range(8):
        await asyncio.gather(
            here.list_repositories({"one": False, "both": False}),
            there.list_repositories({"both": False, "two": False}),
        )
        assert await here.catalog(None) in (["both", "one"], ["both", "two"])
        await asyncio.gather(here.list_hosts(["one"]), there.list_hosts(["two"]))
        known = [await here.is_known(Subject("host", name)) for name in ("one", "two")]
        assert sorted(known) == [False, True]
        await asyncio.gather(here.replace("user", {"alice": ["both"]}), there.replace("user", {"bob": ["both"]}))


async def test_a_list_waits_for_a_long_one_longer_than_for_any_statement(url: str) -> None:
    async with opened(Secret(url), statement_timeout_s=0.3) as store:
        if store.dialect == "sqlite":
            pytest.skip("writers of SQLite queue up elsewhere")
        grants = Grants(store)
        async with store.write() as long:
            await in_turn(long, "repositories")
            listing = asyncio.create_task(grants.list_repositories({"open": False}))
            await asyncio.sleep(1)
        await listing
        assert await grants.catalog(None) == ["open"]

        async def lasting() -> None:
            async with store.write() as unit:
                await in_turn(unit, "repositories")
                await unit.changed(Change("SELECT pg_sleep(1)"), {})

        with pytest.raises(Unavailable, match="statement_timeout_s"):
            await lasting()


async def test_what_is_said_twice_is_one(store: Store) -> None:
    grants = Grants(store)
    await grants.list_repositories({"closed": True})
    for _ in (1, 2):
        await grants.set(ALICE, ["closed", "closed"])
        await grants.list_hosts(["one", "one"])
    assert await grants.users() == ["alice"]
    assert await grants.catalog(ALICE) == ["closed"]


@dataclass
class Clock:
    at: float = 1_000_000.0

    def __call__(self) -> float:
        return self.at


def tokens(store: Store, clock: Clock, *, cluster: str = "one", wall: Clock | None = None) -> Tokens:
    more: dict[str, Any] = {"wall": wall} if wall is not None else {}
    return Tokens(store, cluster, longest_s=3600, key_lifetime_s=7 * DAY_S, monotonic=clock, **more)


async def key_ids(store: Store) -> list[str]:
    return [one["id"] for one in (await Documents(store).read(KEYS)).content["keys"]]


async def age(store: Store, by_s: float) -> None:
    """Let the keys have been made so long before."""
    documents = Documents(store)
    found = await documents.read(KEYS)
    keys = [{**one, "made_at": one["made_at"] - by_s} for one in found.content["keys"]]
    await documents.replace(found, {"keys": keys}, by="test")


async def test_a_token_holds_on_every_member_of_the_cluster_and_on_no_other(store: Store) -> None:
    here, there = tokens(store, Clock()), tokens(store, Clock())
    token, lifetime_s = await here.issued("alice", 9999)
    assert lifetime_s == 3600, "no longer than the settings allow"
    assert (await here.user(token), await there.user(token)) == ("alice", "alice")
    assert await tokens(store, Clock(), cluster="another").user(token) is None
    assert len(await key_ids(store)) == 1


async def test_a_key_is_followed_by_another_and_believed_while_its_tokens_last(store: Store) -> None:
    clocks = Clock(), Clock()
    here, there = (tokens(store, clock) for clock in clocks)
    first, _ = await here.issued("alice", 3600)
    assert await there.user(first) == "alice"
    await age(store, 8 * DAY_S)
    clocks[0].at += 60
    second, _ = await here.issued("bob", 3600)
    assert jwt.get_unverified_header(first)["kid"] != jwt.get_unverified_header(second)["kid"]
    clocks[1].at += 5
    # The other member has not read the keys for five seconds, and does so for a key that it does not know.
    assert (await there.user(first), await there.user(second)) == ("alice", "bob")
    assert (await here.user(first), len(await key_ids(store))) == ("alice", 2)
    # The next one that follows finds the first key's tokens ended.
    await age(store, 8 * DAY_S)
    for clock in clocks:
        clock.at += 60
    third, _ = await there.issued("carol", 3600)
    assert await here.user(third) == "carol"
    assert jwt.get_unverified_header(first)["kid"] not in await key_ids(store)
    assert (await here.user(first), await there.user(second)) == (None, "bob")


async def test_two_that_follow_a_key_at_once_follow_it_with_one(store: Store) -> None:
    clocks = Clock(), Clock()
    here, there = (tokens(store, clock) for clock in clocks)
    await here.issued("alice", 60)
    await age(store, 8 * DAY_S)
    for clock in clocks:
        clock.at += 60
    await there.user((await here.issued("alice", 60))[0])
    one, _ = await here.issued("alice", 60)
    other, _ = await there.issued("bob", 60)
    assert jwt.get_unverified_header(one)["kid"] == jwt.get_unverified_header(other)["kid"]
    assert len(await key_ids(store)) == 2


async def test_keys_that_are_gone_from_a_store_that_was_restored_are_made_anew(store: Store) -> None:
    clock = Clock()
    here = tokens(store, clock)
    first, _ = await here.issued("alice", 60)
    await age(store, 8 * DAY_S)
    clock.at += 60
    assert await here.user(first) == "alice", "the keys were read again"
    await Documents(store).forget(KEYS, by="test")
    token, _ = await here.issued("bob", 60)
    assert await tokens(store, Clock()).user(token) == "bob"


async def test_a_key_that_is_too_old_signs_on_while_the_store_does_not_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    here = tokens(store, clock)
    first, _ = await here.issued("alice", 60)
    await age(store, 8 * DAY_S)
    clock.at += 60
    assert await here.user(first) == "alice", "the keys were read again"

    def away(*_: object, **__: object) -> Any:
        raise Unavailable("the store is away")

    for name in ("read", "write"):
        with monkeypatch.context() as patch:
            patch.setattr(store, name, away)
            assert await here.user((await here.issued("bob", 60))[0]) == "bob"
    assert len(await key_ids(store)) == 1


async def test_a_token_that_was_altered_made_up_or_has_ended_is_nobodys(store: Store) -> None:
    wall = Clock(1_800_000_000.0)
    here = tokens(store, Clock(), wall=wall)
    token, _ = await here.issued("alice", 600)
    # PyJWT asks the real clock, which is before that time: what is not issued yet is nobody's either.
    assert await here.user(token) is None
    here = tokens(store, Clock())
    token, _ = await here.issued("alice", 600)
    head, said, signed = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(said + "=="))
    kid = jwt.get_unverified_header(token)["kid"]
    another = Ed25519PrivateKey.generate()
    wrong = [
        "", "a", "a.b.c", f"{head}.{said}.", f"{head}.{said}", "x" * 5000, f"{head}.{said}.{signed[:-4]}AAAA",
        jwt.encode({**claims, "sub": "bob"}, another, "EdDSA", headers={"kid": kid}),
        jwt.encode(claims, another, "EdDSA", headers={"kid": "unknown"}),
        jwt.encode(claims, "", "none", headers={"kid": kid}),
        jwt.encode(claims, "secret" * 8, "HS256", headers={"kid": kid}),
    ]  # fmt: skip
    for one in wrong:
        assert await here.user(one) is None, one
    past = Clock(claims["iat"] - 7200.0)
    ended, _ = await tokens(store, Clock(), wall=past).issued("alice", 600)
    assert await here.user(ended) is None
    key_pem = (await Documents(store).read(KEYS)).content["keys"][0]["pem"]
    for absent in ("exp", "sub", "aud", "iss", "iat"):
        less = {k: v for k, v in claims.items() if k != absent}
        assert await here.user(jwt.encode(less, key_pem, "EdDSA", headers={"kid": kid})) is None


async def test_tokens_are_told_while_the_store_does_not_answer(tmp_path: Any) -> None:
    clock = Clock()
    async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        here = tokens(store, clock)
        token, _ = await here.issued("alice", 600)

        class Away(Documents):
            async def read(self, name: str) -> Any:
                raise Unavailable(name)

        clock.at += 3600
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("muster.features.container_gateway.tokens.Documents", Away)
            assert await here.user(token) == "alice"
            assert await here.user((await here.issued("bob", 600))[0]) == "bob"
            with pytest.raises(Unavailable):
                await tokens(store, clock).user(token)


async def test_one_asks_the_store_that_is_away_and_all_others_go_on_with_its_answer(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, asked = Clock(), []
    async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        here = tokens(store, clock)
        token, _ = await here.issued("alice", 600)

        class Away(Documents):
            async def read(self, name: str) -> Any:
                asked.append(name)
                await asyncio.sleep(0)
                raise Unavailable(name)

        monkeypatch.setattr("muster.features.container_gateway.tokens.Documents", Away)
        clock.at += 3600
        made_up = jwt.encode({}, Ed25519PrivateKey.generate(), "EdDSA", headers={"kid": "unknown"})
        assert set(await asyncio.gather(*(here.user(token) for _ in range(20)))) == {"alice"}
        assert set(await asyncio.gather(*(here.user(made_up) for _ in range(20)))) == {None}
        assert len(asked) == 1
        # Who knows no key waits with the others for the one question, too.
        new = tokens(store, clock)
        found = await asyncio.gather(*(new.user(token) for _ in range(20)), return_exceptions=True)
        assert {type(e) for e in found} == {Unavailable}
        assert len(asked) == 2
        clock.at += 5
        assert (await here.user(token), len(asked)) == ("alice", 3), "and again a moment later"


async def test_a_library_that_stumbles_over_a_token_says_that_it_is_nobodys(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tokens(store, Clock())
    token, _ = await here.issued("alice", 600)

    def stumbling(*_: object, **__: object) -> Any:
        # As PyJWT 2.10 lets it through.
        raise RecursionError

    for name in ("decode", "get_unverified_header"):
        with monkeypatch.context() as patch:
            patch.setattr(jwt, name, stumbling)
            assert await here.user(token) is None
