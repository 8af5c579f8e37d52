"""Three members, a real HAProxy and a group of two real BINDs, one of which goes away: what an administrator sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import yaml

from tests.servers import bind
from tests.servers.bind import BindServer, Zone
from tests.servers.client import Answer
from tests.servers.local import Local, running, until

pytestmark = pytest.mark.anyio

ZONE = "example.net"


@dataclass(frozen=True)
class Site:
    cluster: Local
    one: BindServer
    other: BindServer

    def post(self, name: str, value: str) -> int:
        form = {"fqdn": f"{name}.{ZONE}", "value": value, "type": "A"}
        return self.cluster.as_foreman("POST", "/dns/", form).status

    def get(self, path: str) -> Answer:
        return self.cluster.as_foreman("GET", path, {}, member=0)

    def zones(self) -> list[list[str]]:
        return [[line for line in s.transfer(ZONE) if " SOA " not in line] for s in (self.one, self.other)]


@pytest.fixture(scope="module")
def site(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for name in ("bind", "haproxy"):
        needs(name)
    directory = tmp_path_factory.mktemp("groups")
    with (
        bind.running(directory / "ns1", zones=[Zone(ZONE)]) as one,
        bind.running(directory / "ns2", zones=[Zone(ZONE)]) as other,
    ):
        providers = {
            f"ns{n}": {"nsupdate": {"server": s.address, "port": s.port, "key_file": str(s.key_file)}}
            for n, s in enumerate((one, other), 1)
        }
        breaker = {"failures": 2, "open_s": 0.5, "most_s": 1}
        dns = {"policies": {"breaker": breaker}, "group": {"mode": "all", "providers": providers}}
        (directory / "features.yaml").write_text(yaml.safe_dump({"dns": dns}))
        with running(options=["--features", str(directory / "features.yaml")]) as cluster:
            yield Site(cluster, one, other)


async def test_a_dns_server_is_away_and_all_that_it_missed_is_seen_and_made(site: Site) -> None:
    assert await asyncio.to_thread(site.post, "before", "192.0.2.1") == 200
    assert [len(z) for z in site.zones()] == [len(site.zones()[0])] * 2
    await asyncio.to_thread(site.other.stop)
    made = [f"h{n}" for n in range(6)]
    said = await asyncio.gather(*(asyncio.to_thread(site.post, n, "192.0.2.7") for n in made))
    assert said == [200] * 6
    # Whichever member is asked, it knows what another one did.
    assert await asyncio.to_thread(site.post, "h0", "192.0.2.8") == 409

    async def seen() -> bool:
        told = await site.cluster.cli("explain", "feature", "dns", "--json")
        assert told.code == 0, told
        chains = told.json["members"].values()
        return len(chains) == 3 and all(c["providers"][1]["pending"] == 6 for c in chains)

    await until(seen, "every member knows what ns2 has yet to have")
    text = (await site.cluster.cli("explain", "feature", "dns")).out
    assert text.startswith("Feature dns, a group of 2 providers, mode all\n")
    assert "→ ns2 (nsupdate)\n" in text
    assert "has yet to have 6 changes; last failure: " in text
    listed = (await site.cluster.cli("repairs", "list", "--json")).json["repairs"]
    assert [(r["group"], r["provider"], r["operation"]) for r in listed] == [("dns", "ns2", "add")] * 6

    async def noted() -> bool:
        ready = await asyncio.to_thread(site.get, "/health/ready?service=smartproxy")
        return b"feature dns, provider ns2: has yet to have 6 changes" in ready.body and ready.status == 200

    await until(noted, "a member that takes clients says what is missing")
    measured = await asyncio.to_thread(site.get, "/metrics")
    assert b'muster_group_repairs{feature="dns",provider="ns2",state="pending"} 6.0' in measured.body
    await asyncio.to_thread(site.other.start)
    retried = await site.cluster.cli("repairs", "retry", "--all")
    assert retried.code == 0, retried

    async def repaired() -> bool:
        return not (await site.cluster.cli("repairs", "list", "--json")).json["repairs"]

    await until(repaired, "ns2 has had everything")
    one, other = site.zones()
    assert one == other
    assert sum("192.0.2.7" in line for line in other) == 6
