from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest
from pydantic import ValidationError

from muster.cluster.file import ClusterFile
from muster.features.dhcp.providers.memory import of
from muster.features.dhcp.settings import DHCPSettings

SUBNET = {
    "network": "192.0.2.0/24",
    "options": {"routers": ["192.0.2.1"], "ntp_servers": [["192.0.2.3"]], "interface_mtu": 9000},
}
STATIC = {"name": "s.test", "ip": "192.0.2.5", "mac": "00:11:22:33:44:01"}


def settings(**given: Any) -> DHCPSettings:
    return DHCPSettings.model_validate({"provider": "memory", **given})


def test_rubys_names_are_understood() -> None:
    found = DHCPSettings.model_validate(
        {"use_provider": "dhcp_memory", "ping_free_ip": False, "blacklist_duration_minutes": 5,
         "subnets": ["192.0.2.0/255.255.255.0", "10.0.0.0/8"]}
    )  # fmt: skip
    assert (found.provider, found.ping_free_ip) == ("memory", False)
    assert found.subnets == (IPv4Network("192.0.2.0/24"), IPv4Network("10.0.0.0/8"))
    # Minutes, which the Ruby proxy takes for seconds.
    assert found.blacklist_duration_minutes == 5


def test_what_is_written_of_memory_is_there() -> None:
    lease = {
        "ip": "192.0.2.9",
        "mac": "00:11:22:33:44:09",
        "starts": "2026-11-01T00:00:00Z",
        "ends": "2038-01-19T03:14:07Z",
    }
    provider = of(settings(memory={"subnets": [SUBNET], "reservations": [STATIC], "leases": [lease]}).memory)
    assert [str(one.ip) for one in provider.leases] == ["192.0.2.9"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"provider": "smart_proxy"}, "provider smart_proxy needs smart_proxy.url"),
        ({"provider": "isc9"}, "Input should be"),
        ({"subnets": ["192.0.2.1/24"]}, "not a valid IPv4 network"),
        ({"blacklist_duration_minutes": 0}, "greater than 0"),
        ({"memory": {"subnets": [SUBNET, {"network": "192.0.2.128/25"}]}}, "overlap"),
        ({"memory": {"subnets": [SUBNET], "reservations": [STATIC | {"ip": "198.51.100.1"}]}}, "lies in none of the sub"),
        ({"memory": {"subnets": [SUBNET | {"options": {"a;b": 1}}]}}, "pattern"),
        ({"memory": {"subnets": [SUBNET], "reservations": [STATIC | {"mac": "x"}]}}, "Invalid MAC"),
        ({"kea": {"url": "kea.sock"}}, "is neither http"),
        ({"kea": {"url": "http://h:8000", "user": "u"}}, "user and password_file go together"),
        ({"kea": {"user": "u", "password_file": "/p"}}, "a unix socket asks for no user"),
        ({"kea": {"certificate_file": "/c"}}, "certificate_file and key_file go together"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_said_when_the_file_is_read(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        settings(**given)


def test_another_proxy_is_in_the_register() -> None:
    assert settings().registered() == ()
    (found,) = settings(provider="smart_proxy", smart_proxy={"url": "https://other.test:9090"}).registered()
    assert (found.kind, found.control_url) == ("dhcp", "https://other.test:9090")
    (found,) = settings(provider="dhcp_kea", kea={"url": "http://kea.test:8000"}).registered()
    assert found.control_url == "http://kea.test:8000"


def test_rubys_seconds_are_a_doubt() -> None:
    cluster: Any = None
    assert settings().doubts(cluster) == settings(blacklist_duration_minutes=60).doubts(cluster) == ()
    (doubt,) = settings(blacklist_duration_minutes=1800).doubts(cluster)
    assert doubt.startswith("holds back what was offered for 30 hours")


def test_dnsmasq_is_understood_in_rubys_words() -> None:
    found = DHCPSettings.model_validate(
        {"use_provider": "dhcp_dnsmasq", "dnsmasq": {"config": "/etc/dnsmasq.conf", "lease_file": "/var/l"}}
    )
    assert (found.provider, [str(p) for p in found.dnsmasq.config]) == ("dnsmasq", ["/etc/dnsmasq.conf"])


def test_dnsmasq_is_not_signalled_while_hosts_have_tags() -> None:
    with pytest.raises(ValidationError, match="is started anew"):
        DHCPSettings.model_validate({"provider": "dnsmasq", "dnsmasq": {"reload": "signal"}})
    DHCPSettings.model_validate({"provider": "dnsmasq", "dnsmasq": {"reload": "signal", "boot": "dnsmasq"}})


@pytest.mark.parametrize(
    "change",
    [{"url": "http://infoblox.test"}, {"url": "http://127.0.0.1.evil.test"}, {"password": None}, {"password_file": "/p"},
     {"username": "a:b"}, {"network_view": "a\nb"}, {"wapi_version": "2.0/../x"}],
)  # fmt: skip
def test_infoblox_is_asked_over_tls_with_one_password(change: dict[str, Any]) -> None:
    given = {"url": "https://infoblox.test", "username": "foreman", "password": "p"}
    DHCPSettings.model_validate({"provider": "infoblox", "infoblox": given})
    with pytest.raises(ValidationError):
        DHCPSettings.model_validate({"provider": "infoblox", "infoblox": {**given, **change}})
    with pytest.raises(ValidationError, match="needs infoblox"):
        DHCPSettings.model_validate({"provider": "infoblox"})


def test_who_has_dhcpds_files_is_a_member_of_ours() -> None:
    cluster = ClusterFile.model_validate(
        {
            "schema": 1, "cluster": "c", "address": "proxy.example.com", "store": {"url": "sqlite:///x"},
            "members": [{"id": 1, "name": "one.example.com", "address": "192.0.2.1"},
                        {"id": 2, "name": "ruby.example.com", "address": "192.0.2.2", "kind": "foreman"}],
        }
    )  # fmt: skip

    def doubts(*names: str) -> tuple[str, ...]:
        return DHCPSettings.model_validate({"use_provider": "dhcp_remote_isc", "isc": {"files_on": names}}).doubts(
            cluster
        )

    assert doubts() == doubts("ONE.example.com") == ()
    (doubt,) = doubts("one.example.com", "ruby.example.com", "three.example.com")
    assert "from ruby.example.com, three.example.com (isc.files_on), which is no member of kind muster" in doubt
    with pytest.raises(ValidationError):
        doubts("no name")
    for provider, enabled, is_taken in (("isc", "http", False), ("isc", True, True), ("memory", "http", True)):
        given = {"provider": provider, "enabled": enabled, "isc": {"files_on": ["one.example.com"]}}
        if is_taken:
            DHCPSettings.model_validate(given)
            continue
        with pytest.raises(ValidationError, match=r"isc\.files_on needs the feature on https"):
            DHCPSettings.model_validate(given)


def test_a_group_takes_no_dhcpd_whose_files_members_pass_on() -> None:
    own = {"provider": "isc", "isc": {"files_on": ["proxy01.test"]}}
    given = {"group": {"mode": "all", "providers": {"a": own, "b": {"provider": "kea"}}}}
    with pytest.raises(ValidationError, match=r"group.providers.a: isc.files_on is for a provider alone"):
        DHCPSettings.model_validate(given)
    del own["isc"]
    assert list(DHCPSettings.model_validate(given).each()) == ["a", "b"]
