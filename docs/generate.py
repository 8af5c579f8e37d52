"""Writes ``docs/reference``: what the code itself knows about settings, routes, commands and errors.

``make docs`` writes the pages; ``--check`` writes nothing and exits 1 when a page on disk is not what the code says.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import annotated_types as limits
import click
from click.testing import CliRunner
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import muster
from muster.cli import muster as command_line
from muster.cluster import values
from muster.cluster.file import ClusterFile
from muster.edge import chains, health, logs, metrics, root, services
from muster.edge.feature import FOREMAN_PREFIXES
from muster.edge.routes import Access, Mount
from muster.features import manifests, settings_models
from muster.kernel import failpoints
from muster.kernel.errors import MusterError
from muster.kernel.names import FQDN
from muster.kernel.rings import LogRecord, LogRings
from muster.kernel.secrets import Secret
from muster.kernel.settings import meanings
from muster.web import api as web

REFERENCE = Path(__file__).parent / "reference"

_WRITTEN = "<!-- Written by docs/generate.py from the code. Do not edit; run: make docs -->\n"

# What a person calls a type; looked up before a type is taken apart.
_CALLED: Sequence[tuple[object, str]] = (
    (values.Host, "IP address or host name"),
    (values.Port, "port, 1 to 65535"),
    (values.Seconds, "seconds, above 0, up to 3600"),
    (values.Slug, "word of `a-z`, `0-9`, `-`; up to 63"),
    (FQDN, "DNS name"),
    (Secret, "text, kept secret"),
    (Path, "path"),
    (bool, "`true` or `false`"),
    (int, "integer"),
    (float, "number"),
    (str, "text"),
)

# Importing these would run something.
_NOT_IMPORTED = ("muster.__main__", "muster.store.migrations.")


def settings_page() -> str:
    """Return every key of the cluster file, section by section."""
    parts = [
        _WRITTEN,
        "# Settings of the cluster file\n",
        "One YAML file, the same on every host, by default `/etc/muster/cluster.yaml`. Unknown keys are errors.\n"
        "`muster config check` finds what is wrong with a file, `muster config show` prints it with all defaults.\n"
        "[cluster.schema.json](cluster.schema.json) is the same for editors, patterns included.\n",
        "What only one host knows (paths, its member's name, the address to bind) is an option or environment variable\n"
        "of the [command](commands.md), not a setting.\n",
    ]
    for place, meaning, rows in settings():
        parts += [f"## `{place}`\n" if place else "## The file\n", f"{meaning}\n"]
        parts += [_table(("key", "type", "default", "meaning"), rows)] if rows else []
    return "\n".join(parts)


# The place of a section in the file, what it is for, and of each key its name, type, default and meaning; in Markdown.
Section = tuple[str, str, list[tuple[str, str, str, str]]]


def settings() -> Iterator[Section]:
    """Yield every section of the cluster file, those of features behind the others."""
    seen: set[str] = set()
    yield from _sections("", ClusterFile, seen)
    yield (
        "features",
        "A feature runs when it is named here, with at least `{}`; `logs` runs unless it is switched off.",
        [],
    )
    for name, model in settings_models().items():
        yield from _sections(f"features.{name}", model, seen)


def _sections(place: str, model: type[BaseModel], seen: set[str]) -> Iterator[Section]:
    """Yield a section for the model, then one for each model below it."""
    seen.add(place)
    hints = get_type_hints(model, include_extras=True)
    rows, below, meant = [], [], meanings(model)
    for name, field in model.model_fields.items():
        key = field.alias or name
        here = f"{place}.{key}" if place else key
        inner, suffix = _model_in(hints[name])
        if inner is not None and f"{here}{suffix}" not in seen:
            below.append((f"{here}{suffix}", inner))
        rows.append((f"`{key}`", _kind(hints[name], f"{here}{suffix}"), _default(field), _prose(meant.get(name, ""))))
    yield place, _prose(model.__doc__ or ""), rows
    for where, inner in below:
        yield from _sections(where, inner, seen)


def _model_in(hint: Any) -> tuple[type[BaseModel] | None, str]:
    """Return the model somewhere in a type, and what stands behind the key on the way to it."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint, ""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        return _model_in(arguments[0])[0], "[]"
    if origin is dict:
        return _model_in(arguments[1])[0], ".NAME"
    if origin is Annotated:
        return _model_in(arguments[0])
    if origin in (Union, UnionType):
        return next((found for a in arguments if (found := _model_in(a))[0] is not None), (None, ""))
    return None, ""


def _kind(hint: Any, place: str) -> str:
    for known, called in _CALLED:
        if hint == known:
            return called
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return f"section [`{place}`](#{_anchor(place)})"
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(f"`{json.dumps(a) if not isinstance(a, str) else a}`" for a in arguments)
    if origin is tuple:
        return f"list of {_kind(arguments[0], place)}"
    if origin is dict:
        value = _kind(arguments[1], place)
        return f"mapping of names to {value}" if value != "Any" else "mapping"
    if origin in (Union, UnionType):
        return " or ".join(_kind(a, place) for a in arguments if a is not NoneType)
    if origin is Annotated:
        return _kind(arguments[0], place) + _range(arguments[1:])
    return getattr(hint, "__name__", str(hint))


def _range(metadata: Iterable[Any]) -> str:
    found: dict[str, Any] = {}
    for one in metadata:
        for constraint in one.metadata if isinstance(one, FieldInfo) else [one]:
            for kind, name in ((limits.Ge, "ge"), (limits.Gt, "gt"), (limits.Le, "le"), (limits.MaxLen, "max_length")):
                if isinstance(constraint, kind):
                    found[name] = getattr(constraint, name)
    words = [
        template.format(found[name])
        for name, template in (("gt", "above {}"), ("ge", "from {}"), ("le", "up to {}"), ("max_length", "at most {}"))
        if name in found
    ]
    return f", {' '.join(words)}" if words else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value is PydanticUndefined:
        return "absent"
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value in ((), {}):
        return "none"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def routes_page() -> str:
    """Return every route a member answers, with who may call it."""
    rows = [
        (f"`{route.method}`", f"`{mount.prefix + route.path}`", route.access.value, feature)
        for feature, mount in _mounts()
        for route in mount.routes
    ]
    # Whatever is below these is answered by one call.
    below = [(name, m) for name, m in _mounts() if m.unrouted is not None and not m.routes]
    rows += [("`GET`", f"`{m.prefix}/…`", m.access.value, name) for name, m in below]
    named = {feature for feature, _ in _mounts()}
    absent = [(f"`{p}`", f) for p, f in sorted(FOREMAN_PREFIXES.items()) if f not in named]
    return "\n".join(
        [
            _WRITTEN,
            "# Routes\n",
            "What a member of kind `muster` answers, over HTTPS and HTTP alike. `HEAD` is answered where `GET` is.\n"
            "`[/]` means that a slash may follow; `{value}` is one segment that is not empty, `…` any number of them.\n",
            _table(("method", "path", "access", "feature"), rows),
            "## Access\n",
            _table(
                ("word", "who may call"),
                [
                    (
                        Access.TRUSTED.value,
                        "a host in `foreman.trusted_hosts`: by its client certificate over HTTPS; over HTTP, where the "
                        "feature is open to it, by its name in DNS. Without that setting: the host of `foreman.url`, "
                        "members and balancers; without that, too, holders of a certificate of the cluster's own CA; "
                        "nobody over HTTP",
                    ),
                    (
                        Access.CLUSTER.value,
                        "holders of a certificate of the cluster's own CA, and trusted hosts; over HTTP a client on the "
                        "member's own host",
                    ),
                    (
                        Access.OPERATORS.value,
                        "the same over HTTPS only, and, where the cluster's own CA is one that hosts have certificates of, "
                        "too, trusted hosts alone",
                    ),
                    (
                        Access.CERTIFIED.value,
                        "holders of a certificate of any CA that members trust, hosts for one, over HTTPS only",
                    ),
                    (Access.OPEN.value, "everybody"),
                ],
            ),
            "## Paths kept for features this version does not have\n",
            "They answer 503 with a sentence, never 404: Foreman takes 404 on a delete for success.\n",
            _table(("prefix", "feature"), absent),
        ]
    )


class _Nobody:
    """No other members, for a time line that is never read."""

    async def records(self, since: float) -> Sequence[LogRecord]:  # noqa: ARG002
        return ()


def _mounts() -> list[tuple[str, Mount]]:
    features = [*manifests().values(), logs.feature(logs.Timeline(LogRings(), _Nobody()))]
    found = [
        ("–", m) for m in (root.ROOT, root.V2, health.MOUNT, metrics.MOUNT, chains.MOUNT, services.MOUNT, web.MOUNT)
    ]
    return found + [(f.name, m) for f in features for m in f.mounts]


def commands_page() -> str:
    """Return every command with its options."""
    parts = [
        _WRITTEN,
        "# Commands\n",
        "Every command and option; `muster COMMAND --help` prints the same. A variable named as *env* gives the option's\n"
        "value when the option is absent.\n",
        "Exit codes: 0 done, nothing wrong; 1 something examined is wrong; 2 wrong usage; 3 settings invalid; 4 could not\n"
        "be done; 130 interrupted.\n",
    ]
    context = click.Context(command_line, info_name="muster")
    parts += _commands(command_line, context)
    return "\n".join(parts)


def _commands(command: click.Command, context: click.Context) -> Iterator[str]:
    pieces = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"{'##' if context.parent is None or context.parent.parent is None else '###'} `{context.command_path}`\n"
    yield f"```\n{pieces}\n```\n"
    yield f"{_unwrapped(command.help or '')}\n"
    rows = [row for p in command.get_params(context) if (row := _option(p, context)) is not None]
    if rows:
        yield _table(("option", "meaning"), rows)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from _commands(below, click.Context(below, info_name=name, parent=context))
    for form in getattr(command, "forms", ()):
        yield from _commands(
            form, click.Context(form, info_name=f"{context.info_name} {form.name}", parent=context.parent)
        )


def _option(parameter: click.Parameter, context: click.Context) -> tuple[str, str] | None:
    record = parameter.get_help_record(context)
    if record is None or "--help" in parameter.opts:
        return None
    names, words = record
    if parameter.envvar and "env var" not in words:
        words = f"{words}  [env var: {parameter.envvar}]".strip()
    return f"`{names}`", words.replace("env var:", "env:")


def errors_page() -> str:
    """Return the tree of errors."""
    for module in pkgutil.walk_packages(muster.__path__, "muster."):
        if not module.name.startswith(_NOT_IMPORTED):
            importlib.import_module(module.name)
    rows = [
        (f"{'· ' * depth}`{kind.__name__}`", str(kind.status), "yes" if kind.retryable else "no", _first_line(kind))
        for depth, kind in _tree(MusterError, 0)
    ]
    return "\n".join(
        [
            _WRITTEN,
            "# Errors\n",
            "Every failure Muster can name. The text of a reply is one sentence: what was tried, on what, what came back.\n"
            "*Retryable* means that the same call may succeed later without anybody changing a setting. A 503 carries\n"
            "`Retry-After: 5`. On the command line an error is exit code 4, `InvalidSettings` is 3.\n",
            _table(("error", "status", "retryable", "meaning"), rows),
            "Anything else is a bug: 500 with a request id, and the traceback under that id in the member's log.\n",
        ]
    )


def failpoints_page() -> str:
    """Return every durable step."""
    return "\n".join(
        [
            _WRITTEN,
            "# Failpoints\n",
            "For tests alone. Each durable step has two places, `STEP.before-commit` and `STEP.after-commit`, at which a\n"
            "process ends or fails when its environment said so as it started:\n"
            f"`{failpoints.VARIABLE}=sign.after-commit=kill@3`, several separated by commas. Otherwise a place\n"
            "does nothing. An armed process says so in its log, and nothing but the environment arms one.\n",
            _table(("step", "what becomes durable"), [(f"`{k}`", v) for k, v in failpoints.STEPS.items()]),
            _table(("action", "does"), [(f"`{k}`", v) for k, v in failpoints.ACTIONS.items()]),
        ]
    )


def _tree(kind: type[MusterError], depth: int) -> Iterator[tuple[int, type[MusterError]]]:
    yield depth, kind
    for below in kind.__subclasses__():
        yield from _tree(below, depth + 1)


def _first_line(kind: type) -> str:
    return _prose((kind.__doc__ or "").strip().splitlines()[0])


def schema_page() -> str:
    """Return what ``muster config schema`` prints."""
    result = CliRunner().invoke(command_line, ["config", "schema"])
    if result.exit_code != 0:
        raise SystemExit(f"muster config schema failed: {result.exception!r}")
    return result.output


def _prose(text: str) -> str:
    return _unwrapped(text).replace("``", "`").replace("|", "\\|").replace("\n", " ")


def _unwrapped(text: str) -> str:
    """Return a docstring with one line per paragraph."""
    paragraphs = re.split(r"\n\s*\n", text.replace("\b", "").strip())
    return "\n\n".join(" ".join(p.split()) for p in paragraphs)


def _anchor(heading: str) -> str:
    """Return the fragment Forgejo and GitHub make of a heading."""
    return re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "routes.md": routes_page,
    "commands.md": commands_page,
    "errors.md": errors_page,
    "failpoints.md": failpoints_page,
    "cluster.schema.json": schema_page,
}


def main() -> int:
    """Write the pages, or say which differ."""
    parser = argparse.ArgumentParser(description="Write docs/reference from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page differs")
    check = parser.parse_args().check
    differing = []
    for name, written in PAGES.items():
        path, text = REFERENCE / name, written()
        if path.exists() and path.read_text("utf-8") == text:
            continue
        differing.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    verb = "differs from the code; run: make docs" if check else "written"
    for name in differing:
        sys.stdout.write(f"docs/reference/{name} {verb}\n")
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
