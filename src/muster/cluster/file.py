"""The cluster file: one YAML document from which everything else follows.

The models are the schema (``muster config schema`` prints it as JSON Schema), and :func:`load` reads a file. Here stands the
whole, and who is in it: members, balancers, the Puppet CA they are. The other sections are in
:mod:`muster.cluster.sections`, what is wrong between fields is found in :mod:`muster.cluster.problems`.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, model_validator

from muster.cluster.sections import (
    Clients,
    Content,
    Disk,
    Edge,
    ExpectedDifference,
    Foreman,
    Log,
    Netboot,
    Network,
    ServiceOverride,
    Store,
)
from muster.cluster.values import AddressWithPrefix, FeatureName, Host, Interface, Port, Seconds, Slug, address_of
from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.names import FQDN, host_or_address
from muster.kernel.settings import Document, Settings, read

SCHEMA_VERSION = 1

OLDER_WORDS = {"seed": "seed", "current": "installer"}
"""What ``profile`` calls a generation."""


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
    ports: dict[Slug, Port] = Field(default_factory=dict)
    """Its own port of a service, where that is not the other members', as while they move from one generation to the next:
    ``{smartproxy: 8443}``."""
    weight: Annotated[int, Field(ge=1, le=256)] = 100
    """Its share of new clients, beside the others' weights; balancers take a change over without a reload."""

    def __hash__(self) -> int:
        # Its ports are a mapping, which cannot be hashed.
        return hash((self.id, self.name))


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
    policy_at_once: Annotated[int, Field(ge=1, le=1000)] = 8
    """How many of it a member runs at once. Further requests wait for their turn as long as it may take, then for an
    administrator."""
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
    generation: Literal["seed", "installer", "foremanctl"] = "installer"
    """Whose layout the members have: ``seed`` (nine ports of 2018), ``installer`` (today's six, the Smart Proxy on 9090),
    ``foremanctl`` (containers: 80, 443, and the Smart Proxy on 8443)."""
    profile: Literal["seed", "current"] | None = None
    """Older words for ``generation``: ``seed``, and ``current`` for ``installer``."""
    services: dict[Slug, ServiceOverride] = Field(default_factory=dict)
    """Changes to the generation's services, by name."""
    features: dict[FeatureName, dict[str, Any]] = Field(default_factory=dict)
    """Settings of each feature; the feature's own page documents them."""
    authority: Authority | None = None
    """The Puppet CA on every member; absent: none."""
    content: Content | None = None
    """Ports of content that members answer themselves; absent: Apache, nginx or another program does."""
    netboot: Netboot = Netboot()
    """Boot files, the same on every member."""
    clients: Clients = Clients()
    """What hosts are told when they join."""
    network: Network = Network()
    """What lies around the cluster, for firewalls and name servers."""
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

    @model_validator(mode="before")
    @classmethod
    def _of_older_word(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("profile") not in OLDER_WORDS:
            return given
        meant = OLDER_WORDS[given["profile"]]
        return {**given, "generation": given.get("generation", meant)}

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
            unnamed = (
                "the balancer must be named" if self.balancers else "the cluster file has no balancer to do it for"
            )
            what = f"{name!r} is no balancer" if name else unnamed
            raise Rejected(f"{what}; balancers are {known}")
        return found[0]

    def priority(self, balancer: Balancer) -> int:
        """Return the balancer's VRRP priority: its own, or the one its place in the file gives it."""
        return balancer.priority or priority_at(self.balancers.index(balancer))

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
            return (FQDN.parse(host_or_address(host)),) if host and not address_of(host) else ()
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


def priority_at(index: int) -> int:
    """Return the VRRP priority of the balancer at a place in the file that names none."""
    return max(1, 200 - 10 * index)
