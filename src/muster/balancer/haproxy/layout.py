"""What a configuration file says about itself, read back: listeners, servers and limits.

The engine takes any text, also one an administrator restored by hand, so it reads these from the file it is about to
run and never from the model the file once came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from muster.balancer.haproxy.additions import weight_of

# HAProxy's SRV_ADMF_FDRAIN: an administrator said drain.
_DRAINED = "8"
# SRV_ST_RUNNING; CHK_ST_CONFIGURED, CHK_ST_ENABLED.
_RUNNING, _CONFIGURED, _ENABLED = "2", 2, 4
# Version 1 of the state file, HAProxy 2.4 to 3.x.
_COLUMNS = [
    *("be_id", "be_name", "srv_id", "srv_name", "srv_addr", "srv_op_state", "srv_admin_state", "srv_uweight"),
    *("srv_iweight", "srv_time_since_last_change", "srv_check_status", "srv_check_result", "srv_check_health"),
    *("srv_check_state", "srv_agent_state", "bk_f_forced_id", "srv_f_forced_id", "srv_fqdn", "srv_port", "srvrecord"),
    *("srv_use_ssl", "srv_check_port", "srv_check_addr", "srv_agent_addr", "srv_agent_port"),
]


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of a configuration that the engine has to know.

    Attributes:
        listeners: address and port of every ``bind``, each once; the address is empty for all of them, of either family.
        servers: ``host:port`` by backend and server name, brackets removed.
        words: what follows the address on each server's line.
        maxconn: the global limit; None: HAProxy derives it from the descriptors it may have.
    """

    listeners: tuple[tuple[str, int], ...] = ()
    servers: Mapping[tuple[str, str], str] = field(default_factory=dict)
    words: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    maxconn: int | None = None

    @classmethod
    def of(cls, text: str) -> Layout:
        """Return the layout of a configuration; lines it does not understand are left to ``haproxy -c``."""
        section, name = "", ""
        listeners: list[tuple[str, int]] = []
        servers: dict[tuple[str, str], str] = {}
        options: dict[tuple[str, str], tuple[str, ...]] = {}
        maxconn = None
        for line in text.splitlines():
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if not line[0].isspace():
                section, name = words[0], words[1] if len(words) > 1 else ""
            elif words[0] == "bind" and len(words) > 1:
                for one in words[1].split(","):
                    host, port = _endpoint(one)
                    listeners.append((host, int(port) if port.isdigit() else 0))
            elif words[0] == "server" and len(words) > 2:
                servers[name, words[1]] = ":".join(_endpoint(words[2]))
                options[name, words[1]] = tuple(words[3:])
            elif section == "global" and words[0] == "maxconn" and words[-1].isdigit():
                maxconn = int(words[-1])
        return cls(tuple(dict.fromkeys(x for x in listeners if x[1])), servers, options, maxconn)


def kept_state(state: str, layout: Layout, in_force: Layout | None = None) -> str:
    """Return the lines of ``show servers state`` whose server still has its address, saying nothing the plan says.

    HAProxy restores addresses, the port and address of checks, TLS and switched-off checks from the state file, over its
    configuration and for good (docs/facts/balancer.md §1.4). So a line keeps what no configuration says: up or down,
    drains, maintenance, and weights that people set.

    Args:
        state: of an HAProxy that runs, or as it was kept.
        layout: of the configuration the state is for.
        in_force: of the configuration that HAProxy runs; None: the state was kept for one, whose weights it names.
    """
    kept = ["1"]
    columns: list[str] = []
    for line in state.splitlines():
        words = line.split()
        if line.startswith("#"):
            columns = words[1:]
            kept.append(line)
        elif columns and len(words) == len(columns):
            row = dict(zip(columns, words, strict=True))
            if _stands(row, layout):
                row |= {c: value for c, value in _as_planned(row, layout, in_force).items() if c in row}
                kept.append(" ".join(row[c] for c in columns))
    return "\n".join(kept) + "\n"


def gated_state(state: str, layout: Layout, places: Iterable[tuple[str, str]]) -> str:
    """Return a state with a line for each of these new servers that has it start drained.

    Without a line a new worker takes a server for UP before its first check (docs/facts/balancer.md §1.3).
    """
    columns = next((line.split()[1:] for line in state.splitlines() if line.startswith("#")), _COLUMNS)
    lines = [] if "#" in state else [f"# {' '.join(columns)}"]
    for backend, server in places:
        host, _, port = layout.servers[backend, server].rpartition(":")
        known = {
            "be_id": "1", "be_name": backend, "srv_id": "1", "srv_name": server, "srv_addr": host, "srv_op_state": "2",
            "srv_admin_state": _DRAINED, "srv_uweight": "100", "srv_iweight": "100", "srv_check_health": "1",
            "srv_check_status": "1", "srv_fqdn": "-", "srv_port": port, "srvrecord": "-", "srv_check_addr": "-",
            "srv_agent_addr": "-",
        }  # fmt: skip
        lines.append(" ".join(known.get(c, "0") for c in columns))
    return f"{state.rstrip()}\n" + "".join(f"{line}\n" for line in lines)


def _stands(row: Mapping[str, str], layout: Layout) -> bool:
    planned = layout.servers.get(_place(row))
    host, port = row.get("srv_fqdn", "-"), row.get("srv_port", "-")
    return planned is not None and planned in (f"{host}:{port}", f"{row.get('srv_addr', '-')}:{port}")


def _place(row: Mapping[str, str]) -> tuple[str, str]:
    return row.get("be_name", "-"), row.get("srv_name", "-")


def _as_planned(row: Mapping[str, str], layout: Layout, in_force: Layout | None) -> Mapping[str, str]:
    """Return the columns that the configuration decides; 0 and a dash have HAProxy take its own."""
    place = _place(row)
    words = layout.words[place]
    found = {
        "srv_check_port": "0", "srv_check_addr": "-", "srv_agent_port": "0", "srv_agent_addr": "-", "srvrecord": "-",
        "srv_use_ssl": "1" if "ssl" in words else "0",
        "srv_check_state": _switched_on(row.get("srv_check_state", "")),
        "srv_agent_state": _switched_on(row.get("srv_agent_state", "")),
    }  # fmt: skip
    if not layout.servers[place].startswith(f"{row.get('srv_fqdn')}:"):
        found["srv_fqdn"] = "-"
    if "check" not in words:
        # Nothing would ever bring it up again; one that tracks another follows that one's line.
        found |= {"srv_op_state": _RUNNING}
    weight = weight_of(words)
    if in_force is not None and weight is not None:
        # A weight that was changed at run time leaves the first one in HAProxy's column of configured weights.
        same = weight_of(in_force.words.get(place, ())) == weight
        found |= {"srv_iweight": str(weight)} | ({} if same else {"srv_uweight": str(weight)})
    return found


def _switched_on(state: str) -> str:
    """Return a check's state as if nobody had said ``disable health``; the plan says who is checked."""
    return str(int(state) | _ENABLED) if state.isdecimal() and int(state) & _CONFIGURED else state


def _endpoint(text: str) -> tuple[str, str]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    return ("" if host in ("*", "::", "0.0.0.0") else host), port


def steered(state: str) -> frozenset[tuple[str, ...]]:
    """Return what people set in ``show servers state``: backend, server, drain or maintenance, weight.

    Two states that agree here need not be saved twice; checks' opinions change by themselves.
    """
    columns: list[str] = []
    found = set()
    for line in state.splitlines():
        words = line.split()
        if line.startswith("#"):
            columns = words[1:]
        elif columns and len(words) == len(columns):
            row = dict(zip(columns, words, strict=True))
            found.add(tuple(row.get(c, "") for c in ("be_name", "srv_name", "srv_admin_state", "srv_uweight")))
    return frozenset(found)
