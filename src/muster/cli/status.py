"""``muster status``: members × services, with reasons."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
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
    print_parts,
    run_option,
)

_STYLES = {
    "ready": "green", "unready": "red", "unreachable": "red", "silent": "red",
}  # fmt: skip
# Members as columns need that many places each; of more than fit, members are the rows.
_COLUMN = 13
_BEFORE_MEMBERS = 36


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
        print_parts(lambda width: shown(found, width))
    return 0 if found["ready"] else WRONG


def _watched(cluster_path: Path, pki: Path, run: Path) -> int:
    import time

    from rich.console import Group
    from rich.live import Live

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


@dataclass(frozen=True)
class Known:
    """What is known of one member: what it told the store, what was decided about it, what it answers now.

    Attributes:
        said: its row, None when it never reported; a Ruby member never does.
        waiting: what the steward says it waits for.
    """

    kind: str
    said: dict[str, Any] | None
    life: dict[str, Any] | None
    answers: list[dict[str, Any]]
    store_answers: bool = True
    waiting: str = ""

    @property
    def stands(self) -> str:
        """Where it stands, in one word: what was decided, unless it is ready; then what is seen of it."""
        from muster.cluster.life import OUT

        if self.life is not None and self.life["state"] in OUT:
            return str(self.life["state"])
        states = {a["state"] for a in self.answers}
        if states == {"unreachable"}:
            return "unreachable"
        if self._is_silent:
            return "silent"
        return next((s for s in ("unready", "unreachable", "draining") if s in states), "ready")

    @property
    def is_as_wished(self) -> bool:
        """Whether nothing of it needs anybody: it serves, or it is out because somebody wants it and does what that asks."""
        state = self.life["state"] if self.life else None
        if state == "maintenance":
            return True
        if self._is_silent:
            return False
        # A member that leaves answers so; a Ruby one does not know of it. One whose process is stopped says so itself.
        return all(a["state"] in ("ready", "draining") for a in self.answers)

    @property
    def _is_silent(self) -> bool:
        return self.store_answers and self.kind == "muster" and (self.said is None or bool(self.said["silent"]))

    @property
    def sentence(self) -> str:
        from muster.cluster.life import spoken

        if not self.store_answers:
            return f"{self._answered}; where it stands is unknown, the store did not answer"
        state = self.life["state"] if self.life else None
        if self.life is not None and state != "ready":
            waits = f" ({self.waiting})" if self.waiting else ""
            return f"{spoken(self.life['state'], self.life['reason'])}{waits}{self._against(self.life['state'])}"
        if state is None and self.waiting:
            return f"nobody decided about it: {self.waiting}"
        if self.kind == "foreman":
            return self._answered
        if self.said is None:
            return "never reported"
        if self._is_silent:
            also = "" if self.stands == "unreachable" else f", though it answers: {self._answered}"
            return f"silent for {self.said['age_s']:.0f} s{also}"
        reason = f": {self.said['reason']}" if self.said["reason"] else ""
        return f"{self.said['state']}{reason}" if self.said["state"] != "ready" else self._answered

    @property
    def _answered(self) -> str:
        """What its answers come to."""
        by_state = {state: [a["service"] for a in self.answers if a["state"] == state] for state in _ANSWERS}
        if not self.answers:
            return "no service leads to it"
        if len(by_state["unreachable"]) == len(self.answers):
            return "it does not answer"
        parts = [f"{_ANSWERS[s]} {', '.join(names)}" for s, names in by_state.items() if names and s != "ready"]
        return "; ".join(parts) or "ready"

    def _against(self, state: str) -> str:
        """Return what is seen of it that does not go with where it stands."""
        if self.kind == "muster" and self.said is None:
            return "; it never reported"
        if self._is_silent and self.said is not None:
            return f"; silent for {self.said['age_s']:.0f} s"
        if self.said is not None and state in ("drained", "maintenance") and self.said["state"] == "ready":
            return "; it still says ready"
        return "; it does not answer" if self.kind == "foreman" and self._answered == "it does not answer" else ""


_ANSWERS = {"ready": "ready for", "draining": "draining", "unready": "not ready for", "unreachable": "no answer for"}


async def _balancer(run: Path) -> dict[str, Any] | None:
    """What HAProxy on this host says, None when none runs here."""
    socket = run / "runtime.sock"
    if not socket.exists():
        return None
    from muster.balancer.haproxy.sockets import RuntimeSocket
    from muster.kernel.errors import MusterError

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


def shown(found: dict[str, Any], width: int = 80) -> list[Any]:
    """Return what a person sees: tables and sentences for rich, the table for a terminal of that width."""
    members = found["members"]
    columns = len(members) * max([_COLUMN, *(len(_first(m["name"])) + 3 for m in members)])
    table = _services(found) if _BEFORE_MEMBERS + columns <= width else _members(found)
    lines = [line(f"{m['name']}: {m['sentence']}") for m in members]
    lines += _of_steward(found["steward"])
    # Without the store nobody knows whether one ever reported.
    known = [b for b in found["balancers"] if b["said"] is not None or not found["store"]["trouble"]]
    lines += [line(_of_balancer(b), style="red" if _is_alarming(b) else "") for b in known]
    if found["store"]["trouble"]:
        lines.append(line(found["store"]["trouble"], style="red"))
    if behind := [m["name"] for m in members if not m.get("has_this_file", True)]:
        text = f"{', '.join(behind)}: another cluster file than this host's; copy it there and restart"
        lines.append(line(text, style="yellow"))
    nowhere = ", ".join(found.get("nowhere", ()))
    if nowhere:
        lines.append(line(f"No member is ready for {nowhere}.", style="red"))
    return [table, *_reasons(found), *lines, line(*_here(found["balancer"]))]


def _services(found: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title=f"{found['cluster']} at {found['address']}", title_justify="left")
    table.add_column("service")
    table.add_column("port", justify="right")
    table.add_column("balance")
    for member in found["members"]:
        table.add_column(_first(member["name"]))
    for service in found["services"]:
        by_member = {a["member"]: a for a in service["members"]}
        cells = [_cell(by_member.get(m["name"].lower()), m) for m in found["members"]]
        table.add_row(service["name"], str(service["listen_port"]), service["balance"], *cells)
    return table


def _members(found: dict[str, Any]) -> Any:
    """Return the table with a row per member, for more of them than stand beside each other."""
    from rich.table import Table

    table = Table(title=f"{found['cluster']} at {found['address']}", title_justify="left")
    table.add_column("member")
    table.add_column("stands")
    table.add_column("services", overflow="fold")
    for member in found["members"]:
        answers = [a for s in found["services"] for a in s["members"] if a["member"] == member["name"].lower()]
        states = {a["state"] for a in answers}
        ready = [a["service"] for a in answers if a["state"] == "ready"]
        others = [f"{a['service']} {a['state']}" for a in answers if a["state"] != "ready"]
        alike = f"all {len(answers)} {next(iter(states))}" if len(states) == 1 else ""
        parts = [*others, *([f"{len(ready)} ready"] if ready else [])]
        stands = member.get("stands", "")
        table.add_row(
            _first(member["name"]), line(stands, _STYLES.get(stands, "yellow")), line(alike or ", ".join(parts) or "–")
        )
    return table


def _reasons(found: dict[str, Any]) -> list[Any]:
    """Return why members are not ready, once each: what the sentence about a member says is not said again."""
    by_name = {m["name"].lower(): m for m in found["members"]}
    said: dict[tuple[str, str], list[dict[str, Any]]] = {}
    every = [a for s in found["services"] for a in s["members"]]
    silent = {a["member"] for a in every} - {a["member"] for a in every if a["state"] != "unreachable"}
    for service in found["services"]:
        for answer in service["members"]:
            member = by_name.get(answer["member"], {})
            stands = member.get("stands")
            if not answer["reason"] or stands == "maintenance":
                continue
            if answer["state"] == "draining" and (member.get("life") or {}).get("state") in _LEAVING:
                continue
            # A member that is down is down for all services alike.
            why = "" if answer["member"] in silent else answer["reason"]
            said.setdefault((answer["member"], why), []).append(answer)
    reasons = []
    for (member, _), answers in said.items():
        services = ", ".join(a["service"] for a in answers)
        what = f"{_first(member)} {services}" if len(answers) < 3 else f"{_first(member)}, {len(answers)} services"
        style = "yellow" if answers[0]["state"] == "draining" else "red"
        reasons.append(line(f"{what}: {answers[0]['reason']}", style=style))
    notes: dict[tuple[str, str], list[str]] = {}
    for service in found["services"]:
        for answer in service["members"]:
            for note in answer["notes"]:
                notes.setdefault((answer["member"], note), []).append(service["name"])
    for (member, note), services_of_it in sorted(notes.items()):
        about = f" ({', '.join(services_of_it)})" if note.startswith(_PORT_ONLY) else ""
        reasons.append(line(f"{_first(member)}: {note}{about}", style="yellow"))
    return reasons


_LEAVING = ("draining", "drained", "maintenance", "removed")
_PORT_ONLY = "only the port"


def _of_steward(steward: dict[str, Any]) -> list[Any]:
    if not steward["sentence"]:
        return []
    # The number of the process and its start belong to machines.
    who = steward["by"].rpartition(" ")[0] or steward["by"]
    if not steward.get("decides", True):
        text = f"Nobody decides now: no member and no balancer reports. {who} said last: {steward['sentence']}"
        return [line(text, style="red")]
    return [line(f"Steward ({who}): {steward['sentence']}")]


def _here(balancer: dict[str, Any] | None) -> tuple[str, str]:
    """Return what HAProxy on this host says, and how it is shown."""
    if balancer is None:
        return "No balancer runs on this host (no runtime socket).", "dim"
    if balancer["trouble"]:
        return balancer["trouble"], "red"
    out = [s for s in balancer["servers"] if not s["status"].startswith(("UP", "no check"))]
    total = sum(s["sessions"] for s in balancer["servers"])
    said = ", ".join(f"{s['backend']}/{_first(s['server'])} {_in_words(s)}" for s in out)
    return f"HAProxy on this host: {total} connections; " + (f"out: {said}" if out else "every server is up"), ""


_WORDS = {"DOWN": "is down", "MAINT": "is in maintenance", "DRAIN": "is drained", "NOLB": "takes nothing new"}


def _in_words(server: dict[str, Any]) -> str:
    word = next((w for start, w in _WORDS.items() if server["status"].startswith(start)), server["status"])
    return f"{word} ({server['check']})" if server["check"] and not server["check"].startswith("L7OK") else word


def _first(name: str) -> str:
    return name.split(".")[0]


def _cell(answer: dict[str, Any] | None, member: dict[str, Any]) -> Any:
    if answer is None:
        return line("–", style="dim")
    state, stands = answer["state"], (member.get("life") or {}).get("state", "ready")
    if stands == "ready" or (stands == "draining" and state == "draining"):
        return line(state, _STYLES.get(state, "yellow"))
    against = f", {state}" if state in ("unreachable", "unready") and stands != "maintenance" else ""
    return line(f"{stands}{against}", "red" if against else "yellow")


def _is_alarming(balancer: dict[str, Any]) -> bool:
    said = balancer["said"]
    return said is None or not said["engine"] or said["silent"] or said["blind"] or bool(balancer["unchecked"])


def _of_balancer(balancer: dict[str, Any]) -> str:
    said = balancer["said"]
    if said is None:
        return f"Balancer {balancer['name']} never reported."
    if not said["engine"] and not said["trouble"]:
        # Its last word before it ended.
        return f"Balancer {balancer['name']} is stopped."
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
