"""Every citation opens: pages and sections of ``docs/facts``, files named by path, relative links and their anchors.

A section sign stands behind the page it counts in, or in a file that says once which page that is; behind another standard's
name it is that standard's. Nothing points to a place outside this repository.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FACTS = "docs/facts/"

_SEARCHED = ("src", "tests", "docs", "bench", "findings", "packaging", "scripts", ".ci")
_SUFFIXES = frozenset({"", ".py", ".md", ".sh", ".service", ".yaml", ".cfg", ".txt"})
_AT_THE_TOP = ("*.md", "Makefile", "pyproject.toml")
# Records as they were made, and this file, which names what is wrong.
_LEFT_OUT = (ROOT / "tests" / "wire" / "recorded", Path(__file__).resolve())

# Each alternative begins with a fixed character or word and repeats one class only, so a text is read once.
_TOKENS = re.compile(
    r"(?P<page>docs/facts/[a-z-]+\.md)(?:#[\w-]{1,100})?"
    r"|\]\((?P<link>[a-z-]+\.md)[#)]"
    r"|(?P<standard>\b(?:RFC|X\.)[ ]?[0-9]+|\bmanual\b|\bDatabase File\b)"
    r"|§(?P<section>[0-9]+(?:\.[0-9]+)*)(?: no\. (?P<number>[0-9]+))?"
)
_DECLARED = re.compile(r"``§`` counts the sections of (docs/facts/[a-z-]+\.md)")
_CONTINUED = re.compile(r"\n[ \t]*(?:#[ \t])?")
# What may stand between a page and its sections: "§2.1, §2.2", "§7.1 and §7.2", "§8.2.4 (log format), §8.5".
_FAR = 40
_HEADING = re.compile(r"^(#{1,6}) ([^\n]+)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s]{1,300})\)")
_PATH = re.compile(
    r"(?<![\w./-])(?:src|tests|docs|bench|findings|packaging|scripts)/[\w./-]{1,200}\.(?:py|md|sh|jsonl|yaml|txt)\b"
)
_OUTSIDE = re.compile(
    r"MUSTER_SHARED|\bHOUSE\.md|\bPRODUCT\.md|protocol reference"
    r"|(?<![\w-])(?<!\w/)shared/(?:found|golden|reference|design|seeds|prototypes)"
    r"|(?<![\w/-])golden/(?:puppet-ca|smart-proxy)"
    r"|(?<![\w./-])reference/[a-z0-9-]+\.md"
)


@dataclass(frozen=True)
class Citation:
    """A section that a file names; ``page`` None: nothing says of what."""

    page: str | None
    section: str
    number: str | None


@cache
def _files() -> tuple[Path, ...]:
    found = [p for top in _SEARCHED for p in sorted((ROOT / top).rglob("*")) if p.suffix in _SUFFIXES and p.is_file()]
    found += [p for pattern in _AT_THE_TOP for p in sorted(ROOT.glob(pattern))]
    return tuple(p for p in found if not any(p == out or out in p.parents for out in _LEFT_OUT))


def _shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def citations(text: str, page: str | None = None) -> Iterator[Citation]:
    """Return the sections that a text names; ``page``: what a sign alone counts in."""
    text = _CONTINUED.sub(" ", text)
    if declared := _DECLARED.search(text):
        page = declared[1]
    source, end = page, 0
    for token in _TOKENS.finditer(text):
        if token["page"] or token["link"]:
            source = token["page"] or FACTS + token["link"]
        elif token["standard"]:
            source = ""
        elif token["section"]:
            near = token.start() - end <= _FAR and ". " not in text[end : token.start()]
            source = source if near else page
            if source != "":
                yield Citation(source, token["section"], token["number"])
        end = token.end()


@cache
def _sections(page: str) -> dict[str, str]:
    """Return a page's numbered sections with their texts; a section holds those below it."""
    text = (ROOT / page).read_text("utf-8")
    headings = list(_HEADING.finditer(text))
    found = {}
    for at, heading in enumerate(headings):
        if number := re.match(r"([0-9]+(?:\.[0-9]+)*)\.?(?= )", heading[2]):
            below = (h.start() for h in headings[at + 1 :] if len(h[1]) <= len(heading[1]))
            found[number[1]] = text[heading.end() : next(below, len(text))]
    return found


def why_not(cited: Citation) -> str | None:
    """Return why a citation does not open, or None."""
    if cited.page is None:
        return f"§{cited.section} of what?"
    if not (ROOT / cited.page).is_file():
        return f"there is no {cited.page}"
    text = _sections(cited.page).get(cited.section)
    if text is None:
        return f"{cited.page} has no §{cited.section}"
    if cited.number and not re.search(rf"^(?:\| )?{cited.number}(?:\.| \|) ", text, re.MULTILINE):
        return f"{cited.page} §{cited.section} has no no. {cited.number}"
    return None


@cache
def _anchors(path: Path) -> frozenset[str]:
    """Return what GitHub makes of a page's headings."""
    text = re.sub(r"^```[^`]*^```", "", path.read_text("utf-8"), flags=re.MULTILINE)
    titles = [h[2].replace("`", "").lower() for h in _HEADING.finditer(text)]
    return frozenset(re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in titles)


def broken_link(of: Path, target: str) -> str | None:
    """Return why a relative link does not open, or None."""
    if re.match(r"[a-z]+:", target):
        return None
    name, _, anchor = target.partition("#")
    path = (of.parent / name).resolve() if name else of
    if path != ROOT and ROOT not in path.parents:
        return f"{target} leads out of the repository"
    if not path.exists():
        return f"{target} is not there"
    if anchor and path.suffix == ".md" and anchor not in _anchors(path):
        return f"{target}: no such heading"
    return None


# All files in one test: each test of its own, of thousands, costs every worker of a run more than reading the file.
def _wrong(paths: Iterable[Path], found: Callable[[Path, str], Iterable[str]]) -> dict[str, list[str]]:
    """Return what is wrong by the file it stands in."""
    of = {_shown(path): list(found(path, path.read_text("utf-8"))) for path in paths}
    return {name: wrong for name, wrong in of.items() if wrong}


def test_every_citation_opens() -> None:
    def found(path: Path, text: str) -> list[str]:
        own = _shown(path)
        page = own if own.startswith(FACTS) and path.name != "README.md" else None
        # A page's README and this room's rules speak about the sign itself.
        wrong = [] if own == f"{FACTS}README.md" else [w for c in citations(text, page) if (w := why_not(c))]
        # Of a page that does not exist, and cited without a section.
        pages = set(re.findall(r"docs/facts/[a-z-]+\.md", text))
        return wrong + [f"there is no {p}" for p in pages if not (ROOT / p).is_file()]

    assert _wrong(_files(), found) == {}


def test_every_file_that_is_named_is_there() -> None:
    def found(path: Path, text: str) -> list[str]:
        return [n for n in set(_PATH.findall(text)) if not (ROOT / n).exists() and not (path.parent / n).exists()]

    # The pages of facts name files of other projects, too; what they link to is opened below.
    assert _wrong((p for p in _files() if FACTS not in _shown(p)), found) == {}


def test_every_relative_link_opens() -> None:
    def found(path: Path, text: str) -> list[str]:
        text = re.sub(r"`[^`\n]*`", "", text)
        return [why for target in _LINK.findall(text) if (why := broken_link(path, target))]

    assert _wrong((p for p in _files() if p.suffix == ".md"), found) == {}


def test_nothing_points_outside() -> None:
    assert _wrong(_files(), lambda _, text: _OUTSIDE.findall(text)) == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("docs/facts/puppet-ca.md §7.6", None),
        ("``docs/facts/balancer.md`` §0\n# no. 7): 80 a second", None),
        ("docs/facts/deployment.md §2.1, §2.2", None),
        ("[a page](../docs/facts/ruby-proxy.md#2-figures) §2", None),
        ("``§`` counts the sections of docs/facts/puppet-ca.md. Refused (§1.1).", None),
        ("RFC 5280 §4.1.2.5", None),
        ("a manual §8.2.4 (log format), §8.5", None),
        ("(§7.6)", "§7.6 of what?"),
        ("docs/facts/puppet-ca.md §7.6. Something else entirely (§1.1)", "§1.1 of what?"),
        ("docs/facts/no-page.md §1", "there is no docs/facts/no-page.md"),
        ("docs/facts/puppet-ca.md §7.99", "docs/facts/puppet-ca.md has no §7.99"),
        ("docs/facts/balancer.md §0 no. 21", "docs/facts/balancer.md §0 has no no. 21"),
        ("``§`` counts the sections of docs/facts/puppet-ca.md. Refused (§99).", "docs/facts/puppet-ca.md has no §99"),
    ],
)
def test_of_a_wrong_citation_it_is_said_what_is_wrong(text: str, why: str | None) -> None:
    assert [w for c in citations(text) if (w := why_not(c))] == ([why] if why else [])


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("README.md", None),
        ("docs/facts/README.md#how-they-are-cited", None),
        ("https://theforeman.org/x.md#y", None),
        ("docs/nothing.md", "docs/nothing.md is not there"),
        ("docs/facts/README.md#nowhere", "docs/facts/README.md#nowhere: no such heading"),
        ("../elsewhere/README.md", "../elsewhere/README.md leads out of the repository"),
    ],
)
def test_of_a_broken_link_it_is_said_what_is_wrong(target: str, why: str | None) -> None:
    assert broken_link(ROOT / "README.md", target) == why


@pytest.mark.parametrize(
    "text",
    [
        "../shared/found/wire.md",
        "./shared/design/x.md",
        "shared/golden",
        "reference/puppet-ca.md",
        "golden/puppet-ca/csr",
        "protocol reference §3",
    ],
)
def test_a_place_outside_is_found(text: str) -> None:
    assert _OUTSIDE.search(f"see {text}")


def test_a_place_inside_is_not_outside() -> None:
    assert not _OUTSIDE.search("docs/reference/settings.md ../reference/routes.md [x](reference/) tests/shared/found")


def test_every_kind_of_file_is_looked_at() -> None:
    looked_at = {_shown(p) for p in _files()}
    wanted = {"README.md", "Makefile", "pyproject.toml", ".ci/run", "docs/facts/puppet-ca.md", "tests/wire/golden.py"}
    assert wanted <= looked_at
    assert not {p for p in looked_at if p.startswith("tests/wire/recorded/")}
