"""Histories that can be and that cannot, judged; each kind of fault is named with the calls that contradict each other."""

from __future__ import annotations

import itertools
import random
from collections.abc import Hashable
from math import inf

import pytest

from tests.histories import judge
from tests.histories.certificates import NONE, Certificates, shared_serials
from tests.histories.history import Call, Outcome
from tests.histories.judge import TooManyOrders, is_possible, judged

NAME = "a.test"
MODEL = Certificates()
_numbers = itertools.count(1)


def call(
    begun: float,
    ended: float,
    operation: str,
    given: Hashable = None,
    answer: Hashable = None,
    *,
    outcome: Outcome = "ok",
    key: str = NAME,
) -> Call:
    return Call(next(_numbers), "client", operation, key, given, begun, ended, outcome, answer)


def refused(begun: float, ended: float, operation: str, given: Hashable = None) -> Call:
    return call(begun, ended, operation, given, outcome="refused")


def unknown(begun: float, operation: str, given: Hashable = None) -> Call:
    return call(begun, inf, operation, given, outcome="unknown")


def submit(begun: float, ended: float, key: str = "k") -> Call:
    return call(begun, ended, "submit", (key, True))


def fetch(begun: float, ended: float, serial: int | None, key: str = "k") -> Call:
    return call(begun, ended, "fetch", None, NONE if serial is None else (serial, key))


def listed(begun: float, ended: float, on_it: bool, serial: int = 7) -> Call:
    return call(begun, ended, "listed", serial, on_it)


def revoke(begun: float, ended: float) -> Call:
    return call(begun, ended, "revoke")


def state(begun: float, ended: float, word: str) -> Call:
    return call(begun, ended, "state", None, word)


POSSIBLE = {
    "one after another": [submit(0, 1), fetch(2, 3, 7), revoke(4, 5), state(6, 7, "revoked"), listed(6, 7, True)],
    "seen before the answer": [submit(0, 5), fetch(1, 2, 7), state(3, 4, "signed")],
    "a query beside the change saw it not yet": [submit(0, 5), fetch(1, 6, None), fetch(6, 7, 7)],
    "a revocation and lists beside it, one with and one without": [
        submit(0, 1), fetch(1.5, 2, 7), revoke(3, 6), listed(4, 5, False), listed(4, 5.5, True), listed(7, 8, True),
    ],
    "one of two that asked for a name": [submit(0, 5, "k"), refused(0, 5, "submit", ("l", True)), fetch(6, 7, 7, "k")],
    "whichever of the two came first": [refused(0, 5, "submit", ("l", True)), submit(0, 5, "k"), fetch(6, 7, 7, "k")],
    "not answered, and it took place": [unknown(0, "submit", ("k", True)), fetch(5, 6, 7)],
    "not answered, and it took place late": [
        unknown(0, "submit", ("k", True)), fetch(1, 2, None), fetch(5, 6, None), fetch(9, 10, 7),
    ],
    "not answered, and it did not take place": [unknown(0, "submit", ("k", True)), fetch(5, 6, None), submit(7, 8, "l")],
    "asked, and not answered": [submit(0, 1), unknown(0, "fetch"), unknown(0, "listed", 7), fetch(2, 3, 7)],
    "not answered, asked again and refused": [
        unknown(0, "submit", ("k", True)), refused(1, 2, "submit", ("k", True)), fetch(3, 4, 7),
    ],
    "a revocation that was not answered may show or not": [
        submit(0, 1), fetch(1.5, 2, 7), unknown(3, "revoke"), listed(4, 5, False), state(6, 7, "signed"), listed(8, 9, True),
    ],
    "revoked again": [submit(0, 1), revoke(2, 3), revoke(4, 5), state(6, 7, "revoked")],
    "cleaned, free, and given to another key": [
        submit(0, 1), fetch(2, 3, 7), call(4, 5, "clean"), fetch(6, 7, None), submit(8, 9, "l"), fetch(10, 11, 8, "l"),
        listed(12, 13, True, 7), listed(12, 13, False, 8),
    ],
    "cleaned, and given again to the same key": [
        submit(0, 1), fetch(2, 3, 7), call(4, 5, "clean"), submit(8, 9), fetch(10, 11, 8), listed(12, 13, True, 7),
    ],
    "revoked again, late enough to be the next one's": [
        submit(0, 1), revoke(2, 3), revoke(4, 20), call(5, 6, "clean"), submit(7, 8, "l"), state(21, 22, "revoked"),
    ],
    "waits until it is signed": [
        call(0, 1, "submit", ("k", False)), state(2, 3, "requested"), refused(2, 3, "submit", ("l", False)),
        refused(2, 3, "revoke"), call(4, 5, "sign"), fetch(6, 7, 7), refused(8, 9, "sign"),
    ],
    "the waiting request of another key gives way": [
        call(0, 1, "submit", ("l", False)), submit(2, 3, "k"), fetch(4, 5, 7, "k"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", POSSIBLE)
def test_what_can_be_is_accepted_in_whatever_order_it_was_written_down(name: str) -> None:
    for seed in range(5):
        calls = list(POSSIBLE[name])
        random.Random(seed).shuffle(calls)
        assert judged(MODEL, calls) == []


IMPOSSIBLE = {
    "a certificate that is gone": (
        "seen and lost", [unknown(0, "submit", ("k", True)), fetch(2, 3, 7), fetch(4, 5, None)], ["fetch", "fetch"],
    ),
    "a signing that left nothing": ("acknowledged and lost", [submit(0, 1), fetch(2, 3, None)], ["submit", "fetch"]),
    "a request that is gone": (
        "acknowledged and lost", [call(0, 1, "submit", ("k", False)), state(2, 3, NONE)], ["submit", "state"],
    ),
    "two serials": (
        "given twice", [submit(0, 1), fetch(2, 3, 7), state(3, 4, "signed"), fetch(4, 5, 8)], ["fetch", "fetch"],
    ),
    "two keys": ("given twice", [submit(0, 5, "k"), submit(0, 5, "l")], ["submit", "submit"]),
    "the certificate of another's key": (
        "given twice", [submit(0, 5, "k"), unknown(0, "submit", ("l", True)), fetch(6, 7, 7, "l")], ["submit", "fetch"],
    ),
    "valid after its revocation": (
        "revoked and served", [submit(0, 1), revoke(2, 3), state(2.5, 3.5, "signed"), state(4, 5, "signed")],
        ["revoke", "state"],
    ),
    "not on the list after its revocation": (
        "revoked and served",
        [submit(0, 1), fetch(1, 1.5, 7), unknown(1.8, "revoke"), revoke(2, 3), listed(2.5, 4, False), listed(4, 5, False)],
        ["fetch", "revoke", "listed"],
    ),
    "on a list, then on none": (
        "revoked and served",
        [submit(0, 1), fetch(1, 1.5, 7), unknown(2, "revoke"), listed(3, 4, True), listed(5, 6, False)],
        ["listed", "listed"],
    ),
    "the certificate that was cleaned, given out again": (
        "revoked and served",
        [submit(0, 1), fetch(2, 3, 7), call(4, 5, "clean"), submit(6, 7), fetch(8, 9, 7)],
        ["fetch", "submit", "fetch"],
    ),
    "on no list once its name was given again": (
        "revoked and served",
        [submit(0, 1), fetch(2, 3, 7), call(4, 5, "clean"), submit(6, 7, "l"), fetch(8, 9, 8, "l"), listed(10, 11, False)],
        ["fetch", "fetch", "listed"],
    ),
    "revoked though nobody asked": (
        "changed by nobody", [submit(0, 1), fetch(2, 3, 7), state(4, 5, "revoked")], ["state"],
    ),
    "given though nobody asked": ("changed by nobody", [fetch(0, 1, 7)], ["fetch"]),
    "two requests that wait": (
        "given twice", [call(0, 1, "submit", ("k", False)), call(2, 3, "submit", ("l", False))], ["submit", "submit"],
    ),
    "a signing refused though a request waits": (
        "acknowledged and lost", [call(0, 1, "submit", ("k", False)), refused(2, 3, "sign")], ["submit", "sign"],
    ),
    "a revocation refused though there is a certificate": (
        "acknowledged and lost", [submit(0, 1), refused(2, 3, "revoke")], ["submit", "revoke"],
    ),
    "a cleaning refused though there is a certificate": (
        "acknowledged and lost", [submit(0, 1), refused(2, 3, "clean")], ["submit", "clean"],
    ),
    "refused though free": ("changed by nobody", [refused(0, 1, "submit", ("k", True))], ["submit"]),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_is_named_with_the_calls_that_contradict_each_other(name: str) -> None:
    fault, calls, core = IMPOSSIBLE[name]
    other = [submit(0, 1), fetch(2, 3, 9)]
    beside = [Call(c.number, c.client, c.operation, "b.test", c.given, c.begun, c.ended, "ok", c.answer) for c in other]
    (found,) = judged(MODEL, [*beside, *calls])
    assert (found.key, found.fault, [c.operation for c in found.calls]) == (NAME, fault, core)
    assert not is_possible(MODEL, calls)


def test_the_sentence_says_who_called_what_and_when() -> None:
    calls = [submit(0, 1), fetch(1.5, 2, 0xABC), revoke(3, 4), listed(5, 6, False, 0xABC)]
    (found,) = judged(MODEL, calls)
    numbers = [c.number for c in found.calls]
    assert str(found) == (
        f"a.test was revoked and served: no order explains #{numbers[0]} fetch by client from 1.500 to 2.000 s: "
        f"acknowledged, ABC k; and #{numbers[1]} revoke by client from 3.000 to 4.000 s: acknowledged; and "
        f"#{numbers[2]} listed ABC by client from 5.000 to 6.000 s: acknowledged, False"
    )


def test_a_list_may_be_as_old_as_it_is_said_to_be_and_no_older() -> None:
    calls = [submit(0, 1), fetch(1, 1.5, 7), revoke(2, 3), listed(5, 6, False)]
    assert judged(Certificates(list_lag_s=2.5), calls) == []
    assert [f.fault for f in judged(Certificates(list_lag_s=1.5), calls)] == ["revoked and served"]


def test_a_serial_of_two_names_is_found() -> None:
    calls = [call(0, 1, "fetch", None, (7, "k"), key=name) for name in ("a.test", "b.test")]
    assert shared_serials([*calls, call(0, 1, "fetch", None, (8, "k"))])[0].fault == "given to a.test and b.test"
    assert shared_serials(calls[:1]) == []


def test_a_long_history_is_judged_in_as_many_steps_as_it_has_calls() -> None:
    calls = [
        submit(0, 1),
        fetch(1, 1.5, 7),
        *(state(n, n + 1.5, "signed") for n in range(2, 3000)),
        unknown(2, "revoke"),
    ]
    assert judged(MODEL, calls) == []


def test_many_that_look_at_once_are_few_orders() -> None:
    calls = [submit(0, 1), fetch(2, 3, 7), *(state(4, 50 + n, "signed") for n in range(60)), revoke(4, 60)]
    assert judged(MODEL, calls) == []
    assert judged(MODEL, [*calls, state(200, 201, "signed")])


def test_many_that_change_the_same_at_once_are_few_orders() -> None:
    calls = [submit(0, 1), fetch(2, 3, 7), *(revoke(4, 50 + n) for n in range(10)), state(100, 101, "revoked")]
    assert judged(MODEL, calls) == []
    (found,) = judged(MODEL, [*calls, state(200, 201, "signed")])
    assert found.fault == "revoked and served"


def test_many_alike_calls_that_were_not_answered_are_few_orders() -> None:
    calls = [submit(0, 1), fetch(2, 3, 7), *(unknown(4 + n, "revoke") for n in range(60)), state(70, 71, "revoked")]
    assert judged(MODEL, calls) == []
    (found,) = judged(MODEL, [*calls, state(72, 73, "signed")])
    assert found.fault == "revoked and served"


def test_a_history_with_too_many_orders_is_not_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "MOST", 50)
    changes = [c for n in range(6) for c in (unknown(0, "submit", (f"k{n}", True)), unknown(0, "clean"))]
    calls = [*changes, fetch(2, 3, 7, "no such key")]
    with pytest.raises(TooManyOrders, match="too many possible orders"):
        judged(MODEL, calls)


def test_what_was_done_one_after_another_is_possible_however_the_calls_overlapped() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        calls, revoked = [submit(-1, 0.5), fetch(0.4, 1, 7)], ""
        for at in range(1, 14):
            # It takes place at that moment, somewhere between its begin and its end.
            begun, ended = at - chance.uniform(0, 3), at + chance.uniform(0, 3)
            if at > 4 and chance.random() < 0.2:
                is_heard = chance.random() < 0.5
                revoked = "acknowledged" if is_heard or revoked == "acknowledged" else "not answered"
                calls.append(revoke(begun, ended) if is_heard else unknown(begun, "revoke"))
            elif chance.random() < 0.5:
                calls.append(listed(begun, ended, bool(revoked)))
            else:
                calls.append(state(begun, ended, "revoked" if revoked else "signed"))
        assert judged(MODEL, calls) == [], seed
        if revoked != "not answered":
            last = max(c.ended for c in calls if c.ended < inf)
            wrong = state(last + 1, last + 2, "signed" if revoked else "revoked")
            (found,) = judged(MODEL, [*calls, wrong])
            assert found.fault == ("revoked and served" if revoked else "changed by nobody"), seed


def possible_by_trial(calls: list[Call]) -> bool:
    """Try every order of every choice of what took place."""
    sure = [c for c in calls if c.outcome != "unknown"]
    perhaps = [c for c in calls if c.outcome == "unknown"]
    for count in range(len(perhaps) + 1):
        for chosen in itertools.combinations(perhaps, count):
            for order in itertools.permutations([*sure, *chosen]):
                if any(b.ended < a.begun for a, b in itertools.combinations(order, 2)):
                    continue
                states = {MODEL.start}
                for one in order:
                    states = {after for before in states for after in MODEL.after(before, one)}
                if states:
                    return True
    return False


def drawn(chance: random.Random) -> Call:
    """Return any call at any time, with any outcome."""
    begun = chance.uniform(0, 6)
    ended = begun + chance.uniform(0, 4)
    match chance.randrange(11):
        case 0 | 1:
            return fetch(begun, ended, chance.choice((7, 7, 8, None)), chance.choice("kkl"))
        case 2:
            return listed(begun, ended, chance.random() < 0.5)
        case 3:
            return state(begun, ended, chance.choice(("signed", "revoked", NONE)))
        case 4:
            return call(begun, ended, chance.choice(("revoke", "clean")))
        case 5:
            return submit(begun, ended, chance.choice("kl"))
        case 6:
            return refused(begun, ended, "submit", ("k", True))
        case 7:
            return unknown(begun, chance.choice(("revoke", "clean")))
        case 8:
            return refused(begun, ended, chance.choice(("revoke", "clean", "sign")))
        case 9:
            waits = (chance.choice("kl"), False)
            return chance.choice(
                (call(begun, ended, "submit", waits), call(begun, ended, "sign"), unknown(begun, "sign"))
            )
    return unknown(begun, "submit", (chance.choice("kl"), True))


def test_the_judge_says_what_trying_every_order_says() -> None:
    said = []
    for seed in range(500):
        chance = random.Random(seed)
        calls = [submit(0, 1)] if chance.random() < 0.8 else []
        calls += [drawn(chance) for _ in range(6 - len(calls))]
        expected = possible_by_trial(calls)
        assert is_possible(MODEL, calls) is expected, [str(c) for c in calls]
        said.append(expected)
    assert 40 < sum(said) < 460, "both kinds were tried"
