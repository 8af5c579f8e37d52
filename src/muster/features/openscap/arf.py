"""A host's compliance report (ARF, the Asset Reporting Format), and what Foreman is told of it.

Source: docs/facts/openscap.md §3.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from muster.content.metadata.malformed import Malformed
from muster.content.metadata.packed import unpacked
from muster.features.openscap.markup import KEPT_CHARACTERS, Capture, Reader, attribute

_BZIP2 = b"BZh"
_NOT_TOLD = frozenset({"notapplicable", "notselected"})
_PASSED = frozenset({"pass", "fixed"})
_TEXTS = ("title", "description", "rationale")
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(?:\.[0-9]{0,30})?(?:[eE][+-]?[0-9]{1,3})?")
_WHITE = " \t\n\v\f\r\0"
_MOST_RULES = 100_000
# Beside each text: its key, and what stands around.
_MARKS = 16
_OF = "the report"


@dataclass(frozen=True, slots=True)
class Sub:
    """A place in a fix for a value that the benchmark was tailored with."""

    idref: str


@dataclass(slots=True)
class Fix:
    """How what a rule asks for is brought about.

    Attributes:
        parts: its text, with the places for values.
    """

    id: str | None
    system: str | None
    reboot: str | None
    parts: list[str | Sub] = field(default_factory=list)

    def length(self, values: Mapping[str, str]) -> int:
        """Return how long the whole text is."""
        return sum(len(values.get(p.idref, "") if isinstance(p, Sub) else p) for p in self.parts)

    def full_text(self, values: Mapping[str, str]) -> str:
        return "".join(values.get(p.idref, "") if isinstance(p, Sub) else p for p in self.parts)


@dataclass(slots=True)
class Rule:
    """A rule of the benchmark, as far as Foreman is told of it."""

    id: str
    severity: str | None
    title: str | None = None
    description: str | None = None
    rationale: str | None = None
    references: dict[tuple[str, str | None], None] = field(default_factory=dict)
    fixes: list[Fix] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """A report.

    Attributes:
        rules: of its benchmark, by id.
        results: rule and result, in the order of the report.
        values: what the benchmark was tailored with, by id.
    """

    rules: dict[str, Rule] = field(default_factory=dict)
    results: list[tuple[str, str]] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    score: float | None = None


def read(pieces: Iterable[bytes], *, limit_bytes: int) -> Report:
    """Read a report as hosts send it, packed with bzip2. It takes seconds: not for the loop.

    Raises:
        Malformed: it is not packed so, or broken, or larger than ``limit_bytes`` when it is unpacked; no XML that is read
            here; it has no benchmark, no result, or the result of a rule that its benchmark lacks.
    """
    reader = _Reports()
    reader.read(unpacked(_of_bzip2(pieces), of=_OF, limit_bytes=limit_bytes))
    report = reader.report
    if not reader.has_benchmark:
        raise Malformed.reading(_OF, "it has no Benchmark")
    if not reader.has_result:
        raise Malformed.reading(_OF, "it has no TestResult")
    for id, result in report.results:
        if result not in _NOT_TOLD and id not in report.rules:
            raise Malformed.reading(_OF, "it has the result of a rule that its Benchmark lacks")
    return report


def told(report: Report, *, digest: str, proxy_name: str, proxy_url: str) -> bytes:
    """Return the JSON that Foreman is sent: key for key in the Ruby plugin's order.

    ``digest`` is the SHA-256 of the report as it was sent, in hexadecimal digits.

    Raises:
        Malformed: it is too long, which a short report can bring about: what it says of a rule once is told with each of its
            results, and a value wherever it is used.
    """
    left = KEPT_CHARACTERS
    counts = dict.fromkeys(("passed", "failed", "othered"), 0)
    logs = []
    for id, result in report.results:
        if result in _NOT_TOLD:
            continue
        counts["passed" if result in _PASSED else "failed" if result == "fail" else "othered"] += 1
        left -= _length(report.rules[id], report.values)
        if left < 0:
            raise Malformed.reading(_OF, f"Foreman would be told more than {KEPT_CHARACTERS >> 20} Mi characters of it")
        logs.append(_log(report.rules[id], result, report.values))
    content = {
        "logs": logs,
        "digest": digest,
        "metrics": counts,
        "score": report.score,
        "openscap_proxy_name": proxy_name,
        "openscap_proxy_url": proxy_url,
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _length(rule: Rule, values: Mapping[str, str]) -> int:
    """Return how much is told with each result of a rule, in characters, marks between them included."""
    told = [rule.id, rule.severity, rule.title, rule.description, rule.rationale]
    for label, href in rule.references:
        told += (label, href)
    for fix in rule.fixes:
        told += (fix.id, fix.system, fix.reboot)
    return sum(len(t or "") + _MARKS for t in told) + sum(f.length(values) for f in rule.fixes)


def _log(rule: Rule, result: str, values: Mapping[str, str]) -> dict[str, Any]:
    return {
        "source": rule.id,
        "result": result,
        "title": rule.title,
        "description": _flowing(rule.description),
        "rationale": _flowing(rule.rationale),
        "references": [{"href": href, "title": label} for label, href in rule.references],
        "fixes": [
            {"id": f.id, "system": f.system, "full_text": f.full_text(values), "reboot": f.reboot} for f in rule.fixes
        ],
        "severity": rule.severity,
    }


def _flowing(text: str | None) -> str:
    """Return a text in one line: blanks at the end of a line, with the ends of line behind them, are one blank."""
    # Not as one expression: it would look at each of many blanks again and again.
    *lines, last = (text or "").split("\n")
    ended = [line.rstrip(" ") + " " for n, line in enumerate(lines) if line or n == 0]
    return "".join([*ended, last]).strip(_WHITE)


def _of_bzip2(pieces: Iterable[bytes]) -> Iterable[bytes]:
    """Yield what is packed with bzip2, and nothing else: what unpacks it reads other packings, too."""
    coming = iter(pieces)
    head = b""
    while len(head) < len(_BZIP2) and (more := next(coming, b"")):
        head += more
    if not head.startswith(_BZIP2):
        raise Malformed.reading(_OF, "it is not packed with bzip2")
    yield head
    yield from coming


class _Reports(Reader):
    """The first Benchmark's rules, and the first TestResult's results, wherever they are."""

    def __init__(self) -> None:
        super().__init__(_OF)
        self.report = Report()
        self.has_benchmark = False
        self.has_result = False
        # How deep what is being read lies; 0: it is not.
        self._benchmark = self._rule_at = self._result = self._one_at = 0
        self._rule: Rule | None = None
        self._fix: tuple[Fix, int] | None = None
        self._sub_at = 0
        # Of a result, or a reference, or a value: what its start tag says.
        self._id = ""
        self._href: str | None = None
        self._is_scored = self._is_resulted = False

    def began(self, name: str, attributes: Mapping[str, str]) -> None:
        if self._rule is not None:
            self._began_in_rule(self._rule, name, attributes)
        elif self._result:
            self._began_in_result(name, attributes)
        elif name == "Benchmark" and not self.has_benchmark:
            self.has_benchmark, self._benchmark = True, self.depth
        elif name == "TestResult" and not self.has_result:
            self.has_result, self._result = True, self.depth
        elif name == "Rule" and self._benchmark:
            if len(self.report.rules) >= _MOST_RULES:
                raise self.wrong(f"it has more than {_MOST_RULES} rules")
            self._rule = Rule(attribute(attributes, "id") or "", attribute(attributes, "severity"))
            self._rule_at = self.depth
            self.keep(self._rule.id, self._rule.severity)

    def _began_in_rule(self, rule: Rule, name: str, attributes: Mapping[str, str]) -> None:
        if self._fix is not None and name == "sub" and self.depth == self._fix[1] + 1:
            idref = attribute(attributes, "idref") or ""
            self.keep(idref)
            self._fix[0].parts.append(Sub(idref))
            self._sub_at = self.depth
        if name in _TEXTS and getattr(rule, name) is None:
            # Said at once, so that only the first counts.
            setattr(rule, name, "")
            self.capture(name)
        elif name == "reference" and self.depth == self._rule_at + 1:
            self._href = attribute(attributes, "href")
            self.keep(self._href)
            self.capture(name)
        elif name == "fix" and self._fix is None:
            id, system, reboot = (attribute(attributes, key) for key in ("id", "system", "reboot"))
            fix = Fix(id, system, reboot)
            self.keep(fix.id, fix.system, fix.reboot)
            rule.fixes.append(fix)
            self._fix = (fix, self.depth)
            self.capture(name)

    def _began_in_result(self, name: str, attributes: Mapping[str, str]) -> None:
        if self.depth == self._result + 1:
            if name == "rule-result":
                if len(self.report.results) >= _MOST_RULES:
                    raise self.wrong(f"it has more than {_MOST_RULES} results")
                self._id, self._is_resulted = attribute(attributes, "idref") or "", False
                self._one_at = self.depth
                self.keep(self._id)
                self.report.results.append((self._id, ""))
            elif name == "set-value":
                self._id = attribute(attributes, "idref") or ""
                self.keep(self._id)
                self.capture(name)
            elif name == "score" and not self._is_scored:
                self._is_scored = True
                self.capture(name)
        elif name == "result" and self._one_at and self.depth == self._one_at + 1 and not self._is_resulted:
            self._is_resulted = True
            self.capture(name)

    def told(self, text: str) -> None:
        super().told(text)
        if self._fix is not None and not self._sub_at:
            self._fix[0].parts.append(text)

    def captured(self, capture: Capture) -> None:
        if capture.name in _TEXTS:
            setattr(self._rule, capture.name, capture.text)
        elif capture.name == "reference" and self._rule is not None:
            self._rule.references[capture.text, self._href] = None
        elif capture.name == "set-value":
            # Of two with one name the first counts.
            self.report.values.setdefault(self._id, capture.text)
        elif capture.name == "score":
            self.report.score = _number(capture.text)
        elif capture.name == "result":
            self.report.results[-1] = (self._id, capture.text)

    def ended(self, name: str) -> None:
        if self.depth == self._sub_at:
            self._sub_at = 0
        if self._fix is not None and self.depth == self._fix[1]:
            self._fix = None
        if self._rule is not None and self.depth == self._rule_at:
            self.report.rules[self._rule.id] = self._rule
            self._rule, self._rule_at = None, 0
        if self.depth == self._one_at and name == "rule-result":
            self._one_at = 0
        if self.depth == self._result and name == "TestResult":
            self._result = 0
        if self.depth == self._benchmark and name == "Benchmark":
            self._benchmark = 0


def _number(text: str) -> float:
    """Return the number that a text begins with, 0 where it does not."""
    found = _NUMBER.match(text.strip())
    number = float(found[0]) if found is not None else 0.0
    return number if math.isfinite(number) else 0.0
