"""A member that cannot listen for ProxyDHCP says why, serves all else, and answers as soon as it can."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.servers import proxydhcp, pxe_client
from tests.servers.available import sbin
from tests.servers.namespaces import DEVICE
from tests.servers.postgresql import PostgreSQL
from tests.servers.proxydhcp import NETWORK, Answering, Segment

_SAID_S = 60.0


def _until(member: Answering, said: str) -> None:
    limit = time.monotonic() + _SAID_S
    while said not in member.log:
        assert time.monotonic() < limit, member.log[-3000:]
        time.sleep(0.1)


def test_a_member_without_the_capability_says_so(
    needs: Callable[[str], None], tmp_path: Path, postgresql_server: PostgreSQL
) -> None:
    needs("namespaces")
    without = ("setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service")
    with proxydhcp.running(tmp_path, postgresql_server, 1, dhcpd=False, before=without) as segment:
        (member,) = segment.members
        _until(member, "UDP port 67 cannot be listened on")
        assert "CAP_NET_BIND_SERVICE" in member.log
        _until(member, "Member serves")


def test_a_member_answers_when_the_port_is_given_free(
    needs: Callable[[str], None], tmp_path: Path, postgresql_server: PostgreSQL
) -> None:
    needs("dnsmasq")
    with proxydhcp.running(tmp_path, postgresql_server, 1, dhcpd=False, begun=False) as segment:
        (member,) = segment.members
        with _dnsmasq(segment, member):
            member.begin()
            _until(member, "another program of this host has it and does not share it")
            with pxe_client.opened(segment.machine) as machine, pytest.raises(AssertionError):
                machine.first(within_s=1)
        with pxe_client.opened(segment.machine) as machine:
            assert machine.first(within_s=_SAID_S).server == member.host.address


def _dnsmasq(segment: Segment, member: Answering) -> AbstractContextManager[object]:
    program = sbin("dnsmasq")
    assert program is not None
    command = member.host.command(
        program, "--no-daemon", "--conf-file=/dev/null", "--port=0", "--user=root", f"--interface={DEVICE}",
        f"--dhcp-range={NETWORK}.100,{NETWORK}.110", f"--dhcp-leasefile={segment.directory / 'leases'}",
    )  # fmt: skip
    return proxydhcp.ran(command, segment.directory / "dnsmasq.log")
