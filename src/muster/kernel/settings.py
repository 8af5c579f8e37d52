"""Settings files: YAML read once into real types, every problem reported with its line.

The loader keeps the line of every key, so that a pydantic error location can be said as ``cluster.yaml:12``. Unknown keys
are errors that name the nearest known key. YAML is read as version 1.1, as Ruby reads the files administrators already
have (docs/facts/libraries.md §3), and never constructs anything but plain values. What would cost a small file more than
linear time is refused before it is built: deep nesting, aliases within aliases, numbers of thousands of digits.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NoReturn, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from muster.kernel.errors import Misconfigured
from muster.kernel.files import read_bounded
from muster.kernel.names import shown

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

# Looking for plugins of pydantic reads the metadata of every installed package, before the first model is made.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

Location = tuple[str | int, ...]

_MOST_VALUES = 50_000
# libyaml composes by recursion in C, where too deep is no exception but the end of the process.
_DEEPEST = 100
# YAML 1.1 reads 1:30:00 to base 60, in quadratic time; no setting needs a number of more characters.
_LONGEST_NUMBER = 100
_SHOWN_WHERE, _SHOWN_SENTENCE = 200, 1000
# By whether it has to be a whole one.
_NO_NUMBER = {True: "is no whole number", False: "is no number"}
_NO_MAPPING = "is not a mapping of settings"
_NO_LIST = "is not a list: [A, B], or each behind a dash on a line of its own"
# What the library says in words of Python.
_SAID: Mapping[str, str] = {
    "model_type": _NO_MAPPING, "model_attributes_type": _NO_MAPPING, "dict_type": _NO_MAPPING,
    "tuple_type": _NO_LIST, "list_type": _NO_LIST, "path_type": "is no path",
    "int_type": _NO_NUMBER[True], "int_parsing": _NO_NUMBER[True], "int_from_float": _NO_NUMBER[True],
    "float_type": _NO_NUMBER[False], "float_parsing": _NO_NUMBER[False],
    "bool_type": "is neither true nor false", "bool_parsing": "is neither true nor false",
}  # fmt: skip


class Settings(BaseModel):
    """A model of settings: frozen, unknown keys refused, units in the names, a docstring per field."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        # Built at its first use, which most models have within another one, never by themselves.
        extra="forbid",
        frozen=True,
        defer_build=True,
        arbitrary_types_allowed=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # To Python yes is a number, 1: `keepers: yes` would change something that nobody counted.
        if isinstance(value, bool) and info.field_name is not None:
            kinds = _kinds(cls.model_fields[info.field_name].annotation)
            if bool not in kinds and not {int, float}.isdisjoint(kinds):
                raise ValueError(_NO_NUMBER[int in kinds])
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        found = handler(schema)
        properties = handler.resolve_ref_schema(found)["properties"]
        for name, said in meanings(cls).items():
            of_field = properties[cls.model_fields[name].alias or name]
            # What a model says of itself is not said again.
            if "$ref" not in of_field or handler.resolve_ref_schema(of_field).get("description") != said:
                of_field["description"] = said
        return found


def _kinds(annotation: Any) -> frozenset[Any]:
    """Return the types that a value may have, one by one."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return frozenset(kind for one in get_args(annotation) for kind in _kinds(one))
    return frozenset({annotation})


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring of every field that has one.

    Nobody needs them but who documents the settings; to collect them, the source of every model has to be parsed.
    """
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, Settings) or base is Settings:
            continue
        written = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        for field, after in pairwise(written.body if isinstance(written, ast.ClassDef) else ()):
            match field, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                    found[name] = inspect.cleandoc(said)
    return found


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
        # Keys come from the file as they are, and a double-quoted one may hold anything.
        place, sentence = f"line {self.line}: " if self.line else "", shown(self.sentence, _SHOWN_SENTENCE)
        return f"{place}{shown(self.where, _SHOWN_WHERE)}: {sentence}" if self.where else f"{place}{sentence}"

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
    """A parsed YAML file that remembers where its keys stand.

    Attributes:
        problems: what is wrong with the text itself: keys that stand twice, of which ``content`` has the last.
    """

    path: str
    content: Any
    lines: Mapping[Location, int]
    above: Location = ()
    problems: tuple[Problem, ...] = ()

    def line_of(self, location: Location) -> int:
        """Return the line of the key, or of its nearest ancestor that stands in the file."""
        known = (*self.above, *location)
        while known and known not in self.lines:
            known = known[:-1]
        return self.lines.get(known, 1)

    def problem(self, location: Location, sentence: str) -> Problem:
        return Problem(self.line_of(location), dotted((*self.above, *location)), sentence)

    def below(self, location: Location, content: Any) -> Document:
        """Return the part of the document under a key, still knowing its lines; the whole speaks of the text's problems."""
        return Document(self.path, content, self.lines, (*self.above, *location))

    def parsed(self, model: type[M]) -> M:
        """Return the content as the model.

        Raises:
            InvalidSettings: with every problem, those of the text included, not just the first.
        """
        try:
            found = model.model_validate(self.content)
        except ValidationError as e:
            errors = e.errors()
            # A list whose items are wrong also counts as too short: only the deepest problem is the cause.
            causes = [d for d in errors if not any(_is_above(d["loc"], other["loc"]) for other in errors)]
            listed = _joined([self._problem(model, d) for d in causes])
            raise InvalidSettings(self.path, [*self.problems, *listed]) from None
        if self.problems:
            raise InvalidSettings(self.path, self.problems)
        return found

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
        return self.problem(location, _spoken(details))

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


def _spoken(details: ErrorDetails) -> str:
    if details["type"] == "dict_type" and details["input"] is None:
        return "is empty; {} has all its defaults"
    if details["type"] == "too_short":
        count = details["ctx"]["min_length"]
        return f"has too few entries: it needs {count} or more"
    if details["type"] == "too_long":
        return f"has too many entries: {details['ctx']['max_length']} are the most"
    return _SAID.get(details["type"], details["msg"].removeprefix("Value error, "))


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
        InvalidSettings: it is not YAML, or nothing that settings are made of.
    """
    return parse(read_bounded(path, what="settings file", limit_bytes=1 << 20), str(path))


def parse(text: str | bytes, path: str = "settings") -> Document:
    """As :func:`read`, for text already in memory. A key that stands twice is a problem that ``parsed`` reports."""
    survey = _Survey(path)
    try:
        if (line := _too_deep(text)) is not None:
            raise InvalidSettings(path, [Problem(line, "", f"more than {_DEEPEST} levels deep")])
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return Document(path, {}, {(): 1})
            survey.note(node, (), survey.lines)
            if survey.unusable:
                raise InvalidSettings(path, [*survey.twice, *survey.unusable])
            return Document(path, loader.construct_document(node), survey.lines, problems=tuple(survey.twice))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else 0
        raise InvalidSettings(path, [*survey.twice, Problem(line, "", f"not YAML: {e.problem or e}")]) from None
    except (yaml.YAMLError, ValueError) as e:
        raise InvalidSettings(path, [*survey.twice, Problem(0, "", f"not YAML: {e}")]) from None


def _too_deep(text: str | bytes) -> int | None:
    """Return the line where the text nests too deeply; reads no further, because libyaml takes quadratic time for it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                return event.start_mark.line + 1 if event.start_mark else 0
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None


class _Loader(yaml.CSafeLoader):
    """Says the line of a value that its tag does not fit, where PyYAML raises whatever it stumbled on."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(None, None, f"a value that is no {kind}", node.start_mark) from e


class _Survey:
    """Where everything stands in a document, and what of it is no setting.

    Attributes:
        lines: by place; of a key that stands twice, those of the last.
        unusable: what must not be constructed.
    """

    def __init__(self, path: str) -> None:
        self.lines: dict[Location, int] = {}
        self.twice: list[Problem] = []
        self.unusable: list[Problem] = []
        self._path = path
        self._values = 0
        self._told: set[int] = set()

    def note(self, node: yaml.Node, at: Location, lines: dict[Location, int]) -> None:
        """Note the node and all below it, aliases followed.

        Raises:
            InvalidSettings: there is more of it than settings ever are.
        """
        # Aliases within aliases multiply; a handful of lines could otherwise fill the memory, or lead back to themselves.
        self._values += 1
        if self._values > _MOST_VALUES:
            self._refuse(node, f"more than {_MOST_VALUES} values, aliases counted")
        if len(at) > _DEEPEST:
            self._refuse(node, f"more than {_DEEPEST} levels deep, aliases followed")
        lines.setdefault(at, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            self._note_keys(node, at, lines)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self.note(value, (*at, index), lines)
        else:
            self._look_at(node, at)

    def _note_keys(self, node: yaml.MappingNode, at: Location, lines: dict[Location, int]) -> None:
        last = {str(key.value): index for index, (key, _) in enumerate(node.value) if isinstance(key, yaml.ScalarNode)}
        seen: set[str] = set()
        for index, (key, value) in enumerate(node.value):
            if not isinstance(key, yaml.ScalarNode):
                self._tell(self.unusable, key, at, "has a key that is no text")
                continue
            name = str(key.value)
            place = (*at, name)
            if name in seen:
                self._tell(self.twice, key, place, "stands twice")
            seen.add(name)
            self._look_at(key, place)
            # What a later key of that name hides is looked through, too, and must not leave its lines to the later one.
            known = lines if last[name] == index else {}
            known[place] = key.start_mark.line + 1
            self.note(value, place, known)

    def _look_at(self, scalar: yaml.Node, at: Location) -> None:
        if scalar.tag.endswith((":int", ":float")) and len(scalar.value) > _LONGEST_NUMBER:
            self._tell(self.unusable, scalar, at, f"is a number of more than {_LONGEST_NUMBER} characters")

    def _tell(self, problems: list[Problem], node: yaml.Node, at: Location, sentence: str) -> None:
        # Once, however many aliases lead here.
        if node.start_mark.index not in self._told:
            self._told.add(node.start_mark.index)
            problems.append(Problem(node.start_mark.line + 1, dotted(at), sentence))

    def _refuse(self, node: yaml.Node, sentence: str) -> NoReturn:
        raise InvalidSettings(self._path, [*self.twice, Problem(node.start_mark.line + 1, "", sentence)])


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
