"""What a person sees of a cluster's status: tables and sentences."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from muster.cli.options import line

_STYLES = {
    "ready": "green", "unready": "red", "unreachable": "red", "silent": "red",
}  # fmt: skip
# Members as columns need that many places each; of more than fit, members are the rows.
_COLUMN = 13
_BEFORE_MEMBERS = 36


def shown(found: dict[str, Any], width: int = 80) -> list[Table | Text]:
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


def _services(found: dict[str, Any]) -> Table:
    table = Table(title=f"{found['cluster']} at {found['address']}", title_justify="left")
    table.add_column("service")
    table.add_column("port", justify="right")
    table.add_column("balance")
    for member in found["members"]:
        table.add_column(_first(member["name"]))
    for service in found["services"]:
        by_member = {a["member"]: a for a in service["members"]}
        cells = [_cell(by_member.get(m["name"].lower()), m) for m in found["members"]]
        ports = (service["listen_port"], *service["also_listen_ports"])
        table.add_row(service["name"], ", ".join(map(str, ports)), service["balance"], *cells)
    return table


def _members(found: dict[str, Any]) -> Table:
    """Return the table with a row per member, for more of them than stand beside each other."""
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


def _reasons(found: dict[str, Any]) -> list[Text]:
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
    alike: dict[str, list[str]] = {}
    for (member, note), services_of_it in sorted(notes.items()):
        about = f" ({', '.join(services_of_it)})" if note.startswith(_PORT_ONLY) else ""
        alike.setdefault(f"{note}{about}", []).append(_first(member))
    reasons += [line(f"{', '.join(members)}: {note}", style="yellow") for note, members in alike.items()]
    return reasons


_LEAVING = ("draining", "drained", "maintenance", "removed")
_PORT_ONLY = "only the port"


def _of_steward(steward: dict[str, Any]) -> list[Text]:
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


def _cell(answer: dict[str, Any] | None, member: dict[str, Any]) -> Text:
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
