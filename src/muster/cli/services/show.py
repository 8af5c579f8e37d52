"""``muster services show``: all that the register knows of one service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.options import cluster_option, json_option, one_line, print_json
from muster.cli.services.place import read

if TYPE_CHECKING:
    from muster.cluster.service import Fact, Register


@click.command()
@click.argument("service")
@cluster_option
@json_option
def show(service: str, cluster_path: Path, as_json: bool) -> None:
    """Show what the register knows of SERVICE: every field with its source, facts with their age, changes."""
    found = asyncio.run(read(cluster_path))
    one = found.service(service)
    changes = [c for c in found.changes if c.get("name") == service]
    if as_json:
        print_json({**one.as_json(), "changes": changes})
        return
    for text in _lines(found, service):
        click.echo(one_line(text))


def _lines(found: Register, name: str) -> Iterator[str]:
    from datetime import UTC, datetime

    one = found.service(name)
    for key, value in (("kind", one.kind), ("control URL", one.control_url), ("weight", one.weight)):
        source = one.sources.get(key.lower().replace(" ", "_"), "default")
        if value:
            yield f"{key:14} {value}  ({source})"
    for network, url in one.client_urls.items():
        yield f"{'for ' + network:14} {url}  ({one.sources.get(f'client_urls.{network}', '')})"
    if one.credentials:
        yield f"{'credentials':14} {one.credentials}  ({one.sources.get('credentials', '')})"
    yield f"{'version':14} {one.version}{f', by {one.changed_by}' if one.changed_by else ''}"
    for fact in one.facts:
        yield f"{fact.name}: {_spoken(fact)}  ({fact.member}, {fact.source}, {fact.age_s:.0f} s ago)"
    for change in found.changes:
        if change.get("name") == name:
            at = datetime.fromtimestamp(change["at"], UTC)
            said = ", ".join(_typed(change.get("said", {})))
            yield f"{at:%Y-%m-%d %H:%M:%SZ} {change['event']} by {change['by']}{': ' + said if said else ''}"


def _typed(said: Mapping[str, Any]) -> Iterator[str]:
    for name, value in said.items():
        parts = value.items() if isinstance(value, dict) else [(name, value)]
        for key, part in parts:
            spoken = f"for {key}" if isinstance(value, dict) else key.replace("_url", " URL")
            yield f"{spoken} {part or 'taken out'}"


def _spoken(fact: Fact) -> str:
    if fact.name.endswith("_bytes") and isinstance(fact.value, int):
        return f"{fact.value / (1 << 30):.1f} GiB"
    if isinstance(fact.value, dict):
        return ", ".join(f"{k} {v}" for k, v in fact.value.items())
    return ", ".join(map(str, fact.value)) if isinstance(fact.value, list) else str(fact.value)
