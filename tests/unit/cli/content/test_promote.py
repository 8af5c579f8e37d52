"""``muster content promote``: one unit, tried dry, said when it is against the order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from muster.content.mirror.ledger import Ledger
from muster.kernel.errors import NotFound, Rejected
from tests.unit.cli.calls import run, wrong_usage
from tests.unit.cli.content.mirroring import M2, answered, deb, in_store, mirroring, narrow, promoted, publish, yum

ONE, TWO = yum(), yum(M2)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = mirroring(tmp_path)
    publish(made, ONE, TWO, deb())
    return made


def has(file: Path, environment: str) -> dict[str, str]:
    given = in_store(file, lambda store: Ledger(store).given())
    return {d.repository: d.publication for d in given.values() if d.environment == environment}


def lines(file: Path) -> list[Any]:
    return in_store(file, lambda store: Ledger(store).history("test"))


def test_several_are_promoted_and_a_dry_run_says_the_same_and_changes_nothing(file: Path) -> None:
    command = ("content", "promote", "rocky", "debian", "rocky", "--from", "library", "--to", "test")
    dry = run(file, *command, "--dry-run")
    assert dry.stdout.splitlines() == [
        f"rocky: test would have {TWO.digest[:12]}, and had nothing before.",
        f"debian: test would have {deb().digest[:12]}, and had nothing before.",
    ]
    assert has(file, "test") == {}
    done = run(file, *command)
    assert done.stdout == dry.stdout.replace("would have", "has")
    assert (done.stderr, narrow(done.stdout)) == ("", True)
    assert has(file, "test") == {"rocky": TWO.digest, "debian": deb().digest}
    assert "@" in lines(file)[0].by


def test_what_an_environment_has_already_is_said_and_left(file: Path) -> None:
    promoted(file, TWO, "test")
    again = run(file, "content", "promote", "rocky", "--from", "library", "--to", "test")
    assert again.stdout == f"rocky: test has {TWO.digest[:12]} already; nothing was changed.\n"
    assert len(lines(file)) == 1


def test_one_goes_back_to_a_publication_by_the_beginning_of_its_digest(file: Path) -> None:
    promoted(file, TWO, "test")
    said = answered(file, "promote", "rocky", "--publication", ONE.digest[:8], "--to", "test")
    (one,) = said["repositories"]
    assert (one["publication"], one["previous"], one["is_changed"]) == (ONE.digest, TWO.digest, True)
    assert said["note"] == "library, which comes before test, does not have this of rocky."
    assert has(file, "test") == {"rocky": ONE.digest}
    with pytest.raises(NotFound, match="rocky has no publication 00000000"):
        run(file, "content", "promote", "rocky", "--publication", "00000000", "--to", "test")
    with pytest.raises(Rejected, match="8 to 64 digits"):
        run(file, "content", "promote", "rocky", "--publication", "../x", "--to", "test")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "library", "--to", "test"), ""),
        (("--from", "library", "--to", "prod"), "test between library and prod is left out.\n"),
        (("--from", "prod", "--to", "test"), "prod comes after test: this goes against the order of environments.\n"),
        (("--publication", TWO.digest, "--to", "test"), ""),
        (
            ("--publication", TWO.digest, "--to", "prod"),
            "test, which comes before prod, does not have this of rocky.\n",
        ),
        (
            ("--publication", ONE.digest, "--to", "library"),
            "library is the first environment: the next sync may bring it what the origin has.\n",
        ),
    ],
)
def test_what_is_against_the_order_is_done_and_said(file: Path, arguments: tuple[str, ...], said: str) -> None:
    promoted(file, ONE, "prod")
    done = run(file, "content", "promote", "rocky", *arguments)
    assert done.stderr == said
    assert done.stdout.startswith(f"rocky: {arguments[-1]} has ")


def test_when_one_cannot_be_none_is(file: Path) -> None:
    promoted(file, ONE, "test")
    remedy = "muster content promote debian --from library --to test gives it what library has"
    with pytest.raises(NotFound, match=rf"test has nothing of debian; nothing was changed\. {remedy}$"):
        run(file, "content", "promote", "rocky", "debian", "--from", "test", "--to", "prod")
    assert has(file, "prod") == {}


def test_what_says_nothing_or_two_things_is_wrong_usage(file: Path) -> None:
    at = ("content", "promote", "--cluster", str(file), "--to", "test")
    assert wrong_usage(*at, "rocky")
    assert wrong_usage(*at, "rocky", "--from", "library", "--publication", ONE.digest)
    assert wrong_usage(*at, "rocky", "debian", "--publication", ONE.digest)
    assert wrong_usage(*at, "rocky", "--from", "test")
    assert wrong_usage(*at, "--from", "library")


def test_what_no_environment_has_is_to_be_fetched(tmp_path: Path) -> None:
    for source in ("library", "test"):
        with pytest.raises(NotFound, match=f"^{source} has nothing of .* sync debian fetches it for library$"):
            run(mirroring(tmp_path), "content", "promote", "debian", "--from", source, "--to", "prod")
