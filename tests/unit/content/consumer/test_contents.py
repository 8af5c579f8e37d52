from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from muster.cluster.file import ClusterFile
from muster.content.consumer.contents import CA, PROGRAM, TOLD, Contents, contents
from muster.kernel.process import clean_environment
from muster.kernel.settings import parse
from tests.unit.balancer.test_model import HEAD


def made(more: str = "", **changed: bytes) -> Contents:
    said = {"program": b"#!\n", "told": b"{}\n", "ca": b"ca\n", **changed}
    return contents(parse(HEAD + more).parsed(ClusterFile), **said)


def test_it_has_the_name_that_hosts_look_for_and_takes_the_place_of_what_members_had_made() -> None:
    it, cluster = made(), parse(HEAD).parsed(ClusterFile)
    assert it.name == f"katello-ca-consumer-{cluster.address}"
    assert set(it.replaces) == {f"katello-ca-consumer-{m.name}".lower() for m in cluster.members}
    assert it.name not in it.replaces
    assert {f.path: (f.text, f.mode) for f in it.files} == {
        CA: ("ca\n", 0o644), PROGRAM: ("#!\n", 0o755), TOLD: ("{}\n", 0o644),
    }  # fmt: skip


def test_whatever_is_otherwise_makes_another_digest() -> None:
    others = [made(), made(program=b"#\n"), made(told=b"{ }\n"), made(ca=b"c\n"), made("aliases: [also.example.com]\n")]
    others += [replace(made(), installed=""), replace(made(), removed="")]
    assert len({one.digest for one in others}) == len(others)
    assert made().digest == made().digest


@pytest.mark.parametrize("script", [made().installed, made().removed])
def test_a_script_never_fails_and_says_what_is_missing(script: str, tmp_path: Path) -> None:
    def said(path: Path) -> str:
        script_of_host = script.replace("/usr/libexec/platform-python", str(tmp_path / "none")).replace(
            PROGRAM, str(tmp_path / "program")
        )
        done = subprocess.run(
            ["/bin/sh", "-eu", "-c", script_of_host], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            env=clean_environment({"PATH": str(path)}),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "there is no Python 3" in said(tmp_path / "empty")
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\nexit 2\n")
    python.chmod(0o755)
    assert "not all was" in said(python.parent)
    python.write_text("#!/bin/sh\nexit 0\n")
    assert said(python.parent) == ""
