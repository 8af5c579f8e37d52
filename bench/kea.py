"""Reservations and leases of real Keas, asked by the provider itself: Debian 12's, and a newer one with host_cmds.

What a member adds, its service and HTTPS, is measured with a dhcpd (``bench/dhcp.py``); it is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from bench.figures import Figure, Findings
from muster.edge.feature import Surroundings
from muster.features.dhcp import shapes
from muster.features.dhcp.contract import Reservation, Subnet
from muster.features.dhcp.providers import kea
from muster.features.dhcp.providers.kea import KeaDHCP
from muster.features.dhcp.settings import KeaSettings
from muster.kernel.names import MACAddress
from muster.kernel.secrets import Secret
from muster.policy.metered import OperationMetrics
from muster.store import engine

_NETWORK = IPv4Network("10.64.0.0/14")
_LEASES = 10_000
_THERE = (0, 1_000, 10_000)
_AT_ONCE = 16


async def measured(directory: Path, *, quick: bool) -> Findings:
    # Not at the head: only this needs what tests start servers with.
    from tests.servers import available
    from tests.servers import kea as keas

    findings = Findings("Kea, asked by the provider: Debian 12's in its configuration, a newer one with host_cmds")
    rounds, each = (2, 32) if quick else (5, 64)
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("Kea 2.2", "kea", {}),
        ("Kea 3, host_cmds", "kea3", {"root": available.KEA3, "libraries": [keas.LEASE_CMDS, keas.HOST_CMDS]}),
    ]
    for name, needed, given in kinds:
        if (why := available.missing(needed)) is not None:
            findings.notes.append(f"{name}: not measured: {why}")
            continue
        for there in _THERE:
            subnet = {"id": 1, "subnet": str(_NETWORK), "reservations": [_by_hand(n) for n in range(there)]}
            with keas.running(subnets=[subnet], alone=True, **given) as server:
                async with _provider(server.settings, directory / f"{needed}-{there}.db") as provider:
                    # Each is a configuration of megabytes there.
                    few = there > 1_000
                    await _reservations(
                        findings, provider, f"{name}, {there} there", 1 if few else rounds, each // 2 if few else each
                    )
                    if not there:
                        for n in range(_LEASES):
                            server.done("lease4-add", _lease(n))
                        await _lists(findings, provider, f"{name}, {_LEASES} leases", rounds)
    return findings


async def _reservations(findings: Findings, provider: KeaDHCP, named: str, rounds: int, each: int) -> None:
    by_one, together = [], []
    for number in range(rounds):
        first = 2 * number * each
        began = time.monotonic()
        for n in range(first, first + each // 4):
            await provider.add(_one(n))
        by_one.append(each // 4 / (time.monotonic() - began))
        began = time.monotonic()
        await _all([_one(n) for n in range(first + each, first + 2 * each)], provider)
        together.append(each / (time.monotonic() - began))
    findings.figures.append(Figure(f"reservations, one by one: {named}", "1/s", by_one))
    findings.figures.append(Figure(f"reservations, {_AT_ONCE} callers: {named}", "1/s", together))


async def _all(wanted: Sequence[Reservation], provider: KeaDHCP) -> None:
    left = list(wanted)

    async def caller() -> None:
        while left:
            await provider.add(left.pop())

    await asyncio.gather(*(caller() for _ in range(_AT_ONCE)))


async def _lists(findings: Findings, provider: KeaDHCP, named: str, rounds: int) -> None:
    (subnet,) = await provider.subnets()
    lists, taken = [], []
    for _ in range(rounds):
        began = time.monotonic()
        records = await provider.records(subnet)
        shapes.encoded(list(records))
        lists.append((time.monotonic() - began) * 1000)
        assert len(records.leases) == _LEASES
        began = time.monotonic()
        await provider.taken(subnet, [_NETWORK[n] for n in range(64)])
        taken.append((time.monotonic() - began) * 1000)
    findings.figures.append(Figure(f"all records, encoded: {named}", "ms", lists))
    findings.figures.append(Figure(f"which of 64 addresses are taken: {named}", "ms", taken))


@contextlib.asynccontextmanager
async def _provider(settings: dict[str, object], file: Path) -> AsyncIterator[KeaDHCP]:
    unused = Path("unused")
    async with engine.opened(Secret(f"sqlite:///{file}")) as store:
        around = Surroundings("bench", OperationMetrics(CollectorRegistry()), unused, unused, unused, store=store)
        async with kea.opened(KeaSettings.model_validate(settings), around) as provider:
            yield provider


def _address(number: int) -> IPv4Address:
    return _NETWORK[100_000 + number]


def _mac(number: int, kind: str) -> str:
    return f"52:54:{kind}:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def _one(number: int) -> Reservation:
    name = f"host{number}.example.com"
    options = {"hostname": name, "filename": "grub2/grubx64.efi", "nextServer": "192.0.2.1"}
    mac = MACAddress.parse(_mac(number, "01"))
    return Reservation(name, _address(number), mac, Subnet(_NETWORK), options)


def _by_hand(number: int) -> dict[str, Any]:
    name = f"there{number}.example.com"
    return {"hw-address": _mac(number, "02"), "ip-address": str(_address(50_000 + number)), "hostname": name}


def _lease(number: int) -> dict[str, Any]:
    return {"ip-address": str(_NETWORK[256 + number]), "hw-address": _mac(number, "03"), "valid-lft": 86400}
