from __future__ import annotations

from tests.histories.addresses import Addresses
from tests.histories.history import Call
from tests.histories.judge import judged


def call(number: int, operation: str, begun: float, ended: float) -> Call:
    return Call(number, f"client {number}", operation, "192.0.2.7", None, begun, ended, "ok")


def test_one_address_given_to_two_is_found_out() -> None:
    (found,) = judged(Addresses(), [call(1, "offer", 0, 1), call(2, "offer", 0.5, 2)])
    assert (found.key, found.fault, [c.number for c in found.calls]) == ("192.0.2.7", "given twice", [1, 2])


def test_an_address_whose_reservation_went_may_be_given_again() -> None:
    assert judged(Addresses(), [call(1, "offer", 0, 1), call(2, "release", 1.5, 3), call(3, "offer", 2, 4)]) == []
    assert judged(Addresses(), [call(1, "offer", 0, 1), call(2, "release", 5, 6), call(3, "offer", 2, 4)])
