"""Settings of the Pulpcore feature, under the names that the Ruby plugin has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from muster.cluster.service import ANY, Service, of_settings
from muster.cluster.values import BackendURL, Seconds, WebURL
from muster.edge.feature import ProvidedFeatureSettings
from muster.kernel.secrets import Secret

Username = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9_.@+-]{1,150}\z")]


class PulpcoreSettings(ProvidedFeatureSettings):
    """The Pulpcore feature: Foreman learns where a Pulp is and talks to it itself.

    In every URL ``{member}`` stands for the member's name and ``{address}`` for its address: each member has its own Pulp
    then, and Foreman must know each member by its own name.
    """

    provider: Literal["pulp", "memory"] = "pulp"
    """A Pulp, or one in memory for trying out."""
    pulp_url: WebURL | None = None
    """Where Foreman reaches Pulp's API, without ``/pulp/api/v3``: ``https://pulp.example.net`` (Ruby: the same name, as all
    that follow but the last four)."""
    content_app_url: WebURL | None = None
    """Where hosts fetch content: ``https://smartproxy.example.net/pulp/content``."""
    rhsm_url: WebURL | None = None
    """Where hosts subscribe: ``https://smartproxy.example.net/rhsm``."""
    mirror: bool = False
    """Whether this Pulp holds copies of another one's content; of all Pulps that Katello knows one is none."""
    username: Username | None = None
    """Whom Foreman is at Pulp when it shows a password."""
    password: Secret | None = None
    """Its password, told to trusted hosts over TLS and to nobody else. ``password_file`` keeps it elsewhere."""
    client_authentication: Annotated[
        tuple[Literal["password", "client_certificate"], ...], Field(min_length=1, max_length=2)
    ] = ("password", "client_certificate")
    """How Foreman may prove itself to Pulp."""
    password_file: Path | None = None
    """File on every member whose first line is the password."""
    status_url: BackendURL | None = None
    """Where a member itself asks Pulp's API for its status, when not at ``pulp_url``: ``unix:/run/pulpcore-api.sock``.
    Absent and with a section ``content``: its ``pulp_api_url``."""
    ca_file: Path | None = None
    """Who issued Pulp's certificate. Absent: the cluster's CA, and ``foreman.ca_file``."""
    status_timeout_s: Seconds = 5.0
    """How long Pulp may take to say its status."""

    def registered(self) -> tuple[Service, ...]:
        if self.provider == "memory":
            return ()
        credentials = f"file:{self.password_file}" if self.password_file is not None else ""
        at = {ANY: self.content_app_url}
        return (of_settings("pulp", self.pulp_url, at, weight=self.readiness, credentials=credentials),)

    @model_validator(mode="after")
    def _where_it_is(self) -> Self:
        if self.enabled and self.provider == "pulp" and (self.pulp_url is None or self.content_app_url is None):
            raise ValueError("provider pulp needs pulp_url and content_app_url")
        return self

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file exclude each other")
        return self
