from muster.netboot.proxydhcp.pace import ONE_AT_ONCE, ONE_PER_S, Pace


def test_one_machine_is_answered_so_often_and_no_more() -> None:
    pace = Pace(1000)
    assert sum(pace.allows(b"a", 1.0) for _ in range(100)) == ONE_AT_ONCE
    assert not pace.allows(b"a", 1.0)
    assert sum(pace.allows(b"a", 2.0) for _ in range(100)) == ONE_PER_S


def test_one_that_asks_too_often_leaves_enough_for_the_others() -> None:
    pace = Pace(20)
    for _ in range(1000):
        pace.allows(b"a", 1.0)
    assert pace.allows(b"b", 1.0)


def test_all_together_are_answered_so_often_and_no_more() -> None:
    pace = Pace(20)
    assert sum(pace.allows(n.to_bytes(6, "big"), 1.0) for n in range(1000)) == 40
    assert sum(pace.allows(n.to_bytes(6, "big"), 2.0) for n in range(1000)) == 20


def test_of_a_million_machines_a_bounded_number_is_remembered() -> None:
    pace = Pace(10)
    for n in range(10_000):
        pace.allows(n.to_bytes(6, "big"), float(n))
    assert len(pace._sources) <= 4096
