"""How long an administrator waits for what follows from the cluster file, and for the file of a hand-made cluster."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import yaml
from tests.servers.hand_made import NINE, haproxy_cfg

from bench.figures import Figure, Findings

_SIZES = (3, 50)
_ADDRESS = "smartproxy.example.net"


async def measured(directory: Path, *, quick: bool) -> Findings:
    """Return times of whole commands for Ruby members of 2018, of which most outputs speak; the peer is 3 members."""
    findings = Findings("Derived: whole commands, members of kind foreman (generation seed), peer: 3 members")
    rounds = 3 if quick else 7
    smallest: dict[str, list[float]] = {}
    places = {members: _made(directory / str(members), members) for members in _SIZES}
    written = 0
    times: dict[tuple[int, str], list[float]] = {}
    for number in range(rounds):
        for members, at in places.items():
            tree = at / f"tree{number}"
            for name, command in (
                (
                    "render all --output",
                    ["render", "all", "--cluster", str(at / "cluster.yaml"), "--output", str(tree)],
                ),
                ("render haproxy", ["render", "haproxy", "--cluster", str(at / "cluster.yaml")]),
                ("adopt", _adopt(at, members)),
            ):
                times.setdefault((members, name), []).append(await asyncio.to_thread(_timed, command))
            written = len([f for f in tree.rglob("*") if f.is_file()])
    for (members, name), values in sorted(times.items(), key=lambda t: (t[0][1], t[0][0])):
        smallest.setdefault(name, values)
        findings.figures.append(Figure(f"{members:>2} members: {name}", "ms", values, "3 members", smallest[name]))
    findings.notes.append(
        f"for {_SIZES[-1]} members the tree has {written} files; starting Python and muster is in each time"
    )
    return findings


def _made(at: Path, members: int) -> Path:
    at.mkdir()
    hosts = [f"192.0.2.{n}" for n in range(1, members + 1)]
    (at / "haproxy.cfg").write_text(haproxy_cfg(NINE, hosts, bind="192.0.2.200"))
    content = {
        "schema": 1,
        "cluster": "derived",
        "address": _ADDRESS,
        "generation": "seed",
        "store": {"url": f"sqlite:///{at}/store.db"},
        "foreman": {"url": "https://foreman.example.net", "organizations": ["Example"], "locations": ["Here"]},
        "members": [
            {"id": n, "name": f"proxy{n:02d}.example.net", "address": host, "kind": "foreman"}
            for n, host in enumerate(hosts, 1)
        ],
        "balancers": [{"name": "lb", "address": "192.0.2.200"}],
        "signer": "proxy01.example.net",
    }
    (at / "cluster.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return at


def _adopt(at: Path, members: int) -> list[str]:
    named = [f"--member=proxy{n:02d}.example.net=192.0.2.{n}" for n in range(1, members + 1)]
    return ["adopt", "--haproxy", str(at / "haproxy.cfg"), "--address", _ADDRESS, *named]


def _timed(command: list[str]) -> float:
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "muster", *command], capture_output=True, timeout=60, check=False)
    if done.returncode not in (0, 1):
        raise OSError(f"muster {command[0]} ended with {done.returncode}: {done.stderr.decode()[-300:]}")
    return (time.perf_counter() - started) * 1000
