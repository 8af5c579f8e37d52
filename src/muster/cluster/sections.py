"""The sections of the cluster file that say how the cluster works: its store, its Foreman, services and limits.

Who is in the cluster stands with the whole (:mod:`muster.cluster.file`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from muster.cluster.mirror import Mirror
from muster.cluster.proxy_dhcp import ProxyDHCP
from muster.cluster.steered import Steered
from muster.cluster.values import (
    CIDR,
    AnswerText,
    BackendURL,
    ForemanURL,
    ForemanUser,
    ForemanVersion,
    Host,
    Label,
    Port,
    RegistryURL,
    RequestPath,
    Seconds,
    Slug,
    StoreURL,
    Title,
)
from muster.foreman.version import in_full
from muster.kernel.names import FQDN
from muster.kernel.settings import Settings

# What members say while nobody knows Foreman's version: the last one that warns of others.
UNKNOWN_VERSION = "5.0"
ContentService = Literal["https", "http", "rhsm", "docker"]


class Store(Settings):
    """Where the cluster keeps its shared state."""

    url: StoreURL
    """``sqlite:///PATH`` (members on one host, or Ruby members only and one balancer) or
    ``postgresql://USER@HOST/DATABASE``."""
    password_file: Path | None = None
    """File whose first line is the PostgreSQL password; keeps it out of the cluster file."""
    connect_timeout_s: Seconds = 2.0
    """How long one connection attempt may take."""
    statement_timeout_s: Seconds = 5.0
    """How long one statement may take before the call is answered 503."""


class Foreman(Settings):
    """The Foreman this cluster serves."""

    url: ForemanURL | None = None
    """Foreman's own URL."""
    version: ForemanVersion | None = None
    """Foreman's version, in quotes: ``"3.14"``; members say it is theirs (``/version``). Absent: what Foreman says where
    ``api_user`` may ask it, else what it said last, else 5.0. Up to 5.0.0 Foreman warns of Smart Proxies of another major
    version, of an earlier minor one, and of those more than one ahead."""
    api_user: ForemanUser | None = None
    """User of Foreman as whom members ask its API at ``url``, which is ``https`` then. It needs no role."""
    api_token_file: Path | None = None
    """File on every member whose first line is a personal access token of ``api_user``; followed when it changes."""
    trusted_hosts: tuple[FQDN, ...] | None = None
    """Names that may use protected routes, with a certificate of any trusted CA, and over plain HTTP where a feature is
    open to it. Absent: the host of ``url``, and members and balancers with certificates of the cluster's own CA; without
    ``url`` whoever has a certificate of that CA; nobody over plain HTTP. Empty: nobody at all."""
    ca_file: Path | None = None
    """CA that issued Foreman's client certificate, when it is not the cluster CA; trusted beside it. Where it is the Puppet
    CA, every managed host has such a certificate: only ``trusted_hosts`` and ``url`` tell Foreman from them. Certificates
    of Ruby members may be of it, too: a file on every balancer's host then."""
    crl_file: Path | None = None
    """Revocation lists of the CAs in ``ca_file``, PEM; followed when it changes. Not needed for the Puppet CA that the
    members are: its ledger is asked."""
    revocations_kept_s: Annotated[float, Field(ge=0, le=86_400)] = 600.0
    """How long after the store's last answer the last known revocations of the cluster's own Puppet CA count; later,
    protected calls with its certificates are 503."""
    registration: Literal["cluster", "members"] | None = None
    """Which Smart Proxies Foreman knows: the ``cluster`` as one, at its address, or each of the ``members`` by its own name.
    Absent: the cluster, where all members are of kind ``muster``."""
    organizations: tuple[Title, ...] = ()
    """Organisations that members are assigned to in Foreman."""
    locations: tuple[Title, ...] = ()
    """Locations that members are assigned to in Foreman."""
    lifecycle_environments: tuple[Title, ...] = ()
    """Lifecycle environments that each member carries, of the first organisation."""
    download_policy: Literal["on_demand", "immediate", "streamed", "inherit"] | None = None
    """When Pulps of members fetch content, as Foreman has it for each of them. Absent: as it is there."""
    forward_verify: bool = True
    """Whether a name found for a plain HTTP client must resolve back to its address."""

    @property
    def told_version(self) -> str:
        """The version as it is written, else what members say while they know none, as Foreman parses it: ``x.y.z``."""
        return in_full(self.version or UNKNOWN_VERSION)


class Clients(Settings):
    """What hosts are told when they join, in the files and commands that are rendered for them."""

    organization: Label | None = None
    """Label of the organisation that they register in."""
    activation_keys: tuple[Label, ...] = ()
    """The activation keys they register with."""
    hostgroup: Title | None = None
    """The host group Foreman puts them in."""
    location: Title | None = None
    """The location Foreman puts them in."""


class Network(Settings):
    """What lies around the cluster, for firewalls and name servers."""

    clients: tuple[CIDR, ...] = ()
    """Networks whose hosts may call the address. Empty: all."""
    direct: tuple[CIDR, ...] = ()
    """Networks, beside balancers and Foreman, whose hosts may call members themselves: for remote execution, and tests."""
    foreman: tuple[CIDR, ...] = ()
    """Networks that Foreman's calls to members come from. Empty: the address in ``foreman.url``, where it is one."""
    monitoring: tuple[CIDR, ...] = ()
    """Networks of hosts that ask for metrics: members, and ``metrics_port`` of balancers. Empty: those of ``direct``."""
    dns_zone: FQDN | None = None
    """The zone in which the address stands. Absent: what follows its first label."""
    dns_server: Host | None = None
    """The name server that takes updates of the zone. Absent: the one its SOA record names."""
    dns_ttl_s: Annotated[int, Field(ge=0, le=604_800)] = 3600
    """How long resolvers may keep the address."""
    firewall_zone: Slug | None = None
    """firewalld's zone of the interfaces that clients come in by. Absent: they may come in by any."""


class Content(Settings):
    """What members answer themselves on the ports of content, in front of a Pulp."""

    services: Annotated[tuple[ContentService, ...], Field(min_length=1)] = ("https", "http")
    """Whose ports members answer: ``https``, ``http``, ``rhsm`` (8443 in generation ``seed``), ``docker`` (5000). The others
    stay with other programs."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """How many processes of each member answer them: 1 is the member's own. More use as many cores, and what ``edge``
    limits each counts for itself."""
    pulp_content_url: BackendURL | None = "http://127.0.0.1:24816"
    """Where Pulp's content application answers; ``{address}`` stands for the member's own address, and
    ``unix:/PATH`` is a socket on the member's host. Null: there is none, and members answer what they mirror themselves."""
    pulp_api_url: BackendURL | None = "http://127.0.0.1:24817"
    """Where Pulp's API answers. Null: there is none."""
    pulp_password_file: Path | None = None
    """File on every member whose first line is the password of Pulp's user ``admin``, which members then show its API when
    they ask it for themselves. Absent: they say ``Remote-User: admin``, which a Pulp believes that the installer set up."""
    registry_url: RegistryURL | None = None
    """Where ``/v1/``, ``/v2/`` and ``/index/`` lead: a registry, or the container gateway of a Smart Proxy, whose URL ends
    in ``/container_gateway``; ``https://{address}:9090/container_gateway`` is members' own. Absent: they are 404,
    but for images that members mirror."""
    ca_file: Path | None = None
    """Who issued the certificates of what is reached over HTTPS, Foreman included. Absent: the cluster's CA, and
    ``foreman.ca_file``."""
    foreman_certificate: Path | None = None
    """What Foreman is shown for ``/rhsm`` and what else leads there, a file on every member. Absent: the member's own."""
    foreman_key: Path | None = None
    """Its key. Absent: in the same file."""
    pub: Path | None = None
    """Directory of ``/pub`` on every member, on the ports of content and of the Smart Proxy. Absent: what hosts that join
    need is all that is there."""
    connect_timeout_s: Seconds = 2.0
    """How long connecting to one of these may take."""
    first_byte_timeout_s: Seconds = 60.0
    """How long one may be silent before its answer begins, counted from the last it was sent; Pulp fetches what it has on
    demand meanwhile. Balancers let clients wait 10 s longer, also for the next one."""
    stall_timeout_s: Seconds = 60.0
    """How long one may be silent within its answer."""
    fill_after_s: Annotated[float, Field(ge=0.05, le=60)] = 0.5
    """How long Pulp's content application may take to begin an answer before other members are asked for it, too."""
    hold_s: Annotated[float, Field(ge=0, le=60)] = 6.0
    """How long a call waits while somebody who might have what it asks for cannot be asked, or is another member that is
    silent (3 s at least); then it is 503. dnf asks four times in a row."""
    one_version: bool = True
    """Whether all members answer the same version of each yum repository and each deb suite, the whole of it, whatever their
    Pulps have at the moment. False: each answers as its Pulp does."""
    lag_s: Annotated[float, Field(ge=1, le=86_400)] = 600.0
    """How long a Pulp, or a member's disk, may be behind the others before it is not waited for, and its member leaves
    content."""
    retention_days: Annotated[float, Field(ge=0.01, le=365)] = 3.0
    """How long metadata stays on members' disks that is superseded, or of repositories that nobody asks for."""
    kept_bytes: Annotated[int, Field(ge=64 << 20)] = 10 << 30
    """How much of a member's disk that may take, below its state directory."""
    keepers: Annotated[int, Field(ge=0, le=8)] = 0
    """How many publications of each yum repository that clients ask for a Pulp goes on serving, so that packages which newer
    versions dropped are still to be had. Its member makes that many distributions beside the repository's, and leads them to
    what that served. For Pulps without retention; 0: none, and those there are go."""
    mirror: Mirror | None = None
    """Repositories that members fetch from their origins themselves, and answer below ``/pulp/content/muster/``."""
    steered: Steered | None = None
    """Pulps that members lead all to the same content. Absent: members change nothing in any Pulp, but for ``keepers``."""


class TFTP(Settings):
    """The TFTP server of every member; it gives the boot files, and takes none."""

    addresses: Annotated[tuple[Host, ...], Field(min_length=1, max_length=16)] | None = None
    """IP addresses on which members listen, each on those that its host has. Absent: where the member listens for all
    else: every address, or its own when that is a loopback address."""
    port: Port = 69
    """The UDP port; below 1024 a member needs ``CAP_NET_BIND_SERVICE``, which ``muster render systemd`` gives its unit."""
    data_ports: tuple[Port, Port] | None = None
    """First and last of the UDP ports that files are sent from, for a firewall. Absent: any."""
    transfers: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """How many files a member sends at a time; further requests are not answered, and clients ask again."""


class Netboot(Settings):
    """The tree of boot files, which features tftp and httpboot change and serve from, only with one of them; ProxyDHCP."""

    root: Path | None = None
    """Directory of every member in which the files stand; other files in it are left alone. Absent: the ``tftproot`` of
    tftp, else ``netboot`` where a member keeps what it writes itself."""
    confirm_s: Annotated[float, Field(ge=0.5, le=60)] = 5.0
    """How long a change waits for members to have it on their disks. Who does not takes no clients until it has."""
    tftp: TFTP | None = None
    """The TFTP server of members. Absent: none; another program may serve the directory."""
    proxy_dhcp: ProxyDHCP | None = None
    """What machines are told to boot, beside a DHCP server that does not say it. Absent: nothing."""


class ServiceCheck(Settings):
    """What the program behind a service is asked, and what counts as its answer.

    By balancers on members of kind ``foreman``, and by members of kind ``muster`` on their own host for ports they do not
    listen on themselves. What is absent is as the generation has it; with a ``path`` only ``over`` and ``timeout_s`` are.
    """

    path: RequestPath | None = None
    """What is asked for with ``GET``. Where the generation has none either, a finished TLS handshake is enough."""
    over: Literal["plain", "tls", "verified", "mutual"] | None = None
    """``plain``; ``tls``: whoever answers is believed; ``verified``: its certificate must carry the cluster's name and come
    from the CA; ``mutual``: ours is shown, too."""
    status: Annotated[int, Field(ge=100, le=599)] | None = None
    """Status of a good answer; 200 when nobody says another."""
    holds: AnswerText | None = None
    """Text that must stand in the answer, in its first 16 kB."""
    lacks: AnswerText | None = None
    """Text that must not."""
    timeout_s: Annotated[float, Field(ge=0.1, le=60)] | None = None
    """How long the answer may take."""
    ca_file: Path | None = None
    """Who issued the program's certificate, when it is not the cluster's CA: a file on every balancer's host. Makes ``tls``
    ``verified``."""


# Told apart by their shape, so that a wrong key is complained of once and not as no ``tcp``, too.
AskedOrNot = Annotated[
    Annotated[Literal["tcp"], Tag("tcp")] | Annotated[ServiceCheck, Tag("asked")],
    Discriminator(lambda value: "tcp" if isinstance(value, str) else "asked"),
]


class ServiceOverride(Settings):
    """A change to a service of the generation, or a service that it lacks (then both ports are required)."""

    enabled: bool = True
    """False: the balancer does not offer it."""
    listen_port: Port | None = None
    """Port clients use at the cluster's address."""
    also_listen_ports: Annotated[tuple[Port, ...], Field(max_length=8)] = ()
    """Further ports there that lead to the same, as 8443 beside 9090 while clients move from one to the other."""
    member_port: Port | None = None
    """Port on each member."""
    traffic: Literal["tls", "plain", "tls-tunnel"] | None = None
    """``tls`` and ``plain`` are short calls; ``tls-tunnel`` keeps idle connections for hours (AMQP, MQTT)."""
    balance: Literal["roundrobin", "leastconn", "random", "source"] | None = None
    """How clients are spread; ``source`` is rendered as a consistent hash."""
    destinations: Literal["all", "signer"] | None = None
    """Every member, or the signer only."""
    maxconn_per_member: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Connections one member gets at once; the rest wait at the balancer."""
    check: AskedOrNot | None = None
    """What the program is asked, when not what the generation says. ``tcp``: nothing, its port has to take a connection."""


class Edge(Settings):
    """Limits of every member's listeners."""

    handshake_timeout_s: Seconds = 8.0
    """From connection to finished TLS handshake, PROXY header included."""
    header_timeout_s: Seconds = 10.0
    """From a request's first byte, or the handshake, to the end of its headers."""
    body_timeout_s: Seconds = 60.0
    """From the end of the headers to the end of the body. What is passed on as it comes has no end of its own: it may be
    silent for so long, and has to bring 500 bytes a second on average."""
    write_timeout_s: Seconds = 30.0
    """How long a client may take no byte of its reply before its connection is closed."""
    idle_timeout_s: Seconds = 30.0
    """How long a kept-alive connection may stay silent."""
    connection_age_s: Annotated[float, Field(gt=0, le=86_400)] = 3600.0
    """How long a connection may be kept alive at all; the first reply after that closes it."""
    connections_per_address: Annotated[int, Field(ge=1)] = 256
    """Connections one client address may hold, an IPv6 network of 64 bits counting as one; balancers are exempt, the
    clients behind them are not."""
    connections: Annotated[int, Field(ge=1)] = 4096
    """Connections in all, on each listener; 64 more are kept for balancers and this host."""
    body_limit_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 1 << 20
    """Largest request body."""
    memory_bytes: Annotated[int, Field(ge=4 << 20, le=16 << 30)] = 32 << 20
    """What bodies, waiting requests and unsent replies may hold in memory, all connections together; beyond it calls are
    503."""
    proxy_protocol: Literal["accepted", "required", "off"] = "accepted"
    """Whether balancers' connections may, must or must not start with a PROXY v2 header. Others never may."""
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 5.0
    """How long a stopping member still takes new connections, so that every balancer has seen it leave."""
    stop_timeout_s: Seconds = 60.0
    """How long calls in flight may take after that."""


class Log(Settings):
    """What is logged, and how much of it ``/logs`` keeps."""

    level: Literal["DEBUG", "INFO", "WARN", "ERROR", "FATAL"] = "INFO"
    """Least level that is kept. Ruby's UNKNOWN is none: nothing is logged at it, so nothing would be kept."""
    buffer: Annotated[int, Field(ge=2, le=100_000)] = 2000
    """Records in the main ring (Ruby: ``log_buffer``)."""
    buffer_errors: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Errors kept after they fell out of the main ring (Ruby: ``log_buffer_errors``)."""


class Disk(Settings):
    """A directory whose file system must have room, or services leave the member."""

    path: Path
    """The directory; a member that lacks it is not ready for the services either."""
    services: tuple[Slug, ...] = ()
    """Services that write there: a member without room takes no new clients of them. Empty: it only shows."""
    min_free_bytes: Annotated[int, Field(ge=0)] = 64 << 20
    """Least room that counts as enough."""


class ExpectedDifference(Settings):
    """A field in which members may differ, so that ``muster parity`` does not call it drift."""

    field: Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9_.*-]{1,200}\z")]
    """The field as ``muster parity`` names it; ``*`` stands for anything: ``dns.settings.*``."""
    members: tuple[FQDN, ...] = ()
    """The members that may differ. Empty: all of them."""
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    """Why; shown wherever the difference is."""
