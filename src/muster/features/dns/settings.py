"""Settings of the DNS feature and its providers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from muster.cluster.service import Service, of_settings
from muster.cluster.values import Host, Port, Seconds
from muster.edge.another_proxy import SmartProxySettings
from muster.edge.feature import GroupedFeatureSettings
from muster.kernel.names import FQDN, in_url
from muster.kernel.secrets import Secret
from muster.kernel.settings import Settings

KeyName = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,252}[A-Za-z0-9])?\.?\z")]
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


class MemorySettings(Settings):
    """Records in this process, gone with it. For trying out and for tests."""

    zones: tuple[FQDN, ...] = ()
    """Zones it is primary for; empty: every name."""


class DNSSettings(GroupedFeatureSettings):
    """The DNS feature."""

    provider: Literal["nsupdate", "memory", "smart_proxy"] = "nsupdate"
    """Which provider keeps the records."""
    ttl_s: Annotated[int, Field(ge=0, le=2**31 - 1)] = 86400
    """Time to live of new records (Ruby: ``dns_ttl``)."""
    nsupdate: NSUpdateSettings = NSUpdateSettings()
    """Settings of provider ``nsupdate``."""
    memory: MemorySettings = MemorySettings()
    """Settings of provider ``memory``."""
    smart_proxy: SmartProxySettings | None = None
    """Settings of provider ``smart_proxy``."""

    def registered(self) -> tuple[Service, ...]:
        url = {
            "nsupdate": f"dns://{in_url(self.nsupdate.server)}:{self.nsupdate.port}",
            "smart_proxy": self.smart_proxy.url if self.smart_proxy is not None else "",
        }.get(self.provider)
        return (of_settings("dns", url, weight=self.readiness),) if url else ()

    @model_validator(mode="after")
    def _provider_has_settings(self) -> Self:
        if self.provider == "smart_proxy" and self.smart_proxy is None:
            raise ValueError("provider smart_proxy needs smart_proxy.url")
        return self
