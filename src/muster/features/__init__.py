"""What Foreman asks a Smart Proxy for. One room each, all of the same shape; this list is the product."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from muster.kernel.settings import Document, InvalidSettings, Problem
from muster.netboot.contract import FEATURES

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile
    from muster.cluster.service import Service
    from muster.edge.feature import Feature, FeatureSettings
    from muster.edge.ports import Port

# Module and class by name, imported when a cluster file names the feature. Logs are served by the edge itself, and may still
# be switched off in the cluster file.
# The order is the Ruby proxy's, in which answers name them (docs/facts/smart-proxy-protocol.md §4).
_SETTINGS: Mapping[str, tuple[str, str]] = {
    "facts": ("muster.features.facts.settings", "FactsSettings"),
    "dns": ("muster.features.dns.settings", "DNSSettings"),
    "templates": ("muster.features.templates.settings", "TemplatesSettings"),
    "tftp": ("muster.features.tftp.settings", "TFTPSettings"),
    "dhcp": ("muster.features.dhcp.settings", "DHCPSettings"),
    "puppetca": ("muster.features.puppetca.settings", "PuppetCASettings"),
    "puppet": ("muster.features.puppet.settings", "PuppetSettings"),
    "bmc": ("muster.features.bmc.settings", "BMCSettings"),
    "realm": ("muster.features.realm.settings", "RealmSettings"),
    "logs": ("muster.edge.feature", "FeatureSettings"),
    "httpboot": ("muster.features.httpboot.settings", "HTTPBootSettings"),
    "registration": ("muster.features.registration.settings", "RegistrationSettings"),
    "externalipam": ("muster.features.externalipam.settings", "ExternalIPAMSettings"),
    "pulpcore": ("muster.features.pulpcore.settings", "PulpcoreSettings"),
    "container_gateway": ("muster.features.container_gateway.settings", "ContainerGatewaySettings"),
    "openscap": ("muster.features.openscap.settings", "OpenscapSettings"),
    "discovery": ("muster.features.discovery.settings", "DiscoverySettings"),
}


def manifests(*others: Feature) -> Mapping[str, Feature]:
    """Return the features by name, with ``others`` that somebody else serves, in the order in which answers name them.

    What serves them is imported here: reading a cluster file needs none of it.
    """
    from muster.features.bmc.manifest import FEATURE as BMC
    from muster.features.container_gateway.manifest import FEATURE as CONTAINER_GATEWAY
    from muster.features.dhcp.manifest import FEATURE as DHCP
    from muster.features.discovery.manifest import FEATURE as DISCOVERY
    from muster.features.dns.manifest import FEATURE as DNS
    from muster.features.externalipam.manifest import FEATURE as EXTERNALIPAM
    from muster.features.facts.manifest import FEATURE as FACTS
    from muster.features.httpboot.manifest import FEATURE as HTTPBOOT
    from muster.features.openscap.manifest import FEATURE as OPENSCAP
    from muster.features.pulpcore.manifest import FEATURE as PULPCORE
    from muster.features.puppet.manifest import FEATURE as PUPPET
    from muster.features.puppetca.manifest import FEATURE as PUPPETCA
    from muster.features.realm.manifest import FEATURE as REALM
    from muster.features.registration.manifest import FEATURE as REGISTRATION
    from muster.features.templates.manifest import FEATURE as TEMPLATES
    from muster.features.tftp.manifest import FEATURE as TFTP

    ours = (
        FACTS, DNS, TEMPLATES, TFTP, DHCP, PUPPETCA, PUPPET, BMC, REALM, HTTPBOOT, REGISTRATION, EXTERNALIPAM, PULPCORE,
        CONTAINER_GATEWAY, OPENSCAP, DISCOVERY,
    )  # fmt: skip
    found = {f.name: f for f in (*ours, *others)}
    return {name: found[name] for name in _SETTINGS if name in found}


def settings_models() -> dict[str, type[FeatureSettings]]:
    """Return the settings model of every feature a cluster file may name."""
    return {name: _settings_model(name) for name in _SETTINGS}


def _settings_model(name: str) -> type[FeatureSettings]:
    module, named = _SETTINGS[name]
    model: type[FeatureSettings] = getattr(importlib.import_module(module), named)
    return model


def ports(cluster: ClusterFile) -> dict[str, tuple[Port, ...]]:
    """Return the listeners of their own that the cluster's enabled features have, by feature."""
    models = ((name, _settings_model(name), given) for name, given in cluster.features.items() if name in _SETTINGS)
    # As the member reads it: false has several spellings.
    return {name: m.ports for name, m, given in models if m.ports and m.model_validate(given).enabled}


def enabled(cluster: ClusterFile, name: str) -> Literal["http", "https"] | bool:
    """Return on which listeners a feature answers by a cluster file, as members read it; False: on none."""
    settings = settings_of(cluster, name)
    return settings.enabled if settings is not None else False


def settings_of(cluster: ClusterFile, name: str) -> FeatureSettings | None:
    """Return a feature's settings in a cluster file, as members read them; None: it is not named, or unknown."""
    given = cluster.features.get(name)
    return None if given is None or name not in _SETTINGS else _settings_model(name).model_validate(given)


def have_boot_files(cluster: ClusterFile) -> bool:
    """Whether a feature of the cluster serves boot files."""
    return any(enabled(cluster, name) for name in FEATURES)


def services(cluster: ClusterFile) -> dict[str, Service]:
    """Return the services behind the cluster that its settings name, those of enabled features included, by name."""
    from muster.cluster.service import joined, of_cluster
    from muster.edge.feature import services_of as of_settings

    models = (_settings_model(n).model_validate(given) for n, given in cluster.features.items() if n in _SETTINGS)
    return joined(of_cluster(cluster), *({s.name: s for s in of_settings(m)} for m in models if m.enabled))


def warnings(document: Document, cluster: ClusterFile) -> list[Problem]:
    """Return what is valid in the ``features`` of a cluster file and does probably not what was meant."""
    named = [(n, _settings_model(n).model_validate(g)) for n, g in cluster.features.items() if n in _SETTINGS]
    doubts = [
        document.problem(("features", name), sentence)
        for name, settings in named
        if settings.enabled
        for sentence in settings.doubts(cluster)
    ]
    if cluster.foreman.trusted_hosts is not None:
        return doubts
    return [
        *doubts,
        *_open_to_plain_http(document, cluster),
    ]


def _open_to_plain_http(document: Document, cluster: ClusterFile) -> list[Problem]:
    return [
        document.problem(
            ("features", name, "enabled"),
            f"opens {name} to plain HTTP, where calls count only from hosts that foreman.trusted_hosts names; it is absent, "
            "so protected calls are 403 there",
        )
        for name, given in cluster.features.items()
        if given.get("enabled") in (True, "http") and not _settings_model(name).is_open
    ]


def problems(document: Document) -> list[Problem]:
    """Return what is wrong with the ``features`` of a cluster file, each with its line."""
    content = document.content
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, dict):
        return []
    found: list[Problem] = []
    for name, given in features.items():
        if name not in _SETTINGS:
            near = difflib.get_close_matches(str(name), _SETTINGS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known features: {', '.join(sorted(_SETTINGS))}"
            found.append(document.problem(("features", str(name)), f"unknown feature {name!r}; {hint}"))
            continue
        try:
            document.below(("features", name), given or {}).parsed(_settings_model(name))
        except InvalidSettings as e:
            found.extend(e.problems)
        except ValidationError as e:  # pragma: no cover - parsed() translates these
            found.append(document.problem(("features", name), str(e)))
    return found
