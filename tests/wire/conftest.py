"""Wiring only: one member with a real BIND for the recorded conversations of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from muster.cli.demo.bind import free_port
from tests.servers import bind, dhcpd, foreman_for_hosts, ipmi_sim, member, puppet_api, redfish_stand_in
from tests.servers.bind import BindServer
from tests.servers.dhcpd import DHCPServer
from tests.servers.foreman_for_hosts import ForemanForHosts
from tests.servers.member import TRUSTED, Member
from tests.servers.puppet_api import PuppetAPI, Said
from tests.wire import golden, identities


@pytest.fixture(scope="session")
def lab(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[BindServer]:
    needs("bind")
    with bind.running(tmp_path_factory.mktemp("lab"), zones=golden.zones()) as server:
        yield server


@pytest.fixture(scope="module")
def dhcpd_lab(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[DHCPServer]:
    needs("dhcpd")
    needs("namespaces")
    conf, leases = golden.dhcpd()
    with dhcpd.running(tmp_path_factory.mktemp("dhcpd"), conf=conf, leases=leases, algorithm="hmac-md5") as server:
        yield server


# Not for the session: the member runs in this process, and tests of other rooms set up logging for themselves.
@pytest.fixture(scope="module")
def puppet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PuppetAPI]:
    """The lab's Puppet server: what it has is what the recorded answers and questions show."""
    with puppet_api.running(tmp_path_factory.mktemp("puppet"), client=TRUSTED) as api:
        for name, told in golden.certificates().items():
            api.certificates[name] = told
        api.issued = golden.issued()
        api.module_paths, api.manifests = golden.environments()
        api.failures["/puppet/v3/environment_classes?environment=broken"] = Said(500, "puppet exploded")
        yield api


@pytest.fixture(scope="module")
def foreman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForemanForHosts]:
    """The lab's Foreman, as it answers hosts."""
    with foreman_for_hosts.running(tmp_path_factory.mktemp("foreman")) as running:
        yield running


@pytest.fixture(scope="module")
def boot_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the member's boot files, with what the lab's HTTPBoot had in it."""
    root = tmp_path_factory.mktemp("boot") / "tftpboot"
    golden.put_boot_files(root)
    return root


@pytest.fixture(scope="module")
def bmc(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """Settings of the feature ``bmc`` for the lab's BMC, which speaks IPMI and, as a stand-in, Redfish."""
    needs("ipmi")
    address, directory = "127.0.0.10", tmp_path_factory.mktemp("bmc")
    ipmi, redfish = free_port(address), free_port(address)
    with (
        ipmi_sim.running(directory / "ipmi", address=address, port=ipmi, password="secret", is_bare=True),
        redfish_stand_in.running(directory / "redfish", address=address, port=redfish) as stand_in,
    ):
        yield {
            "enabled": True,
            "bmc_default_provider": "ipmitool",
            "ipmi": {"port": ipmi},
            "redfish": {"port": redfish, "ca_file": str(stand_in.ca)},
            # Of what never answers, nothing more would come later.
            "policies": {"deadline_s": 5, "retry": {"attempts": 1}},
        }


@pytest.fixture(scope="module")
def proxy(
    bmc: dict[str, object],
    boot_files: Path,
    lab: BindServer,
    dhcpd_lab: DHCPServer,
    puppet: PuppetAPI,
    foreman: ForemanForHosts,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Member]:
    nsupdate = {"server": lab.address, "port": lab.port, "key_file": str(lab.key_file)}
    with member.running(
        tmp_path_factory.mktemp("proxy"),
        # The recorded proxy had every module on both listeners.
        features={
            # It is only listed there: none of the calls asks Facter.
            "facts": {"enabled": True, "facter": "/bin/true"},
            "dns": {"enabled": True, "nsupdate": nsupdate},
            # The lab's probes found nobody: its networks are none of this host's. dhcpd here has one of its own besides.
            "dhcp": {"enabled": True, "isc": dhcpd_lab.settings, "ping_free_ip": False, "subnets": golden.subnets()},
            "puppetca": {"enabled": True, "provider": "puppetserver", "puppetserver": puppet.settings},
            "puppet": {"enabled": True, "puppetserver": puppet.settings},
            "bmc": bmc,
            "logs": {"enabled": True},
            "tftp": {"enabled": True, "tftproot": str(boot_files), "tftp_servername": "tftp.example.com"},
            "httpboot": {},
            "templates": {"template_url": "http://proxy.example.com:18000"},
            # The lab's Foreman was asked for each.
            "registration": {
                "enabled": True,
                "registration_url": "https://proxy.example.com:9090/",
                "scripts_kept_s": 0,
            },
        },
        # The Ruby proxy of the recordings is a 3.11.
        foreman={
            "trusted_hosts": [TRUSTED],
            "version": "3.11",
            "url": foreman.url,
            "ca_file": str(foreman.ca_file),
        },
        names=identities.NAMES,
        # The recorded handshakes were with an RSA key.
        key_kind="rsa-2048",
    ) as running:
        foreman.believe(running.ca)
        yield running


@pytest.fixture(scope="module")
def clients(proxy: Member) -> Mapping[str, Path]:
    return identities.certificates(proxy)
