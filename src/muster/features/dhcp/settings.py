"""Settings of the DHCP feature and its providers."""

from __future__ import annotations

import base64
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AwareDatetime, Field, JsonValue, StringConstraints, model_validator

from muster.cluster.service import Service, of_settings
from muster.cluster.values import BackendURL, ForemanUser, Host, Port, Seconds
from muster.edge.another_proxy import SmartProxySettings
from muster.edge.feature import GroupedFeatureSettings
from muster.edge.infoblox import GridSettings, View
from muster.edge.libvirt import NetworkSettings
from muster.kernel.names import FQDN, MACAddress, in_url
from muster.kernel.secrets import Secret
from muster.kernel.settings import Settings

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile

# By Foreman's names; what stands there is told as it stands there.
Options = dict[Annotated[str, StringConstraints(pattern=r"\A[A-Za-z][A-Za-z0-9_]{0,63}\z")], JsonValue]


class SubnetSettings(Settings):
    """A subnet of provider ``memory``."""

    network: IPv4Network
    """As ``192.0.2.0/24``."""
    options: Options = {}
    """What Foreman reads of it: lists ``routers``, ``domain_name_servers`` and ``range`` (first and last address)."""


class ReservationSettings(Settings):
    """A reservation that provider ``memory`` has from the start."""

    name: FQDN
    """Its host's name."""
    ip: IPv4Address
    """Its address."""
    mac: MACAddress
    """Its hardware address."""
    deletable: bool = False
    """Whether it may be removed."""
    options: Options = {}
    """What else is told of it: ``hostname``, ``filename``, ``nextServer``."""


class LeaseSettings(Settings):
    """A lease that provider ``memory`` has for ever."""

    ip: IPv4Address
    """Its address."""
    mac: MACAddress
    """Its hardware address."""
    starts: AwareDatetime
    """When it began."""
    ends: AwareDatetime
    """When it ends; it stays all the same."""
    options: Options = {}
    """What else is told of it: ``next_state``, ``client_hostname``."""


class MemorySettings(Settings):
    """Records in this process, gone with it. For trying out and for tests."""

    subnets: tuple[SubnetSettings, ...] = ()
    """The subnets there are."""
    reservations: tuple[ReservationSettings, ...] = ()
    """Reservations there are from the start."""
    leases: tuple[LeaseSettings, ...] = ()
    """Leases there are."""

    @model_validator(mode="after")
    def _within_subnets(self) -> Self:
        networks = [s.network for s in self.subnets]
        for number, network in enumerate(networks):
            if clash := next((n for n in networks[:number] if n.overlaps(network)), None):
                raise ValueError(f"subnets: {network} and {clash} overlap")
        addresses = [*(r.ip for r in self.reservations), *(one.ip for one in self.leases)]
        for ip in addresses:
            if not any(ip in n for n in networks):
                raise ValueError(f"{ip} lies in none of the subnets")
        return self


class ISCSettings(Settings):
    """ISC's dhcpd, by the names of Ruby's ``isc`` and ``remote_isc``."""

    server: Host = "127.0.0.1"
    """Where its OMAPI listens: address or name (Ruby: ``server`` of the feature)."""
    omapi_port: Port = 7911
    """Its port."""
    key_name: Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,252}\z")] | None = None
    """The key that dhcpd.conf names as ``omapi-key``; None: it takes orders from everybody."""
    key_secret: Secret | None = None
    """Its secret, in base64."""
    key_algorithm: Literal["hmac-md5", "hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"] = (
        "hmac-md5"
    )
    """Its algorithm, as dhcpd.conf has it."""
    config: Path = Path("/etc/dhcp/dhcpd.conf")
    """Its configuration, which members have to be able to read, here or mounted."""
    leases: Path = Path("/var/lib/dhcp/dhcpd.leases")
    """Its leases file, the same. ``/var/lib/dhcpd/dhcpd.leases`` on Enterprise Linux."""
    timeout_s: Seconds = 5.0
    """How long it may take to answer one call."""
    connections: Annotated[int, Field(ge=1, le=64)] = 4
    """Connections held open to it at most; it does one thing at a time."""
    poll_s: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    """How often the files are looked at where the kernel does not say that they changed."""
    files_on: tuple[FQDN, ...] = ()
    """Members that have the files; the others get from the first of them that answers what stands there, as it is written.
    Empty: every member has them."""

    @model_validator(mode="after")
    def _whole_key(self) -> Self:
        if self.key_name is None or self.key_secret is None:
            if self.key_name or self.key_secret:
                raise ValueError("key_name and key_secret go together")
            return self
        try:
            base64.b64decode(self.key_secret.reveal(), validate=True)
        except ValueError:
            raise ValueError("key_secret is no base64") from None
        return self


class KeaSettings(Settings):
    """Kea's DHCPv4 server."""

    url: BackendURL = "unix:/run/kea/kea4-ctrl-socket"
    """Where it takes commands: ``unix:/PATH`` of its own control socket, or ``http(s)://HOST:PORT`` of its own (2.7.2 and
    later) or of the Control Agent (before 3.2)."""
    user: ForemanUser | None = None
    """Whom it knows members as, over HTTP (basic authentication)."""
    password_file: Path | None = None
    """A file whose first line is that user's password, on each member."""
    ca_file: Path | None = None
    """Whose certificates are believed over HTTPS; None: the cluster's CA."""
    certificate_file: Path | None = None
    """What members show over HTTPS, with ``key_file``; None: their own certificates."""
    key_file: Path | None = None
    """Its key."""
    timeout_s: Annotated[float, Field(gt=0, le=10)] = 5.0
    """How long it may take for one command."""

    @model_validator(mode="after")
    def _whole_credentials(self) -> Self:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        if self.user is not None and self.url.startswith("unix:"):
            raise ValueError("a unix socket asks for no user: whoever may open it may do everything")
        return self


class DnsmasqSettings(Settings):
    """dnsmasq on the members' own host. Ruby's plugin has ``config``, ``target_dir`` and ``lease_file`` as well."""

    config: tuple[Path, ...] = (Path("/etc/dnsmasq.conf"), Path("/etc/dnsmasq.d"))
    """Its configuration: files, and directories of files. What these include is read as well."""
    target_dir: Path = Path("/var/lib/muster-dnsmasq")
    """Where members write for it: hosts in ``dhcphosts``, which it has as ``dhcp-hostsdir``, and where they boot from in
    ``dhcpopts``, which it has as ``dhcp-optsdir``. Both directories are members' to write and dnsmasq's to read."""
    lease_file: Path = Path("/var/lib/misc/dnsmasq.leases")
    """Its leases, as its ``dhcp-leasefile`` says. ``/var/lib/dnsmasq/dnsmasq.leases`` on Enterprise Linux."""
    pid_file: Path = Path("/run/dnsmasq/dnsmasq.pid")
    """Where it writes the number of its process. ``/run/dnsmasq.pid`` where nothing else is said."""
    boot: Literal["reservation", "dnsmasq"] = "reservation"
    """Who says where a machine boots from: ``reservation``, Foreman, for each machine; ``dnsmasq``, its own rules alone,
    and then a reservation's boot loader and next server are not kept."""
    reload: Literal["file", "signal"] = "file"
    """How it is made to forget what was removed: ``file``, a unit of the host starts it anew whenever ``reload-wanted`` in
    ``target_dir`` is written; ``signal``, members send it SIGHUP, which they may where it runs as their account."""
    timeout_s: Seconds = 10.0
    """How long it may take to read what was written, or to start anew."""
    poll_s: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    """How long a change in the middle of a file of others may go unseen."""

    @model_validator(mode="before")
    @classmethod
    def _in_rubys_words(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("config"), str):
            return {**given, "config": (given["config"],)}
        return given

    @model_validator(mode="after")
    def _is_started_anew(self) -> Self:
        if self.boot == "reservation" and self.reload == "signal":
            raise ValueError(
                "boot: reservation needs reload: file: hosts with tags are forgotten by a dnsmasq that is started anew"
            )
        return self


class InfobloxSettings(GridSettings):
    """A grid of Infoblox, over its web API. Unproven: no Infoblox was there to try it on.

    Ruby's plugin has ``username``, ``password``, ``record_type``, ``dns_view`` and ``network_view`` as well.
    """

    record_type: Literal["fixedaddress", "host"] = "fixedaddress"
    """What a reservation becomes: a fixed address, or a host record."""
    network_view: View = "default"
    """The network view whose networks these are."""
    dns_view: View | None = None
    """The DNS view that host records are made in; None: they are for DHCP alone, and Foreman's DNS is kept elsewhere."""
    restart: bool = True
    """Whether the grid is asked to restart its DHCP service, where that is needed, after each change; what was changed does
    not count before."""


class LibvirtSettings(NetworkSettings):
    """A network of libvirt, by the names of Ruby's ``dhcp_libvirt``."""


class DHCPSettings(GroupedFeatureSettings):
    """The DHCP feature."""

    rubys_prefixes: ClassVar[tuple[str, ...]] = ("dhcp_", "remote_")

    provider: Literal["isc", "kea", "dnsmasq", "infoblox", "libvirt", "smart_proxy", "memory"] = "isc"
    """Which provider keeps the reservations. Ruby's ``use_provider`` is understood as well: ``dhcp_isc``, ``dhcp_dnsmasq``,
    ``dhcp_infoblox``, ``dhcp_libvirt``, and ``dhcp_remote_isc``, which is ``isc`` with files that are mounted."""
    subnets: tuple[IPv4Network, ...] = ()
    """The subnets of the server that Foreman is to see, as ``192.0.2.0/24`` or ``192.0.2.0/255.255.255.0``; empty: all."""
    ping_free_ip: bool = True
    """Whether an address is probed before it is offered for a new host: by ICMP, TCP and ARP."""
    ping_wait_s: Annotated[float, Field(ge=0.1, le=5)] = 1.0
    """How long a probe waits for an answer."""
    blacklist_duration_minutes: Annotated[float, Field(gt=0, le=10080)] = 30.0
    """How long an address that was offered is not offered again. In minutes, as it says: the Ruby proxy takes the number for
    seconds, where its 1800 means these 30 minutes."""
    pool_size: Annotated[int, Field(ge=0, le=256)] = 8
    """How many addresses of each range that Foreman asks for are probed ahead, so that an answer needs no wait; 0: none."""
    isc: ISCSettings = ISCSettings()
    """Settings of provider ``isc``."""
    kea: KeaSettings = KeaSettings()
    """Settings of provider ``kea``."""
    dnsmasq: DnsmasqSettings = DnsmasqSettings()
    """Settings of provider ``dnsmasq``."""
    infoblox: InfobloxSettings | None = None
    """Settings of provider ``infoblox``."""
    libvirt: LibvirtSettings = LibvirtSettings()
    """Settings of provider ``libvirt``."""
    memory: MemorySettings = MemorySettings()
    """Settings of provider ``memory``."""
    smart_proxy: SmartProxySettings | None = None
    """Settings of provider ``smart_proxy``."""

    @model_validator(mode="after")
    def _provider_has_settings(self) -> Self:
        if self.provider == "smart_proxy" and self.smart_proxy is None:
            raise ValueError("provider smart_proxy needs smart_proxy.url")
        if self.provider == "infoblox" and self.infoblox is None:
            raise ValueError("provider infoblox needs infoblox.url")
        if self.provider == "isc" and self.isc.files_on and self.enabled == "http":
            raise ValueError(
                "isc.files_on needs the feature on https: there members tell each other what is in the files"
            )
        for name, own in self.each().items():
            if own.provider == "isc" and own.isc.files_on:
                raise ValueError(
                    f"group.providers.{name}: isc.files_on is for a provider alone, since members pass on the files of one "
                    "dhcpd; here each member reads them itself"
                )
        return self

    def doubts(self, cluster: ClusterFile) -> tuple[str, ...]:
        if self.provider != "isc" or not self.isc.files_on:
            return self._held_back()
        ours = [m.name for m in cluster.members if m.kind == "muster"]
        strange = [str(n) for n in self.isc.files_on if n not in ours]
        if not strange:
            return self._held_back()
        return (
            f"takes dhcpd's files from {', '.join(strange)} (isc.files_on), which is no member of kind muster: on members "
            "that are not named there it fails",
            *self._held_back(),
        )

    def _held_back(self) -> tuple[str, ...]:
        hours = self.blacklist_duration_minutes / 60
        if hours < 12:
            return ()
        return (
            f"holds back what was offered for {hours:g} hours (blacklist_duration_minutes: "
            f"{self.blacklist_duration_minutes:g}); to the Ruby proxy those were seconds: its 1800 is 30 here",
        )

    def registered(self) -> tuple[Service, ...]:
        url = {
            "isc": f"omapi://{in_url(self.isc.server)}:{self.isc.omapi_port}",
            "kea": self.kea.url,
            "smart_proxy": self.smart_proxy.url if self.smart_proxy is not None else "",
            "infoblox": self.infoblox.url if self.infoblox is not None else "",
        }.get(self.provider)
        return (of_settings("dhcp", url, weight=self.readiness),) if url else ()
