"""The census on the wire: a real member of ours beside a proxy that answers as the Ruby one does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from sqlalchemy import update

from muster.app.offers import modelled
from muster.app.settings import cluster_store, loaded
from muster.cluster.roster import Roster
from muster.cluster.sections import Foreman
from muster.kernel.clock import FakeClock
from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.files import write_atomically
from muster.observed.census import Census, Parity
from muster.observed.rounds import DriftMetrics, Rounds
from muster.observed.statements import Statements
from muster.observed.survey import surveyed
from muster.pki import bundles
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest
from muster.pki.context import Credentials
from muster.store.tables import documents
from tests.servers import member, ruby
from tests.servers.client import PATIENCE_S, Place
from tests.servers.local import Said, muster
from tests.servers.member import CLUSTER_ADDRESS, TRUSTED, Member
from tests.servers.ruby import RubyProxy, feature

pytestmark = pytest.mark.anyio

TOLD = Foreman().told_version
RUBY = "old.example.com"
RUBY_ADDRESS = "127.0.2.9"


@dataclass
class Pair:
    """A cluster of one member of ours and one Ruby proxy."""

    ours: Member
    ruby: RubyProxy

    def declare(self, **changes: Any) -> None:
        content = yaml.safe_load(self.ours.cluster_file.read_text())
        write_atomically(self.ours.cluster_file, yaml.safe_dump({**content, **changes}))

    def wait_for_the_first_beat(self) -> None:
        statements = Statements(self.ours.process.store)
        limit = time.monotonic() + PATIENCE_S
        while not self.ours.tell(statements.told):
            assert time.monotonic() < limit, "the member told the store nothing"
            time.sleep(0.02)

    async def parity(self, client: Path | None = None) -> Parity:
        cluster = loaded(self.ours.cluster_file)
        shown = client or self.ours.client()
        census = Census(cluster, modelled(cluster), self.ours.ca, shown, None, datetime.now(UTC))
        async with cluster_store(cluster) as store:
            return await census.parity(store)

    async def drifted(self) -> Mapping[str, Mapping[str, Any]]:
        found = await self.parity()
        assert not found.unasked, found.unasked
        return {d.field: d.values for d in found.drifts}

    def cli(self, *options: str) -> Said:
        write_atomically(self.ours.pki / "ca.pem", self.ours.ca.read_bytes())
        place = ("--cluster", str(self.ours.cluster_file), "--pki", str(self.ours.pki))
        return muster("parity", *place, *options)

    def present(self, *names: str) -> bundles.BundlePaths:
        """Make a bundle for the Ruby member that carries these names beside its own."""
        bundle = self.ours.authority.issue(BundleRequest("member", RUBY, names), now=datetime.now(UTC))
        return bundles.write(bundle, self.ours.pki)


def prepared(directory: Path) -> Pair:
    ours = member.made(directory, features={"dns": {"provider": "memory"}})
    proxy = RubyProxy(Place(RUBY_ADDRESS, ours.https.port), TRUSTED)
    proxy.features = {"dns": feature(use_provider="dns_memory"), "logs": feature(), "bmc": feature("disabled")}
    pair = Pair(ours, proxy)
    known = yaml.safe_load(ours.cluster_file.read_text())["members"]
    pair.declare(members=[*known, {"id": 4000, "name": RUBY, "address": RUBY_ADDRESS, "kind": "foreman"}])
    return pair


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = prepared(tmp_path)
    with ruby.running(pair.ruby, pair.present(CLUSTER_ADDRESS), pair.ours.ca):
        pair.ours.start()
        try:
            pair.wait_for_the_first_beat()
            yield pair
        finally:
            pair.ours.stop()


async def test_a_ruby_member_that_says_what_ours_says_is_like_ours(pair: Pair) -> None:
    found = await pair.parity()
    assert (found.drifts, found.unasked, found.notes) == ((), {}, ())
    assert found.alike
    assert found.facts[RUBY]["dns"]["settings"] == {"use_provider": "dns_memory"}
    assert "muster" not in found.facts[RUBY]
    assert found.facts[pair.ours.name]["muster"]["schema"] == "1"
    assert pair.ruby.server_names == {CLUSTER_ADDRESS}
    certificates = [f["certificate"]["smartproxy"] for f in found.facts.values()]
    assert certificates[0] == certificates[1]
    assert certificates[0]["chain"] == "verified"
    assert CLUSTER_ADDRESS in certificates[0]["names"]


async def test_providers_versions_and_features_are_compared_across_kinds(pair: Pair) -> None:
    pair.ruby.version = "3.12.0"
    pair.ruby.features["dns"] = feature(use_provider="dns_nsupdate")
    pair.ruby.features["templates"] = feature(template_url="http://old.example.com:8000")
    ours = pair.ours.name
    assert await pair.drifted() == {
        "dns.settings.use_provider": {ours: "dns_memory", RUBY: "dns_nsupdate"},
        "dns.version": {ours: TOLD, RUBY: "3.12.0"},
        "logs.version": {ours: TOLD, RUBY: "3.12.0"},
        "templates.state": {ours: "disabled", RUBY: "running"},
        "version": {ours: TOLD, RUBY: "3.12.0"},
    }
    said = pair.cli("--certificate", str(pair.ours.client()))
    assert said.code == 1, said
    assert f"dns_memory on {ours}, dns_nsupdate on {RUBY}" in said.out
    assert "5 fields drifted" in said.out


async def test_declared_differences_are_no_drift_and_idle_ones_are_named(pair: Pair) -> None:
    pair.ruby.version = "3.12.0"
    wanted = [
        {"field": "*version", "members": [RUBY], "reason": "upgraded first"},
        {"field": "dns.settings.*", "reason": "nobody does"},
    ]
    pair.declare(expected_differences=wanted)
    found = await pair.parity()
    assert found.alike
    assert {d.field: d.expected for d in found.drifts} == {
        f: {RUBY: "upgraded first"} for f in ("dns.version", "logs.version", "version")
    }
    assert [e.field for e in found.unneeded] == ["dns.settings.*"]
    said = pair.cli("--certificate", str(pair.ours.client()))
    assert said.code == 0, said
    assert f"{RUBY}: version differs as expected (upgraded first)" in said.out
    assert "Declared and not found: dns.settings.* (nobody does)" in said.out


async def test_a_certificate_without_the_clusters_name_is_a_drift_of_a_member_that_cannot_be_asked(
    tmp_path: Path,
) -> None:
    pair = prepared(tmp_path)
    pair.ours.start()
    try:
        with ruby.running(pair.ruby, pair.present("other.example.com"), pair.ours.ca):
            found = await pair.parity()
    finally:
        pair.ours.stop()
    assert "failed in TLS" in found.unasked[RUBY]
    drifts = {d.field: d.values for d in found.drifts}
    assert sorted(drifts) == ["certificate.smartproxy.chain", "certificate.smartproxy.names"]
    assert "other.example.com" in drifts["certificate.smartproxy.names"][RUBY]
    assert drifts["certificate.smartproxy.chain"][RUBY] != "verified"


async def test_a_client_nobody_trusts_cannot_ask_and_is_told_what_to_show(pair: Pair) -> None:
    found = await pair.parity(pair.ours.client("stranger.example.com"))
    assert set(found.unasked) == {pair.ours.name, RUBY}
    assert all("--client" in why for why in found.unasked.values())
    said = pair.cli("--certificate", str(pair.ours.client("stranger.example.com")), "--json")
    assert said.code == 4, said
    assert set(said.json["unasked"]) == {pair.ours.name, RUBY}


async def test_a_member_that_is_down_is_named_and_the_others_are_compared(pair: Pair) -> None:
    pair.ours.stop()
    try:
        found = await pair.parity()
        said = pair.cli("--certificate", str(pair.ours.client()))
    finally:
        pair.ours.start()
    assert set(found.unasked) == {pair.ours.name}
    assert found.drifts == ()
    assert said.code == 4, said
    assert f"Not asked: {pair.ours.name}: GET" in said.out
    assert "of 1 member." in said.out


async def test_a_proxy_older_than_v2_is_compared_by_its_features(pair: Pair) -> None:
    pair.ruby.raw["/v2/features"] = (404, "Requested url was not found")
    pair.ruby.features.pop("dns")
    drifts = await pair.drifted()
    assert drifts["dns.state"] == {pair.ours.name: "running", RUBY: "disabled"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/version", "[]"),
        ("/features", "{}"),
        ("/v2/features", "[1]"),
        ("/v2/features", json.dumps({"dns": "running"})),
        ("/v2/features", "<html>"),
    ],
)
async def test_something_else_on_the_port_is_named(pair: Pair, path: str, body: str) -> None:
    pair.ruby.raw[path] = (200, body)
    found = await pair.parity()
    assert set(found.unasked) == {RUBY}
    assert "answer" in found.unasked[RUBY]


async def test_without_the_store_the_wire_is_still_compared(pair: Pair, tmp_path: Path) -> None:
    pair.declare(store={"url": f"sqlite:///{tmp_path}/missing/muster.db"})
    found = await pair.parity()
    assert found.drifts == ()
    (note,) = found.notes
    assert note.startswith("Muster's version and the cluster file were not compared: ")


async def test_without_the_smartproxy_service_nobody_can_be_asked(pair: Pair) -> None:
    cluster = loaded(pair.ours.cluster_file)
    balancing = replace(modelled(cluster), services=())
    census = Census(cluster, balancing, pair.ours.ca, pair.ours.client(), None, datetime.now(UTC))
    async with cluster_store(cluster) as store:
        found = await census.parity(store)
    assert set(found.unasked) == {pair.ours.name, RUBY}
    assert all("Service smartproxy is disabled" in why for why in found.unasked.values())


async def test_our_own_unusable_certificate_is_misconfigured(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured):
        await pair.parity(tmp_path / "none.pem")


async def test_what_a_member_tells_the_store_is_what_the_census_hears_from_it(pair: Pair) -> None:
    heard = (await pair.parity()).facts[pair.ours.name]
    told = pair.ours.tell(pair.ours.process.likeness.facts)
    told["certificate"]["smartproxy"]["chain"] = "verified"
    assert told == heard


async def test_a_member_counts_the_fields_in_which_it_differs_from_most(pair: Pair) -> None:
    process, tell = pair.ours.process, pair.ours.tell

    async def others_tell(**changes: Any) -> None:
        for name in ("p8.example.com", "p9.example.com"):
            await Roster(process.store).beat(replace(process.report(), name=name), first=True)
            await Statements(process.store).give(name, {**process.likeness.facts(), **changes})
        await process.likeness.compare()

    def counted() -> list[str]:
        lines = pair.ours.ask("GET", "/metrics").text.splitlines()
        return [line for line in lines if line.startswith("muster_parity_drift")]

    assert counted() == ["muster_parity_drift 0.0"]
    odd = {"smartproxy": {**process.likeness.facts()["certificate"]["smartproxy"], "issuer": "CN=Other CA"}}
    await asyncio.to_thread(tell, others_tell)
    assert counted() == ["muster_parity_drift 0.0"]
    await asyncio.to_thread(tell, partial(others_tell, version="3.12.0", certificate=odd))
    assert counted() == ["muster_parity_drift 2.0"]
    await asyncio.to_thread(tell, others_tell)
    assert counted() == ["muster_parity_drift 0.0"]


async def test_a_member_without_a_registration_url_is_the_drift_that_sends_hosts_elsewhere(tmp_path: Path) -> None:
    pair = prepared(tmp_path)
    url = f"https://{CLUSTER_ADDRESS}:9090"
    other, other_name = RubyProxy(Place("127.0.2.10", pair.ours.https.port), TRUSTED), "older.example.com"
    pair.ruby.features = {"registration": feature(registration_url=url), "templates": feature(template_url=url)}
    other.features = {"registration": feature(registration_url=None), "templates": feature(template_url=url)}
    names = {RUBY: RUBY_ADDRESS, other_name: other.place.address}
    pair.declare(
        members=[{"id": i, "name": n, "address": a, "kind": "foreman"} for i, (n, a) in enumerate(names.items(), 1)]
    )
    bundle = pair.ours.authority.issue(BundleRequest("member", other_name, (CLUSTER_ADDRESS,)), now=datetime.now(UTC))
    with (
        ruby.running(pair.ruby, pair.present(CLUSTER_ADDRESS), pair.ours.ca),
        ruby.running(other, bundles.write(bundle, pair.ours.pki), pair.ours.ca),
    ):
        assert await pair.drifted() == {"registration.settings.registration_url": {RUBY: url, other_name: None}}


# The census now and then.


def openly(pair: Pair) -> Census:
    """The census as a member takes it: with its own certificate, which Ruby proxies do not trust."""
    own = bundles.paths(pair.ours.pki, "member", pair.ours.name)
    cluster = loaded(pair.ours.cluster_file)
    now = datetime.now(UTC)
    return Census(cluster, modelled(cluster), pair.ours.ca, own.certificate, own.key, now, openly=True)


async def test_who_is_not_trusted_compares_what_anybody_is_told_and_says_so(pair: Pair) -> None:
    pair.ruby.features["dns"] = feature(use_provider="dns_nsupdate")
    async with cluster_store(loaded(pair.ours.cluster_file)) as store:
        found = await openly(pair).parity(store)
        assert (found.unasked, found.drifts) == ({}, ())
        (note,) = found.notes
        assert "Settings and capabilities of features were not compared" in note
        assert RUBY in note
        pair.ruby.version = "3.12.0"
        pair.ruby.features["templates"] = feature()
        found = await openly(pair).parity(store)
    assert [d.field for d in found.drifts] == ["dns.version", "logs.version", "templates.state", "version"]
    assert found.of(RUBY) == ("dns.version", "logs.version", "templates.state", "version")


class Always:
    """Chance that always takes the lower number."""

    def uniform(self, a: float, b: float) -> float:
        return a


def exposed(registry: CollectorRegistry) -> dict[str, float]:
    samples = (s for family in registry.collect() for s in family.samples)
    return {f"{s.name}{s.labels.get('member', '')}": s.value for s in samples}


async def test_one_process_takes_the_census_and_another_one_after_it(pair: Pair) -> None:
    pair.ruby.version = "3.12.0"
    clock = FakeClock()
    async with cluster_store(loaded(pair.ours.cluster_file)) as store:
        first, second = (
            Rounds(store, n, lambda: openly(pair), clock=clock, chance=Always(), every_s=100) for n in ("a", "b")
        )
        assert not await first.beat(), "not at once"
        assert first.last is None
        clock.advance(10)
        assert (await first.beat(), await second.beat()) == (True, True)
        assert first.last is not None
        assert (first.last.of(RUBY), second.last) == (("dns.version", "logs.version", "version"), None)
        assert not await first.beat(), "not again before it is due"
        clock.advance(80)
        assert await second.beat()
        assert second.last is None, "the first one keeps it"
        await first.resign()
        clock.advance(80)
        assert await second.beat()
        assert second.last is not None
        assert await first.beat()
        assert first.last is None


async def test_for_how_long_members_have_differed_is_kept_from_round_to_round_whoever_takes_it(pair: Pair) -> None:
    pair.ruby.version = "3.12.0"
    clock = FakeClock()
    async with cluster_store(loaded(pair.ours.cluster_file)) as store:
        first, second = (
            Rounds(store, name, lambda: openly(pair), clock=clock, chance=Always(), every_s=100) for name in "ab"
        )
        clock.advance(10)
        assert await first.beat()
        assert first.last is not None
        assert {d.lasted_s for d in first.last.drifts} == {0.0}
        # As if the round had been some time ago.
        async with store.write() as uow:
            name = documents.c.name == "found/parity"
            changed_at = documents.c.changed_at - 1000
            await uow.connection.execute(update(documents).where(name).values(changed_at=changed_at))
        await first.resign()
        pair.ruby.features["bmc"] = feature()
        clock.advance(80)
        assert await second.beat()
        assert second.last is not None
        lasted = {d.field: d.lasted_s for d in second.last.drifts}
        assert lasted.pop("bmc.state") == 0.0
        assert lasted
        assert all(1000 <= s < 1100 for s in lasted.values()), lasted
        shown = DriftMetrics(registry := CollectorRegistry())
        shown.show(second.last, datetime.now(UTC))
        assert exposed(registry)[f"muster_census_drift_lasted_seconds{RUBY}"] == max(lasted.values())
    shown_to = ("--certificate", str(pair.ours.client()))
    said = pair.cli("--json", *shown_to)
    assert {d["field"] for d in said.json["drifts"] if d["lasted_s"] >= 1000} == lasted.keys()
    assert ", for 16 minutes or longer" in pair.cli(*shown_to).out


async def test_drifts_of_ruby_members_and_of_live_chains_are_a_metric_of_whoever_takes_the_census(pair: Pair) -> None:
    registry = CollectorRegistry()
    shown = DriftMetrics(registry)
    assert exposed(registry) == {"muster_census_timestamp_seconds": 0}
    pair.ruby.version = "3.12.0"
    at = datetime.now(UTC)
    async with cluster_store(loaded(pair.ours.cluster_file)) as store:
        shown.show(await openly(pair).parity(store), at)
        assert exposed(registry) == {
            f"muster_census_drift{pair.ours.name}": 3,
            f"muster_census_drift{RUBY}": 3,
            f"muster_census_unasked{pair.ours.name}": 0,
            f"muster_census_unasked{RUBY}": 0,
            f"muster_census_drift_lasted_seconds{pair.ours.name}": 0,
            f"muster_census_drift_lasted_seconds{RUBY}": 0,
            "muster_census_timestamp_seconds": at.timestamp(),
        }
        pair.ours.stop()
        shown.show(await openly(pair).parity(store), at)
        pair.ours.start()
    assert exposed(registry)[f"muster_census_unasked{pair.ours.name}"] == 1
    shown.show(None, at)
    assert exposed(registry) == {"muster_census_timestamp_seconds": 0}


async def test_a_chain_no_client_would_believe_counts(tmp_path: Path) -> None:
    pair = prepared(tmp_path)
    pair.ours.start()
    try:
        with ruby.running(pair.ruby, pair.present("other.example.com"), pair.ours.ca):
            async with cluster_store(loaded(pair.ours.cluster_file)) as store:
                found = await openly(pair).parity(store)
    finally:
        pair.ours.stop()
    assert set(found.of(RUBY)) == {"certificate.smartproxy.chain", "certificate.smartproxy.names"}
    assert set(found.unasked) == {RUBY}


async def test_without_the_store_nobody_knows_who_takes_the_census(pair: Pair, tmp_path: Path) -> None:
    pair.declare(store={"url": f"sqlite:///{tmp_path}/missing/muster.db"})
    clock = FakeClock()
    async with cluster_store(loaded(pair.ours.cluster_file)) as store:
        rounds = Rounds(store, "a", lambda: openly(pair), clock=clock, chance=Always(), every_s=100)
        clock.advance(10)
        with pytest.raises(Unavailable):
            await rounds.beat()


async def test_a_member_takes_the_census_and_exports_it(pair: Pair) -> None:
    pair.ruby.version = "3.12.0"
    pair.ours.process.census.rounds._due = 0.0
    line = f'muster_census_drift{{member="{RUBY}"}} 3.0'
    limit = time.monotonic() + PATIENCE_S
    while line not in (text := pair.ours.ask("GET", "/metrics").text):
        assert time.monotonic() < limit, text
        await asyncio.sleep(0.05)


async def test_a_ruby_member_of_the_site_s_ca_is_verified_by_foreman_s_ca_file(pair: Pair, tmp_path: Path) -> None:
    site = ClusterCA.create(tmp_path / "site", "site", now=datetime.now(UTC))
    names = BundleRequest("member", RUBY, (CLUSTER_ADDRESS,))
    theirs = bundles.write(site.issue(names, now=datetime.now(UTC)), tmp_path / "site")
    alone = RubyProxy(Place("127.0.2.10", pair.ours.https.port), TRUSTED)
    alone.features = pair.ruby.features
    members = yaml.safe_load(pair.ours.cluster_file.read_text())["members"]
    members[-1]["address"] = "127.0.2.10"
    pair.declare(members=members)
    with ruby.running(alone, theirs, pair.ours.ca):
        refused = await pair.parity()
        pair.declare(foreman={"trusted_hosts": [TRUSTED], "ca_file": str(tmp_path / "site" / "ca.pem")})
        found = await pair.parity()
        cluster = loaded(pair.ours.cluster_file)
        shown = Credentials(pair.ours.ca, pair.ours.client(), None, cluster.foreman.ca_file)
        answers = await surveyed(modelled(cluster), shown)
        strict = await surveyed(modelled(cluster), replace(shown, site_ca_file=None))
    # In words, not in Python's.
    assert "the certificate is not accepted: unable to get local issuer certificate" in refused.unasked[RUBY]
    assert "SSLCert" not in refused.unasked[RUBY]
    assert found.unasked == {}
    assert found.facts[RUBY]["certificate"]["smartproxy"]["chain"] == "verified"
    said = [(a.member, a.standing) for a in answers if a.service == "smartproxy"]
    assert said == [(pair.ours.name.lower(), "ready"), (RUBY, "ready")]
    assert [a.standing for a in strict if a.service == "smartproxy"] == ["ready", "unreachable"]
