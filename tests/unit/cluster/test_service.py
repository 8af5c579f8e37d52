"""Entries of the services register: what may stand in them, and how sources become one."""

from __future__ import annotations

from typing import Any

import pytest

from muster.cluster.service import (
    ADMINISTRATOR,
    ANY,
    FREE,
    TOTAL,
    USED,
    Change,
    Register,
    Service,
    Told,
    joined,
    kind_of,
    merged,
    of_cluster,
    of_settings,
    room_said,
)
from muster.kernel.errors import NotFound, Rejected
from tests.unit.cluster.written import ONE, SMALL, TWO, parsed, with_members

BASE = {"pulp": of_settings("pulp", "https://{member}", {ANY: "https://smartproxy.test/pulp/content"})}


def typed(**fields: Any) -> dict[str, Any]:
    return {**fields, "version": 3, "by": "anna", "at": 5.0}


def heard(member: str = "old.test", control: str = "https://old.test") -> Told:
    said = {"control_url": control, "client_urls": {ANY: "https://lb.test/pulp/content"}, "facts": {"mirror": True}}
    return Told(member, f"features of {member}", {f"pulp@{member}": said})


def test_the_cluster_file_names_its_store_foreman_pulp_and_registry() -> None:
    text = SMALL + "foreman: {url: 'https://foreman.test'}\ncontent: {registry_url: 'http://{address}:5001'}\n"
    found = of_cluster(parsed(text))
    assert {n: s.control_url for n, s in found.items()} == {
        "store": "sqlite:///var/muster.db",
        "foreman": "https://foreman.test",
        "pulp": "http://127.0.0.1:24817",
        "registry": "http://{address}:5001",
    }
    assert found["pulp"].client_urls == {
        "any": "https://proxy.example.com/pulp/content", "members": "http://127.0.0.1:24816",
    }  # fmt: skip
    # Clients come to the balancer's port.
    elsewhere = of_cluster(parsed(text + "services: {https: {listen_port: 8443, member_port: 443}}\n"))
    assert elsewhere["pulp"].client_urls["any"] == "https://proxy.example.com:8443/pulp/content"
    assert {s.source for s in found.values()} == {"settings"}
    assert found["store"].weight == "essential"
    assert set(of_cluster(parsed(SMALL))) == {"store"}


def test_a_stores_password_is_nowhere_in_the_register() -> None:
    text = SMALL.replace("sqlite:///var/muster.db", "postgresql://muster:hunter2@db.test/muster")
    assert "hunter2" not in str(of_cluster(parsed(text)))


def test_what_is_typed_in_wins_field_by_field_and_the_rest_shines_through() -> None:
    one = merged({"pulp": typed(control_url="https://pulp.dmz.test")}, BASE, [], 9.0)["pulp"]
    assert one.control_url == "https://pulp.dmz.test"
    assert one.client_urls == {ANY: "https://smartproxy.test/pulp/content"}
    assert one.sources == {"kind": "settings", "control_url": ADMINISTRATOR, "client_urls.any": "settings"}
    assert (one.source, one.version, one.changed_by) == (ADMINISTRATOR, 3, "anna")
    assert one.typed("control_url")
    assert not one.typed("client_urls.any")
    more = merged({"pulp": typed(client_urls={"dmz": "https://dmz.test/x"})}, BASE, [], 9.0)["pulp"]
    assert set(more.client_urls) == {ANY, "dmz"}
    assert not more.typed("client_urls.any")
    assert more.typed("client_urls.dmz")


def test_what_a_ruby_member_tells_is_an_entry_of_its_own_which_an_administrator_may_correct() -> None:
    found = merged({}, BASE, [(heard(), 4.0)], 9.0)
    assert list(found) == ["pulp", "pulp@old.test"]
    assert (found["pulp@old.test"].control_url, found["pulp@old.test"].source) == (
        "https://old.test",
        "features of old.test",
    )
    (fact,) = found["pulp@old.test"].facts
    assert (fact.name, fact.value, fact.member, fact.age_s, fact.source) == (
        "mirror", True, "old.test", 5.0, "features of old.test",
    )  # fmt: skip
    over = merged({"pulp@old.test": typed(control_url="https://new.test")}, BASE, [(heard(), 4.0)], 9.0)[
        "pulp@old.test"
    ]
    assert over.control_url == "https://new.test"
    assert over.client_urls == {ANY: "https://lb.test/pulp/content"}


def test_facts_stand_with_the_members_own_entry_where_it_has_one() -> None:
    told = [(Told(m, f"asked by {m}", {"pulp": {"facts": {FREE: 1}}}), 1.0) for m in ("proxy01.example.com", "x.test")]
    own = {"pulp@proxy01.example.com": typed(control_url="https://elsewhere.test")}
    found = merged(own, BASE, told, 2.0)
    assert [f.member for f in found["pulp"].facts] == ["x.test"]
    assert [f.member for f in found["pulp@proxy01.example.com"].facts] == ["proxy01.example.com"]


def test_one_member_has_its_own_and_the_rest_of_the_general_one_with_its_name_and_address() -> None:
    first, second = parsed(with_members(ONE, TWO)).members
    own = {"pulp@proxy02.example.com": typed(control_url="http://{address}:24817", weight="essential")}
    both = Register(merged(own, BASE, [], 0.0))
    one, two = both.of_member("pulp", first), both.of_member("pulp", second)
    assert one is not None
    assert two is not None
    assert (one.control_url, one.weight) == ("https://proxy01.example.com", "functional")
    assert (two.control_url, two.weight) == ("http://127.0.0.12:24817", "essential")
    assert two.client_urls == BASE["pulp"].client_urls
    assert two.typed("control_url")
    assert both.of_member("registry", first) is None


def test_a_client_is_led_by_the_narrowest_network_it_is_in() -> None:
    at = {
        "192.0.2.0/24": "https://a.test", "192.0.2.128/25": "https://b.test", "fd00::/8": "https://c.test",
        "dmz": "https://d.test", ANY: "https://e.test",
    }  # fmt: skip
    one = Service("pulp", "pulp", client_urls=at)
    asked = ("192.0.2.1", "192.0.2.200", "fd00::1", "198.51.100.1", "::1")
    assert [one.client_url(a)[8] for a in asked] == ["a", "b", "c", "e", "e"]
    assert Service("pulp", "pulp").client_url("192.0.2.1") == ""


def test_of_two_parts_of_the_settings_the_later_one_wins() -> None:
    local = {"pulp": of_settings("pulp", "http://127.0.0.1:24817", {"members": "http://127.0.0.1:24816"})}
    one = joined(local, BASE)["pulp"]
    assert one.control_url == "https://{member}"
    assert set(one.client_urls) == {"members", ANY}


@pytest.mark.parametrize("name", ["pulp", "pulp@dmz", "pulp@proxy01.example.com", "dns@2"])
def test_a_name_begins_with_its_kind(name: str) -> None:
    assert kind_of(name) == name.partition("@")[0]


@pytest.mark.parametrize(
    "name", ["", "frob", "pulp@", "pulp@A", "pulp@a b", "pulp@-", "pulp@x\n", "@x", "pulp@" + "a" * 200]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(Rejected, match="is no service"):
        kind_of(name)


def test_a_url_that_is_no_text_is_named_with_its_network() -> None:
    with pytest.raises(Rejected, match=r"^client_urls\.any is no text"):
        Change.of({"client_urls": {"any": 1}})


@pytest.mark.parametrize(
    "content",
    [
        [], {}, {"weight": None},
        {"url": "x"}, {"control_url": 5}, {"client_urls": "x"}, {"client_urls": {"any": 1}}, {"weight": "heavy"},
    ],
)  # fmt: skip
def test_what_is_no_change_is_refused(content: Any) -> None:
    with pytest.raises(Rejected):
        Change.of(content)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("pulp", {"control_url": "https://u:hunter2@h"}),
        ("pulp", {"control_url": "https://h/?token=hunter2"}),
        ("pulp", {"client_urls": {"any": "https://h/#hunter2"}}),
        ("pulp", {"client_urls": {"https://u:hunter2@h": "x"}}),
        ("dns", {"control_url": "dns://u:hunter2@h"}),
        ("dns", {"control_url": "file://localhost/etc/hosts"}),
        ("dns", {"control_url": "javascript://h/x"}),
        ("dns", {"client_urls": {"any": "data://h/x"}}),
        ("pulp", {"control_url": "dns://h"}),
        ("pulp", {"control_url": "unix:/run/x"}),
        ("dns", {"control_url": "dns://h:99999"}),
        ("dns", {"control_url": "dns://h?x"}),
        ("store", {"control_url": "unix:relative"}),
        ("pulp", {"client_urls": {"192.0.2.1/24": "https://h"}}),
        ("pulp", {"client_urls": {"a b": "https://h"}}),
        ("pulp", {"client_urls": {"any": "https://h\n"}}),
        ("pulp", {"credentials": "hunter2"}),
        ("pulp", {"credentials": "file:relative"}),
        ("pulp", {"credentials": "client:-"}),
    ],
)
def test_a_value_that_may_not_be_is_refused_and_a_secret_not_repeated(kind: str, content: dict[str, Any]) -> None:
    with pytest.raises(Rejected) as raised:
        Change.of(content).checked(kind)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("pulp", {"control_url": "https://{member}:8443/x", "client_urls": {"192.0.2.0/24": "https://h", "dmz": ""}}),
        ("dns", {"control_url": "dns://[fd00::1]:53", "credentials": "file:/etc/muster/key"}),
        ("store", {"control_url": "unix:/run/x.sock", "credentials": "member", "weight": "essential"}),
        ("broker", {"control_url": "mqtts://mq.test:8883", "credentials": "client:foreman.test"}),
    ],
)
def test_what_may_be_is_taken(kind: str, content: dict[str, Any]) -> None:
    assert Change.of(content).checked(kind)


@pytest.mark.parametrize(
    "storage",
    [
        None,
        [],
        {"total": 10**400, "used": 1, "free": 1},
        {"total": 1},
        {"total": 0, "used": 0, "free": 0},
        {"total": 1, "used": 1, "free": "1"},
    ],
)
def test_room_that_is_not_said_is_no_fact(storage: Any) -> None:
    assert room_said(storage) == {}
    assert room_said({"total": 9, "used": 4, "free": 5}) == {TOTAL: 9, USED: 4, FREE: 5}


def test_what_a_newer_muster_typed_in_is_left_to_it() -> None:
    assert set(merged({"frob@x": typed(control_url="https://h"), "pulp": typed()}, BASE, [], 0.0)) == {"pulp"}


def test_of_many_services_a_few_are_named() -> None:
    entries = {f"dns@s{n}": typed(control_url="dns://h") for n in range(500)}
    with pytest.raises(NotFound, match=r"the register has dns@s0, .* and 480 more\Z") as raised:
        Register(merged(entries, {}, [], 0.0)).service("dns")
    assert len(str(raised.value)) < 500


def test_a_service_that_is_not_there_is_said_with_those_that_are() -> None:
    with pytest.raises(NotFound, match="There is no service dns; the register has pulp"):
        Register(merged({}, BASE, [], 0.0)).service("dns")
