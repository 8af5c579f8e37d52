from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from muster.kernel.errors import Conflict
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, paths
from muster.pki.rotation import (
    SETTLE,
    Begin,
    Finish,
    Held,
    Issuer,
    MakeCA,
    Note,
    Promote,
    Reissue,
    Trust,
    View,
    decided,
    expiring,
    next_step,
    successor_name,
)

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def cas(tmp_path_factory: pytest.TempPathFactory) -> tuple[x509.Certificate, x509.Certificate, x509.Certificate]:
    made = [ClusterCA.create(tmp_path_factory.mktemp("ca"), n, now=NOW) for n in ("old", "new", "added by hand")]
    return made[0].certificate, made[1].certificate, made[2].certificate


def held(name: str, trusts: Iterable[x509.Certificate], issuer: Issuer = "old", days: float | None = 100) -> Held:
    request = BundleRequest("member", name, ("proxy.example.com",))
    end = None if days is None else NOW + timedelta(days=days)
    return Held(paths(Path("/pki"), "member", name), issuer, tuple(trusts), end, request)


def before(old: x509.Certificate, *bundles: Held) -> View:
    """A CA nobody replaces yet."""
    return View(NOW, Path("/pki/ca.pem"), False, (old,), (), (old,), "old", bundles, {})


def test_first_both_are_trusted_and_nothing_is_issued(cas: tuple[x509.Certificate, ...]) -> None:
    old, _, _ = cas
    view = before(old, held("a.example.com", [old]), held("b.example.com", [old]))
    commands = decided(view).commands
    assert [type(c) for c in commands] == [Begin, MakeCA, Trust, Trust, Trust, Note]
    assert [c.file for c in commands if isinstance(c, Trust)] == [view.ca_file, *(b.at.ca for b in view.bundles)]


def test_an_interrupted_first_step_makes_no_second_ca_and_writes_only_what_is_left(
    cas: tuple[x509.Certificate, ...],
) -> None:
    old, new, _ = cas
    bundles = (held("a.example.com", [old, new]), held("b.example.com", [old]))
    view = replace(before(old, *bundles), begun=True, new=(new,), top=(old, new))
    assert decided(view).commands == (Trust("member b.example.com", bundles[1].at.ca, (old, new)), Note("trust-both"))


def test_of_1_the_new_ca_issues_only_after_the_first_step(cas: tuple[x509.Certificate, ...]) -> None:
    view = before(cas[0], held("a.example.com", [cas[0]]))
    for step in ("reissue", "drop-old"):
        with pytest.raises(Conflict, match="begin with step trust-both"):
            decided(view, step)
    old, new, _ = cas
    late = held("late.example.com", [old])
    view = replace(before(old, late), begun=True, new=(new,), top=(old, new), done={"trust-both": NOW})
    kinds = [type(c) for c in decided(view).commands]
    assert kinds.index(Trust) < kinds.index(Promote) < kinds.index(Reissue)


def test_of_2_the_old_ca_stays_while_it_is_needed(cas: tuple[x509.Certificate, ...]) -> None:
    old, new, _ = cas
    bundles = (held("a.example.com", [old, new], "new"), held("b.example.com", [old, new], "old"))
    view = replace(
        before(old, *bundles), begun=True, new=(new,), top=(new, old), signing="new",
        done={"trust-both": NOW, "reissue": NOW},
    )  # fmt: skip
    with pytest.raises(Conflict, match=r"the old CA issued member b\.example\.com; do step reissue first"):
        decided(view, "drop-old")
    assert next_step(view) == "reissue"
    assert decided(view).commands == (Reissue(bundles[1]), Note("reissue"))


def test_a_certificate_of_somebody_else_is_left_alone_and_one_that_cannot_be_read_is_mended(
    cas: tuple[x509.Certificate, ...],
) -> None:
    old, new, _ = cas
    bundles = (held("a.example.com", [old, new], "other"), held("b.example.com", [old, new], "unreadable", None))
    view = replace(before(old, *bundles), begun=True, new=(new,), top=(old, new), done={"trust-both": NOW})
    assert [c.held for c in decided(view).commands if isinstance(c, Reissue)] == [bundles[1]]
    assert expiring(bundles, NOW, timedelta(days=30)) == [bundles[1]]


def test_of_4_what_was_added_by_hand_stays_to_the_end(cas: tuple[x509.Certificate, ...]) -> None:
    old, new, added = cas
    bundles = (held("a.example.com", [new, old, added], "new"),)
    view = replace(
        before(old, *bundles), begun=True, new=(new,), top=(new, old), signing="new",
        done={"trust-both": NOW, "reissue": NOW},
    )  # fmt: skip
    assert decided(view).commands == (
        Trust("", view.ca_file, (new,)),
        Trust("member a.example.com", bundles[0].at.ca, (new, added)),
        Finish(),
    )


def test_a_step_waits_until_the_one_before_is_taken_up_and_never_longer(cas: tuple[x509.Certificate, ...]) -> None:
    old, new, _ = cas
    view = replace(before(old), begun=True, new=(new,), top=(old, new))

    def wait(done_ago: timedelta) -> timedelta:
        return decided(replace(view, done={"trust-both": NOW - done_ago})).wait

    assert decided(view).wait == timedelta()
    assert wait(timedelta()) == SETTLE
    assert wait(SETTLE / 2) == SETTLE / 2
    assert wait(SETTLE) == wait(timedelta(days=1)) == timedelta()
    assert wait(-timedelta(days=1)) == SETTLE


def test_a_lost_record_of_steps_is_found_out_again(cas: tuple[x509.Certificate, ...]) -> None:
    old, new, _ = cas
    bundles = (held("a.example.com", [new, old], "new"),)
    view = replace(before(old, *bundles), begun=True, new=(new,), top=(new, old), signing="new")
    assert decided(view).commands == (Note("trust-both"),)
    view = replace(view, done={"trust-both": NOW})
    assert decided(view).commands == (Note("reissue"),)


@pytest.mark.parametrize(
    ("days", "within", "chosen"),
    [(29.0, 30, True), (30.0, 30, True), (31.0, 30, False), (-1.0, 30, True), (31.0, None, True)],
)
def test_what_ends_within_the_time_is_chosen(days: float, within: int | None, chosen: bool) -> None:
    one = held("a.example.com", (), days=days)
    limit = None if within is None else timedelta(days=within)
    assert expiring([one], NOW, limit) == ([one] if chosen else [])


def test_a_successor_is_told_apart_by_its_name(tmp_path: Path) -> None:
    def after(name: str) -> str:
        return successor_name(ClusterCA.create(tmp_path, "demo", now=NOW, common_name=name, overwrite=True).certificate)

    assert after("Muster cluster CA") == "Muster cluster CA 2"
    assert after("Muster cluster CA 9") == "Muster cluster CA 10"
    assert after("Site CA") == "Muster cluster CA"
