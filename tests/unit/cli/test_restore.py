from __future__ import annotations

import json
from pathlib import Path

import pytest

from muster.kernel.errors import Conflict
from tests.unit.cli.calls import run, wrong_usage
from tests.unit.cli.test_backup import TO, file

__all__ = ["file"]


@pytest.fixture
def backup(file: Path) -> Path:
    at = file.parent / "it.age"
    run(file, "backup", *TO, "--output", str(at))
    return at


def arguments(at: Path) -> list[str]:
    return [str(at), "--identity", str(at.parent / "identity")]


def test_a_backup_is_shown_without_a_store_and_without_a_cluster(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "store.db").unlink()
    said = run(tmp_path / "absent.yaml", "restore", *arguments(backup), "--inspect").output
    assert f"{backup} is whole: cluster demo at" in said
    assert "Not in it:" in said
    found = json.loads(run(tmp_path / "absent.yaml", "restore", *arguments(backup), "--inspect", "--json").output)
    assert (found["whole"], found["cluster"], found["rows"]["wishes"]) == (True, "demo", 0)
    assert not (tmp_path / "store.db").exists()


def test_what_would_be_done_is_said_and_then_done(backup: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    more = [*arguments(backup), "--store-url", f"sqlite:///{new}/store.db"]
    said = run(new / "cluster.yaml", "restore", *more, "--dry-run").output
    assert f"0644 {new}/cluster.yaml: write" in said
    assert f"sqlite {new}/store.db would get 0 rows" in said
    assert list(new.iterdir()) == []
    said = run(new / "cluster.yaml", "restore", *more).output
    assert "Restored cluster demo as it was at" in said
    assert f"0644 {new}/cluster.yaml: written" in said
    assert "Drains and maintenance are as they were then" in said
    assert (
        f"sqlite {new}/store.db holds all rows of this backup already"
        in run(new / "cluster.yaml", "restore", *more).output
    )
    found = json.loads(run(new / "cluster.yaml", "restore", *more, "--json").output)
    assert (found["store_is_done"], [f["state"] for f in found["files"]]) == (True, ["same"])


def test_the_store_that_the_backup_was_made_of_is_in_the_way(backup: Path, file: Path) -> None:
    run(file, "drain", "proxy01.test", "--force", "--wait", "0")
    with pytest.raises(Conflict, match=r"holds something already \(wishes 1\)"):
        run(file, "restore", *arguments(backup))


def test_a_password_of_the_store_never_stands_in_a_command(backup: Path) -> None:
    assert wrong_usage("restore", *arguments(backup), "--store-url", "postgresql://a:secret@db/m")
    assert wrong_usage("restore", *arguments(backup), "--store-password-file", str(backup))
    assert wrong_usage("restore", str(backup))
