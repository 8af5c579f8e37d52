"""The list of what follows from the cluster file alone; features offer what needs their settings."""

from __future__ import annotations

import importlib

from muster.derived.output import Output

# Each is the OUTPUT of the file of its name, imported when it is rendered.
WORDS = (
    "haproxy",
    "keepalived",
    "nginx",
    "envoy",
    "table",
    "puppet-conf",
    "rhsm-conf",
    "yggdrasil",
    "scap-client",
    "dnf-repos",
    "apt-sources",
    "muster-bootstrap",
    "muster-client",
    "dns-zone",
    "nsupdate",
    "hosts",
    "ruby-settings",
    "certs-generate",
    "foreman-installer",
    "foremanctl",
    "custom-hiera",
    "hammer",
    "nftables",
    "firewalld",
    "ufw",
    "prometheus",
    "grafana",
    "selinux",
    "systemd",
    "ansible",
)


def output(word: str) -> Output | None:
    """Return the output of that word, None when nothing of that word follows from the file alone."""
    if word not in WORDS:
        return None
    found: Output = importlib.import_module(f"muster.derived.{word.replace('-', '_')}").OUTPUT
    return found


def outputs() -> tuple[Output, ...]:
    """Return all of them."""
    return tuple(found for word in WORDS if (found := output(word)) is not None)
