"""The documents as a site: no link leads nowhere, no page is left out, and nothing is loaded from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LOADED = re.compile(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(https?://[^"]*)"')


def test_every_page_is_in_the_site_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-n",
        "-W",
        "--keep-going",
        "-c",
        "docs",
        ".",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {p.relative_to(tmp_path / "site").with_suffix("") for p in (tmp_path / "site").rglob("*.html")}
    written = {p.relative_to(ROOT).with_suffix("") for p in (ROOT / "docs").rglob("*.md")}
    assert written <= pages
    loaded = {url for p in (tmp_path / "site").rglob("*.html") for url in _LOADED.findall(p.read_text("utf-8"))}
    assert loaded == set()
