"""The cluster file: one YAML document from which everything else follows.

The models are the schema (``muster config schema`` prints it as JSON Schema); :func:`load` reads a file and
:func:`problems` finds what no single field can know: ids and names that stand twice, a signer that is no member. Rooms
above add their own findings (services in ``balancer``, features in ``features``), so that ``muster config check`` shows
all of them at once.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)

from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.names import FQDN, host_or_address
from muster.kernel.secrets import Secret
from muster.kernel.settings import Document, Location, Problem, Settings, read

SCHEMA_VERSION = 1

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


def _host(value: str) -> str:
    try:
        return host_or_address(value)
    except Rejected as e:
        raise ValueError(str(e)) from e


def _store_url(value: Secret) -> Secret:
    if not re.match(r"(sqlite:///|postgresql://)\S+\Z", value.reveal()):
        raise ValueError("is neither sqlite:///PATH nor postgresql://USER@HOST/DATABASE")
    return value


def _with_prefix(value: str) -> str:
    if not re.match(r"[0-9A-Fa-f.:]{2,45}/[0-9]{1,3}\Z", value):
        raise ValueError("is no address with its prefix length, as in 192.0.2.10/24")
    address = ipaddress.ip_interface(value)
    if address.is_loopback or address.is_multicast or address.is_unspecified:
        raise ValueError("is no address that can move from host to host")
    whole = {address.network[0], address.network.broadcast_address} if address.version == 4 else {address.network[0]}
    if address.network.num_addresses > 2 and address.ip in whole:
        raise ValueError("is the address of a whole network, not of a host in it")
    return str(address)


def _quoted(value: Any) -> Any:
    if isinstance(value, int | float):
        # YAML has read 3.10 as the number 3.1 already.
        raise ValueError('is a number; write it in quotes: "3.10"')  # noqa: TRY004 - what pydantic takes for a finding
    return value


def _foreman_version(value: str) -> str:
    if not re.match(r"(?:0|[1-9][0-9]{0,3})(?:\.(?:0|[1-9][0-9]{0,3})){1,2}\Z", value):
        raise ValueError("is no version of Foreman: MAJOR.MINOR or MAJOR.MINOR.PATCH, as in 5.0 or 5.0.1")
    return value


Host = Annotated[str, AfterValidator(_host)]
ForemanVersion = Annotated[str, BeforeValidator(_quoted), AfterValidator(_foreman_version)]
AddressWithPrefix = Annotated[str, AfterValidator(_with_prefix)]
Interface = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,14}\z")]
RequestPath = Annotated[
    str, StringConstraints(pattern=r"\A/[A-Za-z0-9/._~%-]{0,200}(?:\?[A-Za-z0-9=&._~%-]{1,100})?\z")
]
AnswerText = Annotated[str, StringConstraints(pattern=r"\A[ -&(-\[\]-~]{0,200}\z")]
Slug = Annotated[str, StringConstraints(pattern=r"\A[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\z")]


class Store(Settings):
    """Where the cluster keeps its shared state."""

    url: Annotated[Secret, AfterValidator(_store_url)]
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

    url: Annotated[str, StringConstraints(pattern=r"\Ahttps?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~/-]*)?\z")] | None = (
        None
    )
    """Foreman's own URL."""
    version: ForemanVersion = "5.0"
    """Foreman's version, in quotes: ``"3.14"``; members say it is theirs (``/version``). Up to 5.0.0 Foreman warns of
    Smart Proxies of another major version, of an earlier minor one, and of those more than one ahead."""
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
    forward_verify: bool = True
    """Whether a name found for a plain HTTP client must resolve back to its address."""

    @property
    def told_version(self) -> str:
        """The version in the form Foreman parses, ``x.y.z``."""
        return self.version if self.version.count(".") == 2 else f"{self.version}.0"


class Member(Settings):
    """One proxy process on one host."""

    id: Annotated[int, Field(ge=1, le=4095)]
    """Permanent small number: two balancers agree on consistent hashing only through it. Never reuse one."""
    name: FQDN
    """Host name of the member; its certificate carries it."""
    address: Host
    """Where balancers reach it: IP address or host name."""
    kind: Literal["muster", "foreman"] = "muster"
    """``muster`` (ours) or ``foreman`` (the Ruby smart-proxy)."""
    weight: Annotated[int, Field(ge=1, le=256)] = 100
    """Its share of new clients, beside the others' weights; balancers take a change over without a reload."""


class Balancer(Settings):
    """One host that runs the balancer."""

    name: Slug = "balancer"
    """Its name in status and logs."""
    address: Host
    """The address its connections to members come from; members accept PROXY headers from it."""
    bind: Host | Literal["*"] = "*"
    """Address on which the services listen."""
    metrics_port: Port | None = None
    """Port of the balancer's own Prometheus exporter, on ``bind``; absent: none."""
    maxconn: Annotated[int, Field(ge=100, le=1_000_000)] = 4000
    """Connections the balancer holds at once, all services together."""
    priority: Annotated[int, Field(ge=1, le=254)] | None = None
    """The highest of those that serve gets the virtual address. Absent: 200 for the first, 10 less for each next."""
    interface: Interface | None = None
    """Network interface of the virtual address on this host, when it is not the cluster's."""


class VirtualAddress(Settings):
    """The address that moves between balancers, by keepalived (VRRP version 3, unicast)."""

    address: AddressWithPrefix
    """Address and prefix length, as in ``192.0.2.10/24``; the cluster's DNS name leads to it."""
    interface: Interface
    """Network interface that carries it on every balancer that names no other."""
    router_id: Annotated[int, Field(ge=1, le=255)] = 51
    """Number of this group of balancers, its own within the network segment."""
    advert_s: Annotated[float, Field(ge=0.1, le=40)] = 1.0
    """How often the owner says that it is there; three silent intervals make another one the owner."""
    script_user: Slug = "muster"
    """Account that asks HAProxy whether it serves: the one ``muster balance`` runs as."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return ipaddress.ip_interface(self.address).version


class ServiceCheck(Settings):
    """What the program behind a service is asked, and what counts as its answer.

    By balancers on members of kind ``foreman``, and by members of kind ``muster`` on their own host for ports they do not
    listen on themselves. What is absent is as the profile has it; with a ``path`` that is only ``over`` and ``timeout_s``.
    """

    path: RequestPath | None = None
    """What is asked for with ``GET``. Where the profile has none either, a finished TLS handshake is enough."""
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
    """A change to a service of the profile, or a service the profile lacks (then both ports are required)."""

    enabled: bool = True
    """False: the balancer does not offer it."""
    listen_port: Port | None = None
    """Port clients use at the cluster's address."""
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
    """What the program is asked, when not what the profile says. ``tcp``: nothing, its port has to take a connection."""


class Edge(Settings):
    """Limits of every member's listeners."""

    handshake_timeout_s: Seconds = 8.0
    """From connection to finished TLS handshake, PROXY header included."""
    header_timeout_s: Seconds = 10.0
    """From a request's first byte, or the handshake, to the end of its headers."""
    body_timeout_s: Seconds = 60.0
    """From the end of the headers to the end of the body."""
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


class AuthorityKey(Settings):
    """Who holds the Puppet CA's private key. It never stands in the store."""

    kind: Literal["file", "signer", "pkcs11"] = "file"
    """``file``: a PEM file on every member; ``signer``: a process of its own (``muster ca signer``); ``pkcs11``: a token."""
    file: Path | None = None
    """The PEM file, encrypted or not. Absent: ``puppet-ca/ca_key.pem`` in the PKI directory."""
    passphrase_file: Path | None = None
    """File whose first line opens an encrypted key."""
    socket: Path | None = None
    """Of ``signer``: the socket it listens on."""
    module: Path | None = None
    """Of ``pkcs11``: the token's library, such as ``/usr/lib/softhsm/libsofthsm2.so``."""
    token_label: str | None = None
    """Of ``pkcs11``: which token."""
    key_label: str | None = None
    """Of ``pkcs11``: which key on it."""
    pin_file: Path | None = None
    """Of ``pkcs11``: file whose first line is the user's PIN."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {"signer": ("socket",), "pkcs11": ("module", "token_label", "key_label", "pin_file")}
        missing = [n for n in needed.get(self.kind, ()) if getattr(self, n) is None]
        if missing:
            raise ValueError(f"kind {self.kind} needs {', '.join(missing)}")
        return self


OWN_CERTNAME_PREFIX = "puppetca."
# X.520's; a longer common name cannot be made.
_LONGEST_CERTNAME = 64


def own_certname(member: str) -> str:
    """Return the name a member's Puppet CA issues its own certificate to: not the host's, which its Puppet agent has."""
    name = f"{OWN_CERTNAME_PREFIX}{member}".lower()
    if len(name) <= _LONGEST_CERTNAME:
        return name
    # A cut one could be another member's, too. Nobody checks it: the member's names stand among the alternatives.
    return f"{OWN_CERTNAME_PREFIX}{hashlib.sha256(name.encode()).hexdigest()[:40]}"


class Authority(Settings):
    """The Puppet CA that every member of kind ``muster`` is. Absent: members are none."""

    port: Port = 8141
    """Port on each member; the balancer's service ``puppetca`` leads to it."""
    key: AuthorityKey = AuthorityKey()
    """Who holds the private key."""
    autosign: tuple[Literal["all", "hostnames", "tokens", "policy"], ...] = ()
    """Who is signed without an administrator: everybody; names on Foreman's list or in ``hostnames_file``; who brings a
    token of Foreman's; whom ``policy_executable`` lets through. One yes is enough. Empty: nobody. Whatever it says, names
    of ``administrators``, the cluster's address and aliases wait for an administrator; members, ``infra_hosts`` and
    trusted hosts need a token or an entry of exactly their name."""
    hostnames_file: Path | None = None
    """Further names for ``hostnames``, one a line, as in puppetserver's ``autosign.conf``."""
    policy_executable: Path | None = None
    """Of ``policy``: gets the certname as its argument and the request on standard input; exit status 0 signs."""
    policy_timeout_s: Seconds = 10.0
    """How long it may take; then the request waits for an administrator."""
    allow_subject_alt_names: bool = False
    """Whether requests may carry other DNS names and IP addresses than their own."""
    allow_authorization_extensions: bool = False
    """Whether requests may carry authorisation extensions; ``pp_cli_auth`` is never signed."""
    allow_auto_renewal: bool = False
    """Whether agents (8 and later) may renew their certificates themselves."""
    administrators: tuple[Annotated[str, StringConstraints(pattern=r"\A[a-z0-9_.-]{1,253}\z")], ...] = ()
    """Certnames that may sign, revoke and list beside holders of ``pp_cli_auth``. No request of these names is signed
    unasked."""
    cert_ttl_days: Annotated[int, Field(ge=1, le=18_250)] = 1825
    """How long certificates are valid."""
    auto_renewal_ttl_days: Annotated[int, Field(ge=1, le=18_250)] = 90
    """The same for agents that renew by themselves."""
    crl_ttl_days: Annotated[int, Field(ge=1, le=18_250)] = 1825
    """How long a revocation list is valid; agents before 7 never fetch another."""
    crl_slack_s: Annotated[float, Field(ge=0, le=86_400)] = 3600.0
    """How far an agent's clock may be ahead and the agent still gets a changed list."""
    infra_hosts: tuple[Annotated[str, StringConstraints(pattern=r"\A[a-z0-9_.-]{1,253}\z")], ...] = ()
    """When not empty, agents get a list of these names' revocations only: for fleets whose whole list is large."""
    pending_limit: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """How many requests may wait for an administrator."""
    pending_per_source: Annotated[int, Field(ge=0, le=1_000_000)] = 200
    """How many of them may come from one client: an IPv4 address, or the /64 of an IPv6 one; 0: any number. Hosts behind
    one NAT are one client."""
    pending_days: Annotated[float, Field(gt=0, le=3650)] = 7.0
    """How long one waits; then it is thrown away, and a host that still wants it asks anew by itself."""
    requests_per_minute: Annotated[int, Field(ge=0, le=1_000_000)] = 600
    """Certificate requests one client (an IPv4 address, the /64 of an IPv6 one) may make of one member; 0: any number."""
    push_crl: tuple[Path, ...] = ()
    """Files that get the revocation list whenever it changes: a co-located puppetserver's ``ssl/crl.pem``."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if "policy" in self.autosign and self.policy_executable is None:
            raise ValueError("autosign policy needs policy_executable")
        return self


class ClusterFile(Settings):
    """Everything a cluster is made from."""

    schema_version: Literal[1] = Field(alias="schema")
    """Version of this schema: 1."""
    cluster: Slug
    """The cluster's name."""
    address: FQDN
    """The DNS name clients use."""
    aliases: tuple[FQDN, ...] = ()
    """Further names clients may use; every member's certificate carries them."""
    store: Store
    """Where the shared state is kept."""
    foreman: Foreman = Foreman()
    """The Foreman this cluster serves."""
    members: Annotated[tuple[Member, ...], Field(min_length=1, max_length=200)]
    """The members, in the order they are shown."""
    balancers: tuple[Balancer, ...] = ()
    """The hosts that run the balancer."""
    virtual_address: VirtualAddress | None = None
    """The address several balancers share; absent: each has its own only."""
    profile: Literal["seed", "current"] = "current"
    """The set of services: ``seed`` (nine ports of 2018), ``current`` (today's six)."""
    services: dict[Slug, ServiceOverride] = Field(default_factory=dict)
    """Changes to the profile, by service name."""
    features: dict[Slug, dict[str, Any]] = Field(default_factory=dict)
    """Settings of each feature; the feature's own page documents them."""
    authority: Authority | None = None
    """The Puppet CA on every member; absent: none."""
    signer: Literal["any"] | FQDN = "any"
    """Who signs Puppet certificates: ``any`` member, or one member's name."""
    min_ready: Annotated[int, Field(ge=0, le=200)] = 1
    """How many ready members each service keeps while others are drained or taken out."""
    disks: tuple[Disk, ...] | None = None
    """Directories of every member whose file systems are watched. Absent: that of a SQLite store, and where a
    member keeps its certificates and what it writes itself; less than 32 MiB there shows, and takes ``puppetca`` out
    when the members are the Puppet CA. Empty: none."""
    expected_differences: tuple[ExpectedDifference, ...] = ()
    """Fields in which members may differ."""
    edge: Edge = Edge()
    """Limits of the listeners."""
    log: Log = Log()
    """Logging."""

    def member(self, name: str) -> Member:
        """Return the member of that name, or of that first label when only one has it.

        Raises:
            Rejected: none, or several.
        """
        exact = [m for m in self.members if m.name == name]
        short = [m for m in self.members if m.name.labels[0].lower() == name.lower()]
        found = exact or short
        if len(found) != 1:
            known = ", ".join(m.name for m in self.members)
            raise Rejected(f"{name!r} names {len(found) or 'no'} members; members are {known}")
        return found[0]

    def balancer(self, name: str | None) -> Balancer:
        """Return the balancer of that name; None means the only one.

        Raises:
            Rejected: there is none of that name, or none or several to choose from.
        """
        found = [b for b in self.balancers if name in (None, b.name)]
        if len(found) != 1:
            known = ", ".join(b.name for b in self.balancers) or "none"
            what = f"{name!r} is no balancer" if name else "the balancer must be named"
            raise Rejected(f"{what}; balancers are {known}")
        return found[0]

    def priority(self, balancer: Balancer) -> int:
        """Return the balancer's VRRP priority: its own, or the one its place in the file gives it."""
        return balancer.priority or _priority_at(self.balancers.index(balancer))

    def without(self, names: Iterable[str]) -> ClusterFile:
        """Return the cluster less these members, as long as one is left."""
        gone = set(names)
        left = tuple(m for m in self.members if str(m.name) not in gone)
        return self.model_copy(update={"members": left}) if left else self

    @property
    def names(self) -> tuple[FQDN, ...]:
        """The names clients may use: the address and the aliases."""
        return (self.address, *self.aliases)

    @property
    def trusted_names(self) -> tuple[FQDN, ...]:
        """The hosts that may use protected routes: ``trusted_hosts``, or Foreman's own where nobody wrote that down."""
        if self.foreman.trusted_hosts is not None:
            return self.foreman.trusted_hosts
        host = urlsplit(self.foreman.url or "").hostname or ""
        try:
            return (FQDN.parse(host_or_address(host)),) if host and not _ip(host) else ()
        except Rejected:
            return ()


def load(path: Path) -> tuple[ClusterFile, Document]:
    """Read and validate a cluster file as far as this room can.

    Raises:
        InvalidSettings: with every problem this room finds.
        Misconfigured: the file cannot be read.
    """
    document = read_present(path)
    return document.parsed(ClusterFile), document


def read_present(path: Path) -> Document:
    """Read a cluster file; where there is none, say how to come by one.

    Raises:
        InvalidSettings: it is no YAML.
        Misconfigured: it cannot be read.
    """
    if not path.parent.is_dir() or not path.exists():
        raise Misconfigured(
            f"There is no cluster file {path} (No such file or directory); name another with --cluster or MUSTER_CLUSTER, "
            "write a first one with muster config init, or try a local cluster with muster up"
        )
    return read(path)


def problems(document: Document) -> list[Problem]:
    """Return what is wrong between fields; works on raw content, so that it also speaks of half-valid files."""
    content = document.content
    if not isinstance(content, dict):
        return [Problem(1, "", "is not a mapping of settings")]
    found: list[Problem] = []
    members = [m for m in _sequence(content.get("members")) if isinstance(m[1], dict)]
    for key in ("id", "name"):
        first: dict[str, int] = {}
        for index, member in members:
            value = member.get(key)
            if value is None:
                continue
            folded = _folded(value)
            if folded in first:
                at = document.line_of(("members", first[folded], key))
                found.append(document.problem(("members", index, key), f"{value} stands already in line {at}"))
            first.setdefault(folded, index)
    names = {_folded(m.get("name")) for _, m in members}
    signer = content.get("signer", "any")
    if isinstance(signer, str) and signer != "any" and _folded(signer) not in names:
        found.append(document.problem(("signer",), f"{signer} is no member; members are {', '.join(sorted(names))}"))
    address = _folded(content.get("address", ""))
    for index, member in members:
        if address and _folded(member.get("name")) == address:
            found.append(
                document.problem(("members", index, "name"), "is the cluster's address; a member needs its own")
            )
    seen: set[str] = set()
    for index, balancer in _sequence(content.get("balancers")):
        name = str(balancer.get("name", "balancer")) if isinstance(balancer, dict) else ""
        if name in seen:
            found.append(document.problem(("balancers", index, "name"), f"{name} stands twice"))
        seen.add(name)
    found += _of_smartproxy(document, content, [m for _, m in members])
    found += _virtual_address_problems(document, content)
    found += _of_expected_differences(document, content, names)
    return [*found, *_of_store(document, content, [m for _, m in members])]


def _of_store(document: Document, content: dict[str, Any], members: list[dict[str, Any]]) -> Iterator[Problem]:
    """Several hosts cannot share a file. Members of kind foreman never touch the store: then only balancers do."""
    store = content.get("store")
    url = str(store.get("url", "")) if isinstance(store, dict) else ""
    if not url.startswith("sqlite:"):
        return
    where: Location = ("store", "url")
    ours = [m for m in members if m.get("kind", "muster") == "muster"]
    if len(_hosts(ours)) > 1:
        yield document.problem(where, "SQLite serves members of one host; members on several need postgresql://")
    balancers = [b for _, b in _sequence(content.get("balancers")) if isinstance(b, dict)]
    if not ours and len(_hosts(balancers)) > 1:
        yield document.problem(where, "SQLite serves one balancer; several need postgresql://")


def _hosts(entries: list[dict[str, Any]]) -> set[str]:
    return {str(e.get("address")) for e in entries if not str(e.get("address", "")).startswith("127.")}


def warnings(document: Document, cluster: ClusterFile) -> list[Problem]:
    """Return what is valid and does probably not what was meant."""
    found: list[Problem] = []
    if cluster.foreman.ca_file is not None and cluster.foreman.trusted_hosts is None and not cluster.trusted_names:
        found.append(
            document.problem(
                ("foreman", "ca_file"),
                "nobody may use protected routes with a certificate of this CA: neither trusted_hosts nor the host name in "
                "url says which of its certificates is Foreman's",
            )
        )
    return found


def _of_smartproxy(document: Document, content: dict[str, Any], members: list[dict[str, Any]]) -> Iterator[Problem]:
    """A Muster member listens on this service's port whether balancers offer it or not; a Ruby one has its own settings."""
    services = content.get("services")
    override = services.get("smartproxy") if isinstance(services, dict) else None
    if not isinstance(override, dict) or not any(m.get("kind", "muster") == "muster" for m in members):
        return
    try:
        offered = ServiceOverride(enabled=override.get("enabled", True)).enabled
    except ValidationError:
        return
    if not offered:
        sentence = "members of kind muster cannot serve without this service; only a cluster of kind foreman can"
        yield document.problem(("services", "smartproxy", "enabled"), sentence)


def _virtual_address_problems(document: Document, content: dict[str, Any]) -> Iterator[Problem]:
    virtual = content.get("virtual_address")
    if not isinstance(virtual, dict):
        return
    ours = _ip(str(virtual.get("address", "")).partition("/")[0])
    balancers = [(i, b) for i, b in _sequence(content.get("balancers")) if isinstance(b, dict)]
    if len(balancers) < 2:
        sentence = f"moves between balancers, so it needs two or more; the file has {len(balancers)}"
        yield document.problem(("virtual_address",), sentence)
    taken: dict[int, str] = {}
    for index, balancer in balancers:
        name = str(balancer.get("name", "balancer"))
        own = balancer.get("priority")
        priority = own if isinstance(own, int) else _priority_at(index)
        if priority in taken:
            where: Location = ("balancers", index, "priority")
            yield document.problem(where, f"{name} and {taken[priority]} both have priority {priority}")
        taken.setdefault(priority, name)
        address = _ip(str(balancer.get("address", "")))
        if ours is not None and (address is None or address.version != ours.version):
            sentence = f"must be an IPv{ours.version} address, because balancers tell each other who owns {ours}"
            yield document.problem(("balancers", index, "address"), sentence)
    for section in ("balancers", "members"):
        for index, one in _sequence(content.get(section)):
            if ours is not None and isinstance(one, dict) and _ip(str(one.get("address", ""))) == ours:
                sentence = f"is the virtual address; {one.get('name', 'it')} needs its own"
                yield document.problem((section, index, "address"), sentence)


def _priority_at(index: int) -> int:
    return max(1, 200 - 10 * index)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _of_expected_differences(document: Document, content: dict[Any, Any], names: set[str]) -> list[Problem]:
    found: list[Problem] = []
    for index, expected in _sequence(content.get("expected_differences")):
        for place, name in _sequence(expected.get("members")) if isinstance(expected, dict) else ():
            if _folded(name) not in names:
                where: Location = ("expected_differences", index, "members", place)
                sentence = f"{name} is no member; members are {', '.join(sorted(names))}"
                found.append(document.problem(where, sentence))
    return found


def _folded(name: Any) -> str:
    return str(name).lower().removesuffix(".")


def _sequence(value: Any) -> list[tuple[int, Any]]:
    return list(enumerate(value)) if isinstance(value, list) else []
