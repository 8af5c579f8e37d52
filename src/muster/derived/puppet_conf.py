"""The lines of ``puppet.conf`` by which agents know only the cluster's name."""

from __future__ import annotations

from muster.balancer.model import Balancing
from muster.balancer.words import word
from muster.kernel.errors import Misconfigured

_STANDARD_PORT = 8140


def rendered(balancing: Balancing) -> str:
    """Return the ``[main]`` section; the CA's port is always named, because Foreman's own snippet leaves it out.

    Raises:
        Misconfigured: the balancer offers no service ``puppetca``.
    """
    ca, server = balancing.service("puppetca"), balancing.service("puppet")
    if ca is None:
        raise Misconfigured("Service puppetca is disabled, so agents have no CA behind this balancer")
    name = word(balancing.address)
    lines = ["[main]", f"server = {name}"]
    if server is not None and server.listen_port != _STANDARD_PORT:
        lines.append(f"serverport = {server.listen_port:d}")
    # Without ca_server an agent that has a server_list asks the CA there (docs/facts/puppet-ca.md §3.2).
    lines += [f"ca_server = {name}", f"ca_port = {ca.listen_port:d}"]
    return "\n".join(lines) + "\n"
