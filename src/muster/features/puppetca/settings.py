"""Settings of the Puppet CA feature and its providers."""

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
    """A real puppetserver's CA, over its HTTP API."""

    url: Annotated[str, StringConstraints(pattern=r"\Ahttps://[A-Za-z0-9.\[\]:-]+\z")]
    """Its URL: ``https://puppet.example.net:8140``."""
    server_name: FQDN | None = None
    """Name its certificate carries, when it is not the URL's host."""
    certificate: Path
    """Client certificate that the server's ``auth.conf`` lets sign; Foreman's own Puppet certificate usually is."""
    key: Path
    """Its key."""
    ca: Path
    """The Puppet CA's bundle, to verify the server with."""
    timeout_s: Seconds = 20.0
    """How long one call may take; listing many thousand certificates takes puppetserver seconds."""


class PuppetCASettings(ProvidedFeatureSettings):
    """The Puppet CA feature."""

    provider: Literal["authority", "puppetserver", "memory"] = "authority"
    """Which CA: the cluster's own (``authority:`` in this file), a puppetserver, or one in memory for trying out."""
    autosigner: Literal["hostnames", "tokens"] = "hostnames"
    """How hosts that Foreman builds are signed: by their names, or by a token each. Both are in the store; ``authority:
    autosign`` must name the same way. For a puppetserver, its ``autosign`` setting runs ``muster-autosign``, or, with
    ``hostnames``, names ``autosign_file``."""
    autosign_file: Path | None = None
    """Of ``hostnames`` with a puppetserver: its ``autosign.conf`` (Ruby: ``autosignfile``). Every member keeps the list in
    it on its own host, in a part of its own; other lines stay. Mode and owner are kept."""
    token_ttl_min: Annotated[int, Field(ge=1, le=525_600)] = 360
    """How long a token is good when Foreman does not say (Ruby: ``token_ttl``)."""
    puppetserver: PuppetserverSettings | None = None
    """Settings of provider ``puppetserver``."""

    def registered(self) -> tuple[Service, ...]:
        server = self.puppetserver if self.provider == "puppetserver" else None
        return (of_settings("puppetca", server.url, weight=self.readiness),) if server is not None else ()

    @model_validator(mode="after")
    def _provider_has_settings(self) -> Self:
        if self.enabled and self.provider == "puppetserver" and self.puppetserver is None:
            raise ValueError("provider puppetserver needs puppetserver.url, certificate, key and ca")
        return self

    @model_validator(mode="after")
    def _file_is_read(self) -> Self:
        if self.autosign_file is None:
            return self
        if self.autosigner != "hostnames":
            raise ValueError(f"autosign_file holds names, and autosigner is {self.autosigner}")
        if self.provider == "authority":
            raise ValueError("autosign_file is for a puppetserver; the cluster's own CA asks the store")
        return self
