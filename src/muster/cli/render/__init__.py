"""``muster render``: what follows from the cluster file for other programs, shown, compared, checked or written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from muster.cli.options import Commands

if TYPE_CHECKING:
    from muster.app.outputs import Models

# In the order of --help, those that features offer among them: help that had to import every output would be the slowest
# of all.
OUTPUTS: Mapping[str, str] = {
    "all": "Write every output there is as one tree, with a page that says what goes where.",
    "ansible": "Render an inventory for Ansible: members, balancers and Ruby Smart Proxies, with addresses and names.",
    "apt-sources": "Render a file of sources for apt: what members mirror of kind deb, in one lifecycle environment.",
    "certs-generate": (
        "Render how Foreman makes each Ruby Smart Proxy's certificates, with the address and its aliases among the names."
    ),
    "custom-hiera": (
        "Render the line by which Pulp of 2018 sends clients to the address for content that it has on demand."
    ),
    "dnf-repos": (
        "Render a file of repositories for dnf: what members mirror of kind yum, in one lifecycle environment."
    ),
    "dns-zone": "Render the cluster's records as lines of a zone file: the address, its aliases, members.",
    "envoy": (
        "Render Envoy's bootstrap and the files it watches (LDS, CDS, EDS); what Envoy does not do goes to stderr."
    ),
    "firewalld": "Render firewalld's policies for each balancer and member: who may reach the cluster's ports there.",
    "foreman-installer": (
        "Render how each Ruby Smart Proxy is installed by foreman-installer, and how its Puppet gets a certificate."
    ),
    "foremanctl": (
        "Render how each Ruby Smart Proxy is put into containers: a bundle with the address among its names, and itself."
    ),
    "grafana": "Render a dashboard for Grafana: services and members, traffic, certificates, content and balancers.",
    "hammer": "Render what Foreman is told of each Ruby Smart Proxy: organisations, locations, content.",
    "haproxy": (
        "Render HAProxy's configuration for one balancer; --json shows the model of services and servers instead."
    ),
    "hosts": (
        "Render lines of /etc/hosts by which one host asks one member under the cluster's name, past the balancer."
    ),
    "keepalived": (
        "Render keepalived's configuration, which moves the virtual address to a balancer whose HAProxy answers."
    ),
    "muster-bootstrap": "Render the program that hosts of the cluster join with; it is the same for every cluster.",
    "muster-client": "Render what members tell muster-bootstrap on hosts of the cluster.",
    "nftables": "Render rules of nftables for each balancer and member: who may reach the cluster's ports there.",
    "nginx": "Render an nginx (stream) configuration for one balancer; its head and --json say what nginx does not do.",
    "nsupdate": "Render input for nsupdate: the address, its aliases, members, and their reverse records.",
    "prometheus": (
        "Render Prometheus's configuration for members' and balancers' metrics, and rules that say what is worth an alert."
    ),
    "puppet-conf": (
        "Render the lines of puppet.conf for agents: the cluster's name as server and CA, and the CA's port."
    ),
    "rhsm-conf": (
        "Render the lines of rhsm.conf by which hosts find subscriptions and repositories at the cluster's name."
    ),
    "ruby-settings": (
        "Render what the settings of each Ruby Smart Proxy have to hold: registration, templates, content and Puppet."
    ),
    "scap-client": "Render the lines of foreman_scap_client's config.yaml: where hosts send their reports.",
    "selinux": (
        "Render the commands by which SELinux lets HAProxy use the cluster's ports, with the reason for each port."
    ),
    "systemd": (
        "Render drop-ins for the units of members and balancers: whose host it is, and limits as this cluster needs them."
    ),
    "table": "Show what any other load balancer has to be told: ports, members, and what to ask them.",
    "ufw": "Render the commands by which ufw lets in, on each balancer and member, who may reach the cluster's ports.",
    "yggdrasil": "Render the line of yggdrasil's config.toml: where hosts find the broker of pull-mqtt.",
}


class Outputs(Commands):
    """One command for each output, made when it is asked for.

    Args:
        outputs: the words there are and the first sentences of their help.
        features: returns the features that may offer some; None: ours.
    """

    def __init__(
        self, *given: Any, outputs: Mapping[str, str] = OUTPUTS, features: Models | None = None, **named: Any
    ) -> None:
        super().__init__(*given, **named)
        # What stands for a command until it is made: click knows from it which words are near a wrong one.
        self.commands = {word: click.Command(word) for word in outputs}
        self.outputs = outputs
        self._features = features

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.outputs)

    def told(self, ctx: click.Context) -> list[tuple[str, str]]:  # noqa: ARG002
        return list(self.outputs.items())

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in self.outputs:
            return None
        if name == "all":
            from muster.cli.render.all_ import all_

            return all_
        from muster.app import outputs
        from muster.cli.render.command import command_of
        from muster.features import settings_models

        found = outputs.offer(name, self._features or settings_models)
        return command_of(found) if found is not None else None


@click.group(cls=Outputs)
def render() -> None:
    """Show or write the configuration of other programs."""
