"""Members that are Ruby Smart Proxies (played by a TLS server with their answers) leave and return by the balancer alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.cli.demo.bind import free_port
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundlePaths, BundleRequest, write
from tests.servers import ruby
from tests.servers.client import Place
from tests.servers.local import until
from tests.servers.ruby import RubyProxy, feature

pytestmark = pytest.mark.anyio

MEMBERS = {"ruby01.example.net": "127.0.0.46", "ruby02.example.net": "127.0.0.47"}
FIRST, SECOND = MEMBERS
BALANCER, CLUSTER = "127.0.0.48", "rubies.example.net"


@dataclass
class Site:
    """Two Ruby members, a balancer, and clients.

    Attributes:
        answered: who answered how often since it was looked at.
        failed: calls without an answer, in their words.
    """

    home: Path
    port: int
    foreman: BundlePaths
    answered: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    async def muster(self, *arguments: str) -> tuple[int, str]:
        place = ("--cluster", str(self.home / "cluster.yaml"))
        run = asyncio.create_subprocess_exec(
            sys.executable, "-m", "muster", *arguments, *place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        process = await run
        out, _ = await process.communicate()
        return process.returncode or 0, out.decode()

    def ask(self) -> str:
        context = ssl.create_default_context(cafile=str(self.home / "pki" / "ca.pem"))
        context.load_cert_chain(self.foreman.certificate, self.foreman.key)
        context.check_hostname = False
        with contextlib.closing(HTTPSConnection(BALANCER, self.port, timeout=5, context=context)) as connection:
            connection.request("GET", "/version")
            version: str = json.loads(connection.getresponse().read())["version"]
        return version

    @contextlib.contextmanager
    def clients(self) -> Iterator[None]:
        done = threading.Event()

        def keep_asking() -> None:
            while not done.wait(0.02):
                try:
                    self.answered[self.ask()] += 1
                except (OSError, ValueError) as e:
                    self.failed.append(repr(e))

        threads = [threading.Thread(target=keep_asking) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            done.set()
            for thread in threads:
                thread.join()

    async def only(self, *wanted: str) -> None:
        """Wait until these answer and nobody else."""

        async def is_so() -> bool:
            self.answered.clear()
            await asyncio.sleep(0.6)
            return set(self.answered) == set(wanted)

        await until(is_so, f"{' and '.join(wanted)} answer")

    async def state(self, member: str) -> str:
        _, out = await self.muster("status", "--json")
        members: list[dict[str, Any]] = json.loads(out[out.index("{") :])["members"]
        return next(str(m["life"]["state"]) for m in members if m["name"] == member)


@pytest.fixture
def site(tmp_path: Path, needs: Callable[[str], None]) -> Iterator[Site]:
    needs("haproxy")
    now = datetime.now(UTC)
    ca = ClusterCA.create(tmp_path / "pki", "rubies", now=now)
    port, member_port = free_port(BALANCER), free_port("127.0.0.46")
    write(ca.issue(BundleRequest("balancer", "balancer"), now=now), tmp_path / "pki")
    foreman = write(ca.issue(BundleRequest("client", "foreman.example.net"), now=now), tmp_path / "pki")
    others = ("http", "https", "anaconda", "puppet", "puppetca")
    content = {
        "schema": 1, "cluster": "rubies", "address": CLUSTER, "store": {"url": f"sqlite:///{tmp_path}/store.db"},
        "members": [{"id": i, "name": n, "address": a, "kind": "foreman"} for i, (n, a) in enumerate(MEMBERS.items(), 1)],
        "balancers": [{"name": "lb", "address": BALANCER, "bind": BALANCER}],
        "generation": "installer",
        "services": {**{n: {"enabled": False} for n in others},
                     "smartproxy": {"listen_port": port, "member_port": member_port}},
    }  # fmt: skip
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(content))
    with contextlib.ExitStack() as stack:
        for name, address in MEMBERS.items():
            proxy = RubyProxy(Place(address, member_port), "foreman.example.net", version=name)
            proxy.features = {"dns": feature(use_provider="dns_nsupdate")}
            bundle = write(ca.issue(BundleRequest("member", name, (CLUSTER,)), now=now), tmp_path / "pki")
            stack.enter_context(ruby.running(proxy, bundle, tmp_path / "pki" / "ca.pem"))
        command = [sys.executable, "-m", "muster", "balance", "--cluster", str(tmp_path / "cluster.yaml")]
        log = stack.enter_context((tmp_path / "balance.log").open("wb"))
        process = subprocess.Popen([*command, "--run", str(tmp_path / "run")], stdout=log, stderr=log)
        try:
            yield Site(tmp_path, port, foreman)
        finally:
            process.terminate()
            process.wait(30)


async def test_a_ruby_member_is_drained_without_a_failed_call_and_comes_back(site: Site) -> None:
    async def is_up() -> bool:
        with contextlib.suppress(OSError):
            return bool(await asyncio.to_thread(site.ask))
        return False

    await until(is_up, "the balancer serves")
    with site.clients():
        await site.only(FIRST, SECOND)
        code, said = await site.muster("drain", FIRST, "--reason", "kernel", "--wait", "30")
        assert code == 0, said
        assert "is drained" in said
        await site.only(SECOND)
        assert await site.state(FIRST) == "drained"
        code, said = await site.muster("drain", SECOND, "--wait", "5")
        assert code != 0, "nobody would be left"
        await site.only(SECOND)
        code, said = await site.muster("maintenance", FIRST, "--wait", "30")
        assert code == 0, said
        assert await site.state(FIRST) == "maintenance"
        code, said = await site.muster("ready", FIRST, "--wait", "30")
        assert code == 0, said
        await site.only(FIRST, SECOND)
    assert site.failed == []
