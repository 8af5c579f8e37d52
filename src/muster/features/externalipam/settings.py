"""Settings of External IPAM and its providers."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from muster.cluster.service import Service, of_settings
from muster.cluster.values import ForemanURL, Seconds
from muster.edge.another_proxy import SmartProxySettings
from muster.edge.feature import ProvidedFeatureSettings
from muster.features.externalipam.contract import Subnet
from muster.kernel.names import shown
from muster.kernel.secrets import Secret
from muster.kernel.settings import Settings

# Of what a call may name, what can stand in a path.
GroupName = Annotated[str, StringConstraints(pattern=r"\A[^\x00-\x1f\x7f-\x9f\u2028\u2029/]{0,255}\z")]
Text = Annotated[str, StringConstraints(pattern=r"\A[^\x00-\x1f\x7f]{0,255}\z")]


def _network(given: Any) -> IPv4Network | IPv6Network:
    what = "no network such as 192.0.2.0/24 or 2001:db8::/64"
    # The library takes a number for one as well, and a network of one interface, which no call names.
    if not isinstance(given, str | IPv4Network | IPv6Network) or "%" in str(given):
        raise ValueError(f"{what}: {shown(given)}")
    try:
        return ipaddress.ip_network(given)
    except ValueError as e:
        raise ValueError(f"{what}: {e}") from None


def _address(given: Any) -> IPv4Address | IPv6Address:
    what = "no address such as 192.0.2.1 or 2001:db8::1"
    if not isinstance(given, str | IPv4Address | IPv6Address):
        raise ValueError(f"{what}: {shown(given)}")  # noqa: TRY004 - pydantic makes a sentence of these alone
    try:
        found = ipaddress.ip_address(given)
    except ValueError as e:
        raise ValueError(f"{what}: {e}") from None
    if getattr(found, "scope_id", None) is not None:
        raise ValueError("no address such as 2001:db8::1: it names an interface")
    return found


# Of a union each half would complain by itself.
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Address = Annotated[IPv4Address | IPv6Address, BeforeValidator(_address)]


class SubnetSettings(Settings):
    """A subnet whose addresses members keep themselves."""

    network: Network
    """As ``192.0.2.0/24`` or ``2001:db8::/64``."""
    group: GroupName = ""
    """The group it belongs to, as Foreman's subnet names it; empty: none. The same network in two groups is two subnets."""
    description: Text = ""
    """What people read."""
    first: Address | None = None
    """The lowest address that is offered; None: the network's first that a host can have."""
    last: Address | None = None
    """The highest address that is offered; None: the network's last that a host can have."""
    excluded: tuple[Address, ...] = ()
    """Addresses that are never offered: routers, for instance."""

    @model_validator(mode="after")
    def _within(self) -> Self:
        for name, ips in (("first", (self.first,)), ("last", (self.last,)), ("excluded", self.excluded)):
            for ip in ips:
                if ip is not None and ip not in self.network:
                    raise ValueError(f"{name}: {ip} is no address of {self.network}")
        if self.first is not None and self.last is not None and int(self.first) > int(self.last):
            raise ValueError(f"first {self.first} lies behind last {self.last}")
        low, high = Subnet(self.network, "", first=self.first, last=self.last).span
        if high - low + 1 <= len({ip for ip in self.excluded if low <= int(ip) <= high}):
            raise ValueError(f"no address of {self.network} may be offered: first, last and excluded leave none")
        return self


class KeptSettings(Settings):
    """Addresses that the cluster keeps itself."""

    subnets: tuple[SubnetSettings, ...] = ()
    """The subnets there are."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        for number, one in enumerate(self.subnets):
            for other in self.subnets[:number]:
                if one.group == other.group and one.network.overlaps(other.network):
                    whose = f" of group {one.group}" if one.group else ""
                    raise ValueError(f"subnets: {one.network} and {other.network}{whose} overlap")
        return self


def _refuse_plain(url: str) -> None:
    if not url.startswith("https://") and urlsplit(url).hostname not in ("127.0.0.1", "localhost"):
        raise ValueError("url must begin with https: a secret goes there")


class NetBoxSettings(Settings):
    """A NetBox, over its REST API. Unproven: no NetBox was there to try it on. Ruby's plugin has ``url`` and ``token``."""

    url: ForemanURL
    """Its URL, as ``https://netbox.example.net``, without ``/api``."""
    token: Secret | None = None
    """A token of it that may read VRFs, prefixes and addresses, and write addresses."""
    token_file: Path | None = None
    """A file whose first line is the token, in place of ``token``."""
    ca: Path | None = None
    """PEM file of the CA of its certificate; None: the system's CAs."""
    timeout_s: Seconds = 10.0
    """How long one call may take."""

    @model_validator(mode="after")
    def _has_a_token_and_hides_it(self) -> Self:
        if (self.token is None) == (self.token_file is None):
            raise ValueError("one of token and token_file is needed")
        _refuse_plain(self.url)
        return self


class PhpIPAMSettings(Settings):
    """A phpIPAM, over its API. Unproven: no phpIPAM was there to try it on.

    Ruby's plugin has ``url``, ``user`` and ``password`` as well.
    """

    url: ForemanURL
    """Its URL, as ``https://phpipam.example.net``, without ``/api``."""
    user: Annotated[str, StringConstraints(pattern=r"\A[^\x00-\x1f\x7f:]{1,255}\z")]
    """An account of it."""
    password: Secret | None = None
    """Its password."""
    password_file: Path | None = None
    """A file whose first line is its password, in place of ``password``."""
    app: Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9_-]{1,64}\z")] | None = None
    """Its API key's name (app id), whose security is "User token"; None: as ``user``, as Ruby's plugin has it."""
    ca: Path | None = None
    """PEM file of the CA of its certificate; None: the system's CAs."""
    timeout_s: Seconds = 10.0
    """How long one call may take."""

    @model_validator(mode="after")
    def _has_a_password_and_hides_it(self) -> Self:
        if (self.password is None) == (self.password_file is None):
            raise ValueError("one of password and password_file is needed")
        if self.app is None and not all(c.isascii() and (c.isalnum() or c in "_-") for c in self.user):
            raise ValueError("app is needed: the user's name can be none")
        _refuse_plain(self.url)
        return self


class ExternalIPAMSettings(ProvidedFeatureSettings):
    """External IPAM."""

    rubys_prefixes: ClassVar[tuple[str, ...]] = ("externalipam_",)

    provider: Literal["claims", "netbox", "phpipam", "smart_proxy", "memory"] = "claims"
    """Who keeps the addresses: ``claims``, the cluster's store. Ruby's ``use_provider`` is understood as well:
    ``externalipam_netbox``, ``externalipam_phpipam``."""
    # At most promises.LONGEST_S.
    promise_minutes: Annotated[float, Field(ge=1, le=1440)] = 10.0
    """How long an address that was offered for a new host is offered to nobody else."""
    claims: KeptSettings = KeptSettings()
    """Settings of provider ``claims``."""
    netbox: NetBoxSettings | None = None
    """Settings of provider ``netbox``."""
    phpipam: PhpIPAMSettings | None = None
    """Settings of provider ``phpipam``."""
    memory: KeptSettings = KeptSettings()
    """Settings of provider ``memory``."""
    smart_proxy: SmartProxySettings | None = None
    """Settings of provider ``smart_proxy``."""

    @model_validator(mode="after")
    def _provider_has_settings(self) -> Self:
        if self.provider in ("netbox", "phpipam", "smart_proxy") and getattr(self, self.provider) is None:
            raise ValueError(f"provider {self.provider} needs {self.provider}.url")
        return self

    def registered(self) -> tuple[Service, ...]:
        there = {"netbox": self.netbox, "phpipam": self.phpipam, "smart_proxy": self.smart_proxy}.get(self.provider)
        return (of_settings("externalipam", there.url, weight=self.readiness),) if there is not None else ()
