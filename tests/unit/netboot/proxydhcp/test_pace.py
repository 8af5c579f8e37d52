from muster.netboot.buckets import Buckets
from muster.netboot.proxydhcp.server import ONE_AT_ONCE, ONE_PER_S, paced


def allows(pace: Buckets, source: bytes, now: float) -> bool:
    return pace.full(source, now) is None


def test_one_machine_is_answered_so_often_and_no_more() -> None:
    pace = paced(1000, 0.0)
    assert sum(allows(pace, b"a", 1.0) for _ in range(100)) == ONE_AT_ONCE
    assert not allows(pace, b"a", 1.0)
    assert sum(allows(pace, b"a", 2.0) for _ in range(100)) == ONE_PER_S


def test_one_that_asks_too_often_leaves_enough_for_the_others() -> None:
    pace = paced(20, 0.0)
    for _ in range(1000):
        allows(pace, b"a", 1.0)
    assert allows(pace, b"b", 1.0)


def test_all_together_are_answered_so_often_and_no_more() -> None:
    pace = paced(20, 0.0)
    assert sum(allows(pace, n.to_bytes(6, "big"), 1.0) for n in range(1000)) == 40
    assert sum(allows(pace, n.to_bytes(6, "big"), 2.0) for n in range(1000)) == 20


def test_of_a_million_machines_a_bounded_number_is_remembered() -> None:
    pace = paced(10, 0.0)
    for n in range(10_000):
        allows(pace, n.to_bytes(6, "big"), float(n))
    assert len(pace._clients) <= 4096
