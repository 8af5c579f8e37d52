"""What a shell offers for a word that somebody began: names of the cluster file, read as it is and trusted for nothing.

Neither the network nor the store is asked, nor is any room loaded; whatever is wrong with the file, nothing is offered and
nothing said: the line that somebody types is no place for it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from muster.cli.options import DEFAULT_CLUSTER
from muster.kernel.errors import Rejected
from muster.kernel.names import FQDN

# As of every settings file: a larger one is none.
_MOST_BYTES = 1 << 20
_DEEPEST = 100
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")

Words = Callable[[click.Context, click.Parameter, str], list[str]]


def members(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Return the members' names that begin so, without those that stand on the line already."""
    return _beginning(_hosts(context, "members"), begun, context, parameter)


def balancers(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """As :func:`members`, of balancers."""
    return _beginning(_hosts(context, "balancers"), begun, context, parameter)


def repositories(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """As :func:`members`, of the repositories that are mirrored, or led in other Pulps."""
    content = _section(_file(context), "content")
    found = [
        *_section(_section(content, "mirror"), "repositories"),
        *_section(_section(content, "steered"), "repositories"),
    ]
    return _beginning(_words(found), begun, context, parameter)


def environments(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """As :func:`members`, of lifecycle environments."""
    found = _section(_section(_file(context), "content"), "mirror").get("environments")
    return _beginning(_words(found if isinstance(found, list) else []), begun, context, parameter)


def _beginning(names: Iterable[str], begun: str, context: click.Context, parameter: click.Parameter) -> list[str]:
    given = context.params.get(parameter.name or "")
    there = {str(g).lower() for g in given} if isinstance(given, tuple | list) else set()
    low = begun.lower()
    return [n for n in dict.fromkeys(names) if n.lower().startswith(low) and n.lower() not in there]


def _hosts(context: click.Context, section: str) -> Iterator[str]:
    rows = _file(context).get(section)
    for row in rows if isinstance(rows, list) else []:
        name = row.get("name") if isinstance(row, dict) else None
        # A shell puts it on the line as it is.
        with contextlib.suppress(Rejected):
            if isinstance(name, str):
                yield str(FQDN.parse(name))


def _words(found: Iterable[Any]) -> Iterator[str]:
    for word in found:
        if isinstance(word, str) and _WORD.match(word):
            yield word


def _section(content: Any, name: str) -> dict[Any, Any]:
    found = content.get(name) if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def _file(context: click.Context) -> dict[Any, Any]:
    """Return what the cluster file holds, nothing when it is not there or cannot be read."""
    try:
        found = _read(Path(context.params.get("cluster_path") or DEFAULT_CLUSTER).expanduser())
    except Exception:  # noqa: BLE001 - boundary: a line that is being typed is no place for what is wrong with a file
        return {}
    return found if isinstance(found, dict) else {}


def _read(path: Path) -> Any:
    import yaml

    # The one in C, where it is: a large file would take as long as all else.
    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc, valid-type]
        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            # What takes over from what takes over multiplies, and names are taken over by nobody.
            node.value = [(k, v) for k, v in node.value if k.tag != "tag:yaml.org,2002:merge"]

    if not path.is_file():
        return {}
    with path.open("rb") as f:
        text = f.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES or _is_too_deep(yaml.parse(text, Loader=Loader)):
        return {}
    return yaml.load(text, Loader=Loader)  # noqa: S506 - a safe one


def _is_too_deep(events: Iterable[Any]) -> bool:
    """Return whether it nests deeper than settings do; reads no further, because libyaml takes quadratic time for it."""
    from yaml import CollectionEndEvent, CollectionStartEvent

    depth = 0
    for event in events:
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > _DEEPEST:
            return True
    return False
