"""What the packages' scripts do beside dpkg and rpm; tests/contract/test_packages.py installs both."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

PACKAGING = Path(__file__).parents[3] / "packaging"
UNITS = ["muster-member.service", "muster-balancer.service", "muster-ca-signer.service"]


def scriptlet(name: str) -> str:
    """Return one of the rpm's."""
    spec = (PACKAGING / "rpm" / "muster.spec.in").read_text()
    found = re.search(rf"^%{name}\n(.*?)(?=^%[a-z])", spec, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


SCRIPTS = {
    "postinst": ((PACKAGING / "deb" / "postinst.in").read_text(), "configure"),
    "prerm": ((PACKAGING / "deb" / "prerm").read_text(), "remove"),
    "post": (scriptlet("post"), "1"),
    "preun": (scriptlet("preun"), "0"),
}


def ran(name: str, root: Path) -> tuple[str, list[str]]:
    """Run a script on a host that is a directory; return what it said and what it asked systemctl for."""
    text, argument = SCRIPTS[name]
    for mark in ("ACCOUNTS", "EARLIER"):
        text = text.replace(f"@{mark}@\n", (PACKAGING / "common" / f"{mark.lower()}.sh").read_text())
    text = re.sub(r"(?<=[ \"(=])/(run|etc|usr/local|opt|var)/", rf"{root}/\1/", text)
    bin_ = root / "bin"
    for program in ("systemctl", "useradd", "groupadd", "getent"):
        bin_.mkdir(parents=True, exist_ok=True)
        (bin_ / program).write_text(f'#!/bin/sh\necho "{program} $*" >>{root}/asked\n')
        (bin_ / program).chmod(0o755)
    (bin_ / "install").write_text('#!/bin/sh\nfor last; do :; done\nmkdir "$last"\n')
    (bin_ / "install").chmod(0o755)
    (root / "asked").write_text("")
    done = subprocess.run(
        ["/bin/sh", "-c", text, "script", argument],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{bin_}:/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    asked = [a for a in (root / "asked").read_text().splitlines() if a.startswith("systemctl")]
    return done.stdout + done.stderr, asked


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for made in ("run/systemd/system", "etc/systemd/system", "usr/local/bin"):
        (tmp_path / made).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("name", ["prerm", "preun"])
def test_units_of_an_installation_by_hand_are_not_stopped_with_the_package(name: str, root: Path) -> None:
    _, asked = ran(name, root)
    assert [a for u in UNITS for a in asked if u in a and "disable --now" in a]
    (root / "etc/systemd/system/muster-member.service").write_text("[Service]\n")
    _, asked = ran(name, root)
    assert not [a for a in asked if "muster-member.service" in a]
    assert [a for a in asked if "muster-balancer.service" in a]


@pytest.mark.parametrize("name", ["postinst", "post"])
def test_what_hides_the_package_is_said(name: str, root: Path) -> None:
    (root / "etc/muster").mkdir()
    said, _ = ran(name, root)
    assert said == ""
    (root / "etc/systemd/system/muster-member.service").write_text("[Service]\n")
    (root / "usr/local/bin/muster").symlink_to("/opt/muster/bin/muster")
    said, asked = ran(name, root)
    assert "etc/systemd/system/muster-member.service goes before the package's" in said
    assert "usr/local/bin/muster goes before the package's" in said
    assert "muster-balancer" not in said
    assert asked == ["systemctl daemon-reload"]


def test_a_directory_of_settings_that_is_a_link_stays_one(root: Path) -> None:
    elsewhere = root / "srv"
    (root / "etc/muster").symlink_to(elsewhere)
    # Also while what it leads to is not mounted.
    ran("postinst", root)
    assert (root / "etc/muster").is_symlink()
    assert not elsewhere.exists()
    elsewhere.mkdir()
    ran("postinst", root)
    assert (root / "etc/muster").is_symlink()


def test_every_mark_of_the_scripts_is_filled_in() -> None:
    written = (PACKAGING.parent / "scripts" / "packaged").read_text()
    for file in ("deb/postinst.in", "rpm/muster.spec.in"):
        for mark in re.findall(r"^@([A-Z]+)@$", (PACKAGING / file).read_text(), re.MULTILINE):
            assert f"/^@{mark}@$/" in written or f"/^@{mark}@\\$/" in written
    # rpm would take them for its own.
    assert "%" not in (PACKAGING / "common" / "earlier.sh").read_text()
