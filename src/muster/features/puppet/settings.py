"""Settings of the Puppet feature and its providers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from muster.cluster.service import Service, of_settings
from muster.cluster.values import Seconds
from muster.edge.feature import ProvidedFeatureSettings
from muster.kernel.names import FQDN
from muster.kernel.settings import Settings


class PuppetserverSettings(Settings):
    """A real puppetserver."""

    url: Annotated[str, StringConstraints(pattern=r"\Ahttps://[A-Za-z0-9.\[\]:-]+\z")]
    """Its URL: ``https://puppet.example.net:8140`` (Ruby: ``puppet_url``)."""
    server_name: FQDN | None = None
    """Name its certificate carries, when it is not the URL's host."""
    certificate: Path
    """Client certificate the server takes (Ruby: ``puppet_ssl_cert``)."""
    key: Path
    """Its key (Ruby: ``puppet_ssl_key``)."""
    ca: Path
    """The Puppet CA's bundle, to verify the server with (Ruby: ``puppet_ssl_ca``; there it may be missing)."""


class PuppetSettings(ProvidedFeatureSettings):
    """The Puppet feature."""

    provider: Literal["puppetserver", "memory"] = "puppetserver"
    """Where environments and classes come from."""
    puppetserver: PuppetserverSettings | None = None
    """Settings of provider ``puppetserver``."""
    api_timeout_s: Annotated[float, Field(gt=0, le=300)] = 30.0
    """How long a call waits for classes (Ruby: ``api_timeout``); the server goes on, and the next call has them
    for five minutes."""
    classes_timeout_s: Seconds = 300.0
    """How long the server may take to parse an environment."""

    def registered(self) -> tuple[Service, ...]:
        server = self.puppetserver if self.provider == "puppetserver" else None
        return (of_settings("puppet", server.url, weight=self.readiness),) if server is not None else ()

    @model_validator(mode="after")
    def _provider_has_settings(self) -> Self:
        if self.enabled and self.provider == "puppetserver" and self.puppetserver is None:
            raise ValueError("provider puppetserver needs puppetserver.url, certificate, key and ca")
        return self
