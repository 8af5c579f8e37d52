from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import structlog
from prometheus_client import CollectorRegistry

from muster.app.duties.duty import Duties, Duty, Found, joined
from muster.edge.health import Health
from muster.edge.metrics import EdgeMetrics

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    yield
    structlog.reset_defaults()


class Told(Duty):
    """Does as it is told, and counts."""

    every_s = 0.001

    def __init__(self, name: str, does: Callable[[int], object] = lambda _: None, found: Found | None = None) -> None:
        self.name = name
        self.beats = 0
        self.ended = 0
        self._does = does
        self._found = found or Found()

    async def beat(self) -> None:
        self.beats += 1
        done = self._does(self.beats)
        if asyncio.iscoroutine(done):
            await done

    def found(self) -> Found:
        return self._found

    async def end(self) -> None:
        self.ended += 1


def fails(times: int) -> Callable[[int], object]:
    def does(beat: int) -> None:
        if beat <= times:
            raise ZeroDivisionError("division by zero")

    return does


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


def own_health() -> Health:
    return Health("proxy01", frozenset({"smartproxy", "puppet"}), starting="")


def kept(*duties: Duty, health: Health, patience_s: float = 30.0) -> Duties:
    return Duties(duties, health, EdgeMetrics(CollectorRegistry()), patience_s=patience_s)


async def test_a_duty_that_breaks_is_named_until_it_is_done_again_and_stops_no_other() -> None:
    broken, other, health = Told("disks", fails(3)), Told("roster"), own_health()
    async with kept(broken, other, health=health).running():
        await until(lambda: broken.beats == 2)
        assert health.verdict("puppet").notes == ("duty disks broke: ZeroDivisionError: division by zero",)
        assert health.verdict("puppet").status == 200
        await until(lambda: broken.beats > 4 and other.beats > 4)
        assert health.verdict("puppet").notes == ()


async def test_a_duty_that_hangs_is_named_and_stops_no_other_nor_the_member() -> None:
    held = asyncio.Event()
    hung, other, health = Told("disks", lambda _: held.wait()), Told("roster"), own_health()
    async with kept(hung, other, health=health, patience_s=0.05).running():
        await until(lambda: bool(health.verdict("puppet").notes))
        assert health.verdict("puppet").notes == ("duty disks has hung for more than 0.05 s",)
        seen = other.beats
        await until(lambda: other.beats > seen + 3)
        held.set()
        await until(lambda: hung.beats > 1)
        assert health.verdict("puppet").notes == ()


class Speechless(Told):
    """A duty whose finding breaks, as long as it is told to."""

    breaks = True

    def found(self) -> Found:
        if self.breaks:
            raise ZeroDivisionError("division by zero")
        return super().found()


async def test_a_duty_that_cannot_say_what_it_found_is_named_and_stops_neither_the_others_nor_readiness() -> None:
    mute, health = Speechless("disks", found=Found({"puppet": "disk full"})), own_health()
    other = Told("certificates", found=Found(out=("the certificate expired",)))
    duties = kept(mute, other, health=health)
    duties.judge()
    async with duties.running():
        await until(lambda: mute.beats > 2 and other.beats > 2)
        said = health.verdict("puppet")
        assert (said.status, said.reason) == (503, "the certificate expired")
        assert said.notes == ("duty disks broke: ZeroDivisionError: division by zero",)
        mute.breaks = False
        await until(lambda: health.verdict("puppet").reason == "the certificate expired; disk full")
        assert health.verdict("puppet").notes == ()


async def test_what_a_duty_found_last_holds_while_it_cannot_say_more() -> None:
    mute, health = Speechless("disks", found=Found({"puppet": "disk full"}, out=("no disk",))), own_health()
    mute.breaks = False
    duties = kept(mute, health=health)
    duties.judge()
    mute.breaks = True
    duties.judge()
    assert health.verdict("puppet").reason == "no disk; disk full"


async def test_a_judgement_that_breaks_is_named_and_ends_no_duty(monkeypatch: pytest.MonkeyPatch) -> None:
    duty, health = Told("roster"), own_health()
    duties = kept(duty, health=health)

    def breaks() -> None:
        raise ZeroDivisionError("division by zero")

    with monkeypatch.context() as broken:
        broken.setattr(duties, "judge", breaks)
        async with duties.running():
            await until(lambda: duty.beats > 2)
            assert health.verdict("puppet").notes == ("duty readiness broke: ZeroDivisionError: division by zero",)
            broken.undo()
            await until(lambda: not health.verdict("puppet").notes)


async def test_a_beat_that_is_cancelled_from_within_broke_and_is_followed_by_the_next() -> None:
    async def waits_for_what_was_given_up() -> None:
        given_up = asyncio.get_running_loop().create_future()
        given_up.cancel()
        await given_up

    duty, health = Told("disks", lambda beat: waits_for_what_was_given_up() if beat < 3 else None), own_health()
    async with kept(duty, health=health).running():
        await until(lambda: duty.beats == 2)
        assert health.verdict("puppet").notes == ("duty disks broke: CancelledError: ",)
        await until(lambda: duty.beats > 3)
        assert health.verdict("puppet").notes == ()


async def test_a_duty_that_hung_and_then_breaks_is_logged_with_its_traceback() -> None:
    held, health = asyncio.Event(), own_health()

    async def hangs_and_breaks() -> None:
        await held.wait()
        raise ZeroDivisionError("division by zero")

    with structlog.testing.capture_logs() as logged:
        duty = Told("disks", lambda _: hangs_and_breaks())
        async with kept(duty, health=health, patience_s=0.02).running():
            await until(lambda: bool(health.verdict("puppet").notes))
            held.set()
            await until(lambda: duty.beats > 3)
    told = [(one["event"], bool(one.get("exc_info"))) for one in logged]
    assert told == [("A duty hangs", False), ("A duty broke", True)]


async def test_a_beat_that_hangs_for_good_is_cut_when_the_member_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.app.duties.duty._LAST_BEAT_S", 0.05)
    hung, other = Told("disks", lambda _: asyncio.Event().wait()), Told("roster")
    async with asyncio.timeout(10), kept(hung, other, health=own_health()).running():
        await until(lambda: hung.beats == 1)
    assert (hung.ended, other.ended) == (0, 1)


async def test_a_beat_that_has_begun_ends_and_then_the_duty_does() -> None:
    steps: list[str] = []

    async def slowly() -> None:
        steps.append("begun")
        await asyncio.sleep(0.05)
        steps.append("done")

    duty = Told("roster", lambda _: slowly())
    async with kept(duty, health=own_health()).running():
        await until(lambda: bool(steps))
    assert steps[-2:] == ["begun", "done"]
    assert duty.ended == 1


async def test_a_duty_may_rest_first() -> None:
    duty = Told("parity")
    duty.begins_at_once, duty.every_s = False, 30.0
    async with kept(duty, health=own_health()).running():
        await asyncio.sleep(0.05)
    assert (duty.beats, duty.ended) == (0, 1)


async def test_an_end_that_breaks_lets_the_others_end() -> None:
    class Broken(Told):
        async def end(self) -> None:
            raise ZeroDivisionError

    other = Told("roster")
    async with kept(Broken("parity"), other, health=own_health()).running():
        await until(lambda: other.beats > 0)
    assert other.ended == 1


async def test_readiness_joins_what_duties_found_in_their_order() -> None:
    health = own_health()
    first = Told("disks", found=Found({"puppet": "disk full"}, notes=("a note",)))
    second = Told("programs", found=Found({"puppet": "no answer"}, out=("the certificate expired",)))
    kept(first, second, health=health).judge()
    said = health.verdict("puppet")
    assert (said.status, said.reason) == (503, "the certificate expired; disk full; no answer")
    assert said.notes == ("a note",)
    assert health.verdict("smartproxy").reason == "the certificate expired"


async def test_metrics_say_what_readiness_says() -> None:
    registry = CollectorRegistry()
    duty = Told("disks", found=Found({"puppet": "disk full"}))
    Duties([duty], own_health(), EdgeMetrics(registry)).judge()
    values = {s: registry.get_sample_value("muster_service_ready", {"service": s}) for s in ("smartproxy", "puppet")}
    assert values == {"smartproxy": 1.0, "puppet": 0.0}


def test_several_reasons_for_one_service_are_one_sentence() -> None:
    assert joined([{"a": "x", "b": "y"}, {}, {"a": "z"}]) == {"a": "x; z", "b": "y"}


async def test_a_judgement_follows_each_beat() -> None:
    health = own_health()
    duty = Told("programs", found=Found({"puppet": "no answer"}))
    async with kept(duty, health=health).running():
        await until(lambda: duty.beats > 0)
        with suppress(TimeoutError):
            await until(lambda: health.verdict("puppet").status == 503)
    assert health.down == {"puppet": "no answer"}
