"""``muster status``: members × services, with reasons."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from muster.cli import WRONG
from muster.cli.options import (
    cluster_option,
    json_option,
    line,
    pki_directory,
    pki_option,
    print_json,
    run_option,
)

_MARKS = {"ready": "[green]ready[/]", "draining": "[yellow]draining[/]", "unready": "[red]unready[/]"}


@click.command()
@cluster_option
@pki_option
@run_option
@json_option
@click.option("--watch", is_flag=True, help="Show it again every second until Ctrl-C; for people, so without --json.")
def status(cluster_path: Path, pki_path: Path | None, run_path: Path, as_json: bool, watch: bool) -> int:
    """Show which member is ready for which service, and why not; exit 1 when one is not ready or does not report.

    Asks every member as the balancer does, the store for what members last said, and, on a balancer's host, HAProxy.
    """
    if watch and as_json:
        raise click.UsageError("--watch is for people; programs ask with --json as often as they like")
    pki = pki_directory(cluster_path, pki_path)
    if watch:
        return _watched(cluster_path, pki, run_path)
    found = asyncio.run(collected(cluster_path, pki, run_path))
    if as_json:
        print_json(found)
    else:
        from rich.console import Console

        console = Console(soft_wrap=False)
        for part in shown(found):
            console.print(part)
    return 0 if found["ready"] else WRONG


def _watched(cluster_path: Path, pki: Path, run: Path) -> int:
    import time

    from rich.console import Group
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        while True:
            found = asyncio.run(collected(cluster_path, pki, run))
            live.update(Group(*shown(found)), refresh=True)
            time.sleep(1)


async def collected(cluster_path: Path, pki: Path, run: Path) -> dict[str, Any]:
    """Return everything ``muster status`` shows, as one JSON object."""
    from muster.app.settings import cluster_store, loaded
    from muster.balancer.model import modelled
    from muster.balancer.survey import surveyed
    from muster.cli.credentials import asking_context
    from muster.cluster.life import Lives
    from muster.cluster.observations import Observations
    from muster.cluster.roster import Roster
    from muster.cluster.steward import minutes
    from muster.kernel import log
    from muster.kernel.errors import MusterError

    # What would be logged stands in the answer; unconfigured, it would also stand between its lines.
    log.configure(level="ERROR")
    cluster = loaded(cluster_path)
    balancing = modelled(cluster)
    answers = await surveyed(balancing, context=asking_context(pki))
    store_says: str | None = None
    seen: dict[str, Any] = {}
    lives: dict[str, Any] = {}
    balancers: dict[str, Any] = {}
    steward = {"sentence": "", "by": ""}
    try:
        async with cluster_store(cluster) as store:
            seen = {name: s.as_json() for name, s in (await Roster(store).seen()).items()}
            lives = {name: life.as_json() for name, life in (await Lives(store).all()).items()}
            balancers = {name: o.as_json() for name, o in (await Observations(store).all()).items()}
            said = await minutes(store)
            steward = {"sentence": said.sentence, "by": said.by}
    except MusterError as e:
        store_says = str(e)
    members: list[dict[str, Any]] = []
    for member in cluster.members:
        told = seen.get(str(member.name))
        members.append(
            {
                "name": member.name,
                "id": member.id,
                "address": member.address,
                "kind": member.kind,
                "said": told,
                "life": lives.get(str(member.name)),
                "sentence": _sentence(member.kind, told, lives.get(str(member.name)), store_says),
            }
        )
    reporting = all(m["said"] and not m["said"]["silent"] for m in members if m["kind"] == "muster")
    ready = store_says is None and reporting and all(a.standing == "ready" for a in answers)
    return {
        "cluster": cluster.cluster,
        "address": cluster.address,
        "ready": ready,
        "members": members,
        "services": [
            {
                "name": s.name,
                "listen_port": s.listen_port,
                "balance": s.balance,
                "members": [a.as_json() for a in answers if a.service == s.name],
            }
            for s in balancing.services
        ],
        "store": {"ok": store_says is None, "trouble": store_says},
        "steward": steward,
        "balancers": [
            {
                "name": b.name,
                "address": b.address,
                "said": balancers.get(b.name),
                "unchecked": _unchecked(balancers.get(b.name), lives),
            }
            for b in cluster.balancers
        ],
        "balancer": await _balancer(run),
    }


def _unchecked(said: dict[str, Any] | None, lives: dict[str, Any]) -> list[str]:
    """Return the services that a balancer sends to everybody because every check of them fails there."""
    from muster.cluster.life import OUT
    from muster.cluster.view import unchecked

    if said is None or said["silent"] or said["blind"]:
        return []
    return list(unchecked(said["opinions"], [name for name, life in lives.items() if life["state"] in OUT]))


def _sentence(kind: str, said: dict[str, Any] | None, life: dict[str, Any] | None, store_says: str | None) -> str:
    if store_says is not None:
        return "unknown: the store did not answer"
    stands = (
        f"{life['state']}{': ' + life['reason'] if life['reason'] and life['state'] != 'ready' else ''}" if life else ""
    )
    if kind == "foreman":
        return stands or "a Ruby Smart Proxy: it does not report to the store"
    if said is None:
        return f"never reported{'; ' + stands if stands else ''}"
    if said["silent"]:
        return f"silent for {said['age_s']:.0f} s; last said {said['state']}{'; ' + stands if stands else ''}"
    reason = f": {said['reason']}" if said["reason"] else ""
    own = f"{said['state']}{reason}"
    return own if not life or life["state"] in ("ready", said["state"]) else f"{stands} (it says {own})"


async def _balancer(run: Path) -> dict[str, Any] | None:
    """What HAProxy on this host says, None when none runs here."""
    from muster.balancer.haproxy.sockets import RuntimeSocket
    from muster.kernel.errors import MusterError

    socket = run / "runtime.sock"
    if not socket.exists():
        return None
    try:
        states = await RuntimeSocket(socket).servers()
    except MusterError as e:
        return {"ok": False, "trouble": str(e), "servers": []}
    return {
        "ok": True,
        "trouble": None,
        "servers": [
            {
                "backend": s.backend,
                "server": s.server,
                "status": s.status,
                "check": s.check,
                "sessions": s.sessions,
                "total_sessions": s.total_sessions,
            }
            for s in states
            if not s.backend.endswith("_panic")
        ],
    }


def shown(found: dict[str, Any]) -> list[Any]:
    """Return what a person sees: tables and sentences for rich."""
    from rich.table import Table

    names = [m["name"].split(".")[0] for m in found["members"]]
    table = Table(title=f"{found['cluster']} at {found['address']}", title_justify="left")
    table.add_column("service")
    table.add_column("port", justify="right")
    table.add_column("balance")
    for name in names:
        table.add_column(name)
    for service in found["services"]:
        by_member = {a["member"]: a for a in service["members"]}
        cells = [_cell(by_member.get(m["name"].lower())) for m in found["members"]]
        table.add_row(service["name"], str(service["listen_port"]), service["balance"], *cells)
    reasons = []
    for service in found["services"]:
        for answer in service["members"]:
            who = f"{answer['member'].split('.')[0]} {service['name']}"
            if answer["reason"]:
                reasons.append(
                    line(f"{who}: {answer['reason']}", style="red" if answer["state"] != "draining" else "yellow")
                )
    notes = {(a["member"], n) for s in found["services"] for a in s["members"] for n in a["notes"]}
    reasons += [line(f"{member.split('.')[0]}: {note}", style="yellow") for member, note in sorted(notes)]
    lines = [line(f"{m['name']}: {m['sentence']}") for m in found["members"]]
    if found["steward"]["sentence"]:
        lines.append(line(found["steward"]["sentence"]))
    lines += [line(_of_balancer(b), style="red" if _is_alarming(b) else "") for b in found["balancers"]]
    if found["store"]["trouble"]:
        lines.append(line(found["store"]["trouble"], style="red"))
    balancer = found["balancer"]
    if balancer is None:
        lines.append(line("No balancer runs on this host (no runtime socket).", style="dim"))
    elif balancer["trouble"]:
        lines.append(line(balancer["trouble"], style="red"))
    else:
        out = [s for s in balancer["servers"] if not s["status"].startswith(("UP", "no check"))]
        total = sum(s["sessions"] for s in balancer["servers"])
        said = ", ".join(f"{s['backend']}/{s['server'].split('.')[0]} {s['status']} {s['check']}" for s in out)
        lines.append(line(f"Balancer: {total} connections; " + (f"out: {said}" if out else "every server is up")))
    return [table, *reasons, *lines]


def _cell(answer: dict[str, Any] | None) -> str:
    if answer is None:
        return "[dim]–[/]"
    return _MARKS.get(answer["state"], "[red]unreachable[/]")


def _is_alarming(balancer: dict[str, Any]) -> bool:
    said = balancer["said"]
    return said is None or said["silent"] or said["blind"] or bool(balancer["unchecked"])


def _of_balancer(balancer: dict[str, Any]) -> str:
    said = balancer["said"]
    if said is None:
        return f"Balancer {balancer['name']} never reported."
    if said["silent"]:
        return f"Balancer {balancer['name']} is silent for {said['age_s']:.0f} s."
    if said["blind"]:
        return f"Balancer {balancer['name']} sees nothing: {said['trouble']}."
    open_now = sum(said["sessions"].values())
    ended = sum(t["connections"] for t in said["totals"].values())
    trouble = f"; {said['trouble']}" if said["trouble"] else ""
    generation = said["generation"][:12]
    text = f"Balancer {balancer['name']}: {said['engine']}, generation {generation}, {open_now} connections, "
    failing = ", ".join(balancer["unchecked"])
    unchecked = f"; every check of {failing} fails, so it serves unchecked" if failing else ""
    return f"{text}{ended} ended so far{unchecked}{trouble}."
