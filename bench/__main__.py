"""Run the benchmarks and print what they found; nothing here passes or fails."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from bench import (
    added_latency,
    backup,
    boot_tree,
    content,
    derived,
    dhcp,
    dns_adds,
    footprint,
    growth,
    joining,
    kea,
    mirror,
    page,
    puppet_ca,
    registrations,
    scale,
    tftp,
    version,
)
from bench.figures import Findings, table
from muster.kernel.errors import MusterError

BENCHMARKS: dict[str, Callable[..., Awaitable[Findings]]] = {
    "version": version.measured,
    "footprint": footprint.measured,
    "dns": dns_adds.measured,
    "balancer": added_latency.measured,
    "growth": growth.measured,
    "derived": derived.measured,
    "scale": scale.measured,
    "puppet-ca": puppet_ca.measured,
    "registrations": registrations.measured,
    "content": content.measured,
    "mirror": mirror.measured,
    "backup": backup.measured,
    "joining": joining.measured,
    "page": page.measured,
    "dhcp": dhcp.measured,
    "tftp": tftp.measured,
    "kea": kea.measured,
    "boot-tree": boot_tree.measured,
}
# The whole run is bounded, whatever hangs: each has its share. A puppetserver alone takes a minute to start, and checks
# come only every few seconds.
_LIMIT_S = 75.0
_LONGER_S = {
    "puppet-ca": 480.0,
    "scale": 480.0,
    "content": 900.0,
    "mirror": 1200.0,
    "page": 1200.0,
    "backup": 480.0,
    "dhcp": 600.0,
    "tftp": 480.0,
    "kea": 300.0,
    "boot-tree": 240.0,
}


def main() -> None:
    asked = _parsed()
    started = time.monotonic()
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, load {_load()}")
    print("median [least–most] of the rounds; ratio: median over the rounds of Muster / peer\n")
    found = asyncio.run(_run(asked.only or list(BENCHMARKS), quick=asked.quick))
    print(f"{time.monotonic() - started:.0f} s, load {_load()}")
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps({"quick": asked.quick, **_machine(), "found": found}, indent=2) + "\n")


async def _run(names: Sequence[str], *, quick: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        with tempfile.TemporaryDirectory(prefix=f"muster-bench-{name}-") as directory:
            try:
                async with asyncio.timeout(_LONGER_S.get(name, _LIMIT_S)):
                    findings = await BENCHMARKS[name](Path(directory), quick=quick)
            except (MusterError, OSError, TimeoutError) as e:
                findings = Findings(name, notes=[f"not measured: {e or 'it took too long'}"])
        print(table(findings), end="\n\n", flush=True)
        found[name] = findings.as_json()
    return found


def _machine() -> dict[str, Any]:
    return {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: under a minute")
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS), help="run this one; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every round's value here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
