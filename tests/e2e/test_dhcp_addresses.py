"""Addresses for new hosts, asked of three members at once while members are killed; a real PostgreSQL has the claims.

Nothing may be given twice, and of a network nothing may be lost but what a dead member had told nobody.
"""

from __future__ import annotations

import json
import os
import random
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from typing import Any

import pytest
import yaml

from muster.cli.local.plan import ADDRESS, FOREMAN
from tests import scale
from tests.histories.addresses import Addresses
from tests.histories.history import History
from tests.histories.judge import judged
from tests.servers import local as clusters
from tests.servers import postgresql
from tests.servers.client import Connection, Place, request, tls_client
from tests.servers.local import Local, say, until

pytestmark = pytest.mark.anyio

CLIENTS = 16
SUBNETS = [IPv4Network(f"203.0.{113 + n}.0/24") for n in range(scale.OFFERED_SUBNETS)]
# Of each, less the network's own address and that of all hosts.
SIZE = 254
_ALONE_S = 120.0


@pytest.fixture(scope="module")
def cluster(needs: Callable[[str], None]) -> Iterator[Local]:
    needs("haproxy")
    needs("postgresql")
    with postgresql.running() as server, clusters.running(store_url=server.fresh_database()) as cluster:
        document: dict[str, Any] = yaml.safe_load(cluster.cluster_file.read_text())
        # No probes: whatever is between this host and the rest of the world may answer for anybody there.
        subnets = [{"network": str(n)} for n in SUBNETS]
        document["features"]["dhcp"] = {"provider": "memory", "memory": {"subnets": subnets}, "ping_free_ip": False}
        cluster.cluster_file.write_text(yaml.safe_dump(document))
        for name in cluster.names:
            kill(cluster, name, signal.SIGTERM)
        yield cluster


def kill(cluster: Local, name: str, how: signal.Signals = signal.SIGKILL) -> None:
    pid = cluster.pid_of(name)
    if pid is not None:
        os.kill(pid, how)


@pytest.fixture
async def well(cluster: Local) -> Local:
    await until(lambda: cluster.serves("dhcp"), "every member is ready and has the feature")
    return cluster


class Client(threading.Thread):
    """Asks one member after the other, in an order of chance, until a network has no address left.

    Attributes:
        unanswered: calls of which it never heard, in each of which an address may have been promised.
    """

    def __init__(self, number: int, cluster: Local, history: History, tls: ssl.SSLContext) -> None:
        super().__init__(name=f"client {number}")
        self.unanswered = 0
        self.failure: BaseException | None = None
        self._chance = random.Random(number)
        self._cluster = cluster
        self._history = history
        self._tls = tls

    def run(self) -> None:
        try:
            for subnet in SUBNETS:
                while self._asked(f"/dhcp/{subnet.network_address}/unused_ip"):
                    pass
        except BaseException as e:  # boundary: a thread's failure is the test's
            self.failure = e

    def _asked(self, path: str) -> bool:
        member = self._chance.randrange(self._cluster.members)
        place = Place(f"127.0.0.{11 + member}", self._cluster.ports["smartproxy"])
        begun = self._history.at()
        try:
            with Connection(place, tls=self._tls, server_name=ADDRESS) as connection:
                connection.send(request("GET", path, {"Connection": "close"}))
                answer = connection.answer()
        except ConnectionRefusedError:
            # Nobody there: nothing was asked.
            time.sleep(0.1)
            return True
        except (OSError, ValueError):
            self.unanswered += 1
            return True
        if answer.status == 503:
            self.unanswered += 1
            time.sleep(0.1)
            return True
        assert answer.status == 200, answer.text
        given = json.loads(answer.body)["ip"]
        if given is not None:
            self._history.note(self.name, "offer", given, None, None, begun)
        return given is not None


@pytest.mark.proof
async def test_nothing_is_given_twice_and_nothing_is_lost_while_members_are_killed(well: Local) -> None:
    history, bundle = History(), well.pki / "clients" / FOREMAN
    tls = tls_client(well.pki / "ca.pem")
    tls.load_cert_chain(bundle / "cert.pem", bundle / "key.pem")
    clients = [Client(n, well, history, tls) for n in range(CLIENTS)]
    begun = time.monotonic()
    for client in clients:
        client.start()
    chance, kills, wanted = random.Random(11), 0, SIZE * len(SUBNETS)
    while any(client.is_alive() for client in clients):
        assert time.monotonic() - begun < _ALONE_S * len(SUBNETS), "clients never came to an end"
        if len(history.calls) > kills * 60 + 30 and len(history.calls) < wanted - 20:
            kill(well, chance.choice(well.names))
            kills += 1
        time.sleep(0.02)
    for client in clients:
        client.join()
        if client.failure is not None:
            raise client.failure
    unanswered = sum(client.unanswered for client in clients)
    given = [c.key for c in history.calls]
    say(
        f"{len(given)} of {wanted} addresses given to {CLIENTS} clients in {time.monotonic() - begun:.1f} s, "
        f"{kills} members killed, {unanswered} calls not answered"
    )
    assert kills >= 2
    assert [str(f) for f in judged(Addresses(), history.calls)] == []
    assert len(set(given)) == len(given)
    assert wanted - unanswered <= len(given) <= wanted
