"""Hosts of a real ISC dhcpd over OMAPI (``features/dhcp/isc/omapi.py``), and what it makes of their statements."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import re
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pypureomapi
import pytest

from muster.features.dhcp.contract import Options
from muster.features.dhcp.isc import omapi
from muster.features.dhcp.isc.omapi import ALGORITHMS, OMAPI, Host, Key, NameTaken
from muster.features.dhcp.isc.written import statements
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected, Unavailable
from muster.kernel.names import MACAddress
from muster.kernel.secrets import Secret
from tests.servers import dhcpd
from tests.servers.dhcpd import DHCPServer

pytestmark = pytest.mark.anyio

STATIC = Host("static1", IPv4Address("10.231.9.150"), MACAddress.parse("00:11:22:33:44:01"))
LEASED = MACAddress.parse("52:54:00:00:00:20")
INFINIBAND = MACAddress.parse("80:00:00:48:fe:80:00:00:00:00:00:00:00:02:c9:03:00:00:10:39")
CONF = f"""
option space SUNW;
option SUNW.root-server-ip-address code 2 = ip-address;
option SUNW.root-server-hostname code 3 = text;
option SUNW.root-path-name code 4 = text;
option SUNW.install-server-ip-address code 10 = ip-address;
option SUNW.install-server-hostname code 11 = text;
option SUNW.install-path code 12 = text;
option SUNW.sysid-config-file-server code 13 = text;
option SUNW.JumpStart-server code 14 = text;
option space FM_ZTP;
option FM_ZTP.config-file-name code 1 = text;
option option-143 code 143 = text;
option option-150 code 150 = ip-address;
subnet 10.231.9.0 netmask 255.255.255.0 {{ range 10.231.9.10 10.231.9.100; }}
host {STATIC.name} {{ hardware ethernet {STATIC.mac}; fixed-address {STATIC.ip}; }}
"""
LEASES = f"""
lease 10.231.9.20 {{
  starts 0 2026/11/22 06:34:24;
  ends 4 2037/11/19 06:34:24;
  binding state active;
  next binding state free;
  hardware ethernet {LEASED};
  client-hostname "leased";
}}
"""
# One of each state, for ever. Without a server to fail over to there is no ``backup``.
LEASES += "".join(
    f"lease 10.231.9.{30 + number} {{ starts 0 2026/11/22 06:34:24; ends never; binding state {state}; }}\n"
    for number, state in enumerate(omapi.STATES)
    if 0 < number < 7
)
PATIENCE_S = 1.0
QUOTES = '"\\'
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, needs: Callable[[str], None]) -> Iterator[DHCPServer]:
    needs("dhcpd")
    with dhcpd.running(tmp_path_factory.mktemp("dhcpd"), conf=CONF, leases=LEASES) as running:
        yield running


@pytest.fixture
async def hosts(server: DHCPServer) -> AsyncIterator[OMAPI]:
    async with omapi.opened(server.address, server.omapi_port, server.key, timeout_s=10) as client:
        yield client


def fresh() -> Host:
    """A host that no other test of the run has."""
    number = next(_numbers)
    octets = f"{number // 256:02x}:{number % 256:02x}"
    return Host(
        f"host{number}.example.com",
        IPv4Address("10.231.9.101") + number % 40,
        MACAddress.parse(f"52:54:00:aa:{octets}"),
    )


async def create(client: OMAPI, host: Host, said: str = "") -> bool:
    assert host.ip is not None
    assert host.mac is not None
    return await client.create(host.name, host.ip, host.mac, said)


def mac(host: Host) -> MACAddress:
    assert host.mac is not None
    return host.mac


def declared(server: DHCPServer, host: Host) -> set[str]:
    """Return what the leases file says at last of a host; its lines of one statement are one."""
    blocks = re.findall(
        rf"^host {re.escape(host.name)} {{\n(.*?)^}}", server.leases.read_text(), re.DOTALL | re.MULTILINE
    )
    return {" ".join(one.split()) for one in re.findall(r'(?:"[^"]*"|[^;"])+;', blocks[-1])} if blocks else set()


# What is made, found and removed.


async def test_a_host_that_was_made_is_found_by_each_of_its_names_until_it_is_removed(hosts: OMAPI) -> None:
    one = fresh()
    assert await hosts.host_of(mac(one)) is None
    assert await hosts.host_by(one.name) is None
    assert await create(hosts, one, 'filename = "pxelinux.0";')
    assert await hosts.host_of(mac(one)) == await hosts.host_by(one.name) == one
    await hosts.delete(mac(one))
    assert await hosts.host_of(mac(one)) is None
    assert await hosts.host_by(one.name) is None


async def test_a_host_made_twice_was_there_the_second_time(hosts: OMAPI) -> None:
    one = fresh()
    assert await create(hosts, one, 'filename = "first";')
    assert not await create(hosts, one, 'filename = "second";')
    assert await hosts.host_of(mac(one)) == one


async def test_a_host_that_is_removed_twice_is_not_found(hosts: OMAPI) -> None:
    one = fresh()
    await create(hosts, one)
    await hosts.delete(mac(one))
    with pytest.raises(NotFound, match=one.mac):
        await hosts.delete(mac(one))


async def test_a_hardware_address_has_one_host_whatever_its_name(hosts: OMAPI) -> None:
    one, other = fresh(), fresh()
    await create(hosts, one)
    with pytest.raises(Conflict, match="by another name"):
        await create(hosts, replace(other, mac=one.mac))
    assert await hosts.host_of(mac(one)) == one
    assert await hosts.host_by(other.name) is None


async def test_a_host_with_another_address_is_in_the_way(hosts: OMAPI) -> None:
    one = fresh()
    await create(hosts, one)
    with pytest.raises(Conflict, match=f"with address {one.ip}"):
        await create(hosts, replace(one, ip=IPv4Address("10.231.9.149")))
    assert await hosts.host_of(mac(one)) == one


async def test_a_name_is_of_one_hardware_address(hosts: OMAPI) -> None:
    one, other = fresh(), fresh()
    await create(hosts, one)
    with pytest.raises(NameTaken, match=one.name):
        await create(hosts, replace(other, name=one.name))
    assert await hosts.host_of(mac(other)) is None
    assert await hosts.host_by(one.name) == one


async def test_a_name_and_a_hardware_address_of_two_hosts_are_in_the_way(hosts: OMAPI) -> None:
    one, other = fresh(), fresh()
    await create(hosts, one)
    await create(hosts, other)
    with pytest.raises((Conflict, NameTaken)):
        await create(hosts, replace(one, name=other.name))


@pytest.mark.parametrize("name", ["", "a b", 'a"b', "a_b", "a;", "a\n", "a" * 64])
async def test_a_name_that_is_no_hosts_goes_nowhere(hosts: OMAPI, name: str) -> None:
    one = replace(fresh(), name=name)
    with pytest.raises(Rejected, match="Invalid DNS name"):
        await create(hosts, one)
    assert await hosts.host_of(mac(one)) is None


async def test_two_names_that_differ_in_case_are_two_to_dhcpd(hosts: OMAPI) -> None:
    one, other = fresh(), fresh()
    await create(hosts, one)
    assert await create(hosts, replace(other, name=one.name.upper()))


async def test_an_address_is_given_to_as_many_hosts_as_want_it(hosts: OMAPI) -> None:
    one, other = fresh(), fresh()
    await create(hosts, one)
    assert await create(hosts, replace(other, ip=one.ip))


async def test_an_infiniband_host_is_made_found_and_removed(server: DHCPServer, hosts: OMAPI) -> None:
    one = replace(fresh(), mac=INFINIBAND)
    assert await create(hosts, one)
    assert await hosts.host_of(INFINIBAND) == one
    assert f"hardware infiniband {INFINIBAND};" in declared(server, one)
    await hosts.delete(INFINIBAND)
    assert await hosts.host_of(INFINIBAND) is None


async def test_of_two_that_make_one_host_at_once_one_made_it(hosts: OMAPI) -> None:
    one = fresh()
    made = await asyncio.gather(*(create(hosts, one) for _ in range(8)))
    assert sorted(made) == [False] * 7 + [True]


async def test_a_hundred_hosts_are_made_at_once(hosts: OMAPI) -> None:
    many = [fresh() for _ in range(100)]
    assert all(await asyncio.gather(*(create(hosts, one) for one in many)))
    assert await asyncio.gather(*(hosts.host_of(mac(one)) for one in many)) == many


async def test_connections_are_opened_one_after_another_because_dhcpd_lets_one_wait(server: DHCPServer) -> None:
    # Its backlog is 1: the first packet of a third one is lost, and the kernel sends it again a second later.
    sockets = subprocess.run(server.host.command("ss", "-Hltn"), capture_output=True, text=True, timeout=10, check=True)
    assert sockets.stdout.split()[:3] == ["LISTEN", "0", "1"]
    waiting: list[int] = [0]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting.append(waiting[-1] + 1)
        await asyncio.sleep(0.02)
        waiting.append(waiting[-1] - 1)
        writer.write(await reader.readexactly(8))
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                question = await reader.readexactly(24)
                # It ends with Ethernet's number.
                await reader.readuntil(b"\0\0\0\1\0\0")
                said = b"\0\6result\0\0\0\4\0\0\0\x17\0\0\0\0"
                writer.write(struct.pack("!6I", 0, 0, pypureomapi.OMAPI_OP_STATUS, 0, 1, _tid(question)) + said)
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        async with omapi.opened("127.0.0.1", port, None, timeout_s=10, connections=8) as client:
            await asyncio.gather(*(client.reached() for _ in range(32)))
    assert max(waiting) == 1


# What stands in dhcpd.conf.


async def test_a_host_of_the_configuration_is_found_and_in_the_way(hosts: OMAPI) -> None:
    assert await hosts.host_of(mac(STATIC)) == await hosts.host_by(STATIC.name) == STATIC
    with pytest.raises(Conflict):
        await create(hosts, replace(fresh(), mac=STATIC.mac))
    with pytest.raises(NameTaken):
        await create(hosts, replace(fresh(), name=STATIC.name))


async def test_a_host_of_the_configuration_is_removed_for_good_so_the_caller_must_not(
    tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("dhcpd")
    with dhcpd.running(tmp_path, conf=CONF) as server:
        async with omapi.opened(server.address, server.omapi_port, server.key, timeout_s=10) as client:
            await client.delete(mac(STATIC))
            assert await client.host_of(mac(STATIC)) is None
            server.stop()
            server.start()
            assert await client.host_of(mac(STATIC)) is None


# Leases.


async def test_a_lease_is_seen_with_its_times(hosts: OMAPI) -> None:
    found = await hosts.lease_at(IPv4Address("10.231.9.20"))
    assert found is not None
    assert (found.state, found.mac, found.client_hostname) == ("active", LEASED, "leased")
    assert found.starts is not None
    assert found.ends is not None
    assert found.starts.isoformat() == "2026-11-22T06:34:24+00:00"
    assert found.ends.isoformat() == "2037-11-19T06:34:24+00:00"


async def test_an_address_of_a_pool_that_nobody_had_has_a_free_lease_and_one_outside_has_none(hosts: OMAPI) -> None:
    free = await hosts.lease_at(IPv4Address("10.231.9.21"))
    assert free is not None
    assert (free.state, free.mac, free.starts, free.ends) == ("free", None, None, None)
    assert await hosts.lease_at(IPv4Address("10.231.9.200")) is None


@pytest.mark.parametrize("state", omapi.STATES[1:-1])
async def test_every_state_of_a_lease_has_its_word(server: DHCPServer, hosts: OMAPI, state: str) -> None:
    found = await hosts.lease_at(IPv4Address("10.231.9.30") + omapi.STATES.index(state))
    assert found is not None
    assert (found.state, str(found.ends)) == (state, "2038-01-19 03:14:07+00:00")


# Statements.

KEPT: dict[str, tuple[Options, set[str]]] = {
    "of every host": (
        {"hostname": "h1.example.com", "filename": "grub2/grubx64.efi", "nextServer": "10.1.2.3"},
        {
            'supersede server.filename = "grub2/grubx64.efi";',
            "supersede server.next-server = 0a:01:02:03;",
            'supersede host-name = "h1.example.com";',
        },
    ),
    "a server by name": (
        {"nextServer": "tftp.example.com"},
        {"supersede server.next-server = 0a:01:02:04;"},
    ),
    "a file of a hundred": ({"filename": "x" * 100}, {f'supersede server.filename = "{"x" * 100}";'}),
    "every character": (
        {"filename": "".join(chr(c) for c in range(32, 127) if chr(c) not in QUOTES)},
        {f'supersede server.filename = "{"".join(chr(c) for c in range(32, 127) if chr(c) not in QUOTES)}";'},
    ),
    "solaris": (
        {
            "<Sun-Fire-V210>root_server_ip": "10.1.2.3",
            "<Sun-Fire-V210>root_server_hostname": "jump",
            "<Sun-Fire-V210>root_path_name": "/vol/root",
            "<Sun-Fire-V210>install_server_ip": "10.1.2.4",
            "<Sun-Fire-V210>install_server_name": "inst",
            "<Sun-Fire-V210>install_path": "inst:/vol",
            "<Sun-Fire-V210>sysid_server_path": "jump:/sysid",
            "<Sun-Fire-V210>jumpstart_server_path": "jump:/js",
        },
        {
            "supersede SUNW.root-server-ip-address = 0a:01:02:03;",
            'supersede SUNW.root-server-hostname = "jump";',
            'supersede SUNW.root-path-name = "/vol/root";',
            "supersede SUNW.install-server-ip-address = 0a:01:02:04;",
            'supersede SUNW.install-server-hostname = "inst";',
            'supersede SUNW.install-path = "inst:/vol";',
            'supersede SUNW.sysid-config-file-server = "jump:/sysid";',
            'supersede SUNW.JumpStart-server = "jump:/js";',
            'supersede server.vendor-option-space = "SUNW";',
        },
    ),
    "ztp": (
        {
            "filename": "ztp.cfg",
            "nextServer": "10.1.2.3",
            "ztp_vendor": "huawei",
            "ztp_firmware": {"core": "core.cc", "web": "web.7z"},
        },
        {
            'supersede server.filename = "ztp.cfg";',
            "supersede server.next-server = 0a:01:02:03;",
            "supersede option-150 = 0a:01:02:03;",
            'supersede FM_ZTP.config-file-name = "ztp.cfg";',
            'supersede option-143 = "vrpfile=core.cc;webfile=web.7z;";',
        },
    ),
    "poap": (
        {"filename": "poap.cfg", "nextServer": "10.1.2.3"},
        {
            'supersede server.filename = "poap.cfg";',
            "supersede server.next-server = 0a:01:02:03;",
            'supersede tftp-server-name = "10.1.2.3";',
            'supersede bootfile-name = "poap.cfg";',
        },
    ),
}


@pytest.mark.parametrize("kind", KEPT)
async def test_the_leases_file_has_every_statement_as_it_was_meant(server: DHCPServer, hosts: OMAPI, kind: str) -> None:
    options, kept = KEPT[kind]
    one = fresh()
    await create(hosts, one, statements(options, {"tftp.example.com": IPv4Address("10.1.2.4")}.get))
    own = {"dynamic;", f"hardware ethernet {one.mac};", f"fixed-address {one.ip};"}
    # dhcpd had written them before it answered.
    assert declared(server, one) - own == kept
    server.stop()
    server.start()
    assert await hosts.host_of(mac(one)) == one
    assert declared(server, one) - own == kept


@pytest.mark.parametrize("dropped", ["next-server = 10.1.2.3;", 'filename = "x', "next-server = gone.invalid;"])
async def test_what_another_would_write_is_dropped_without_a_word(
    server: DHCPServer, hosts: OMAPI, dropped: str
) -> None:
    one = fresh()
    assert await create(hosts, one, f'option host-name = "kept"; {dropped} option bootfile-name = "behind";')
    assert {one for one in declared(server, one) if "supersede" in one} == {'supersede host-name = "kept";'}


@pytest.mark.parametrize("wrong", ["nonsense { ;", 'option nobody-knows "x";', 'option GONE.path = "x";'])
async def test_statements_that_dhcpd_does_not_understand_make_no_host(hosts: OMAPI, wrong: str) -> None:
    one = fresh()
    with pytest.raises(Rejected, match="has to be defined in dhcpd"):
        await create(hosts, one, f'filename = "x"; {wrong}')
    assert await hosts.host_of(mac(one)) is None
    assert await create(hosts, one)


@pytest.mark.parametrize("name", ["1.2.3.example.com", "00.11", "123", "host", "deadbeef", "12-a.example.com", "ends"])
async def test_a_name_that_is_something_else_in_a_configuration_outlives_the_server(
    server: DHCPServer, hosts: OMAPI, name: str
) -> None:
    one, next_one = replace(fresh(), name=name), fresh()
    await create(hosts, one)
    await create(hosts, next_one)
    server.stop()
    server.start()
    assert await hosts.host_of(mac(one)) == one
    assert await hosts.host_of(mac(next_one)) == next_one


# Keys.


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, None])
async def test_every_algorithm_is_spoken_and_none(
    tmp_path: Path, needs: Callable[[str], None], algorithm: str | None
) -> None:
    needs("dhcpd")
    with dhcpd.running(tmp_path, algorithm=algorithm) as server:
        async with omapi.opened(server.address, server.omapi_port, server.key, timeout_s=10) as client:
            await client.reached()
            one = fresh()
            assert await create(client, one)
            assert await client.host_of(mac(one)) == one


def wrong_name(key: Key) -> Key:
    return replace(key, name="nobody")


def wrong_algorithm(key: Key) -> Key:
    return replace(key, algorithm="hmac-md5")


def wrong_secret(key: Key) -> Key:
    return replace(key, secret=Secret(base64.b64encode(b"another").decode()))


def no_key(_: Key) -> None:
    return None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (wrong_name, "knows no key nobody of algorithm hmac-sha256"),
        (wrong_algorithm, "knows no key muster-test of algorithm hmac-md5"),
        (wrong_secret, "finds the secret of key muster-test wrong"),
        (no_key, "takes orders with a key alone"),
    ],
)
async def test_a_key_that_is_not_the_servers_is_said_to_be_so_and_changes_nothing(
    server: DHCPServer, hosts: OMAPI, change: Callable[[Key], Key | None], why: str
) -> None:
    assert server.key is not None
    one = fresh()
    async with omapi.opened(server.address, server.omapi_port, change(server.key), timeout_s=10) as client:
        for asked in (client.reached, lambda: client.host_of(mac(one)), lambda: create(client, one), client.reached):
            with pytest.raises(Misconfigured, match=why) as said:
                await asked()
            assert server.key.secret.reveal() not in str(said.value)
        with pytest.raises(Misconfigured, match=why):
            await client.delete(mac(STATIC))
    assert await hosts.host_of(mac(one)) is None
    assert await hosts.host_of(mac(STATIC)) == STATIC


async def test_a_server_without_a_key_knows_none(tmp_path: Path, needs: Callable[[str], None]) -> None:
    needs("dhcpd")
    key = Key("muster-test", Secret("c2VjcmV0"), "hmac-sha256")
    with dhcpd.running(tmp_path, algorithm=None) as server:
        async with omapi.opened(server.address, server.omapi_port, key, timeout_s=10) as client:
            with pytest.raises(Misconfigured, match="knows no key"):
                await client.reached()


async def test_a_key_that_is_declared_and_not_named_gives_no_orders(
    tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("dhcpd")
    other = Key("other", Secret("c2VjcmV0"), "hmac-sha256")
    conf = f"key other {{ algorithm hmac-sha256; secret {other.secret.reveal()}; }};"
    with dhcpd.running(tmp_path, conf=conf) as server:
        async with omapi.opened(server.address, server.omapi_port, other, timeout_s=10) as client:
            with pytest.raises(Misconfigured, match="other"):
                await create(client, fresh())


@pytest.mark.parametrize(("secret", "algorithm"), [("no base64!", "hmac-sha256"), ("c2VjcmV0", "hmac-sha3")])
async def test_a_key_that_is_none_is_said_before_anybody_is_asked(secret: str, algorithm: str) -> None:
    with pytest.raises(Misconfigured, match="DHCP key k") as said:
        async with omapi.opened("127.0.0.1", 1, Key("k", Secret(secret), algorithm), timeout_s=1):
            pass
    assert secret not in str(said.value)


# A server that is gone, hangs or talks nonsense.


async def test_a_server_that_was_stopped_and_started_is_asked_anew(server: DHCPServer, hosts: OMAPI) -> None:
    one, other = fresh(), fresh()
    await create(hosts, one)
    for how in (signal.SIGTERM, signal.SIGKILL):
        server.stop(how)
        with pytest.raises(Unavailable):
            await hosts.reached()
        server.start()
        assert await hosts.host_of(mac(one)) == one
    # Without a call in between: what it left behind is not used.
    server.stop()
    server.start()
    assert await create(hosts, other)


async def test_a_host_that_cannot_be_written_is_not_there(server: DHCPServer, hosts: OMAPI) -> None:
    one = fresh()
    with server.full():
        for _ in range(2):
            with pytest.raises(Unavailable, match="cannot write its leases file"):
                await create(hosts, one)
        assert await hosts.host_of(mac(one)) is None
    assert await create(hosts, one)


async def test_a_host_whose_removal_cannot_be_written_comes_back_though_dhcpd_said_it_was_gone(
    server: DHCPServer, hosts: OMAPI
) -> None:
    one = fresh()
    await create(hosts, one)
    with server.full():
        await hosts.delete(mac(one))
        assert await hosts.host_of(mac(one)) is None
        server.stop()
    server.start()
    assert await hosts.host_of(mac(one)) == one


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with omapi.opened("127.0.0.1", 1, None, timeout_s=5) as client:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1#1 cannot be reached while asking whether it is there"):
            await client.reached()


async def test_a_server_that_hangs_costs_a_calls_time_and_its_threads_end(server: DHCPServer) -> None:
    async with omapi.opened(
        server.address, server.omapi_port, server.key, timeout_s=PATIENCE_S, connections=3
    ) as client:
        await client.reached()
        one = fresh()
        with server.hung():
            began = time.monotonic()
            said = await asyncio.gather(*(client.host_of(mac(one)) for _ in range(20)), return_exceptions=True)
            assert all(isinstance(e, Unavailable) and "did not answer within 1 s" in str(e) for e in said)
            assert time.monotonic() - began < 3 * PATIENCE_S
            assert not client._idle
    async with omapi.opened(server.address, server.omapi_port, server.key, timeout_s=30) as client:
        assert await create(client, one)


async def test_a_change_that_nobody_waits_for_any_more_happens_when_the_server_wakes(
    server: DHCPServer, hosts: OMAPI
) -> None:
    one = fresh()
    async with omapi.opened(server.address, server.omapi_port, server.key, timeout_s=PATIENCE_S) as client:
        await client.reached()
        with server.hung(), pytest.raises(Unavailable):
            await create(client, one)
    async with asyncio.timeout(30):
        while await hosts.host_of(mac(one)) is None:
            await asyncio.sleep(0.05)


async def test_a_connection_is_kept_for_the_next_call_unless_it_was_idle_for_long(hosts: OMAPI) -> None:
    await hosts.reached()
    (kept,) = hosts._idle
    await hosts.reached()
    assert list(hosts._idle) == [kept]
    hosts.idle_s = 0
    await hosts.reached()
    assert kept not in hosts._idle
    assert kept.transport.connection is None


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        (pypureomapi.OMAPI_OP_UPDATE, "it is not signed"),
        (pypureomapi.OMAPI_OP_STATUS, "a status without a result"),
        (pypureomapi.OMAPI_OP_NOTIFY, "it answered with operation 4"),
    ],
)
async def test_an_answer_that_is_not_signed_or_says_nothing_is_none(
    server: DHCPServer, operation: int, why: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_say_yes, args=(listener, operation))
        thread.start()
        try:
            async with omapi.opened("127.0.0.1", listener.getsockname()[1], server.key, timeout_s=5) as client:
                with pytest.raises(Unavailable, match=why):
                    await create(client, fresh())
        finally:
            thread.join()


def _say_yes(listener: socket.socket, operation: int) -> None:
    """Answer for an authenticator, and then for a host with an operation, as who has not been told our secret."""
    listener.settimeout(10)
    connection, _ = listener.accept()
    with connection:
        connection.sendall(b"\0\0\0\x64\0\0\0\x18" if connection.recv(8) else b"")
        for said in (pypureomapi.OMAPI_OP_UPDATE, operation):
            question = connection.recv(65536)
            connection.sendall(struct.pack("!6I", 0, 0, said, 5, 1, _tid(question)) + 4 * b"\0")


def _tid(question: bytes) -> int:
    """Return the number by which an answer names a question."""
    return int.from_bytes(question[16:20], "big")


@pytest.mark.parametrize("mood", ["drips", "babbles", "hangs up", "floods"])
async def test_whoever_is_no_dhcpd_is_unavailable_in_time(mood: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()
        thread = threading.Thread(target=_talk, args=(listener, mood, ended))
        thread.start()
        try:
            async with omapi.opened("127.0.0.1", listener.getsockname()[1], None, timeout_s=PATIENCE_S) as client:
                began = time.monotonic()
                with pytest.raises(Unavailable):
                    await client.reached()
                assert time.monotonic() - began < 3 * PATIENCE_S
                ours = client._threads
                ours.shutdown(wait=True)
                assert time.monotonic() - began < 3 * PATIENCE_S
        finally:
            ended.set()
            thread.join()


def _talk(listener: socket.socket, mood: str, ended: threading.Event) -> None:
    hello = b"\0\0\0\x64\0\0\0\x18"
    said = {"drips": hello, "babbles": b"HTTP/1.1 400 Bad Request\r\n\r\n", "hangs up": b"", "floods": hello}[mood]
    listener.settimeout(10)
    connection, _ = listener.accept()
    with connection:
        connection.sendall(said)
        # An answer whose parts are said to be longer than any is.
        head = b"\0\0\0\0\0\0\0\0\0\0\0\x03" + 12 * b"\0" + b"\0\x01a\x7f\xff\xff\xff"
        try:
            if mood == "drips":
                for octet in head + 60 * b"x":
                    connection.sendall(bytes([octet]))
                    if ended.wait(0.1):
                        return
            elif mood == "floods":
                connection.sendall(head)
                while not ended.is_set():
                    connection.sendall(8192 * b"x")
        except OSError:
            pass
