"""Settings of the Discovery feature; those about machines under the names that Ruby's plugin has."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from muster.cluster.values import Port, Seconds
from muster.edge.feature import FeatureSettings

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile


class DiscoverySettings(FeatureSettings):
    """The Discovery feature: facts of discovered machines go to ``foreman.url``, and Foreman's calls to the machines."""

    enabled: Literal["http", "https"] | bool = "https"
    """``https`` or ``http``: that listener only; ``true``: both; ``false``: off. The discovery image sends its facts to
    ``proxy.url`` of its kernel's command line, over either. What Foreman asks stays protected; over plain HTTP that needs
    ``foreman.trusted_hosts``."""
    node_scheme: Literal["https", "http"] = "https"
    """How discovered machines are asked. The image answers ``https`` on 8443 and ``http`` on 8448."""
    node_port: Port = 8443
    """The port on which they answer."""
    node_ca_file: Path | None = None
    """PEM file of the CA whose certificates machines show, each with its address. Absent: their certificates are **not
    verified**, since the image makes itself one at each boot: whoever has the machine's address is taken for it."""
    node_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Where discovered machines may be, as ``[192.0.2.0/24]``; members ask no other address. Empty: any but loopback,
    link-local, multicast and unspecified ones."""
    node_timeout_s: Seconds = 15.0
    """How long one call to a machine may take in all; Foreman waits for 20 s."""
    foreman_timeout_s: Annotated[float, Field(gt=0, le=600)] = 60.0
    """How long Foreman may take to begin its answer to a machine's facts."""
    facts_at_once: Annotated[int, Field(ge=1, le=256)] = 8
    """How many machines' facts each member hands to Foreman at once; eight times as many wait, the others get 503."""
    facts_per_minute: Annotated[int, Field(ge=1, le=100_000)] = 60
    """How often a minute one address, or the /64 of an IPv6 address, may send facts to each member; then it gets 429."""

    @model_validator(mode="after")
    def _verifies_what_shows_a_certificate(self) -> Self:
        if self.node_ca_file is not None and self.node_scheme == "http":
            raise ValueError("node_ca_file verifies certificates, and node_scheme: http has none")
        return self

    def doubts(self, cluster: ClusterFile) -> tuple[str, ...]:
        url = cluster.foreman.url
        if url is None or not url.startswith("https://"):
            return ("fails on members: facts are handed on to Foreman, and foreman.url has to say where, with https",)
        return ()
