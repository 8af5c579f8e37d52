from __future__ import annotations

import re
from pathlib import Path

import pytest

from muster.app.offers import modelled
from muster.derived.output import Site
from muster.derived.systemd import OUTPUT
from muster.kernel.errors import Rejected
from tests.unit.derived.test_prometheus import OURS, cluster

UNITS = Path(__file__).parents[3] / "packaging" / "systemd"
KEPT = OURS.replace("/nowhere", "/var/lib/muster")
LB = "balancers: [{name: lb1, address: 10.0.0.7MORE}]\n"


def files(text: str) -> dict[str, str]:
    of = cluster(text)
    return {d.name: d.text for d in OUTPUT.rendered(modelled(of), of, Site())}


def set_(text: str, of: str = "member") -> dict[str, str]:
    """Return what a drop-in sets; nothing is set twice."""
    whose = "proxy01.test/" if of == "member" else "balancers/lb1/"
    lines = re.findall(r"^([A-Za-z]+)=(.*)$", files(text)[f"{whose}muster-{of}.service.d/cluster.conf"], re.MULTILINE)
    assert len(dict(lines)) == len(lines)
    return dict(lines)


def packaged(unit: str, name: str) -> str:
    found = re.search(rf"^{name}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def test_hosts_of_ours_have_one_that_says_whose_they_are() -> None:
    text = KEPT.replace("address: 10.0.0.2}", "address: 10.0.0.2, kind: foreman}") + LB.replace("MORE", "")
    assert list(files(text)) == [
        "balancers/lb1/muster-balancer.service.d/cluster.conf",
        "proxy01.test/muster-member.service.d/cluster.conf",
    ]
    assert set_(text) == {"Environment": "MUSTER_MEMBER=proxy01.test"}
    assert set_(text, "balancer") == {"Environment": "MUSTER_BALANCER=lb1"}


def test_a_member_may_listen_below_1024_where_it_does_so_itself() -> None:
    assert "AmbientCapabilities" not in set_(KEPT)
    found = set_(KEPT + "content: {}\n")
    assert found["AmbientCapabilities"] == found["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"
    for netboot in ("{tftp: {}}", "{proxy_dhcp: {}}", "{tftp: {port: 6969}, proxy_dhcp: {}}"):
        assert set_(KEPT + f"netboot: {netboot}\n")["AmbientCapabilities"] == "CAP_NET_BIND_SERVICE"
    assert "AmbientCapabilities" not in set_(KEPT + "netboot: {tftp: {port: 6969}}\n")
    # Four listeners, and each call may need a second descriptor.
    assert int(found["LimitNOFILE"]) == 2 * 4096 * 4


def test_limits_are_raised_where_the_file_asks_for_more_and_never_lowered() -> None:
    assert "LimitNOFILE" not in set_(KEPT + "edge: {connections: 100}\n")
    assert int(set_(KEPT + "edge: {connections: 5000}\n")["LimitNOFILE"]) > int(
        packaged("muster-member.service", "LimitNOFILE")
    )
    assert set_(KEPT + "edge: {stop_timeout_s: 300}\n")["TimeoutStopSec"] == str(5 + 8 + 300 + 17)
    assert "TimeoutStopSec" not in set_(KEPT + "edge: {stop_timeout_s: 10}\n")
    assert set_(KEPT + f"edge: {{memory_bytes: {64 << 20}}}\n")["MemoryHigh"] == "544M"
    assert set_(KEPT + "content: {workers: 4}\n")["MemoryMax"] == "3072M"


@pytest.mark.parametrize("name", ["MemoryHigh", "MemoryMax"])
def test_the_figures_begin_where_the_packaged_ones_are(name: str) -> None:
    # Of one process with the default edge.memory_bytes, which no drop-in is written for.
    two = int(set_(KEPT + "content: {workers: 2}\n")[name].removesuffix("M"))
    assert f"{two // 2}M" == packaged("muster-member.service", name)


def test_a_balancer_has_room_for_its_connections() -> None:
    assert set(set_(KEPT + LB.replace("MORE", ", maxconn: 4000"), "balancer")) == {"Environment"}
    found = set_(KEPT + LB.replace("MORE", ", maxconn: 100000"), "balancer")
    assert int(found["LimitNOFILE"]) > 200_000
    assert int(found["MemoryMax"].removesuffix("M")) > int(found["MemoryHigh"].removesuffix("M")) > 6000


def test_keepalived_asks_as_the_account_that_haproxy_runs_as() -> None:
    virtual = "virtual_address: {address: 10.0.0.10/24, interface: eth0, script_user: haproxy}\n"
    assert set_(KEPT + LB.replace("MORE", "") + virtual, "balancer")["User"] == "haproxy"
    assert "User" not in set_(KEPT + LB.replace("MORE", "") + virtual.replace("haproxy", "muster"), "balancer")


def test_what_a_member_writes_beside_its_state_is_named() -> None:
    pushed = "authority: {push_crl: [/etc/puppetlabs/puppet/ssl/crl.pem, /etc/puppetlabs/puppet/ssl/other.pem]}\n"
    assert set_(KEPT + pushed)["ReadWritePaths"] == "/etc/puppetlabs/puppet/ssl"
    assert set_(KEPT + pushed)["SupplementaryGroups"] == "puppet"
    assert set_(OURS)["ReadWritePaths"] == "/nowhere"
    autosign = "features: {puppetca: {autosign_file: /etc/puppetlabs/muster/autosign.conf}}\n"
    # A directory that is not there yet is noted by muster status, and is no reason not to start.
    assert set_(KEPT + autosign)["ReadWritePaths"] == "-/etc/puppetlabs/muster"
    assert "ReadWritePaths" not in set_(KEPT + "features: {puppetca: {autosign_file: }}\n")
    boot = "features: {tftp: {tftproot: /srv/tftp}}\n"
    assert set_(KEPT + boot)["ReadWritePaths"] == "-/srv/tftp"
    assert set_(KEPT + boot + "netboot: {root: /srv/boot}\n")["ReadWritePaths"] == "-/srv/boot"
    assert "ReadWritePaths" not in set_(KEPT + boot.replace("/srv/tftp", "/var/lib/muster/tftp"))
    assert "ReadWritePaths" not in set_(KEPT + "features: {tftp: {}}\n")


def test_a_member_may_write_what_dnsmasq_reads() -> None:
    assert set_(KEPT + "features: {dhcp: {provider: dnsmasq}}\n")["ReadWritePaths"] == "-/var/lib/muster-dnsmasq"
    other = "features: {dhcp: {use_provider: dhcp_dnsmasq, dnsmasq: {target_dir: /srv/dnsmasq}}}\n"
    assert set_(KEPT + other)["ReadWritePaths"] == "-/srv/dnsmasq"
    assert "ReadWritePaths" not in set_(KEPT + "features: {dhcp: {provider: memory}}\n")
    keys = "content: {foreman_certificate: /etc/foreman-proxy/c.pem, foreman_key: /etc/foreman-proxy/k.pem}\n"
    assert set_(KEPT + keys)["SupplementaryGroups"] == "foreman-proxy"


def test_a_balancer_writes_into_the_store_too() -> None:
    assert set_(OURS + LB.replace("MORE", ""), "balancer")["ReadWritePaths"] == "/nowhere"
    assert "ReadWritePaths" not in set_(KEPT + LB.replace("MORE", ""), "balancer")


def test_the_signer_is_wanted_where_it_holds_the_key() -> None:
    text = KEPT + "authority: {key: {kind: signer, socket: SOCKET}}\n"
    usual = files(text.replace("SOCKET", "/run/muster-signer/socket"))
    assert "\nWants=muster-ca-signer.service\n" in usual["proxy01.test/muster-member.service.d/cluster.conf"]
    assert "another" not in "".join(usual.values())
    assert "another" in "".join(files(text.replace("SOCKET", "/run/signer")).values())
    assert "--socket /run/muster-signer/socket " in packaged("muster-ca-signer.service", "ExecStart")


def test_a_path_that_means_something_to_systemd_is_refused() -> None:
    with pytest.raises(Rejected, match="Path"):
        files(KEPT + 'authority: {push_crl: ["/etc/with space/crl.pem"]}\n')


def test_a_program_that_takes_too_much_memory_does_not_end_its_member() -> None:
    assert packaged("muster-member.service", "OOMPolicy") == "continue"
