"""Packages for hosts in both stores: one number each, none twice, and who is behind makes nothing newest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from muster.content.consumer import ledger
from muster.content.consumer.ledger import Packages
from muster.kernel import failpoints
from muster.kernel.errors import Conflict, Unavailable
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened

pytestmark = pytest.mark.anyio


def made(version: str) -> tuple[bytes, bytes]:
    return f"rpm {version}".encode(), f"deb {version}".encode()


async def offer(it: Packages, member: str, digest: str) -> tuple[bool, int, str]:
    is_new = not await it.is_settled(member, digest) and await it.offer(member, digest, "katello-ca-consumer-a", made)
    assert await it.is_settled(member, digest), "one beat is enough"
    key = await it.key()
    assert key is not None
    return is_new, *key


async def test_members_come_with_a_change_one_after_the_other_and_back(store: Store) -> None:
    it = Packages(store)
    assert await it.key() is None
    assert await it.newest() is None
    assert await offer(it, "m1", "one") == (True, 1, "one")
    assert await offer(it, "m2", "one") == (False, 1, "one")
    assert await offer(it, "m1", "two") == (True, 2, "two")
    for _ in range(3):
        # Its cluster file is the one of before.
        assert await offer(it, "m2", "one") == (False, 2, "two")
    # A member that nobody knew, with the same.
    assert await offer(it, "m3", "one") == (False, 2, "two")
    assert await offer(it, "m2", "two") == (False, 2, "two")
    assert await offer(it, "m1", "one") == (True, 3, "one")
    for _ in range(2):
        assert await offer(it, "m2", "two") == (False, 3, "one")
        assert await offer(it, "m3", "one") == (False, 3, "one")
    assert await offer(it, "m2", "one") == (False, 3, "one")
    newest = await it.newest()
    assert newest is not None
    assert (newest.package.rpm, newest.package.deb) == (b"rpm 1.3", b"deb 1.3")
    assert newest.package.version == "1.3"


async def test_who_passes_through_what_others_had_long_ago_brings_nothing_back(store: Store) -> None:
    it = Packages(store)
    for digest in ("one", "two", "three"):
        await offer(it, "m1", digest)
        if digest == "one":
            await offer(it, "m2", digest)
    assert await offer(it, "m2", "two") == (False, 3, "three")
    assert await offer(it, "m2", "three") == (False, 3, "three")


async def test_rows_are_bounded_and_what_is_forgotten_stays_old(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_KEPT", 3)
    it = Packages(store)
    await offer(it, "m2", "0")
    for number in range(6):
        await offer(it, "m1", str(number))
    assert len(await store.ask(ledger._ROWS)) == 3
    assert await offer(it, "m2", "0") == (False, 6, "5")


async def test_of_members_that_come_at_once_one_gives_the_number(url: str) -> None:
    async with opened(Secret(url)) as one, opened(Secret(url)) as other:
        await one.prepare()

        async def beat(store: Store, member: str) -> bool:
            try:
                return await Packages(store).offer(member, "same", "katello-ca-consumer-a", made)
            except Conflict:
                return False

        assert sum(await asyncio.gather(beat(one, "m1"), beat(other, "m2"))) == 1
        assert (
            await offer(Packages(one), "m1", "same") == await offer(Packages(other), "m2", "same") == (False, 1, "same")
        )


@pytest.fixture
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm({})


@pytest.mark.usefixtures("disarmed")
@pytest.mark.parametrize("place", ["before-commit", "after-commit"])
async def test_a_step_that_fails_leaves_all_or_nothing(place: str, store: Store) -> None:
    it = Packages(store)
    await store.prepare()
    failpoints.arm({failpoints.VARIABLE: f"consumer-package.{place}=error"})
    with pytest.raises(Unavailable):
        await it.offer("m1", "one", "katello-ca-consumer-a", made)
    failpoints.arm({})
    assert await it.key() == (None if place == "before-commit" else (1, "one"))
    assert (await offer(it, "m1", "one"))[1:] == (1, "one")
