"""Settings of the Registration feature, under the names that the Ruby module has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from muster.cluster.values import WebURL
from muster.edge.feature import FeatureSettings

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile

LACKS_TEMPLATES = "'templates' required by 'registration' could not be found."
"""The Ruby module's own words."""


class RegistrationSettings(FeatureSettings):
    """The Registration feature: hosts register with ``foreman.url`` through the cluster. It needs the feature Templates."""

    is_open: ClassVar[bool] = True

    registration_url: WebURL | None = None
    """Where hosts are told to register, and Katello to find the cluster: ``https://smartproxy.example.net:9090``. Absent:
    the cluster's address, with the Smart Proxy's port."""
    scripts_kept_s: Annotated[float, Field(ge=0, le=3600)] = 300.0
    """How long a script is given to whoever asks for the same with the same token, without asking Foreman, by any member;
    a token that Foreman takes back meanwhile is good for it. 0: Foreman is asked each time."""
    foreman_timeout_s: Annotated[float, Field(gt=0, le=600)] = 60.0
    """How long Foreman may take to begin its answer; as long as the Ruby module waits. What a member that died was asking
    for is asked by another 15 s after that."""

    def doubts(self, cluster: ClusterFile) -> tuple[str, ...]:
        return () if has_templates(cluster) else (f"fails on members: {LACKS_TEMPLATES}",)


def has_templates(cluster: ClusterFile) -> bool:
    """Whether the feature Templates is on, which Foreman needs for a registration, too."""
    given = cluster.features.get("templates")
    # As the member reads it: false has several spellings.
    return given is not None and bool(FeatureSettings(enabled=given.get("enabled", True)).enabled)
