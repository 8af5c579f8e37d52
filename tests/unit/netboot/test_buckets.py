"""How many requests are answered (``netboot/buckets.py``)."""

from __future__ import annotations

from muster.netboot import buckets as buckets_module
from muster.netboot.buckets import Buckets


def test_one_client_asks_often_at_once_and_then_at_its_pace() -> None:
    buckets = Buckets((2.0, 3), (1000.0, 1000), 0.0)
    assert [buckets.full("a", 0.0) for _ in range(4)] == [None, None, None, "client rate"]
    assert [buckets.full("a", 0.5) for _ in range(2)] == [None, "client rate"]
    assert buckets.full("b", 0.5) is None
    assert [buckets.full("a", 100.0) for _ in range(4)] == [None, None, None, "client rate"]


def test_a_client_that_asks_too_often_takes_nothing_from_the_others() -> None:
    buckets = Buckets((0.1, 1), (0.1, 3), 0.0)
    assert [buckets.full("a", 0.0) for _ in range(50)] == [None, *["client rate"] * 49]
    assert [buckets.full(c, 0.0) for c in "bcd"] == [None, None, "rate"]


def test_a_clock_that_stands_or_goes_back_gives_nothing() -> None:
    buckets = Buckets((10.0, 1), (1000.0, 1000), 100.0)
    assert [buckets.full("a", now) for now in (100.0, 100.0, 50.0)] == [None, "client rate", "client rate"]


def test_no_more_clients_are_remembered_than_there_is_room_for() -> None:
    buckets = Buckets((1.0, 1), (1e9, 1_000_000_000), 0.0)
    for n in range(buckets_module._CLIENTS * 2):
        assert buckets.full(str(n), 0.0) is None
    assert len(buckets._clients) == buckets_module._CLIENTS
