from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from muster.kernel.rings import LEVELS, LogRecord, LogRings, merged


def record(n: float, level: str = "INFO") -> LogRecord:
    return LogRecord(float(n), level, f"message {n:g}")


def stamps(records: list[LogRecord]) -> list[float]:
    return [r.timestamp for r in records]


def test_the_newest_records_are_kept_and_errors_that_fall_out_move_to_the_tail() -> None:
    rings = LogRings(size=3, tail_size=2)
    for n, level in enumerate(["ERROR", "INFO", "FATAL", "UNKNOWN", "WARN", "INFO", "INFO"]):
        rings.add(record(n, level))
    # 0, 2 and 3 fell out as errors; the tail keeps the newest two of them. 1 was no error.
    assert stamps(rings.records()) == [2, 3, 4, 5, 6]


@given(st.lists(st.sampled_from(LEVELS), max_size=40), st.integers(1, 8), st.integers(0, 5))
def test_main_and_tail_are_the_protocols_and_warnings_have_a_ring(levels: list[str], size: int, tail_size: int) -> None:
    rings = LogRings(size=size, tail_size=tail_size)
    made = [record(n, level) for n, level in enumerate(levels)]
    for r in made:
        rings.add(r)
    out = made[: max(0, len(made) - size)]
    errors = [r for r in out if r.level in ("ERROR", "FATAL", "UNKNOWN")]
    warnings = [r for r in out if r.level == "WARN"]
    fallen = [r for kept in (errors, warnings) for r in kept[len(kept) - min(tail_size, len(kept)) :]]
    assert rings.records() == sorted(fallen, key=lambda r: r.timestamp) + made[-size:]


def test_records_from_a_timestamp_on_include_it() -> None:
    rings = LogRings(size=2, tail_size=5)
    for n in range(5):
        rings.add(record(n, "ERROR"))
    assert stamps(rings.records(2.0)) == [2, 3, 4]
    assert rings.records(99) == []


def test_warnings_that_fall_out_unshared_are_shared_first_all_the_same() -> None:
    rings = LogRings(size=3, tail_size=2)
    for n, level in enumerate(["ERROR", "INFO", "WARN", "FATAL", *["INFO"] * 5]):
        rings.add(record(n, level))
    # 0 had to make room for 3; 1, 4 and 5 were talk.
    assert rings.dropped_unshared == 4
    taken = rings.take_unshared(4)
    assert stamps(taken) == [2, 3, 6, 7]
    rings.add(record(9))
    rings.put_back_unshared(taken)
    assert stamps(rings.take_unshared(10)) == [2, 3, 7, 8, 9]
    assert rings.dropped_unshared == 5


def test_unshared_records_are_taken_oldest_first_and_only_once() -> None:
    rings = LogRings(size=10)
    for n in range(5):
        rings.add(record(n))
    assert stamps(rings.take_unshared(3)) == [0, 1, 2]
    assert stamps(rings.take_unshared(3)) == [3, 4]
    assert rings.take_unshared(3) == []
    assert len(rings.records()) == 5


def test_records_put_back_come_before_those_made_since() -> None:
    rings = LogRings(size=10)
    for n in range(3):
        rings.add(record(n))
    taken = rings.take_unshared(2)
    rings.add(record(3))
    rings.put_back_unshared(taken)
    assert stamps(rings.take_unshared(10)) == [0, 1, 2, 3]
    assert rings.dropped_unshared == 0


def test_records_that_no_longer_fit_are_dropped_oldest_first_and_counted() -> None:
    rings = LogRings(size=3)
    for n in range(3):
        rings.add(record(n))
    taken = rings.take_unshared(3)
    rings.add(record(3))
    rings.add(record(4))
    rings.put_back_unshared(taken)
    assert rings.dropped_unshared == 2
    assert stamps(rings.take_unshared(10)) == [2, 3, 4]
    for n in range(4):
        rings.add(record(n))
    assert rings.dropped_unshared == 3
    rings.put_back_unshared([record(9)])
    assert rings.dropped_unshared == 4
    assert stamps(rings.take_unshared(10)) == [1, 2, 3]


def test_the_records_of_several_members_become_one_time_line() -> None:
    one, two = [record(1), record(4)], [record(2), record(3)]
    assert stamps(list(merged(one, two))) == [1, 2, 3, 4]


def test_a_record_shows_only_what_it_has_in_the_protocols_order() -> None:
    assert list(record(1).as_json()) == ["timestamp", "level", "message"]
    full = LogRecord(1.5, "ERROR", "m", "m: frame", "1111aaaa", "proxy01")
    assert list(full.as_json()) == ["timestamp", "level", "message", "backtrace", "request_id", "member"]


def test_a_record_without_words_gets_them_when_it_is_read_or_shared() -> None:
    rings = LogRings(3, 2)
    rings.add_unworded(1.0, "ERROR", "Finished %s with %d", ("GET", 500), "abcd1234")
    assert rings.records() == [LogRecord(1.0, "ERROR", "Finished GET with 500", None, "abcd1234")]
    assert rings.take_unshared(5) == rings.records()
    for n in range(3):
        rings.add_unworded(2.0 + n, "INFO", "record %d", (n,), None)
    assert [r.message for r in rings.records()] == ["Finished GET with 500", "record 0", "record 1", "record 2"]


def test_warnings_outlive_much_talk_and_push_no_error_out() -> None:
    rings = LogRings(size=4, tail_size=3)
    rings.add(record(0.0, "ERROR"))
    for n in range(1, 6):
        rings.add(record(float(n), "WARN"))
    for n in range(6, 30):
        rings.add(record(float(n), "INFO"))
    assert [(r.timestamp, r.level) for r in rings.records()] == [
        (0.0, "ERROR"), (3.0, "WARN"), (4.0, "WARN"), (5.0, "WARN"),
        (26.0, "INFO"), (27.0, "INFO"), (28.0, "INFO"), (29.0, "INFO"),
    ]  # fmt: skip
