"""The Puppet feature as Foreman sees it."""

from __future__ import annotations

from typing import Any

from muster.edge.feature import Feature
from muster.features.puppet.api import MOUNT
from muster.features.puppet.service import Puppet, opened
from muster.features.puppet.settings import PuppetSettings


def _exposed(settings: PuppetSettings | None) -> dict[str, Any]:
    if settings is None:
        # Its URL is a setting of the provider, and a feature that is off has none.
        return {"use_provider": None}
    url = settings.puppetserver.url if settings.provider == "puppetserver" and settings.puppetserver else None
    return {"puppet_url": url, "use_provider": ["puppet_proxy_puppet_api"]}


FEATURE = Feature(
    name="puppet",
    label="Puppet",
    settings=PuppetSettings,
    mounts=(MOUNT,),
    exposed=_exposed,
    opened=opened,
    reached=Puppet.reached,
)
