"""What the commands of mirrored repositories refuse alike, and their words."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.cli.content.mirrored import counted
from muster.kernel.errors import Misconfigured, NotFound
from tests.unit.cli.calls import run
from tests.unit.cli.content.mirroring import mirroring

COMMANDS = (
    ("sync", "rocky"), ("publications",), ("promote", "rocky", "--from", "library", "--to", "test"), ("counts",), ("jobs",),
    ("jobs", "--promotions"), ("cancel", "1"), ("verify",), ("reclaim",),
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("text", ["", "content: {}\n"])
def test_without_the_section_each_command_says_so(command: tuple[str, ...], text: str, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"cluster\.yaml has no section content\.mirror: members mirror no"):
        run(mirroring(tmp_path, text), "content", *command)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("sync", "rocki"), r"no repository rocki .*; rocky it names$"),
        (("sync", "xyzzy"), r"no repository xyzzy \(content\.mirror\.repositories\); it names rocky, debian$"),
        (("sync", "rocky\x1b[2J"), r"no repository rocky\\x1b\[2J"),
        (("publications", "debain"), r"debian it names$"),
        (("promote", "rocki", "--from", "library", "--to", "test"), r"rocky it names$"),
        (("promote", "rocky", "--from", "libary", "--to", "test"), r"no environment libary .*; library it names$"),
        (("promote", "rocky", "--from", "library", "--to", "tset"), r"no environment tset .*; test it names$"),
        (("verify", "--member", "proxy1.test"), r"no member of kind muster proxy1\.test .*; proxy01\.test it names$"),
    ],
)
def test_what_the_cluster_file_does_not_name_is_refused_with_what_is_near(
    command: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match=said):
        run(mirroring(tmp_path), "content", *command)


def test_what_is_counted_is_one_or_several() -> None:
    assert (counted(1, "package"), counted(2, "package")) == ("1 package", "2 packages")
