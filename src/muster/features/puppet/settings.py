"""Settings of the Puppet feature and its providers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from muster.cluster.service import Service, of_settings
from muster.cluster.values import Seconds
from muster.edge.feature import ProvidedFeatureSettings
from muster.kernel.names import FQDN
from muster.kernel.settings import Settings

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile


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


class CodeSettings(Settings):
    """Puppet's code on the members' own hosts, which is compared: puppetservers there have to compile the same."""

    environments: Annotated[tuple[Path, ...], Field(min_length=1, max_length=16)] = (
        Path("/etc/puppetlabs/code/environments"),
    )
    """Directories of environments, as puppetserver's ``environmentpath`` has them. Debian's own package has
    ``/etc/puppet/code/environments``. The members' account has to be able to read them."""
    shared: Annotated[tuple[Path, ...], Field(max_length=16)] = ()
    """Directories that all environments use, as ``basemodulepath`` has them: ``/etc/puppetlabs/code/modules``."""
    members: tuple[FQDN, ...] = ()
    """Members whose hosts have a puppetserver; empty: every member."""
    every_s: Annotated[float, Field(ge=5, le=3600)] = 60.0
    """How often it is looked for what has changed."""


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
    code: CodeSettings | None = None
    """Puppet's code on the members' own hosts; absent: it is not compared."""

    def registered(self) -> tuple[Service, ...]:
        server = self.puppetserver if self.provider == "puppetserver" else None
        return (of_settings("puppet", server.url, weight=self.readiness),) if server is not None else ()

    def doubts(self, cluster: ClusterFile) -> tuple[str, ...]:
        ours = [m.name for m in cluster.members if m.kind == "muster"]
        strange = [str(n) for n in self.code.members if n not in ours] if self.code is not None else []
        if not strange:
            return ()
        return (f"compares Puppet's code of {', '.join(strange)} (code.members), which is no member of kind muster",)

    @model_validator(mode="after")
    def _provider_has_settings(self) -> Self:
        if self.enabled and self.provider == "puppetserver" and self.puppetserver is None:
            raise ValueError("provider puppetserver needs puppetserver.url, certificate, key and ca")
        return self
