"""Settings of the DNS feature and its providers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, model_validator

from muster.cluster.service import Service, of_settings
from muster.cluster.values import ForemanURL, Host, Port, Seconds, address_of
from muster.edge.another_proxy import SmartProxySettings
from muster.edge.feature import GroupedFeatureSettings
from muster.edge.infoblox import GridSettings, View
from muster.edge.libvirt import NetworkSettings
from muster.kernel.names import FQDN, in_url
from muster.kernel.secrets import Secret
from muster.kernel.settings import Settings

KeyName = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,252}[A-Za-z0-9])?\.?\z")]
# Of Kerberos: components, and mostly a realm; nothing that its library would unescape.
Principal = Annotated[
    str,
    StringConstraints(
        pattern=r"\A[A-Za-z0-9][A-Za-z0-9._$-]{0,252}(?:/[A-Za-z0-9._-]{1,253})?(?:@[A-Za-z0-9._-]{1,253})?\z"
    ),
]
API_KEY = re.compile(r"[!-~]{1,1024}\Z")
"""A key that fits in a header."""
SECRET_KEY = re.compile(r"[A-Za-z0-9/+=]{16,128}\Z")
"""A secret key of AWS."""
# BIND's words, for a key in the settings and in a file alike.
Algorithm = Literal[
    "hmac-md5",
    "hmac-sha1",
    "hmac-sha224",
    "hmac-sha256",
    "hmac-sha256-128",
    "hmac-sha384",
    "hmac-sha384-192",
    "hmac-sha512",
    "hmac-sha512-256",
]


class NSUpdateSettings(Settings):
    """Dynamic updates (RFC 2136) to one primary server."""

    server: Host = "localhost"
    """The primary server of the zones: address or name."""
    port: Port = 53
    """Its TCP port."""
    key_file: Path | None = None
    """TSIG key in BIND's form: ``key "name" { algorithm hmac-sha256; secret "..."; };``"""
    key_name: KeyName | None = None
    """TSIG key name, when it is not in a file."""
    key_algorithm: Algorithm = "hmac-sha256"
    """TSIG algorithm, when it is not in a file."""
    key_secret: Secret | None = None
    """TSIG secret in base64, when it is not in a file."""
    timeout_s: Seconds = 5.0
    """How long the server may take to answer one message."""
    connections: Annotated[int, Field(ge=1, le=64)] = 8
    """TCP connections held open to the server at most."""

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.key_file and (self.key_name or self.key_secret):
            raise ValueError("key_file and key_name/key_secret exclude each other")
        if bool(self.key_name) != bool(self.key_secret):
            raise ValueError("key_name and key_secret go together")
        return self


class NSUpdateGSSSettings(Settings):
    """Dynamic updates under GSS-TSIG (RFC 3645): to a DNS server of Active Directory or FreeIPA, or a BIND with Kerberos.

    By the names of Ruby's ``dns_nsupdate_gss``, less their ``dns_``.
    """

    server: Host = "localhost"
    """The primary server of the zones: its name, by which Kerberos knows it; or its address, with ``service``."""
    port: Port = 53
    """Its TCP port."""
    tsig_keytab: Path = Path("/etc/muster/dns.keytab")
    """Keytab with the key of ``tsig_principal``, on each member."""
    tsig_principal: Principal | None = None
    """Whom the server is to let change its zones, as ``DNS/host.example.com@EXAMPLE.COM``; None: the keytab's first."""
    service: Principal | None = None
    """The server's own principal, ``DNS/ns.example.com``, with ``@REALM`` where its host's realm is not the default one;
    None: ``DNS/`` and the name in ``server``."""
    timeout_s: Seconds = 5.0
    """How long the server may take to answer one message, and the KDC to give tickets."""
    connections: Annotated[int, Field(ge=1, le=64)] = 8
    """TCP connections held open to the server at most."""

    @property
    def server_principal(self) -> str | None:
        """The server's principal, None when neither ``service`` nor ``server`` says it."""
        if self.service is not None:
            return self.service
        named = address_of(self.server) is None and "." in self.server
        return f"DNS/{self.server}" if named else None


class PowerDNSAnswering(Settings):
    """A PowerDNS that answers clients from the same database."""

    server: Host
    """Its address or name, for questions of DNS."""
    port: Port = 53
    """Its TCP port."""
    url: ForemanURL | None = None
    """Its own HTTP API, as ``rest_url`` has it and with the same key; it is told there to forget what it has answered of a
    name that was changed. None: it goes on answering from its caches, up to a minute."""


class PowerDNSSettings(Settings):
    """PowerDNS' HTTP API, by the names of Ruby's ``dns_powerdns``, less their ``powerdns_``."""

    rest_url: ForemanURL = "http://localhost:8081/api/v1/servers/localhost"
    """The API of one server, whole as here."""
    rest_api_key: Secret | None = None
    """The API's key."""
    rest_api_key_file: Path | None = None
    """A file whose first line is the API's key, on each member, in place of ``rest_api_key``."""
    ca: Path | None = None
    """PEM file of the CA of its certificate; None: the system's CAs."""
    servers: tuple[PowerDNSAnswering, ...] = ()
    """The servers that clients ask, where several have one database: after a change they forget, and members ask them
    whether they are there."""
    timeout_s: Seconds = 5.0
    """How long one call may take."""

    @model_validator(mode="after")
    def _api_is_one(self) -> Self:
        for url in (self.rest_url, *(s.url for s in self.servers if s.url is not None)):
            if not re.search(r"/api/v1/servers/[A-Za-z0-9._-]{1,64}\Z", url):
                raise ValueError(f"{url} does not end as the API of one server, with /api/v1/servers/localhost")
        if self.rest_api_key is not None and self.rest_api_key_file is not None:
            raise ValueError("rest_api_key and rest_api_key_file exclude each other")
        if self.rest_api_key is not None and not API_KEY.match(self.rest_api_key.reveal()):
            raise ValueError("rest_api_key is none that fits in a header: printable ASCII without blanks")
        return self


class InfobloxSettings(GridSettings):
    """A grid of Infoblox, over its web API. Unproven: no Infoblox was there to try it on.

    Ruby's plugin has ``username``, ``password`` and ``dns_view`` as well.
    """

    dns_view: View = "default"
    """The DNS view whose records these are."""


class Route53Settings(Settings):
    """Amazon Route 53, by the names of Ruby's ``dns_route53``. Unproven: no account of AWS was there to try it on.

    Nothing but this key is ever used: no variable ``AWS_…``, no file of ``~/.aws``, no role of the machine.
    """

    aws_access_key: Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9_]{16,128}\z")]
    """The id of an access key of an account that may list zones and change their records."""
    aws_secret_key: Secret | None = None
    """Its secret key."""
    aws_secret_key_file: Path | None = None
    """A file whose first line is its secret key, on each member, in place of ``aws_secret_key``."""
    zone_ids: tuple[Annotated[str, StringConstraints(pattern=r"\A[A-Z0-9]{1,32}\z")], ...] = ()
    """The hosted zones whose records are changed, as ``Z0123456789ABCDEFGHIJ``; empty: all of the account. Needed where a
    name has both a public zone and a private one."""
    url: ForemanURL = "https://route53.amazonaws.com"
    """Where its API is; another one in China, and for FIPS."""
    region: Annotated[str, StringConstraints(pattern=r"\A[a-z]{2}(?:-[a-z]{1,12}){1,3}-[0-9]{1,2}\z")] = "us-east-1"
    """The region that calls are signed for."""
    ca: Path | None = None
    """PEM file of the CA of its certificate; None: the system's CAs."""
    timeout_s: Seconds = 10.0
    """How long one call may take."""

    @model_validator(mode="after")
    def _has_a_key_and_hides_it(self) -> Self:
        if (self.aws_secret_key is None) == (self.aws_secret_key_file is None):
            raise ValueError("one of aws_secret_key and aws_secret_key_file is needed")
        if self.aws_secret_key is not None and not SECRET_KEY.match(self.aws_secret_key.reveal()):
            raise ValueError("aws_secret_key is none: letters, digits, /, + and = alone, 16 at least")
        if len(set(self.zone_ids)) != len(self.zone_ids):
            raise ValueError("zone_ids names a zone twice")
        parts = urlsplit(self.url)
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost"):
            raise ValueError("url must begin with https: what is signed there could be read and changed")
        if parts.path not in ("", "/"):
            raise ValueError("url has no path")
        return self


class LibvirtSettings(NetworkSettings):
    """A network of libvirt, by the names of Ruby's ``dns_libvirt``. It keeps A, AAAA and PTR alone, without ``ttl_s``."""


class MemorySettings(Settings):
    """Records in this process, gone with it. For trying out and for tests."""

    zones: tuple[FQDN, ...] = ()
    """Zones it is primary for; empty: every name."""


class DNSSettings(GroupedFeatureSettings):
    """The DNS feature."""

    rubys_prefixes: ClassVar[tuple[str, ...]] = ("dns_",)

    provider: Literal[
        "nsupdate", "nsupdate_gss", "powerdns", "infoblox", "route53", "libvirt", "memory", "smart_proxy"
    ] = "nsupdate"
    """Which provider keeps the records. Ruby's ``use_provider`` is understood as well: ``dns_nsupdate``,
    ``dns_nsupdate_gss``, ``dns_powerdns``, ``dns_infoblox``, ``dns_route53``, ``dns_libvirt``."""
    ttl_s: Annotated[int, Field(ge=0, le=2**31 - 1)] = 86400
    """Time to live of new records (Ruby: ``dns_ttl``)."""
    nsupdate: NSUpdateSettings = NSUpdateSettings()
    """Settings of provider ``nsupdate``."""
    nsupdate_gss: NSUpdateGSSSettings = NSUpdateGSSSettings()
    """Settings of provider ``nsupdate_gss``."""
    powerdns: PowerDNSSettings = PowerDNSSettings()
    """Settings of provider ``powerdns``."""
    infoblox: InfobloxSettings | None = None
    """Settings of provider ``infoblox``."""
    route53: Route53Settings | None = None
    """Settings of provider ``route53``."""
    libvirt: LibvirtSettings = LibvirtSettings()
    """Settings of provider ``libvirt``."""
    memory: MemorySettings = MemorySettings()
    """Settings of provider ``memory``."""
    smart_proxy: SmartProxySettings | None = None
    """Settings of provider ``smart_proxy``."""

    def registered(self) -> tuple[Service, ...]:
        url = {
            "nsupdate": f"dns://{in_url(self.nsupdate.server)}:{self.nsupdate.port}",
            "nsupdate_gss": f"dns://{in_url(self.nsupdate_gss.server)}:{self.nsupdate_gss.port}",
            "powerdns": self.powerdns.rest_url,
            "infoblox": self.infoblox.url if self.infoblox is not None else "",
            "route53": self.route53.url if self.route53 is not None else "",
            "smart_proxy": self.smart_proxy.url if self.smart_proxy is not None else "",
        }.get(self.provider)
        return (of_settings("dns", url, weight=self.readiness),) if url else ()

    @model_validator(mode="after")
    def _provider_has_settings(self) -> Self:
        if self.provider == "smart_proxy" and self.smart_proxy is None:
            raise ValueError("provider smart_proxy needs smart_proxy.url")
        if self.provider == "infoblox" and self.infoblox is None:
            raise ValueError("provider infoblox needs infoblox.url")
        if self.provider == "route53" and self.route53 is None:
            raise ValueError("provider route53 needs route53.aws_access_key")
        if (
            self.provider == "powerdns"
            and self.powerdns.rest_api_key is None
            and self.powerdns.rest_api_key_file is None
        ):
            raise ValueError("provider powerdns needs powerdns.rest_api_key or powerdns.rest_api_key_file")
        if self.provider == "nsupdate_gss" and self.nsupdate_gss.server_principal is None:
            raise ValueError(
                "provider nsupdate_gss needs nsupdate_gss.service, as DNS/ns.example.com: server is no whole name"
            )
        return self
