"""What ``rhsm.conf`` holds on hosts that know only the cluster's name, and the commands that register one.

Source: docs/facts/deployment.md §4.3: 2018 had subscriptions on 8443 and repositories below ``/pulp/repos``; today both are
on 443, below ``/rhsm`` and ``/pulp/content``.
"""

from __future__ import annotations

import configparser
import io
from typing import Any

from muster.balancer.model import Balancing
from muster.balancer.words import url, word
from muster.cluster.file import ClusterFile
from muster.derived.commands import command, script
from muster.derived.output import Document, Option, Output, Site
from muster.kernel.errors import Misconfigured

_PREFIX = "/rhsm"
_CA = "/etc/rhsm/ca/katello-server-ca.pem"


def values(balancing: Balancing, cluster: ClusterFile) -> dict[str, dict[str, str]]:
    """Return the keys by section that say where subscriptions and repositories are.

    Raises:
        Misconfigured: the balancer does not offer them.
    """
    name = word(balancing.address)
    subscriptions, content = balancing.service("rhsm"), balancing.service("https")
    if content is None:
        raise Misconfigured("The balancer offers no https, so hosts get no content behind it")
    # In other generations rhsm is a program somebody added; hosts ask where their content is.
    at = subscriptions if cluster.generation == "seed" and subscriptions is not None else content
    below = "/pulp/repos" if cluster.generation == "seed" else "/pulp/content"
    return {
        "server": {"hostname": name, "port": f"{at.listen_port:d}", "prefix": _PREFIX},
        "rhsm": {"baseurl": url("https", name, content.listen_port, below), "repo_ca_cert": _CA},
    }


def registration(balancing: Balancing, cluster: ClusterFile) -> str:
    """Return the commands that register one host.

    Raises:
        Misconfigured: the cluster file names no organisation or activation key.
    """
    clients = cluster.clients
    if clients.organization is None or not clients.activation_keys:
        raise Misconfigured(
            "Hosts register in an organisation with an activation key: clients: {organization: …, activation_keys: […]}"
        )
    found = values(balancing, cluster)
    server, rhsm = found["server"], found["rhsm"]
    url = f"https://{server['hostname']}:{server['port']}{server['prefix']}"
    told = [f"--{section}.{key}={value}" for section, keys in found.items() for key, value in keys.items()]
    return script(
        ["Registers this host through the cluster, by whichever member answers.", f"Its CA lies at {_CA} before."],
        [
            command("subscription-manager", "config", *told),
            command(
                "subscription-manager", "register", f"--org={clients.organization}",
                f"--activationkey={','.join(clients.activation_keys)}", f"--serverurl={url}", f"--baseurl={rhsm['baseurl']}",
            ),
        ],
    )  # fmt: skip


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:
    if site.given.get("register"):
        return (Document("register.sh", registration(balancing, cluster), "sh", 0o755),)
    written = configparser.ConfigParser(interpolation=None)
    written.read_dict(values(balancing, cluster))
    text = io.StringIO()
    written.write(text)
    return (Document("rhsm.conf", text.getvalue().rstrip("\n") + "\n", "subscription-manager"),)


def _as_json(balancing: Balancing, cluster: ClusterFile, site: Site) -> dict[str, Any]:
    (document,) = _documents(balancing, cluster, site)
    return {**values(balancing, cluster), "document": document.text}


REGISTER = Option("register", "Render the commands that set them and register a host.")

OUTPUT = Output(
    word="rhsm-conf",
    help="Render the lines of rhsm.conf by which hosts find subscriptions and repositories at the cluster's name.",
    goes="Into `/etc/rhsm/rhsm.conf` of each host, key by key; with `--register` it is the commands that do that.",
    rendered=_documents,
    options=(REGISTER,),
    as_json=_as_json,
)
