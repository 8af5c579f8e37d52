"""Settings files: YAML read once into real types, every problem reported with its line.

The loader keeps the line of every key, so that a pydantic error location can be said as ``cluster.yaml:12``. Unknown keys
are errors that name the nearest known key. YAML is read as version 1.1, as Ruby reads the files administrators already
have (``reference/stack.md`` §3), and never constructs anything but plain values.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from muster.kernel.errors import Misconfigured
from muster.kernel.files import read_bounded

Location = tuple[str | int, ...]

_MOST_KEYS = 50_000


class Settings(BaseModel):
    """A model of settings: frozen, unknown keys refused, units in the names, a docstring per field."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, arbitrary_types_allowed=True
    )


M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a settings file.

    Attributes:
        line: 1-based, 0 when the file as a whole is meant.
        where: dotted path of the key.
    """

    line: int
    where: str
    sentence: str

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.where}: {self.sentence}" if self.where else f"{place}{self.sentence}"

    def as_json(self) -> dict[str, Any]:
        return {"line": self.line, "where": self.where, "sentence": self.sentence}


class InvalidSettings(Misconfigured):
    """A settings file that cannot be used; carries every problem, ordered by line."""

    def __init__(self, path: str, problems: Sequence[Problem]) -> None:
        self.path = path
        self.problems = sorted(problems, key=lambda p: p.line)
        listed = "\n".join(f"  {p}" for p in self.problems)
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        super().__init__(f"{path} has {count}:\n{listed}")


@dataclass(frozen=True)
class Document:
    """A parsed YAML file that remembers where its keys stand."""

    path: str
    content: Any
    lines: Mapping[Location, int]
    above: Location = ()

    def line_of(self, location: Location) -> int:
        """Return the line of the key, or of its nearest ancestor that stands in the file."""
        known = (*self.above, *location)
        while known and known not in self.lines:
            known = known[:-1]
        return self.lines.get(known, 1)

    def problem(self, location: Location, sentence: str) -> Problem:
        return Problem(self.line_of(location), dotted((*self.above, *location)), sentence)

    def below(self, location: Location, content: Any) -> Document:
        """Return the part of the document under a key, still knowing its lines."""
        return Document(self.path, content, self.lines, (*self.above, *location))

    def parsed(self, model: type[M]) -> M:
        """Return the content as the model.

        Raises:
            InvalidSettings: with every problem, not just the first.
        """
        try:
            return model.model_validate(self.content)
        except ValidationError as e:
            found = e.errors()
            # A list whose items are wrong also counts as too short: only the deepest problem is the cause.
            causes = [d for d in found if not any(_is_above(d["loc"], other["loc"]) for other in found)]
            raise InvalidSettings(self.path, _joined([self._problem(model, d) for d in causes])) from None

    def _problem(self, model: type[BaseModel], details: ErrorDetails) -> Problem:
        # pydantic adds the names of union members to locations; only parts that stand in the file, or its end, are shown.
        location = self._in_file(details["loc"])
        if details["type"] == "extra_forbidden":
            unknown = str(location[-1])
            known = _known_keys(model, location[:-1])
            near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
            return self.problem(location, f"unknown key {unknown!r}; {hint}")
        if details["type"] == "missing":
            return self.problem(location, "is required")
        return self.problem(location, details["msg"].removeprefix("Value error, "))

    def _in_file(self, location: Location) -> Location:
        kept: list[str | int] = []
        at: Any = self.content
        for part in location:
            stands = (*self.above, *kept, part) in self.lines
            if stands or (part == location[-1] and isinstance(at, dict | list)):
                kept.append(part)
            if stands:
                at = _content_at(at, part)
        return tuple(kept)


def _content_at(content: Any, part: str | int) -> Any:
    """What stands under a key or index; None where YAML's key is no text and pydantic speaks of it as one."""
    if isinstance(content, dict):
        return content.get(part)
    return content[part] if isinstance(content, list) and isinstance(part, int) and part < len(content) else None


def _joined(problems: list[Problem]) -> list[Problem]:
    """A value that is none of several kinds is one problem, not one for each kind."""
    by_place: dict[tuple[int, str], list[str]] = {}
    for p in problems:
        by_place.setdefault((p.line, p.where), []).append(p.sentence)
    return [Problem(line, where, "; or ".join(dict.fromkeys(s))) for (line, where), s in by_place.items()]


def _is_above(location: Location, other: Location) -> bool:
    return len(location) < len(other) and other[: len(location)] == location


def dotted(location: Location) -> str:
    out = ""
    for part in location:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out


def read(path: Path) -> Document:
    """Read a settings file.

    Raises:
        Misconfigured: the file cannot be read.
        InvalidSettings: it is not YAML, or a key stands twice.
    """
    return parse(read_bounded(path, what="settings file", limit_bytes=1 << 20), str(path))


def parse(text: str | bytes, path: str = "settings") -> Document:
    """As :func:`read`, for text already in memory."""
    try:
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
        if node is None:
            return Document(path, {}, {(): 1})
        lines: dict[Location, int] = {}
        problems: list[Problem] = []
        _note_lines(node, (), lines, problems)
        if problems:
            raise InvalidSettings(path, problems)
        content = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else 0
        raise InvalidSettings(path, [Problem(line, "", f"not YAML: {e.problem or e}")]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise InvalidSettings(path, [Problem(0, "", f"not YAML: {e}")]) from None
    return Document(path, content, lines)


def _note_lines(node: yaml.Node, at: Location, lines: dict[Location, int], problems: list[Problem]) -> None:
    if len(lines) > _MOST_KEYS:
        # Aliases within aliases multiply; a handful of lines could otherwise fill the memory.
        raise ValueError(f"more than {_MOST_KEYS} keys, aliases counted")
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                problems.append(Problem(key.start_mark.line + 1, dotted((*at, name)), "stands twice"))
            seen.add(name)
            lines[(*at, name)] = key.start_mark.line + 1
            _note_lines(value, (*at, name), lines, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_lines(value, (*at, index), lines, problems)


def _known_keys(model: type[BaseModel], location: Location) -> list[str]:
    """The keys a mapping at this place may have, found by walking the model's schema."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    candidates = [schema]
    for part in location:
        candidates = [n for c in candidates for n in _steps(c, part, definitions)]
    return [k for c in candidates for r in _resolved(c, definitions) for k in r.get("properties", {})]


def _is_schema(value: object) -> bool:
    return isinstance(value, dict)


def _resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in schema:
        return _resolved(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    branches = schema.get("anyOf", []) + schema.get("oneOf", []) + schema.get("allOf", [])
    return [schema, *(r for b in branches for r in _resolved(b, definitions))]


def _steps(schema: dict[str, Any], part: str | int, definitions: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for s in _resolved(schema, definitions):
        if isinstance(part, int):
            found += [s["items"]] if "items" in s else []
        elif part in s.get("properties", {}):
            found.append(s["properties"][part])
        else:
            # A dict whose keys have a pattern says so in patternProperties.
            found += [
                n for n in (s.get("additionalProperties"), *s.get("patternProperties", {}).values()) if _is_schema(n)
            ]
    return found
