"""How Foreman makes the certificates of each Ruby Smart Proxy, with the address in them, and how they get there."""

from __future__ import annotations

from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile, Member
from muster.derived.commands import READ_BY_SH, command, scripted
from muster.derived.output import Document, Option, Output, Site
from muster.derived.ruby_members import (
    CUSTOM_HELP,
    archive,
    client_names,
    copied,
    custom_certificate,
    foreman_host,
    host,
    members,
)
from muster.kernel.errors import Misconfigured


def _generating(cluster: ClusterFile, site: Site, member: Member) -> Document:
    name, names = host(member), client_names(cluster)
    custom = custom_certificate(site, name)
    words = ["foreman-proxy-certs-generate", "--foreman-proxy-fqdn", name]
    # Without them the member's certificate is good for its own name only, and clients of the address refuse it.
    for one in names:
        words += ["--foreman-proxy-cname", one]
    words += ["--certs-tar", archive(name)]
    if custom is not None:
        words += ["--server-cert", custom.certificate, "--server-key", custom.key, "--server-ca-cert", custom.ca]
    head = [
        f"Run on {foreman_host(cluster)} as root, which reaches root@{name} by SSH; then foreman-installer.sh there.",
        "Each run makes new keys: a member that has some already takes them with an installer of --new-certificates.",
        *(_OWN if custom is not None else []),
    ]
    proven = custom.proven((name, *names)) if custom is not None else []
    commands = [*proven, command(*words), copied(archive(name), name)]
    return scripted(f"{name}/certs-generate.sh", head, commands)


_OWN = [
    "The certificate of Apache and of the Smart Proxy is yours: the names go into its request, no option adds them here.",
    "openssl ends this where one is missing; katello-certs-check looks at none of them.",
]


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:  # noqa: ARG001
    which = members(cluster, site)
    if cluster.generation == "foremanctl":
        raise Misconfigured(
            "Generation foremanctl has no foreman-proxy-certs-generate: muster render foremanctl has its bundles"
        )
    return tuple(_generating(cluster, site, member) for member in which)


OUTPUT = Output(
    word="certs-generate",
    help="Render how Foreman makes each Ruby Smart Proxy's certificates, with the address and its aliases among the names.",
    goes="On Foreman's host, as root: each script makes a member's archive of certificates and copies it there.",
    rendered=_documents,
    needs=frozenset({"member"}),
    options=(Option("custom-certificates", CUSTOM_HELP, "directory"),),
    check=READ_BY_SH,
    in_directory=True,
    output_help="Write the scripts into that directory, a directory below it for each member, instead of showing them.",
)
