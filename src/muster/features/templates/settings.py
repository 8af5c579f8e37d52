"""Settings of the Templates feature, under the names that the Ruby module has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from muster.cluster.values import WebURL
from muster.edge.feature import FeatureSettings

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile


class TemplatesSettings(FeatureSettings):
    """The Templates feature: what hosts ask of Foreman while they are installed is handed on to ``foreman.url``."""

    is_open: ClassVar[bool] = True

    enabled: Literal["http", "https"] | bool = True
    """``https`` or ``http``: that listener only; ``true``: both, since boot loaders speak plain HTTP; ``false``: off."""
    template_url: WebURL | None = None
    """Where hosts are told to fetch templates: ``http://smartproxy.example.net:8000``. Absent: the cluster's address, over
    HTTP where that is offered and this feature is on it, else the Smart Proxy's port."""
    foreman_timeout_s: Annotated[float, Field(gt=0, le=600)] = 60.0
    """How long Foreman may take to begin its answer; as long as the Ruby module waits."""

    def doubts(self, cluster: ClusterFile) -> tuple[str, ...]:
        url = cluster.foreman.url
        if url is None or not url.startswith("https://"):
            return (
                "fails on members: what hosts ask is handed on to Foreman, and foreman.url has to say where, with https",
            )
        return ()
