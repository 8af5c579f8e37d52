"""``muster content publications``: newest first, with who has which."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.cli.content.publications import shown
from muster.kernel.errors import Unavailable
from tests.unit.cli.calls import run
from tests.unit.cli.content.mirroring import M2, answered, mirroring, narrow, promoted, publish, yum
from tests.unit.cli.terminal import CLEAN, EVIL, printed

ONE, TWO = yum(), yum(M2, of=yum().digest)


def test_of_each_repository_the_newest_is_first_and_who_has_it_is_said(tmp_path: Path) -> None:
    file = mirroring(tmp_path)
    publish(file, ONE, TWO)
    promoted(file, ONE, "prod")
    promoted(file, TWO, "test")
    lines = run(file, "content", "publications").stdout.splitlines()
    assert lines == [
        "rocky",
        f"    {TWO.digest[:12]}  made 0 s ago, 1234 packages, 5.0 GiB, content of {ONE.digest[:12]}",
        "        library, test",
        f"    {ONE.digest[:12]}  made 0 s ago, 1234 packages, 5.0 GiB",
        "        prod",
        "debian: nothing is published yet",
    ]
    assert narrow("\n".join(lines))
    assert run(file, "content", "publications", "debian").stdout == "debian: nothing is published yet\n"
    said = answered(file, "publications", "rocky")["repositories"]
    assert list(said) == ["rocky"]
    assert [(p["digest"], p["environments"], p["parts"]) for p in said["rocky"]] == [
        (TWO.digest, ["library", "test"], {"": M2}), (ONE.digest, ["prod"], ONE.parts),
    ]  # fmt: skip


def test_without_any_store_none_is_made(tmp_path: Path) -> None:
    file = mirroring(tmp_path, "content: {mirror: {}}\n")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Unavailable, match="has no schema yet"):
        run(file, "content", "publications")
    assert sorted(tmp_path.iterdir()) == before


def test_what_somebody_left_in_the_store_is_shown_and_not_obeyed() -> None:
    of = {"digest": EVIL, "age_s": 1.0, "packages": 1, "size_bytes": 1, "of": EVIL, "environments": [EVIL]}
    said = printed(shown({"repositories": {EVIL: [of]}}))
    assert CLEAN in said
    assert said.replace("\n", "").isprintable()
