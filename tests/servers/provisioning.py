"""A site where machines are provisioned: one segment with dhcpd, a cluster with its TFTP server, and a stand-in Foreman.

The cluster is on a host of that segment, as it would be: its balancer takes calls at the host's address, port 8000 and 9090.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from muster.cli.local.plan import ADDRESS, FOREMAN
from tests.servers import dhcpd, foreman_for_hosts, installer, loaders, machine
from tests.servers import kea as kea_server
from tests.servers import local as clusters
from tests.servers.client import Answer, Connection, Place, request, tls_client
from tests.servers.foreman_for_hosts import Asked, ForemanForHosts
from tests.servers.local import Local
from tests.servers.machine import Firmware, Machine
from tests.servers.namespaces import DEVICE, Host

_LONGEST_START_S = 60.0
_OMAPI_PORT = 7911
# UEFI takes a boot file by HTTP only from a server that says so.
_HTTP_CLIENTS = """class "httpclients" {
  match if substring (option vendor-class-identifier, 0, 10) = "HTTPClient";
  option vendor-class-identifier "HTTPClient";
}
"""
_FORM = {"Connection": "close", "Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Addresses:
    """A DHCP server on a segment.

    Attributes:
        network: the segment's first three numbers.
        host: another host there, for the cluster.
        settings: how the cluster asks it.
    """

    network: str
    host: Host
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Site:
    """Use :func:`running`.

    Attributes:
        host: where the cluster is.
    """

    directory: Path
    network: str
    host: Host
    cluster: Local
    foreman: ForemanForHosts

    @property
    def url(self) -> str:
        """Where machines find the balancer."""
        return f"http://{self.host.address}:{self.cluster.ports['anaconda']}"

    def ask(self, method: str, path: str, **form: str) -> Answer:
        """Call as Foreman does, through the balancer."""
        bundle = self.cluster.pki / "clients" / FOREMAN
        tls = tls_client(self.cluster.pki / "ca.pem")
        tls.load_cert_chain(bundle / "cert.pem", bundle / "key.pem")
        place = Place(self.host.address, self.cluster.ports["smartproxy"])
        with Connection(place, tls=tls, server_name=ADDRESS, timeout_s=60) as connection:
            connection.send(request(method, path, _FORM, urlencode(form).encode()))
            return connection.answer()

    def reserve(self, mac: str, number: int, loader: str) -> str:
        """Reserve the address of that number for a machine that is to load ``loader``; return the address."""
        ip, name = f"{self.network}.{number}", f"host{number}.example.com"
        made = self.ask(
            "POST", f"/dhcp/{self.network}.0", name=name, hostname=name, mac=mac, ip=ip, nextServer=self.host.address,
            filename=loader,
        )  # fmt: skip
        assert made.status == 200, made
        return ip

    def configure(self, variant: str, mac: str, menu: str, **system: str) -> None:
        """Have a machine's boot loader told what to boot; ``system``: what is installed, for whose loaders it may be."""
        made = self.ask("POST", f"/tftp/{variant}/{mac}", pxeconfig=menu, **system)
        assert made.status == 200, made

    def kill(self, member: str) -> None:
        """Kill a member; it comes again by itself."""
        pid = self.cluster.pid_of(member)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def who_serves(self) -> str | None:
        """Return the member that has a machine's connection now; None: none has."""
        states = asyncio.run(self.cluster.servers("anaconda"))
        return next((name for name, state in states.items() if state.sessions), None)

    def remembers(self, address: str) -> bool:
        """Whether the balancer's host has a connection of a machine's, if only one whose end it has not heard of."""
        number = "".join(f"{int(part):02X}" for part in reversed(address.split(".")))
        rows = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
        return any(row.split()[2].startswith(number) for row in rows)

    def asked_by(self, token: str) -> list[Asked]:
        """Return what came to Foreman with a token, in order."""
        return [one for one in list(self.foreman.asked) if ("token", token) in one.query]

    def story(self, what: str, *options: str) -> dict[str, Any]:
        """Return what ``muster explain`` tells of a machine; what happened a moment ago may not be there yet."""
        said = clusters.muster("explain", what, *options, "--json", local=self.cluster)
        assert said.code == 0, said
        found: dict[str, Any] = said.json
        return found

    @contextlib.contextmanager
    def switched_on(self, firmware: Firmware, mac: str, *, mbit_s: int | None = None) -> Iterator[Machine]:
        """Yield a machine on the site's segment; what it gets comes no faster than this."""
        with machine.switched_on(firmware, mac, self.host, self.directory, mbit_s=mbit_s) as one:
            yield one


@contextlib.contextmanager
def running(directory: Path, addresses: Addresses) -> Iterator[Site]:
    """Yield a site whose members all serve the installer and its boot loaders. The calling thread is on its host meanwhile.

    Raises:
        AssertionError: something did not come up.
    """
    with (
        addresses.host.entered(),
        foreman_for_hosts.running(directory / "foreman") as foreman,
        clusters.running(ports={"smartproxy": 9090, "anaconda": 8000, "metrics": 9404}) as cluster,
    ):
        foreman.believe(cluster.pki / "ca.pem")
        site = Site(directory, addresses.network, addresses.host, cluster, foreman)
        _tell(site, addresses)
        asyncio.run(clusters.until(lambda: is_well(site), "every member has the features", 60))
        _fill(site)
        asyncio.run(clusters.until(lambda: _gives_files(site), "a member serves TFTP", 60))
        yield site


@contextlib.contextmanager
def isc(directory: Path) -> Iterator[Addresses]:
    """Yield ISC's dhcpd, which the cluster asks over OMAPI from the same segment."""
    with dhcpd.running(directory, conf=_HTTP_CLIENTS) as server:
        place = {"server": server.host.address, "omapi_port": _OMAPI_PORT, "timeout_s": 3}
        yield Addresses(dhcpd.NETWORK, server.client, {"provider": "isc", "isc": {**server.settings, **place}})


@contextlib.contextmanager
def kea() -> Iterator[Addresses]:
    """Yield Kea, whose control socket is a file."""
    # A machine that has no address yet is heard on a raw socket only.
    with kea_server.running(interfaces_config={"interfaces": [DEVICE], "dhcp-socket-type": "raw"}) as server:
        assert server.client is not None
        yield Addresses(kea_server.NETWORK, server.client, {"provider": "kea", "kea": server.settings})


def _tell(site: Site, addresses: Addresses) -> None:
    """Have the cluster serve this segment, with these features."""
    document: dict[str, Any] = yaml.safe_load(site.cluster.cluster_file.read_text())
    document["balancers"][0]["bind"] = site.host.address
    document["foreman"] |= {"url": site.foreman.url, "ca_file": str(site.foreman.ca_file)}
    document["features"] |= {
        "dhcp": {**addresses.settings, "subnets": [f"{site.network}.0/24"], "ping_free_ip": False},
        "tftp": {"tftp_servername": site.host.address},
        "httpboot": {},
        "templates": {"template_url": site.url},
    }
    # All members are on one host: one of them gets the port, and another when that one dies.
    document["netboot"] = {"tftp": {"addresses": [site.host.address]}}
    site.cluster.cluster_file.write_text(yaml.safe_dump(document))
    for name in site.cluster.names:
        pid = site.cluster.pid_of(name)
        assert pid is not None
        os.kill(pid, signal.SIGTERM)


async def is_well(site: Site) -> bool:
    """Whether every member serves, with all features, and the balancer takes calls where machines find it."""
    # What members say by themselves, before the balancer is asked: that may still point somewhere else.
    if not await site.cluster.serves("dhcp", "tftp", "httpboot", "templates"):
        return False
    try:
        return (await asyncio.to_thread(site.ask, "GET", "/features")).status == 200
    except OSError:
        return False


def _fill(site: Site) -> None:
    """Put boot files into the cluster's tree, as an administrator would."""
    files = site.directory / "files"
    (files / "boot").mkdir(parents=True)
    (files / "grub2").mkdir()
    (files / "boot" / "vmlinuz").write_bytes(installer.kernel())
    (files / "boot" / "initrd").write_bytes(installer.initramfs())
    (files / "grub2" / "grubx64.efi").write_bytes(loaders.grub(site.directory))
    # What came by HTTP asks below the path that it has in itself, and for one file alone: a host's is named there.
    (files / "grub2" / "http").mkdir()
    (files / "grub2" / "http" / "grubx64.efi").write_bytes(loaders.grub(site.directory, "/httpboot/grub2/http"))
    (files / "grub2" / "http" / "grub.cfg").write_text("configfile /httpboot/grub2/grub.cfg-$net_default_mac\n")
    # Debian's own GRUB asks for one file alone, too.
    universe = files / "bootloader-universe" / "pxegrub2" / "debian" / "default" / "x86_64"
    universe.mkdir(parents=True)
    for name, of in (("boot-sb.efi", "shimx64.efi"), ("grubx64.efi", "grubx64.efi")):
        (universe / name).write_bytes(loaders.signed(of))
    (files / "grub").mkdir()
    (files / "grub" / "grub.cfg").write_text("configfile /grub2/grub.cfg-$net_default_mac\n")
    said = clusters.muster("netboot", "import", str(files), local=site.cluster)
    assert said.code == 0, said


async def _gives_files(site: Site) -> bool:
    """Whether somebody listens on the port of TFTP at the host's address."""
    rows = Path("/proc/thread-self/net/udp").read_text().splitlines()[1:]
    number = "".join(f"{int(part):02X}" for part in reversed(site.host.address.split(".")))
    return any(row.split()[1] == f"{number}:0045" for row in rows)
