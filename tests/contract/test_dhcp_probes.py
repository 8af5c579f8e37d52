"""Whether anything answers at an address (``features/dhcp/probes.py``), asked of real hosts in network namespaces.

One answers echo, one refuses TCP alone, one drops everything and answers ARP because it must, one is not there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from typing import Any

import pytest

from tests.servers import namespaces
from tests.servers.namespaces import Host

_PROGRAM = """
import asyncio, json, sys
from ipaddress import IPv4Address
from muster.features.dhcp import probes

async def asked(without_icmp, addresses):
    more = {"made": lambda: (None, False, "told so")} if without_icmp else {}
    async with probes.opened(wait_s=1.0, **more) as prober:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        found = await prober.probed([IPv4Address(a) for a in addresses])
        return {
            "answered": sorted(map(str, found.answered)), "silent": len(found.silent), "reason": found.reason,
            "took_s": loop.time() - begun, "without_icmp": prober.without_icmp,
        }

print(json.dumps(asyncio.run(asked(sys.argv[1] == "without", sys.argv[2:]))))
"""


@pytest.fixture(scope="module")
def hosts(needs: Callable[[str], None]) -> Iterator[list[Host]]:
    needs("namespaces")
    needs("nft")
    with namespaces.segment("member", "echoes", "refuses", "drops") as hosts:
        _rules(hosts[2], "icmp type echo-request drop")
        _rules(hosts[3], "ip protocol { icmp, tcp, udp } drop")
        yield hosts


def _rules(host: Host, rule: str) -> None:
    text = f"table ip t {{ chain c {{ type filter hook input priority 0; {rule}; }}; }}"
    subprocess.run(host.command("nft", "-f", "-"), input=text, text=True, check=True, timeout=20)


def asked(hosts: list[Host], *more: str, icmp: bool = True) -> dict[str, Any]:
    addresses = [*(h.address for h in hosts[1:]), *more]
    command = hosts[0].command(sys.executable, "-c", _PROGRAM, "with" if icmp else "without", *addresses)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_whoever_is_there_is_found_and_nobody_else(hosts: list[Host]) -> None:
    network = hosts[0].address.rpartition(".")[0]
    nobody = [f"{network}.{n}" for n in range(100, 130)]
    found = asked(hosts, *nobody)
    assert found["answered"] == [h.address for h in hosts[1:]]
    assert (found["silent"], found["reason"], found["without_icmp"]) == (30, "", "")
    # One wait, not one for each of thirty.
    assert found["took_s"] < 10


def test_where_there_is_no_way_to_nobody_is_taken_for_silent(hosts: list[Host]) -> None:
    found = asked(hosts, "198.51.100.1", "198.51.100.2")
    assert (found["answered"], found["silent"]) == ([h.address for h in hosts[1:]], 0)
    assert found["reason"] == "Network is unreachable"


def test_the_member_s_own_address_is_in_use(hosts: list[Host]) -> None:
    assert hosts[0].address in asked(hosts, hosts[0].address)["answered"]


def test_without_icmp_tcp_and_arp_are_enough_on_the_member_s_own_network(hosts: list[Host]) -> None:
    network = hosts[0].address.rpartition(".")[0]
    found = asked(hosts, f"{network}.140", icmp=False)
    assert found["answered"] == [h.address for h in hosts[1:]]
    assert found["without_icmp"] == "told so"


def test_a_host_beyond_a_router_is_found_by_echo(hosts: list[Host]) -> None:
    """Of an address that is on no network of this host's ARP says nothing: what answers is asked for by ICMP."""
    far = IPv4Address("203.0.113.7")
    member, router = hosts[0], hosts[1]
    for command in (
        router.command("ip", "address", "add", f"{far}/32", "dev", "lo"),
        member.command("ip", "route", "add", f"{far}/32", "via", router.address),
    ):
        subprocess.run(command, check=True, timeout=20)
    assert str(far) in asked(hosts, str(far))["answered"]
