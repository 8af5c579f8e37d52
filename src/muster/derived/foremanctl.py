"""How a Ruby Smart Proxy is deployed in containers: its bundle, made on Foreman, and its deployment."""

from __future__ import annotations

from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile, Member
from muster.derived.commands import READ_BY_SH, command, scripted
from muster.derived.output import Document, Option, Output, Site
from muster.derived.ruby_members import (
    CUSTOM_HELP,
    client_names,
    copied,
    custom_certificate,
    foreman_host,
    host,
    members,
    registration_url,
    template_url,
)
from muster.kernel.errors import Misconfigured

_LACKS = "Subscriptions and images have the member's own name: foremanctl has no option for the address there."
_FLAVOR = "foreman-proxy-content"
_BUNDLES = "/var/lib/foremanctl/certs/bundles"


def _bundling(cluster: ClusterFile, site: Site, member: Member) -> Document:
    name, names = host(member), client_names(cluster)
    custom = custom_certificate(site, name)
    words = ["foremanctl", "auth-bundle", name]
    if custom is None:
        # Without them the member's certificate is good for its own name only, and clients of the address refuse it.
        for one in names:
            words += ["--server-alias", one]
    else:
        # foremanctl refuses aliases of a certificate that it does not make.
        words += ["--certificate-source", "custom_server", "--certificate-server-certificate", custom.certificate]
        words += ["--certificate-server-key", custom.key]
    if site.given.get("renew"):
        words.append("--certificate-renew")
    head = [
        f"Run on {foreman_host(cluster)} as root, which reaches root@{name} by SSH; then deploy-proxy.sh there.",
        "foremanctl takes --server-alias here since August 2026.",
        *(_OWN if custom is not None else []),
        *([] if site.given.get("renew") else _KEPT),
    ]
    proven = custom.proven((name, *names)) if custom is not None else []
    copy = copied(f"{_BUNDLES}/{name}.tar.gz", name, _lies(name))
    return scripted(f"{name}/auth-bundle.sh", head, [*proven, command(*words), copy])


_KEPT = ["A bundle that lies there is kept as it is, also when names were added: render with --renew then."]
_OWN = ["The certificate is yours: the names go into its request, and openssl ends this where one is missing."]


def _lies(name: str) -> str:
    return f"/root/{name}.tar.gz"


def _deploying(balancing: Balancing, cluster: ClusterFile, member: Member) -> Document:
    name = host(member)
    words = ["foremanctl", "deploy-proxy", "--flavor", _FLAVOR, "--auth-bundle", _lies(name)]
    words += ["--foreman-fqdn", foreman_host(cluster)]
    words += ["--registration-url", registration_url(balancing), "--templates-url", template_url(balancing)]
    head = [
        f"Run on {name} as root, once its bundle is there (auth-bundle.sh).",
        _LACKS,
    ]
    return scripted(f"{name}/deploy-proxy.sh", head, [command(*words)])


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:
    which = members(cluster, site)
    if cluster.generation != "foremanctl":
        raise Misconfigured(
            f"Members of generation {cluster.generation} run no containers: muster render foreman-installer has their "
            "commands, and generation: foremanctl says otherwise"
        )
    return tuple(
        document
        for member in which
        for document in (_bundling(cluster, site, member), _deploying(balancing, cluster, member))
    )


OUTPUT = Output(
    word="foremanctl",
    help="Render how each Ruby Smart Proxy is put into containers: a bundle with the address among its names, and itself.",
    goes="`auth-bundle.sh` runs on Foreman's host and copies the bundle to the member; then `deploy-proxy.sh` runs there.",
    rendered=_documents,
    needs=frozenset({"member"}),
    options=(
        Option("custom-certificates", CUSTOM_HELP, "directory"),
        Option("renew", "Have bundles made anew that are there already, with new certificates."),
    ),
    lacks=lambda balancing, cluster, site: (_LACKS,),  # noqa: ARG005
    check=READ_BY_SH,
    in_directory=True,
    output_help="Write the scripts into that directory, a directory below it for each member, instead of showing them.",
)
