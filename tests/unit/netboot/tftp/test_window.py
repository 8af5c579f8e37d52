"""What ACKs make of a window (``netboot/tftp/window.py``), also over a network that loses, doubles and delays."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.netboot.tftp.window import Heard, Window


def sent(window: Window, blocks: int, now: float = 0.0) -> Window:
    window.went(blocks, now)
    return window


def test_numbers_go_on_at_0_after_65535() -> None:
    window = Window(1)
    assert [window.number(n) for n in (1, 65535, 65536, 65537, 131_072)] == [1, 65535, 0, 1, 0]


def test_numbers_go_on_at_1_where_that_was_asked() -> None:
    window = Window(1, rollover=1)
    assert [window.number(n) for n in (1, 65535, 65536, 65537, 131_070, 131_071)] == [1, 65535, 1, 2, 65535, 1]


def test_every_block_is_acknowledged_across_both_ways_of_going_on() -> None:
    for rollover in (0, 1):
        window = Window(7, rollover=rollover)
        now = 0.0
        while window.acknowledged < 200_000:
            window.went(7, now)
            now += 0.001
            assert window.heard(window.number(window.sent), now) is Heard.MORE
        assert window.resent == 0


def test_an_oack_is_acknowledged_before_any_block_goes() -> None:
    window = sent(Window(4, opens_with_oack=True), 0)
    assert (window.room, window.is_waiting) == (0, True)
    assert window.heard(1, 0.1) is Heard.NOTHING
    assert window.heard(0, 0.1) is Heard.MORE
    assert (window.room, window.is_waiting) == (4, False)


def test_with_one_block_at_a_time_a_repeated_ack_sends_nothing() -> None:
    window = sent(Window(1), 1)
    assert window.heard(1, 0.1) is Heard.MORE
    window.went(1, 0.1)
    assert [window.heard(1, 0.1 + n) for n in range(5)] == [Heard.NOTHING] * 5
    assert window.resent == 0


def test_an_ack_of_what_was_never_sent_is_nothing() -> None:
    window = sent(Window(4), 4)
    assert [window.heard(n, 0.1) for n in (5, 6, 100, 65535)] == [Heard.NOTHING] * 4
    assert window.acknowledged == 0


def test_an_ack_within_the_window_means_a_gap_unless_more_comes_soon() -> None:
    window = sent(Window(8), 8)
    assert window.heard(3, 0.1) is Heard.GAP
    # Blocks 4 to 8 are perhaps on their way; the client counts eight from 4 on.
    assert (window.sent, window.room, window.resent) == (8, 3, 0)
    window.went(3, 0.1)
    state = window.state
    assert window.is_missing(state, 0.1 + window.patience_s)
    assert window.resent == 8
    assert not window.is_missing(state, 0.2)
    doubled = sent(Window(8), 8)
    assert doubled.heard(3, 0.1) is Heard.GAP
    state = doubled.state
    assert doubled.heard(8, 0.1) is Heard.MORE
    assert not doubled.is_missing(state, 0.1 + doubled.patience_s)


def test_a_repeated_ack_means_a_gap_where_it_can_be_no_late_answer() -> None:
    window = sent(Window(4, opens_with_oack=True), 0)
    window.heard(0, 0.010)
    window.went(4, 0.010)
    # It was on its way before the window could have arrived.
    assert window.heard(0, 0.015) is Heard.NOTHING
    assert window.heard(0, 0.021) is Heard.GAP
    # Said again meanwhile it is the same gap.
    assert window.heard(0, 0.022) is Heard.NOTHING
    assert window.is_missing(window.state, 0.036)
    assert window.resent == 4
    # What was sent again cannot have arrived yet; later it is lost, too.
    assert [window.heard(0, 0.040), window.heard(0, 0.047)] == [Heard.NOTHING, Heard.GAP]


def test_the_second_answer_to_a_window_that_was_sent_twice_sends_nothing() -> None:
    window = sent(Window(4, opens_with_oack=True), 0)
    window.heard(0, 0.010)
    window.went(4, 0.010)
    assert window.heard(0, 0.030) is Heard.GAP
    assert window.is_missing(window.state, 0.0305)
    assert window.patience_s == pytest.approx(0.015)
    assert window.heard(4, 0.031) is Heard.MORE
    window.went(4, 0.031)
    assert window.heard(4, 0.060) is Heard.NOTHING
    assert window.heard(4, 0.070) is Heard.GAP


def test_waits_grow_and_end() -> None:
    window = sent(Window(1, attempts=6), 1)
    window.heard(1, 0.4)
    window.went(1, 0.4)
    now, waits = 0.4, []
    while True:
        waits.append(window.due_at - now)
        now = window.due_at
        if not window.overdue(now):
            break
    assert waits == pytest.approx([1, 2, 4, 8, 8, 8])


def test_whoever_has_never_answered_is_sent_little() -> None:
    window = sent(Window(1, attempts=50), 1)
    assert [window.overdue(float(n)) for n in range(4)] == [True, True, True, False]


def test_the_wait_follows_the_client_and_what_it_asks_comes_before() -> None:
    quick = sent(Window(1), 1)
    quick.heard(1, 0.001)
    quick.went(1, 1.0)
    assert quick.due_at == 1.25
    asked = sent(Window(1, timeout_s=20.0), 1)
    assert asked.due_at == 20.0
    asked.overdue(20.0)
    assert asked.due_at == 40.0


def test_what_was_sent_twice_tells_nothing_of_the_way() -> None:
    window = sent(Window(1), 1)
    window.overdue(1.0)
    window.heard(1, 1.0001)
    window.went(1, 2.0)
    assert window.due_at == 3.0


@dataclass(order=True)
class _Coming:
    at: float
    order: int
    to_client: bool = field(compare=False)
    number: int = field(compare=False)


def transferred(
    seed: int, blocks: int, size: int, loss: float, doubled: float, rollover: int, varies_s: float = 0.002
) -> tuple[list[int], int]:
    """Send blocks to a client that does as RFC 7440 says; return what it has, and how many DATA packets were sent."""
    chance = random.Random(seed)
    window = Window(size, rollover=rollover, attempts=10_000, opens_with_oack=True)  # type: ignore[arg-type]
    window.is_heard = True
    order = itertools.count()
    coming: list[_Coming] = []
    now, packets = 0.0, 0

    def post(number: int, *, to_client: bool) -> None:
        copies = (chance.random() >= loss) + (chance.random() < doubled)
        for _ in range(copies):
            heapq.heappush(coming, _Coming(now + 0.001 + chance.random() * varies_s, next(order), to_client, number))

    def again() -> None:
        nonlocal packets
        if window.acknowledged < 0:
            post(-1, to_client=True)
        for n in range(window.acknowledged + 1 if window.acknowledged >= 0 else 1, window.sent + 1):
            packets += 1
            post(n, to_client=True)

    window.went(0, now)
    post(-1, to_client=True)
    window.last = blocks
    have: list[int] = []
    looks: list[tuple[float, tuple[int, int]]] = []
    since, told_gap, heard_at = 0, False, 0.0
    for _ in range(400_000):
        due = window.due_at if window.is_waiting else float("inf")
        patience = heard_at + 1.0
        if looks and looks[0][0] <= min(due, patience, coming[0].at if coming else due):
            now, state = looks.pop(0)
            if window.is_missing(state, now):
                again()
            continue
        if not coming or coming[0].at > min(due, patience):
            now = min(due, patience)
            if now == due:
                assert window.overdue(now)
                again()
            else:
                # The client, too, says again what it has when nothing comes.
                heard_at, since = now, 0
                post(len(have), to_client=False)
            continue
        one = heapq.heappop(coming)
        now = one.at
        if one.to_client:
            heard_at = now
            if one.number == -1:
                if not have:
                    post(0, to_client=False)
            elif one.number == len(have) + 1:
                have.append(one.number)
                since, told_gap = since + 1, False
                if since == size or len(have) == blocks:
                    since = 0
                    post(len(have), to_client=False)
            elif not told_gap:
                told_gap, since = True, 0
                post(len(have), to_client=False)
            continue
        what = window.heard(window.number(one.number), now)
        if what is Heard.ALL:
            return have, packets
        if what is Heard.GAP:
            looks.append((now + window.patience_s, window.state))
        if what is not Heard.NOTHING:
            first, count = window.sent + 1, window.room
            window.went(count, now)
            for n in range(first, first + count):
                packets += 1
                post(n, to_client=True)
    raise AssertionError("it never ended")


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 150),
    st.sampled_from([1, 2, 4, 16, 64]),
    st.sampled_from([0.0, 0.02, 0.2]),
    st.sampled_from([0.0, 0.2]),
    st.sampled_from([0, 1]),
)
def test_all_blocks_arrive_in_order_whatever_the_network_does(
    seed: int, blocks: int, size: int, loss: float, doubled: float, rollover: int
) -> None:
    have, _ = transferred(seed, blocks, size, loss, doubled, rollover)
    assert have == list(range(1, blocks + 1))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 4, 16]))
def test_a_network_that_doubles_does_not_double_the_traffic(seed: int, size: int) -> None:
    _, packets = transferred(seed, 600, size, 0.0, 0.05, 0, varies_s=0.0)
    assert packets <= 600 * (1.0 if size == 1 else 1.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_every_ack_doubled_makes_no_packet_twice_with_one_block_at_a_time(seed: int) -> None:
    _, packets = transferred(seed, 300, 1, 0.0, 1.0, 0)
    assert packets == 300
