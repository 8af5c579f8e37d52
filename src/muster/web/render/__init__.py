"""The page as HTML: one template a section, everything in them escaped.

Pure: what is shown comes from the section's model alone, so equal models are equal bytes, which viewers are not sent again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from muster.web import assets, charts
from muster.web.model.boots import boots
from muster.web.model.certificates import certificates
from muster.web.model.doctor import doctor
from muster.web.model.glance import glance
from muster.web.model.log import Filter, log
from muster.web.model.matrix import matrix
from muster.web.model.members import members
from muster.web.model.moment import Moment
from muster.web.model.page import Page
from muster.web.model.parity import parity
from muster.web.model.puppet_ca import puppet_ca
from muster.web.model.traffic import traffic
from muster.web.render import words

_MODELS: Mapping[str, Callable[[Page], Any]] = {
    "glance": glance,
    "matrix": matrix,
    "members": members,
    "traffic": traffic,
    "certificates": certificates,
    "puppet-ca": puppet_ca,
    "parity": parity,
    "doctor": doctor,
    "boots": boots,
}
SECTIONS = (*_MODELS, "log")
"""Sections in the order in which they stand on the page."""

_DIGEST = 10


@dataclass(frozen=True)
class Section:
    """A section's HTML and what tells it from another."""

    name: str
    html: str
    digest: str


@lru_cache(maxsize=1)
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals |= {"charts": charts, "words": words, "assets": assets.PATHS}
    return made


@dataclass
class Rendered:
    """Sections as they were last rendered: what has not changed is not rendered again, however many look.

    Concurrency: one loop.
    """

    _kept: dict[str, tuple[Any, Section]] = field(default_factory=dict)
    _logs: dict[Filter, tuple[Any, Section]] = field(default_factory=dict)
    _filters: int = 32
    _seen: tuple[Page, list[Section]] | None = None

    def sections(self, page: Page, wanted: Filter) -> list[Section]:
        """Return every section, the log as a reader wants it."""
        if self._seen is None or self._seen[0] is not page:
            self._seen = (page, self._sections_of(page))
        found = self._seen[1]
        # Readers choose filters; what is remembered of them is bounded.
        while len(self._logs) >= self._filters and wanted not in self._logs:
            del self._logs[next(iter(self._logs))]
        return [*found, self._one("log", log(page, wanted), self._logs, wanted)]

    def _sections_of(self, page: Page) -> list[Section]:
        before = {s.name: s for s in self._seen[1]} if self._seen is not None else {}
        found = []
        for name, model in _MODELS.items():
            # Counting is dear, and rings are read seldom.
            is_same = name == "traffic" and self._seen is not None and self._seen[0].traffic is page.traffic
            found.append(before[name] if is_same else self._one(name, model(page), self._kept, name))
        return found

    def page(self, page: Page, wanted: Filter) -> str:
        """Return the whole page."""
        sections = self.sections(page, wanted)
        at = Moment.of(page.at, to="second")
        return (
            _environment()
            .get_template("page.html")
            .render(
                cluster=str(page.status["cluster"]),
                by=page.by,
                at=at,
                sections=[(s.name, s.digest, Markup(s.html)) for s in sections],  # noqa: S704 - rendered by templates, above
                names={s.name: words.HEADINGS[s.name] for s in sections if s.name in words.HEADINGS and s.html},
            )
        )

    def _one(self, name: str, model: Any, kept: dict[Any, tuple[Any, Section]], key: Any) -> Section:
        before = kept.get(key)
        if before is not None and before[0] == model:
            return before[1]
        html = _environment().get_template(f"{name}.html").render(it=model).strip() if model is not None else ""
        section = Section(name, html, hashlib.sha256(html.encode()).hexdigest()[:_DIGEST])
        kept[key] = (model, section)
        return section
