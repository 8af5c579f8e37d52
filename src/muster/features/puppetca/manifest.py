"""The Puppet CA feature as Foreman sees it."""

from __future__ import annotations

from typing import Any

from muster.edge.feature import Feature
from muster.features.puppetca.api import MOUNT
from muster.features.puppetca.service import PuppetCAFeature, opened
from muster.features.puppetca.settings import PuppetCASettings

_AUTOSIGNERS = {"hostnames": "puppetca_hostname_whitelisting", "tokens": "puppetca_token_whitelisting"}


def _exposed(settings: PuppetCASettings | None) -> dict[str, Any]:
    if settings is None:
        return {"use_provider": None}
    # Foreman writes its host into new hosts as their ca_server; told none, the proxy's own host.
    url = settings.puppetserver.url if settings.provider == "puppetserver" and settings.puppetserver else None
    return {"puppet_url": url, "use_provider": [_AUTOSIGNERS[settings.autosigner], "puppetca_http_api"]}


FEATURE = Feature(
    name="puppetca",
    label="Puppet CA",
    settings=PuppetCASettings,
    mounts=(MOUNT,),
    exposed=_exposed,
    opened=opened,
    reached=PuppetCAFeature.reached,
)
