"""What the settings files of each Ruby Smart Proxy have to hold, so that all of them lead hosts to the address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muster.balancer.model import Balancing
from muster.balancer.words import target, url
from muster.cluster.file import ClusterFile, Member
from muster.derived.output import Document, Output, Site
from muster.derived.ruby_members import (
    foreman_url,
    host,
    members,
    puppet_ca,
    registration_url,
    service,
    template_url,
    trusted_hosts,
)
from muster.derived.ruby_yaml import READ_BY_RUBY, lines

Values = Mapping[str, Any]

_HEAD = """\
# Of {name}: what follows from the cluster file, to be merged into {place}.
# Keys that are not here are the member's own. It reads a change when it is restarted.
{more}---
"""
_DIRECTORY = "/etc/foreman-proxy"
_RENAMED_IN = (5, 0)
_OF_CONTAINERS = "# foremanctl writes it as a secret of podman, by its own rules: compare them.\n"


def settings(balancing: Balancing, cluster: ClusterFile, member: Member) -> dict[str, Values]:
    """Return the keys of each file that follow from the cluster file.

    Source: docs/facts/deployment.md §3.4, docs/facts/smart-proxy-protocol.md §1.4.

    Raises:
        Misconfigured: Foreman is not known, nobody is led to the Smart Proxies, or several members could sign.
    """
    found: dict[str, Values] = {
        "settings.yml": _global(balancing, cluster, member),
        "settings.d/templates.yml": {"enabled": True, "template_url": template_url(balancing)},
    }
    # 2018 had neither registration by the proxy nor Pulp 3; nothing of Puppet runs in containers, and no MQTT broker.
    if cluster.generation != "seed":
        found["settings.d/registration.yml"] = {"enabled": "https", "registration_url": registration_url(balancing)}
        found |= _content(balancing, cluster, member)
    if cluster.generation != "foremanctl":
        found |= _puppet(balancing, cluster, member)
    mqtt = balancing.service("mqtt")
    if mqtt is not None and cluster.generation == "installer":
        found["settings.d/remote_execution_ssh.yml"] = {
            "enabled": "https",
            "mode": "pull-mqtt",
            "mqtt_broker": host(member),
            "mqtt_port": mqtt.port_on(member.name),
        }
    return found


def _global(balancing: Balancing, cluster: ClusterFile, member: Member) -> Values:
    plain = balancing.service("anaconda")
    return {
        "foreman_url": foreman_url(cluster),
        "trusted_hosts": list(trusted_hosts(cluster, member)),
        **({"http_port": plain.port_on(member.name)} if plain is not None else {}),
        "https_port": service(balancing, "smartproxy").port_on(member.name),
        **_tls(cluster),
    }


def _tls(cluster: ClusterFile) -> Values:
    """Return TLS 1.2 and 1.3 in the words of Foreman's version: the older ones can only take more away."""
    version = tuple(int(part) for part in cluster.foreman.told_version.split(".")[:2])
    if version < _RENAMED_IN or cluster.generation == "seed":
        return {"ssl_disabled_ciphers": [], "tls_disabled_versions": []}
    return {"tls_min_version": "1.2"}


def _content(balancing: Balancing, cluster: ClusterFile, member: Member) -> dict[str, Values]:
    https = balancing.service("https")
    if https is None:
        return {}
    address = balancing.address.lower()
    own = url("https", host(member), https.port_on(member.name))
    found: dict[str, Values] = {
        "settings.d/container_gateway.yml": {
            "enabled": "https",
            "pulp_endpoint": own,
            "client_endpoint": url("https", address, https.listen_port),
        }
    }
    # In containers Pulp is a Smart Proxy of its own.
    if cluster.generation == "installer":
        found["settings.d/pulpcore.yml"] = {
            "enabled": "https",
            "pulp_url": own,
            "content_app_url": url("https", address, https.listen_port, "/pulp/content"),
            "mirror": True,
            "rhsm_url": f"https://{target(address, https.listen_port)}/rhsm",
        }
    return found


def _puppet(balancing: Balancing, cluster: ClusterFile, member: Member) -> dict[str, Values]:
    found: dict[str, Values] = {}
    server, ca = balancing.service("puppet"), puppet_ca(cluster, balancing)
    if server is not None:
        found["settings.d/puppet.yml"] = {"enabled": "https"}
        found["settings.d/puppet_proxy_puppet_api.yml"] = {
            "puppet_url": f"https://{target(host(member), server.port_on(member.name))}"
        }
    if ca is not None:
        # The list that this module signs by is the member's own, and only its own puppetserver reads it.
        found["settings.d/puppetca.yml"] = {"enabled": "https" if ca.signer == host(member) else False}
    if ca is not None and cluster.generation == "installer":
        found["settings.d/puppetca_http_api.yml"] = {"puppet_url": f"https://{target(ca.server, ca.port)}"}
    return found


def _text(cluster: ClusterFile, member: Member, name: str, values: Values) -> str:
    more = _OF_CONTAINERS if cluster.generation == "foremanctl" else ""
    head = _HEAD.format(name=host(member), place=f"{_DIRECTORY}/{name}", more=more)
    return head + lines({f":{key}": value for key, value in values.items()})


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:
    return tuple(
        Document(f"{host(member)}/{name}", _text(cluster, member, name, values), "ruby")
        for member in members(cluster, site)
        for name, values in settings(balancing, cluster, member).items()
    )


def _as_json(balancing: Balancing, cluster: ClusterFile, site: Site) -> dict[str, Any]:
    return {host(member): settings(balancing, cluster, member) for member in members(cluster, site)}


OUTPUT = Output(
    word="ruby-settings",
    help="Render what the settings of each Ruby Smart Proxy have to hold: registration, templates, content and Puppet.",
    goes=(
        f"Into the files of these names below `{_DIRECTORY}` on each Ruby member, key by key; then "
        "`systemctl restart foreman-proxy`, and its features are refreshed in Foreman."
    ),
    rendered=_documents,
    needs=frozenset({"member"}),
    as_json=_as_json,
    check=READ_BY_RUBY,
    in_directory=True,
    output_help="Write it into that directory, a directory below it for each member, instead of showing it.",
)
