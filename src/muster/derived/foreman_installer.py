"""How each Ruby Smart Proxy is installed by ``foreman-installer``, and how its Puppet gets a certificate before that."""

from __future__ import annotations

from collections.abc import Iterator

from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile, Member
from muster.derived.commands import READ_BY_SH, Variable, command, needed, scripted
from muster.derived.output import Document, Option, Output, Site
from muster.derived.ruby_members import (
    PuppetCA,
    archive,
    client_names,
    copied,
    foreman_host,
    foreman_url,
    host,
    members,
    puppet_ca,
    registration_url,
    service,
    template_url,
    trusted_hosts,
)
from muster.kernel.errors import Misconfigured

_KEY, _SECRET = Variable("FOREMAN_OAUTH_KEY"), Variable("FOREMAN_OAUTH_SECRET")
_STANDARD_HTTP, _STANDARD_HTTPS, _STANDARD_PUPPET = 8000, 9090, 8140
_SSL = "/etc/puppetlabs/puppet/ssl"
_DIRECTORIES = tuple(f"{_SSL}/{name}" for name in ("certs", "private_keys", "public_keys"))


def _installing(balancing: Balancing, cluster: ClusterFile, site: Site, member: Member) -> Document:
    name = host(member)
    head = [
        f"Run on {name} as root, once its certificates are there (certs-generate) and its Puppet has its own",
        "(puppet-certificates.sh, where there is one); again after a change of the cluster file.",
        "",
        f"{_KEY} and {_SECRET} are Foreman's: foreman-proxy-certs-generate prints both.",
        "They stand in the list of processes while the installer runs, so nobody else should be on this host then.",
        *(_OLD_HEAD if cluster.generation == "seed" else []),
    ]
    why = "export it, as foreman-proxy-certs-generate printed it"
    told = _old(cluster, name) if cluster.generation == "seed" else _new(balancing, cluster, name)
    words = [
        *("foreman-installer", "--scenario", "foreman-proxy-content"),
        *told,
        *_renewed(site),
        *_foreman(cluster, member),
        *_ports(balancing, member),
        *_option("foreman-proxy-templates", "true"),
        *_option("foreman-proxy-template-url", template_url(balancing)),
        *_puppet(balancing, cluster, name),
    ]
    commands = [needed(_KEY, why), needed(_SECRET, why), command(*words)]
    return scripted(f"{name}/foreman-installer.sh", head, commands)


_OLD_HEAD = ["Where it printed a --foreman-proxy-content-pulp-oauth-secret, too, that is added."]


def _option(name: str, *values: str) -> Iterator[str]:
    for value in values:
        yield f"--{name}"
        yield value


def _old(cluster: ClusterFile, name: str) -> Iterator[str]:
    """What was gone by 2019 (docs/facts/deployment.md §3.1)."""
    yield from _option("foreman-proxy-content-certs-tar", archive(name))
    yield from _option("foreman-proxy-content-parent-fqdn", foreman_host(cluster))
    yield from _option("puppet-server-foreman-url", foreman_url(cluster))


def _new(balancing: Balancing, cluster: ClusterFile, name: str) -> Iterator[str]:
    yield from _option("certs-tar-file", archive(name))
    # The run ends with an error where the host of the registration URL is none of these.
    yield from _option("certs-cname", *client_names(cluster))
    yield from _option("foreman-proxy-registration", "true")
    yield from _option("foreman-proxy-registration-url", registration_url(balancing))
    if balancing.service("mqtt") is not None:
        yield "--enable-foreman-proxy-plugin-remote-execution-script"
        yield from _option("foreman-proxy-plugin-remote-execution-script-mode", "pull-mqtt")


def _renewed(site: Site) -> Iterator[str]:
    if site.given.get("new_certificates"):
        yield "--certs-update-all"
        yield from _option("certs-regenerate", "true")
        yield from _option("certs-deploy", "true")


def _foreman(cluster: ClusterFile, member: Member) -> Iterator[str]:
    yield from _option("foreman-proxy-register-in-foreman", "true")
    yield from _option("foreman-proxy-foreman-base-url", foreman_url(cluster))
    yield from _option("foreman-proxy-trusted-hosts", *trusted_hosts(cluster, member))
    yield from _option("foreman-proxy-oauth-consumer-key", _KEY)
    yield from _option("foreman-proxy-oauth-consumer-secret", _SECRET)


def _ports(balancing: Balancing, member: Member) -> Iterator[str]:
    https, plain = service(balancing, "smartproxy").port_on(member.name), balancing.service("anaconda")
    if https != _STANDARD_HTTPS:
        yield from _option("foreman-proxy-ssl-port", str(https))
    if plain is not None and plain.port_on(member.name) != _STANDARD_HTTP:
        yield from _option("foreman-proxy-http-port", str(plain.port_on(member.name)))


def _puppet(balancing: Balancing, cluster: ClusterFile, name: str) -> Iterator[str]:
    ca = puppet_ca(cluster, balancing)
    if ca is None and balancing.service("puppet") is None:
        return
    if cluster.generation != "seed":
        yield "--enable-puppet"
        yield from _option("puppet-server", "true")
        yield from _option("foreman-proxy-puppet", "true")
    yield from _option("puppet-dns-alt-names", *client_names(cluster))
    if ca is None:
        return
    signs = "true" if ca.signer == name else "false"
    yield from _option("foreman-proxy-puppetca", signs)
    yield from _option("puppet-server-ca", signs)
    yield from _option("puppet-ca-server", ca.server)
    if ca.port != _STANDARD_PUPPET:
        yield from _option("puppet-ca-port", str(ca.port))


def _handing_over(cluster: ClusterFile, site: Site, ca: PuppetCA, member: Member) -> Document:
    """Return how a member gets the certificate of its Puppet (docs/facts/deployment.md §3.3)."""
    name, is_new = host(member), bool(site.given.get("new_certificates"))
    where = f"Run on {ca.signer} as root" if ca.signer else "Run on a member of kind muster as root"
    head = [
        f"{where}, which reaches root@{name} by SSH. Before that the package of puppetserver is",
        "installed there, which makes the account puppet; after that foreman-installer.sh runs there.",
        "",
        f"With the key that is copied {name} serves as {', '.join(client_names(cluster))}, too.",
        *(_POWERS if ca.signer and cluster.generation != "seed" else []),
        *([] if is_new else _KEPT),
    ]
    there = f"root@{name}"
    owned = f"chown -R puppet:puppet {_SSL}/ && if command -v restorecon >/dev/null; then restorecon -R {_SSL}/; fi"
    commands = [
        command("ssh", there, f"id puppet >/dev/null && mkdir -p {' '.join(_DIRECTORIES)}"),
        *(_issued(name, is_new) if ca.signer is None else _generated(cluster, name, is_new)),
        command("ssh", there, owned),
    ]
    return scripted(f"{name}/puppet-certificates.sh", head, commands)


_POWERS = ["It is a certificate of --ca-client, which may sign and revoke at the CA: keep it as the CA's own."]
_KEPT = ["A certificate that is there is copied as it is: where names were added to the cluster, --new-certificates."]


def _generated(cluster: ClusterFile, name: str, is_new: bool) -> list[str]:
    alternatives = ",".join(client_names(cluster))
    copies = [f"{directory}/{name}.pem" for directory in _DIRECTORIES]
    if cluster.generation == "seed":
        cleaning = command("puppet", "cert", "clean", name)
        making = ["  " + command("puppet", "cert", "generate", name, f"--dns_alt_names={alternatives}")]
    else:
        generate = ("puppetserver", "ca", "generate", "--ca-client")
        cleaning = command("puppetserver", "ca", "clean", "--certname", name)
        making = [
            # Whatever becomes of the certificate: without it no host of the site gets one.
            "  trap 'systemctl start puppetserver' EXIT",
            "  systemctl stop puppetserver",
            "  " + command(*generate, "--certname", name, "--subject-alt-names", alternatives),
            "  systemctl start puppetserver",
            "  trap - EXIT",
        ]
    return [
        *(
            [f"if [ -e {copies[0]} ]; then", f"  {cleaning}", f"  {command('rm', '-f', *copies)}", "fi"]
            if is_new
            else []
        ),
        f"if [ ! -e {copies[0]} ]; then",
        *making,
        "fi",
        *(copied(place, name) for place in (*copies, f"{_SSL}/certs/ca.pem")),
    ]


def _issued(name: str, is_new: bool) -> list[str]:
    place = f"/root/{name}-puppet"
    # As muster ca issue-member lays them out.
    files = (f"certs/{name}.pem", f"private_keys/{name}.pem", "certs/ca.pem", "crl.pem")
    return [
        *([command("rm", "-rf", place)] if is_new else []),
        f"if [ ! -e {place}/private_keys/{name}.pem ]; then",
        "  " + command("muster", "ca", "issue-member", name, "--output", place),
        "fi",
        *(copied(f"{place}/{file}", name, f"{_SSL}/{file}") for file in files),
    ]


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:
    found: list[Document] = []
    which = members(cluster, site)
    if cluster.generation == "foremanctl":
        raise Misconfigured("Generation foremanctl has no foreman-installer: muster render foremanctl has its commands")
    ca = puppet_ca(cluster, balancing)
    for member in which:
        if ca is not None and ca.signer != host(member):
            found.append(_handing_over(cluster, site, ca, member))
        found.append(_installing(balancing, cluster, site, member))
    return tuple(found)


OUTPUT = Output(
    word="foreman-installer",
    help=("Render how each Ruby Smart Proxy is installed by foreman-installer, and how its Puppet gets a certificate."),
    goes=(
        "`foreman-installer.sh` on the member; before it `puppet-certificates.sh`, of each that does not sign, where the "
        "Puppet CA is. Each says on its first line where that is."
    ),
    rendered=_documents,
    needs=frozenset({"member"}),
    options=(
        Option(
            "new-certificates",
            "Have certificates replaced that are there: Puppet's, and those of an archive that was made anew.",
        ),
    ),
    check=READ_BY_SH,
    in_directory=True,
    output_help="Write the scripts into that directory, a directory below it for each member, instead of showing them.",
)
