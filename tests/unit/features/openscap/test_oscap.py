from __future__ import annotations

from pathlib import Path

import pytest

from muster.features.openscap import oscap
from muster.features.openscap.oscap import Oscap, Unreadable
from muster.kernel.errors import Rejected, Unsupported

pytestmark = pytest.mark.anyio


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for the programs; nothing else is on the path."""
    at = tmp_path / "bin"
    at.mkdir()
    monkeypatch.setenv("PATH", str(at))
    return at


def program(at: Path, name: str, script: str) -> None:
    (at / name).write_text(f"#!/bin/sh\n{script}\n")
    (at / name).chmod(0o755)


async def test_without_the_program_no_page_is_made_and_it_is_said_what_is_missing(programs: Path) -> None:
    with pytest.raises(Unsupported, match=r"oscap is not installed on this member.*openscap-scanner"):
        await Oscap().report(Path("a"), Path("b"))
    program(programs, "oscap", "")
    assert oscap.lack() == "prlimit is not installed on this member; it is in the package util-linux"


async def test_the_program_is_run_within_bounds_and_what_it_says_is_passed_on(programs: Path) -> None:
    program(programs, "oscap", "")
    program(programs, "prlimit", f'echo "$@" > {programs}/said; echo "bad  input" >&2; exit 1')
    with pytest.raises(Unreadable, match=r"oscap made no guide of it: bad input$"):
        await Oscap(timeout_s=7).guide(Path("/c.xml"), "a_profile", Path("/p.html"))
    words = (programs / "said").read_text().split()
    assert words[:2] == ["--core=0", f"--as={4 << 30}"]
    assert words[2:] == [
        f"--fsize={64 << 20}", "--cpu=7", "oscap", "xccdf", "generate", "guide", "--profile", "a_profile", "--output",
        "/p.html", "/c.xml",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "-x", "--output", "a b", "a\n", "a;b", "../a", "a" * 513, "é"])
def test_what_is_no_profile_is_no_argument(text: str) -> None:
    with pytest.raises(Rejected, match="is no id of a profile"):
        oscap.profile(text)
    assert (
        oscap.profile("xccdf_org.ssgproject.content_profile_pci-dss") == "xccdf_org.ssgproject.content_profile_pci-dss"
    )
