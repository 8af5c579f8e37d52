"""Which Smart Proxies Foreman should know, and in what it is mistaken."""

from __future__ import annotations

import pytest

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.foreman.records import Record
from muster.observed.registered import Live, Wanted, judged, live_of, wanted
from tests.unit.balancer.test_model import HEAD, document

ONE = Wanted("proxy01.test", "https://proxy01.test:9090", "10.0.0.1", 9090)
DNS = {"DNS": frozenset({"dns_cname"})}


def known(rest: str, *, head: str = HEAD) -> list[tuple[str, str]]:
    from muster.kernel.settings import parse

    cluster = parse(head + rest).parsed(ClusterFile)
    return [(w.name, w.url) for w in wanted(cluster, modelled(cluster))]


def test_each_ruby_member_is_known_by_its_own_name_and_a_cluster_of_ours_as_one() -> None:
    members = [("proxy01.test", "https://proxy01.test:9090"), ("proxy02.test", "https://proxy02.test:9090")]
    assert known("signer: proxy02.test\n") == members
    ours = HEAD.replace(", kind: foreman", "")
    assert known("authority: {}\n", head=ours) == [("cluster.test", "https://cluster.test:9090")]
    assert known("authority: {}\nforeman: {registration: members}\n", head=ours) == members
    assert known("signer: proxy02.test\nforeman: {registration: cluster}\n") == [
        ("cluster.test", "https://cluster.test:9090")
    ]


def test_containers_are_known_twice_and_by_the_port_they_have() -> None:
    """docs/facts/deployment.md §5."""
    ruby = HEAD.replace("{id: 11,", "{id: 11, kind: foreman,").replace(
        "{id: 12,", "{id: 12, ports: {smartproxy: 9090},"
    )
    assert known("generation: foremanctl\n", head=ruby) == [
        ("proxy01.test", "https://proxy01.test:8443"),
        ("proxy01.test-pulp", "https://proxy01.test/pulp/api/v3/smart_proxy"),
        ("proxy02.test", "https://proxy02.test:9090"),
        ("proxy02.test-pulp", "https://proxy02.test/pulp/api/v3/smart_proxy"),
    ]


def record(url: str = ONE.url, features: dict[str, frozenset[str] | None] | None = None) -> Record:
    return Record(1, "proxy01.test", url, DNS if features is None else features)


@pytest.mark.parametrize(
    ("records", "live", "standing", "sentence"),
    [
        ([], Live({}), "absent", "does not know https://proxy01.test:9090"),
        ([record("https://proxy01.test:8443")], Live({}), "elsewhere", "at https://proxy01.test:8443"),
        ([record()], None, "unknown", "could not be asked"),
        ([record()], Live({"dns": frozenset({"dns_cname"})}), "well", "knows its 1 features"),
        ([record("https://PROXY01.test:9090/")], Live({"dns": None}), "well", "knows"),
        ([record()], Live({"dns": frozenset()}), "outdated", "DNS can nothing more, and Foreman has dns_cname"),
        ([record()], Live({}), "outdated", "believes in DNS, which it has not"),
        ([record(features={})], Live({"puppetca": None}), "outdated", "does not know of puppetca"),
        ([record(features={"Puppet CA": None})], Live({"puppetca": frozenset()}), "well", "knows"),
    ],
)
def test_in_what_foreman_is_mistaken_is_said(
    records: list[Record], live: Live | None, standing: str, sentence: str
) -> None:
    found = judged(ONE, records, live, None)
    assert (found.standing, sentence in found.sentence) == (standing, True)


AT_443 = Wanted("proxy01.test", "https://proxy01.test:443", "10.0.0.1", 443)


@pytest.mark.parametrize("url", ["https://proxy01.test", "https://PROXY01.test:443/", "https://proxy01.test/"])
def test_a_url_without_its_port_is_the_same(url: str) -> None:
    assert judged(AT_443, [record(url)], Live({"dns": None}), None).standing == "well"
    assert judged(AT_443, [record(url.replace("https", "http"))], Live({"dns": None}), None).standing == "elsewhere"


def test_a_second_record_of_one_url_is_said_and_the_one_of_the_name_is_looked_at() -> None:
    other = Record(7, "older", "https://proxy01.test:9090/", {})
    found = judged(ONE, [other, record()], Live({"dns": None}), None)
    assert (found.standing, found.record) == ("well", record())
    assert found.sentence.endswith("it has https://proxy01.test:9090 a second time, as older")


@pytest.mark.parametrize("url", ["", "https://[", "https://proxy01.test:x", "https://proxy01.test:99999999"])
def test_a_record_whose_url_is_none_is_elsewhere(url: str) -> None:
    assert judged(ONE, [record(url)], Live({}), None).standing == "elsewhere"


def test_settings_that_foreman_shows_nobody_are_known_by_their_digest() -> None:
    said = {"dns": {"state": "running", "capabilities": ["dns_cname"], "settings": {"dns_ttl": 60}}}
    before, after = live_of(said), live_of({"dns": {**said["dns"], "settings": {"dns_ttl": 90}}})
    assert judged(ONE, [record()], after, after.digest).standing == "well"
    assert judged(ONE, [record()], after, None).standing == "well"
    assert judged(ONE, [record()], after, before.digest).standing == "outdated"
    # What does not run is no feature of it.
    assert live_of({"dns": {"state": "failed"}}).features == {}


def test_the_head_of_these_tests_has_one_member_of_each_kind() -> None:
    assert [m.kind for m in document("signer: proxy02.test\n").parsed(ClusterFile).members] == ["muster", "foreman"]
