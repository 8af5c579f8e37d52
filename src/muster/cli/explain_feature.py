"""``muster explain feature``: what a feature calls its providers through, and how each is now on every member."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from muster.cli import NOT_DONE
from muster.cli.options import cluster_option, json_option, one_line, pki_directory, pki_option, print_json

WORD = "feature"


class WithFeature(click.Command):
    """A command that is another one when its first word is ``feature``."""

    @property
    def forms(self) -> tuple[click.Command, ...]:
        """What it is then, for who documents commands."""
        return (feature,)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args and args[0] == WORD:
            return feature.make_context(f"{info_name} {WORD}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(WORD)
@click.argument("name", metavar="NAME")
@cluster_option
@pki_option
@json_option
def feature(name: str, cluster_path: Path, pki_path: Path | None, as_json: bool) -> int:
    """Say what feature NAME calls its providers through, and how each is now on every member.

    Policies stand outermost first. Of a group: its mode, who is asked or leads, and what each provider has yet to have.
    Exit 4: a member could not be asked.
    """
    found = asyncio.run(_examined(name, cluster_path, pki_directory(cluster_path, pki_path)))
    if as_json:
        print_json(found)
    else:
        for text in _lines(found):
            click.echo(one_line(text))
    return NOT_DONE if found["unasked"] else 0


async def _examined(name: str, cluster_path: Path, pki: Path) -> dict[str, Any]:
    """Return all that is shown, as one JSON object.

    Raises:
        NotFound: there is no such feature, or it calls no provider.
    """
    from muster.app.offers import modelled
    from muster.app.settings import loaded
    from muster.cli.credentials import credentials
    from muster.kernel import log
    from muster.kernel.errors import NotFound
    from muster.kernel.names import shown
    from muster.observed.chains import chains_of

    log.configure(level="ERROR")
    cluster = loaded(cluster_path)
    if name not in cluster.features:
        known = ", ".join(sorted(cluster.features)) or "none"
        raise NotFound(f"The cluster file has no feature {shown(name)}; it has {known}")
    told, unasked = await chains_of(cluster, modelled(cluster), credentials(pki, cluster).ours())
    members = {member: chains[name] for member, chains in told.items() if name in chains}
    if told and not members:
        raise NotFound(
            f"Feature {name} calls no provider through policies, is off, or failed: muster status says which"
        )
    return {"feature": name, "members": members, "unasked": unasked}


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    members: Mapping[str, Any] = found["members"]
    # Members of one cluster file have the same ones; where they do not, muster parity says so.
    nobody: Mapping[str, Any] = {"mode": None, "providers": [], "strangers": []}
    first = next(iter(members.values()), nobody)
    count = len(first["providers"])
    of = f", a group of {count} providers, mode {first['mode']}" if first["mode"] else ""
    yield f"Feature {found['feature']}{of}"
    for one in first["providers"]:
        name = one["name"]
        yield f"  {' → '.join([*one['chain'], _called(one)])}"
        for member, chain in members.items():
            mine = next((p for p in chain["providers"] if p["name"] == name), None)
            yield f"    {member}: {_state(mine) if mine is not None else 'has no such provider'}"
    gone = {s["name"]: s for chain in members.values() for s in chain["strangers"]}
    for one in gone.values():
        yield f"  {one['name']}: is not in the settings, and {_owed(one)} (muster repairs drop --all --provider NAME)"
    for member, why in found["unasked"].items():
        yield f"Not asked: {member}: {why}"


def _called(one: Mapping[str, Any]) -> str:
    return f"{one['name']} ({one['provider']})" if one["name"] not in ("", one["provider"]) else str(one["provider"])


def _state(one: Mapping[str, Any]) -> str:
    """Return how a provider is on one member, in one line."""
    parts = []
    if one.get("role"):
        led = one.get("led_since")
        since = f" since {datetime.fromtimestamp(led, UTC):%Y-%m-%d %H:%M:%S} UTC, term {one['epoch']}" if led else ""
        parts.append(f"leads{since}" if led else str(one["role"]))
    breaker = one.get("breaker")
    if breaker is not None:
        again = f", again in {breaker['again_in_s']:g} s" if breaker["state"] == "open" else ""
        parts.append(f"breaker {breaker['state']}{again}")
    else:
        parts.append("no breaker")
    owed = _owed(one)
    why = one.get("why") or (breaker or {}).get("why")
    return "; ".join(p for p in [*parts, owed, f"last failure: {why}" if why else ""] if p)


def _owed(one: Mapping[str, Any]) -> str:
    pending, stuck = one.get("pending", 0), one.get("stuck", 0)
    said = [f"has yet to have {_changes(pending)}" if pending else "", f"refused {_changes(stuck)}" if stuck else ""]
    return "; ".join(s for s in said if s)


def _changes(count: int) -> str:
    return f"{count} change{'s' if count != 1 else ''}"
