"""``muster status``: members × services, with reasons."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import click

from muster.cli import WRONG
from muster.cli.options import (
    cluster_option,
    json_option,
    pki_directory,
    pki_option,
    print_json,
    print_parts,
    run_option,
)


@click.command()
@cluster_option
@pki_option
@run_option
@json_option
@click.option("--watch", is_flag=True, help="Show it again every second until Ctrl-C; for people, so without --json.")
def status(cluster_path: Path, pki_path: Path | None, run_path: Path, as_json: bool, watch: bool) -> int:
    """Show which member is ready for which service, and why not; exit 1 when something needs you.

    That is a member that is not ready or does not report though nobody wants it out, or a service that nobody serves;
    planned maintenance is none. Asks every member as the balancer does, the store for what members last said, and, on a
    balancer's host, HAProxy.
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
        from muster.cli.status.shown import shown

        print_parts(lambda width: shown(found, width))
    return 0 if found["ready"] else WRONG


def _watched(cluster_path: Path, pki: Path, run: Path) -> int:
    import time

    from rich.console import Group
    from rich.live import Live

    from muster.cli.status.shown import shown

    with Live(auto_refresh=False) as live:
        while True:
            found = asyncio.run(collected(cluster_path, pki, run))
            live.update(Group(*shown(found, live.console.width)), refresh=True)
            time.sleep(1)


async def collected(cluster_path: Path, pki: Path, run: Path) -> dict[str, Any]:
    """Return everything ``muster status`` shows, as one JSON object."""
    from muster.app.offers import modelled
    from muster.app.settings import loaded, store_to_read
    from muster.cli.credentials import credentials
    from muster.cli.status.known import Known
    from muster.cluster.life import lives_in
    from muster.cluster.minutes import is_there_in, minutes_in
    from muster.cluster.observations import observations_in
    from muster.cluster.roster import seen_in
    from muster.kernel import log
    from muster.kernel.errors import MusterError
    from muster.observed.parity import of_another_file
    from muster.observed.statements import told_in
    from muster.observed.survey import surveyed
    from muster.version import VERSION

    # What would be logged stands in the answer; unconfigured, it would also stand between its lines.
    log.configure(level="ERROR")
    cluster = loaded(cluster_path)
    balancing = modelled(cluster)
    answers = await surveyed(balancing, credentials(pki, cluster))
    store_says: str | None = None
    seen: dict[str, Any] = {}
    lives: dict[str, Any] = {}
    balancers: dict[str, Any] = {}
    steward: dict[str, Any] = {"sentence": "", "by": "", "decides": False}
    waiting: dict[str, str] = {}
    behind: list[str] = []
    try:
        async with store_to_read(cluster) as store, store.read() as uow:
            seen = {name: s.as_json() for name, s in (await seen_in(uow)).items()}
            lives = {name: life.as_json() for name, life in (await lives_in(uow)).items()}
            balancers = {name: o.as_json() for name, o in (await observations_in(uow)).items()}
            said = await minutes_in(uow)
            steward = {"sentence": said.sentence, "by": said.by, "decides": await is_there_in(uow)}
            waiting = dict(said.waiting)
            behind = of_another_file(cluster, await told_in(uow), VERSION)
    except MusterError as e:
        store_says = str(e)
    asked = {str(m.name): [a.as_json() for a in answers if a.member == str(m.name).lower()] for m in cluster.members}
    members: list[dict[str, Any]] = []
    for member in cluster.members:
        name = str(member.name)
        told, life = seen.get(name), lives.get(name)
        knows = Known(member.kind, told, life, asked[name], store_says is None, waiting.get(name, ""))
        members.append(
            {
                "name": member.name,
                "id": member.id,
                "address": member.address,
                "kind": member.kind,
                "said": told,
                "life": life,
                "stands": knows.stands,
                "as_wished": knows.is_as_wished,
                "has_this_file": name not in behind,
                "sentence": knows.sentence,
            }
        )
    serving = {a.service for a in answers if a.standing == "ready" and not _is_out(lives, a.member)}
    nowhere = [s.name for s in balancing.services if s.servers and s.name not in serving]
    return {
        "cluster": cluster.cluster,
        "address": cluster.address,
        "ready": store_says is None and not nowhere and all(m["as_wished"] for m in members),
        "members": members,
        "services": [
            {
                "name": s.name,
                "listen_port": s.listen_port,
                "also_listen_ports": list(s.also_listen_ports),
                "balance": s.balance,
                "members": [a.as_json() for a in answers if a.service == s.name],
            }
            for s in balancing.services
        ],
        "nowhere": nowhere,
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


def _is_out(lives: dict[str, Any], member: str) -> bool:
    """Whether somebody wants it out; ``member`` in lower case."""
    from muster.cluster.life import LEAVING

    return any(name.lower() == member and life["state"] in LEAVING for name, life in lives.items())


def _unchecked(said: dict[str, Any] | None, lives: dict[str, Any]) -> list[str]:
    """Return the services that a balancer sends to everybody because every check of them fails there."""
    from muster.cluster.life import OUT
    from muster.cluster.view import unchecked

    if said is None or said["silent"] or said["blind"]:
        return []
    return list(unchecked(said["opinions"], [name for name, life in lives.items() if life["state"] in OUT]))


async def _balancer(run: Path) -> dict[str, Any] | None:
    """What HAProxy on this host says, None when none runs here."""
    socket = run / "runtime.sock"
    if not socket.exists():
        return None
    from muster.balancer.haproxy.sockets import MasterSocket, RuntimeSocket
    from muster.kernel.errors import MusterError

    try:
        states = await RuntimeSocket(socket).servers()
    except MusterError as e:
        return {"ok": False, "trouble": str(e), "servers": []}
    # Long connections outlive a reload: those of old workers are the host's, too. An old one may end in this moment.
    sessions: dict[tuple[str, str], int] = {}
    with contextlib.suppress(MusterError):
        for s in await MasterSocket(run / "master.sock").servers_of_all_workers():
            sessions[s.backend, s.server] = sessions.get((s.backend, s.server), 0) + s.sessions
    return {
        "ok": True,
        "trouble": None,
        "servers": [
            {
                "backend": s.backend,
                "server": s.server,
                "status": s.status,
                "check": s.check,
                "sessions": sessions.get((s.backend, s.server), s.sessions),
                "total_sessions": s.total_sessions,
            }
            for s in states
            if not s.backend.endswith("_panic")
        ],
    }
