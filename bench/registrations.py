"""Hosts that register at once, each on its own connection: through the balancer to three members, and at Foreman itself."""

from __future__ import annotations

import asyncio
import itertools
import os
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from bench import load, processes
from bench.figures import Figure, Findings
from muster.cli.local.cluster import running
from muster.cli.local.plan import ADDRESS
from muster.kernel.errors import Unavailable
from muster.kernel.files import write_atomically

if TYPE_CHECKING:
    from tests.servers.foreman_for_hosts import ForemanForHosts

_HOSTS = 200
# Rendering a script costs a Foreman some tenths of a second of one of its processes.
_RENDERS_S = 0.05
_PEER = "at Foreman itself"
_TIMEOUT_S = 60.0
_GOAL = "1"


async def measured(directory: Path, *, quick: bool) -> Findings:
    """Return how many of the hosts' questions reach Foreman, and how many hosts are done in a second."""
    from tests.servers import foreman_for_hosts

    rounds = 2 if quick else 5
    findings = Findings(f"GET /register of {_HOSTS} hosts at once with one token, a new TLS connection each")
    with foreman_for_hosts.running(directory / "foreman") as foreman:
        foreman.delay_s = _RENDERS_S
        foreman.script = b"#!/bin/sh\n" + b"# as long as they are\n" * 600
        plan = processes.prepared(directory / "cluster", members=3, features={"templates": {}, "registration": {}})
        document = yaml.safe_load(plan.cluster_file.read_text())
        document["foreman"] |= {"url": foreman.url, "ca_file": str(foreman.ca_file)}
        write_atomically(plan.cluster_file, yaml.safe_dump(document), mode=0o600)
        foreman.believe(plan.pki / "ca.pem")
        ours = ssl.create_default_context(cafile=str(plan.pki / "ca.pem"))
        theirs = ssl.create_default_context(cafile=str(foreman.ca_file))
        rates: dict[str, list[float]] = {"ours": [], _PEER: []}
        reached: dict[str, list[float]] = {"ours": [], _PEER: []}
        async with running(plan):
            for number, name in itertools.product(range(rounds), rates):
                foreman.asked.clear()
                place = ("127.0.0.1", plan.ports["smartproxy"], ADDRESS, ours)
                if name == _PEER:
                    place = ("127.0.0.1", foreman.port, foreman_for_hosts.NAME, theirs)
                seconds = await _registered(*place, token=f"{number:040d}", foreman=foreman)
                rates[name].append(_HOSTS / seconds)
                reached[name].append(float(foreman.counted()["GET /register"]))
    findings.figures += [
        Figure("reached Foreman", "calls", reached["ours"], _PEER, reached[_PEER], _GOAL),
        Figure("registrations", "hosts/s", rates["ours"], _PEER, rates[_PEER]),
    ]
    findings.notes.append(
        f"Foreman is a stand-in that takes {_RENDERS_S * 1000:g} ms a script on as many threads as it is asked by, so that "
        f"the peer flatters a real one; it, hosts and members share {os.cpu_count()} cores"
    )
    return findings


async def _registered(
    host: str, port: int, name: str, context: ssl.SSLContext, *, token: str, foreman: ForemanForHosts
) -> float:
    """Return how long all hosts need, from the first connection to the last whole script."""
    asked = (
        f"GET /register?activation_keys=a HTTP/1.1\r\nhost: {name}{f':{port}' if port == foreman.port else ''}\r\n"
        f"authorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    ).encode()

    async def register() -> None:
        reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
        try:
            writer.write(asked)
            answer = await reader.read(-1)
        finally:
            writer.close()
        if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(foreman.script or b""):
            raise Unavailable(f"A host was not registered: {answer[:300]!r}")

    load.refuse_unless_loopback(host)
    begun = time.perf_counter()
    async with asyncio.timeout(_TIMEOUT_S), asyncio.TaskGroup() as group:
        for _ in range(_HOSTS):
            group.create_task(register())
    return time.perf_counter() - begun
