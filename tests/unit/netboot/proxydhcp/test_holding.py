import pytest

from muster.kernel.errors import Conflict, Unavailable
from muster.netboot.proxydhcp.holding import LEFT_S, RENEWED_EVERY_S, TTL_S, Holding
from muster.store.leases import Lease


class Shared:
    """Leases as a store keeps them, with a clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 100.0
        self.away = False
        self.lease: Lease | None = None
        self.asked: list[str] = []

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.away:
            raise Unavailable("the store is away")

    def _in_force(self) -> Lease | None:
        return self.lease if self.lease is not None and self.lease.expires_at > self.now else None

    async def held(self, name: str) -> Lease | None:
        self._ask("held")
        return self._in_force()

    async def acquire(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        self._ask("acquire")
        if (held := self._in_force()) is not None and held.holder != holder:
            return None
        self.lease = Lease(name, holder, self.lease.epoch + 1 if self.lease else 1, self.now + ttl_s)
        return self.lease

    async def renew(self, lease: Lease, ttl_s: float) -> Lease:
        self._ask("renew")
        if self._in_force() is None or self.lease is None or self.lease.epoch != lease.epoch:
            raise Conflict("lost")
        self.lease = Lease(lease.name, lease.holder, lease.epoch, self.now + ttl_s)
        return self.lease

    async def release(self, lease: Lease) -> None:
        self._ask("release")
        if self.lease is not None and self.lease.epoch == lease.epoch:
            self.lease = Lease(lease.name, lease.holder, lease.epoch, self.now)


def member(shared: Shared, name: str) -> Holding:
    return Holding(shared, f"member {name} 1.1", now=lambda: shared.now)  # type: ignore[arg-type]


async def test_of_two_members_one_holds_the_role() -> None:
    shared = Shared()
    first, second = member(shared, "m1"), member(shared, "m2")
    for _ in range(20):
        await first.beat(fit=True)
        await second.beat(fit=True)
        assert (first.holds, second.holds) == (True, False)
        shared.now += 0.2


async def test_when_its_holder_dies_another_has_it_within_two_seconds() -> None:
    shared = Shared()
    first, second = member(shared, "m1"), member(shared, "m2")
    await first.beat(fit=True)
    died_at = shared.now
    while not second.holds:
        shared.now += 0.2
        await second.beat(fit=True)
    assert TTL_S <= shared.now - died_at <= TTL_S + 0.2


async def test_who_is_not_fit_gives_it_up_at_once() -> None:
    shared = Shared()
    first, second = member(shared, "m1"), member(shared, "m2")
    await first.beat(fit=True)
    await first.beat(fit=False)
    await second.beat(fit=True)
    assert (first.holds, second.holds) == (False, True)
    await second.beat(fit=False)
    await first.beat(fit=False)
    assert await shared.held("") is None


async def test_without_the_store_who_held_it_goes_on_and_nobody_else_begins() -> None:
    shared = Shared()
    first, second = member(shared, "m1"), member(shared, "m2")
    await first.beat(fit=True)
    shared.away = True
    for _ in range(20):
        shared.now += 1.0
        for one in (first, second):
            with pytest.raises(Unavailable):
                await one.beat(fit=True)
        assert (first.holds, second.holds) == (True, False)
    shared.away = False
    await first.beat(fit=True)
    await second.beat(fit=True)
    assert (first.holds, second.holds) == (True, False)


async def test_when_the_store_is_back_whoever_asks_it_first_leaves_the_role_to_who_answers() -> None:
    shared = Shared()
    first, second = member(shared, "m1"), member(shared, "m2")
    await first.beat(fit=True)
    await away(shared, first, second)
    for _ in range(20):
        await second.beat(fit=True)
        assert (first.holds, second.holds) == (True, False)
        await first.beat(fit=True)
        shared.now += 0.2
    assert (first.holds, second.holds) == (True, False)
    assert shared.lease is not None
    assert shared.lease.holder == "member m1 1.1"


async def test_when_its_holder_died_while_the_store_was_away_another_has_the_role_soon() -> None:
    shared = Shared()
    first, second = member(shared, "m1"), member(shared, "m2")
    await first.beat(fit=True)
    await away(shared, second)
    back_at = shared.now
    while not second.holds:
        await second.beat(fit=True)
        # However slow the store is from now on.
        shared.now += TTL_S + 0.1
    assert shared.now - back_at <= LEFT_S + 2 * (TTL_S + 0.1)
    # From then on as ever.
    third = member(shared, "m3")
    await second.beat(fit=True)
    await third.beat(fit=True)
    died_at = shared.now
    while not third.holds:
        shared.now += 0.2
        await third.beat(fit=True)
    assert shared.now - died_at <= TTL_S + 0.2


async def test_a_pause_of_all_changes_nothing_about_who_answers() -> None:
    shared = Shared()
    first, second = member(shared, "m1"), member(shared, "m2")
    await first.beat(fit=True)
    await second.beat(fit=True)
    shared.now += 10 * TTL_S
    await second.beat(fit=True)
    assert (first.holds, second.holds) == (True, False)
    await first.beat(fit=True)
    await second.beat(fit=True)
    assert (first.holds, second.holds) == (True, False)


async def test_who_was_not_fit_for_long_takes_a_free_role_at_once() -> None:
    shared = Shared()
    one = member(shared, "m1")
    await one.beat(fit=True)
    await one.beat(fit=False)
    shared.now += 10 * TTL_S
    await one.beat(fit=True)
    assert one.holds


async def away(shared: Shared, *members: Holding) -> None:
    """Let the store be away for a while, in which members ask it."""
    shared.away = True
    for _ in range(5):
        shared.now += 1.0
        for one in members:
            with pytest.raises(Unavailable):
                await one.beat(fit=True)
    shared.away = False


async def test_who_was_paused_finds_that_another_took_over() -> None:
    shared = Shared()
    first, second = member(shared, "m1"), member(shared, "m2")
    await first.beat(fit=True)
    shared.now += TTL_S + 1
    await second.beat(fit=True)
    await first.beat(fit=True)
    assert (first.holds, second.holds) == (False, True)


async def test_a_member_that_cannot_say_so_stops_all_the_same() -> None:
    shared = Shared()
    first = member(shared, "m1")
    await first.beat(fit=True)
    shared.away = True
    with pytest.raises(Unavailable):
        await first.beat(fit=False)
    assert not first.holds


async def test_the_store_is_written_to_only_as_often_as_needed() -> None:
    shared = Shared()
    first, second = member(shared, "m1"), member(shared, "m2")
    for _ in range(50):
        await first.beat(fit=True)
        await second.beat(fit=True)
        shared.now += 0.2
    assert shared.asked.count("acquire") == 1
    assert shared.asked.count("renew") <= 10 / RENEWED_EVERY_S
