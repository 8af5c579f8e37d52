"""A service behind the members, as the register (:mod:`muster.cluster.services`) has it, and how sources are joined in one.

Pure: entries in, entries out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from muster.cluster.values import service_url, web_url
from muster.kernel.errors import NotFound, Rejected
from muster.kernel.names import FQDN, in_url, shown

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile, Member

Weight = Literal["essential", "functional"]

ADMINISTRATOR = "administrator"
SETTINGS = "settings"
ANY = "any"
MEMBERS = "members"

TOTAL, USED, FREE = "storage_total_bytes", "storage_used_bytes", "storage_free_bytes"
"""Facts about the disk on which a service keeps what it serves."""

# What Foreman or hosts are told of these is a URL of the web.
_WEB_KINDS = frozenset({"pulp", "registry", "foreman", "candlepin", "puppet", "puppetca"})
KINDS: Mapping[str, str] = {
    "pulp": "a Pulp: its API, and where its content is fetched",
    "registry": "a container registry or gateway",
    "foreman": "the Foreman this cluster serves",
    "candlepin": "who keeps subscriptions",
    "store": "the cluster's own database",
    "dns": "a DNS server",
    "dhcp": "a DHCP server",
    "tftp": "a TFTP server",
    "puppet": "a Puppet server",
    "puppetca": "a Puppet CA elsewhere",
    "broker": "a message broker",
}
"""What there is, and what it is."""

_WORD = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,98}[a-z0-9])?\Z")
_NETWORK_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_FILE = re.compile(r"file:/[A-Za-z0-9._/-]{1,200}\Z")
_CLIENT = re.compile(r"client:(?P<name>[A-Za-z0-9.-]{1,253})\Z")
_MOST_NETWORKS = 50
_MOST_NAMED = 20
# In bytes: who says so many knows nothing of a disk, and no figure of ours holds them.
_NO_DISK = 1 << 63
# What stands in a URL before an @, behind a ? or a # may be a password or a token.
_PERHAPS_SECRET = re.compile(r"[@?#]")


def room_said(storage: Any) -> dict[str, int]:
    """Return the facts in what a Pulp's status calls ``storage``; none where it does not say, as with an object store."""
    given = storage if isinstance(storage, Mapping) else {}
    found = {TOTAL: given.get("total"), USED: given.get("used"), FREE: given.get("free")}
    if not all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < _NO_DISK for v in found.values()):
        return {}
    if not found[TOTAL]:
        return {}
    return {name: int(value) for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Fact:
    """Something found out about a service.

    Attributes:
        member: whose service it is.
        age_s: since it was found out, in store time.
        source: by what.
    """

    name: str
    value: Any
    member: str
    age_s: float
    source: str


@dataclass(frozen=True)
class Seen:
    """What a member has found out about a service behind it.

    Attributes:
        name: of the entry.
        facts: by name; :data:`TOTAL`, :data:`USED` and :data:`FREE` where it says how full its disk is.
    """

    name: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Service:
    """One entry.

    Attributes:
        control_url: where whoever drives it reaches it; empty: nobody said.
        client_urls: where clients reach it, by network: one in CIDR form, a name, ``members`` (where members fetch from it),
            or ``any`` for all the others.
        credentials: where the secret is that opens it: ``file:/PATH`` on members, ``client:NAME`` a client bundle,
            ``member`` their own certificate.
        sources: who said it, by field, each network by itself (``client_urls.any``); ``kind`` is the whole entry's.
        version: of what an administrator typed in; 0: nobody typed anything.
    """

    name: str
    kind: str
    control_url: str = ""
    client_urls: Mapping[str, str] = field(default_factory=dict)
    weight: Weight = "functional"
    credentials: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    version: int = 0
    changed_by: str = ""
    changed_at: float = 0.0
    facts: tuple[Fact, ...] = ()

    @property
    def source(self) -> str:
        """Who said the most recent of it."""
        order = [s for s in self.sources.values() if s == ADMINISTRATOR] or [*self.sources.values()]
        return order[-1] if order else SETTINGS

    @property
    def word(self) -> str:
        """What stands behind the ``@`` of the name."""
        return self.name.partition("@")[2]

    def typed(self, name: str) -> bool:
        """Whether an administrator said this field; ``client_urls.NETWORK`` is one."""
        return self.sources.get(name) == ADMINISTRATOR

    def client_url(self, address: str) -> str:
        """Return where a client at an address reaches it: under the narrowest network it is in; empty when nobody said."""
        here = ipaddress.ip_address(address)
        networks = [(n, url) for name, url in self.client_urls.items() if (n := _network(name)) is not None]
        inside = [(n.prefixlen, url) for n, url in networks if n.version == here.version and here in n]
        return max(inside)[1] if inside else self.client_urls.get(ANY, "")

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "source": self.source}


@dataclass(frozen=True)
class Change:
    """What somebody types in. None leaves a field as it is; an empty ``credentials`` or URL takes it out.

    Attributes:
        client_urls: by network; an empty URL takes that network out. The others stay.
    """

    control_url: str | None = None
    client_urls: Mapping[str, str] | None = None
    weight: Weight | None = None
    credentials: str | None = None

    @classmethod
    def of(cls, content: Any) -> Change:
        """Read a change from JSON.

        Raises:
            Rejected: it is none; the sentence says which key.
        """
        if not isinstance(content, dict):
            raise Rejected("A service is a mapping of control_url, client_urls, weight and credentials")
        known = ("control_url", "client_urls", "weight", "credentials")
        if odd := [k for k in content if k not in known]:
            raise Rejected(f"Unknown key {shown(odd[0])}; known keys: {', '.join(known)}")
        urls = content.get("client_urls")
        if urls is not None and not isinstance(urls, dict):
            raise Rejected("client_urls is a mapping from networks to URLs")
        texts = {k: content.get(k) for k in known if k != "client_urls"}
        for key, value in [*texts.items(), *((f"client_urls.{n}", url) for n, url in (urls or {}).items())]:
            if value is not None and not isinstance(value, str):
                raise Rejected(f"{shown(key)} is no text")
        if texts["weight"] not in (None, "essential", "functional"):
            raise Rejected(f"weight is essential or functional, not {shown(texts['weight'])}")
        if urls is None and all(v is None for v in texts.values()):
            raise Rejected(f"Nothing is said of the service; known keys: {', '.join(known)}")
        return cls(texts["control_url"], urls, cast("Weight | None", texts["weight"]), texts["credentials"])

    def says_of(self, one: Service) -> bool:
        """Whether an entry says all of this already."""
        plain = (self.control_url, one.control_url), (self.weight, one.weight), (self.credentials, one.credentials)
        at = [(url, one.client_urls.get(network, "")) for network, url in (self.client_urls or {}).items()]
        return all(wanted is None or wanted == there for wanted, there in (*plain, *at))

    def checked(self, kind: str) -> Change:
        """Return the change when every value may stand in an entry of this kind.

        Raises:
            Rejected: one may not; the sentence says which and why.
        """
        valid = web_url if kind in _WEB_KINDS else service_url
        if self.control_url:
            _check("control_url", self.control_url, valid)
        for network, url in (self.client_urls or {}).items():
            _check_network(network)
            if url:
                _check(f"client_urls of {network}", url, valid)
        if self.credentials:
            _check_credentials(self.credentials)
        return self


@dataclass(frozen=True)
class Told:
    """What was found out about the services of one member.

    Attributes:
        source: by what, as it is shown: ``features of NAME``.
        services: by entry's name: what it is where the source knows that (``control_url``, ``client_urls``), and ``facts``.
    """

    member: str
    source: str
    services: Mapping[str, Mapping[str, Any]]

    def as_json(self) -> dict[str, Any]:
        return {"source": self.source, "services": {name: dict(said) for name, said in self.services.items()}}


@dataclass(frozen=True)
class Register:
    """All entries by name, and the latest changes, newest first."""

    services: Mapping[str, Service]
    changes: Sequence[Mapping[str, Any]] = ()

    def service(self, name: str) -> Service:
        """Return an entry.

        Raises:
            NotFound: there is none.
        """
        if name not in self.services:
            names = list(self.services)
            more = [f"{len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
            there = " and ".join([", ".join(names[:_MOST_NAMED]) or "none", *more])
            raise NotFound(f"There is no service {shown(name)}; the register has {there}")
        return self.services[name]

    def of_member(self, kind: str, member: Member) -> Service | None:
        """Return what one member has of a kind: its own entry, and from the general one what its own leaves open.

        ``{member}`` and ``{address}`` are that member's.
        """
        general, own = self.services.get(kind), self.services.get(f"{kind}@{str(member.name).lower()}")
        found = own or general
        if found is None:
            return None
        if own is not None and general is not None:
            found = replace(
                own,
                control_url=own.control_url or general.control_url,
                client_urls={**general.client_urls, **own.client_urls},
                weight=own.weight if "weight" in own.sources else general.weight,
                credentials=own.credentials or general.credentials,
                sources={**general.sources, **own.sources},
            )
        urls = {network: placed(url, member) for network, url in found.client_urls.items()}
        return replace(found, control_url=placed(found.control_url, member), client_urls=urls)


def of_cluster(cluster: ClusterFile) -> dict[str, Service]:
    """Return what the cluster file itself says; features' settings are theirs to read."""
    from muster.store.place import Place

    found = [of_settings("store", Place.parsed(cluster.store.url).shown_url, weight="essential")]
    if cluster.foreman.url is not None:
        found.append(of_settings("foreman", cluster.foreman.url))
    if (content := cluster.content) is not None:
        offered = cluster.services.get("https")
        port = f":{offered.listen_port}" if offered and offered.listen_port not in (None, 443) else ""
        at = {ANY: f"https://{cluster.address}{port}/pulp/content", MEMBERS: content.pulp_content_url}
        found.append(of_settings("pulp", content.pulp_api_url, at))
        if content.registry_url is not None:
            found.append(of_settings("registry", content.registry_url))
    return {one.name: one for one in found}


def of_settings(
    name: str,
    control_url: str | None,
    client_urls: Mapping[str, str | None] | None = None,
    *,
    weight: Weight | None = None,
    credentials: str = "",
) -> Service:
    """Return an entry that settings say."""
    urls = {network: url for network, url in (client_urls or {}).items() if url}
    given: dict[str, Any] = {
        "control_url": control_url or "", "client_urls": urls, "weight": weight, "credentials": credentials,
    }  # fmt: skip
    given = {k: v for k, v in given.items() if v}
    return Service(name, name.partition("@")[0], **given, sources=_said_by(SETTINGS, {"kind": name, **given}))


def joined(*of_settings: Mapping[str, Service]) -> dict[str, Service]:
    """Return entries of several parts of the settings as one; of two of one name the later one wins, field by field."""
    found: dict[str, Service] = {}
    for one in (service for part in of_settings for service in part.values()):
        found[one.name] = _over(found[one.name], one) if one.name in found else one
    return found


def placed(url: str, member: Member) -> str:
    """Return a URL with a member's own name and address where they are left open."""
    return url.replace("{member}", str(member.name)).replace("{address}", in_url(member.address))


def merged(
    entries: Mapping[str, Any], base: Mapping[str, Service], told: Sequence[tuple[Told, float]], now: float
) -> dict[str, Service]:
    found = dict(base)
    for one, _ in told:
        for name, said in one.services.items():
            if not _is_name(name) or not said.get("control_url"):
                continue
            fields = {k: said[k] for k in ("control_url", "client_urls") if said.get(k)}
            heard = Service(name, kind_of(name), **fields, sources=_said_by(one.source, {"kind": name, **fields}))
            found[name] = _over(found[name], heard) if name in found else heard
    for name, entry in entries.items():
        # A newer Muster may know more kinds.
        if not _is_name(name):
            continue
        fields = {k: entry[k] for k in ("control_url", "client_urls", "weight", "credentials") if entry.get(k)}
        typed = Service(
            name, kind_of(name), **fields, sources=_said_by(ADMINISTRATOR, fields), version=entry["version"],
            changed_by=entry["by"], changed_at=entry["at"],
        )  # fmt: skip
        found[name] = (
            _over(found[name], typed)
            if name in found
            else replace(typed, sources={"kind": ADMINISTRATOR, **typed.sources})
        )
    facts: dict[str, list[Fact]] = {}
    for one, at in told:
        for name, said in one.services.items():
            # A member's facts stand with its own entry where it has one.
            own = f"{name.partition('@')[0]}@{one.member.lower()}"
            home = own if own in found else name
            facts.setdefault(home, []).extend(
                Fact(str(k), v, one.member, max(0.0, now - at), one.source) for k, v in said.get("facts", {}).items()
            )
    order = list(KINDS)
    names = sorted(found, key=lambda n: (order.index(found[n].kind) if found[n].kind in order else len(order), n))
    return {n: replace(found[n], facts=tuple(facts.get(n, ()))) for n in names}


def _said_by(source: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """Return who said these fields, networks each by itself: of several sources each may say some of them."""
    plain = dict.fromkeys((k for k in fields if k != "client_urls"), source)
    return {**plain, **{f"client_urls.{network}": source for network in fields.get("client_urls", {})}}


def _over(below: Service, above: Service) -> Service:
    """Return one entry: what the upper one says of each field, else the lower one."""
    fields = {k: getattr(above, k) for k in ("control_url", "weight", "credentials") if k in above.sources}
    fields["client_urls"] = {**below.client_urls, **above.client_urls}
    return replace(
        below, **fields, sources={**below.sources, **above.sources}, version=above.version or below.version,
        changed_by=above.changed_by or below.changed_by, changed_at=above.changed_at or below.changed_at,
    )  # fmt: skip


def typed_over(entry: Mapping[str, Any], change: Change, others: Service | None) -> dict[str, Any]:
    """Return an entry as it is kept, with a change in it: only what was typed in, so that the rest can shine through.

    ``others`` is what all other sources say.

    Raises:
        Rejected: it has too many networks, or nobody says any more where it is.
    """
    kept = {k: v for k, v in entry.items() if k in ("control_url", "client_urls", "weight", "credentials")}
    for key in ("control_url", "weight", "credentials"):
        if (value := getattr(change, key)) is not None:
            kept[key] = value
    if change.client_urls is not None:
        after = {**kept.get("client_urls", {}), **change.client_urls}
        kept["client_urls"] = {n: url for n, url in after.items() if url}
        if len(kept["client_urls"]) > _MOST_NETWORKS:
            raise Rejected(f"A service has at most {_MOST_NETWORKS} networks")
    if others is None and not kept.get("control_url") and not kept.get("client_urls"):
        raise Rejected(
            "A service has a control_url or client_urls, else there is nothing to find; muster services remove takes it out"
        )
    return {k: v for k, v in kept.items() if v}


def kind_of(name: str) -> str:
    """Return the kind that a name says.

    Raises:
        Rejected: it is no name of a service.
    """
    kind, _, word = name.partition("@") if isinstance(name, str) else ("", "", "")
    if kind not in KINDS:
        raise Rejected(
            f"{shown(name)} is no service: it begins with its kind ({', '.join(KINDS)}), as in pulp or pulp@dmz"
        )
    if "@" in name and not _WORD.match(word):
        raise Rejected(f"{shown(name)} is no service: behind the @ stands a member or a word of a-z, 0-9, - and .")
    return kind


def _is_name(name: str) -> bool:
    try:
        kind_of(name)
    except Rejected:
        return False
    return True


def _check(key: str, value: str, valid: Callable[[str], str]) -> None:
    try:
        valid(value)
    except ValueError as e:
        if _PERHAPS_SECRET.search(value):
            raise Rejected(f"{key} {e}; nobody's name or password stands in it, no query and no fragment") from None
        raise Rejected(f"{key} {shown(value)} {e}") from e


def _network(name: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(name) if len(name) <= 64 else None
    except ValueError:
        return None


def _check_network(name: str) -> None:
    if _network(name) is None and not _NETWORK_NAME.match(name):
        said = "what is given" if _PERHAPS_SECRET.search(name) else shown(name)
        raise Rejected(f"{said} is no network: 192.0.2.0/24, a word of a-z, 0-9 and -, {MEMBERS} or {ANY}")


def _check_credentials(value: str) -> None:
    if value == "member" or _FILE.match(value):
        return
    found = _CLIENT.match(value)
    if found is None:
        # Not repeated: somebody may have typed the secret itself.
        raise Rejected(
            "credentials say where a secret is, never the secret itself: file:/PATH on members, client:NAME, or member"
        )
    FQDN.parse(found["name"])
