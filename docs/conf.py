"""The documents as a site: ``make docs`` builds it into build/site, and fails at a link that leads nowhere.

The sources are all Markdown of the repository, where it lies: rooms' own READMEs are pages, too.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "src"))

from muster.version import VERSION  # noqa: E402 - where it is found is said above

project = "Muster"
author = "Muster's authors"
release = VERSION
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/**.md",
    "packaging/**.md",
    "src/**/README.md",
    "tests/README.md",
    "tests/**/README.md",
    "bench/README.md",
    "findings/README.md",
]
exclude_patterns = ["build", "dist", ".*", "**/.*"]
myst_enable_extensions = ["colon_fence"]
# As GitHub names them, so that a link to a heading is good in both.
myst_heading_anchors = 4
# Blocks of output and of files have no language, or one that no lexer has.
suppress_warnings = ["misc.highlighting_failure", "myst.header"]
html_theme = "furo"
html_title = f"Muster {VERSION}"
# Nothing is loaded from elsewhere, and nobody is told who reads.
html_theme_options = {"footer_icons": []}
html_copy_source = False
html_show_sourcelink = False
linkcheck_ignore = [r"https?://[^/]*(example|localhost|127\\.0\\.0)"]
