"""A host that joins: how long ``muster-bootstrap`` takes there, beside an interpreter that does nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from bench import processes
from bench.figures import Figure, Findings
from muster.cli.local.plan import ADDRESS
from muster.client import bootstrap
from muster.kernel.errors import Unavailable
from muster.kernel.process import clean_environment

_DIRECTORIES = ("etc/pki/ca-trust/source/anchors", "etc/rhsm", "etc/puppet", "var/lib")


async def measured(directory: Path, *, quick: bool) -> Findings:
    """Return the times of a first run, of one that finds nothing to do, and of taking the first one back."""
    findings = Findings("A host joins (muster-bootstrap into a tree of files, one member over TLS)")
    plan = processes.prepared(directory / "cluster", features={})
    root = directory / "root"
    for below in _DIRECTORIES:
        (root / below).mkdir(parents=True)
    (root / "etc/puppet/puppet.conf").write_text("[main]\nserver = puppet.example.net\n")
    (root / "etc/rhsm/rhsm.conf").write_text("[server]\nhostname = subscription.example.net\n")
    first: list[float] = []
    again: list[float] = []
    back: list[float] = []
    bare: list[float] = []
    async with processes.member(plan) as member:
        there = ["--server", f"{ADDRESS}:{member.https_port}", f"--via={member.address}", f"--root={root}"]
        for _ in range(5 if quick else 20):
            bare.append(await _took("-c", "pass"))
            first.append(await _took(bootstrap.__file__, *there, "--ca-file", str(plan.pki / "ca.pem")))
            again.append(await _took(bootstrap.__file__, *there))
            back.append(await _took(bootstrap.__file__, f"--root={root}", "--undo"))
    name = "python3 -c pass"
    findings.figures += [
        Figure("a first run", "s", first, name, bare),
        Figure("nothing to do", "s", again, name, bare),
        Figure("--undo", "s", back, name, bare),
    ]
    return findings


async def _took(*arguments: str) -> float:
    began = time.monotonic()
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False, env=clean_environment(),
    )  # fmt: skip
    if done.returncode != 0:
        raise Unavailable(f"muster-bootstrap ended with {done.returncode}: {done.stdout.strip()}")
    return time.monotonic() - began
