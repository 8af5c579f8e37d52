"""What Ruby Smart Proxies are told wherever it is written down: in their settings, to an installer, to Foreman.

All of it follows from the cluster file and the balancer's model, so that the address stands everywhere with the same ports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from muster.balancer.model import Balancing, Service, signs_itself
from muster.balancer.words import ip, url, word
from muster.cluster.file import ClusterFile, Member
from muster.derived.commands import command
from muster.derived.output import Site
from muster.kernel.errors import Misconfigured

CUSTOM_HELP = (
    "Directory, where the commands are run, of certificates from a CA of your own: NAME.crt and NAME.key for each member, "
    "ca.crt for all."
)


@dataclass(frozen=True, slots=True)
class PuppetCA:
    """Where members' own Puppet finds the CA.

    Attributes:
        signer: the member whose puppetserver it is; None: the members of kind muster are it, behind the address.
    """

    server: str
    port: int
    signer: str | None


def members(cluster: ClusterFile, site: Site) -> tuple[Member, ...]:
    """Return the Ruby members that documents are for.

    Raises:
        Misconfigured: there are none, or the one that is asked for is ours.
    """
    found = tuple(m for m in site.members(cluster) if m.kind == "foreman")
    if not found:
        who = "No member is a" if site.member is None else f"Member {site.member} is no"
        raise Misconfigured(f"{who} Ruby Smart Proxy: members: kind: foreman says which are")
    return found


def host(member: Member) -> str:
    """Return a member's name as Foreman and its installer write it, in small letters."""
    return word(str(member.name)).lower()


def client_names(cluster: ClusterFile) -> tuple[str, ...]:
    """Return the address and its aliases, in small letters."""
    return tuple(word(str(name)).lower() for name in cluster.names)


def foreman_url(cluster: ClusterFile) -> str:
    """Return where Foreman is.

    Raises:
        Misconfigured: nobody said.
    """
    if cluster.foreman.url is None:
        raise Misconfigured("Where Foreman is, is not known: set foreman.url")
    return cluster.foreman.url.rstrip("/")


def foreman_host(cluster: ClusterFile) -> str:
    """Return Foreman's host name.

    Raises:
        Misconfigured: nobody said, or its URL holds an address.
    """
    url = foreman_url(cluster)
    name = (urlsplit(url).hostname or "").lower()
    if ip(name) is not None:
        raise Misconfigured(
            f"Foreman's certificate and its proxies know it by name, and foreman.url is {url}: name it there"
        )
    return word(name)


def trusted_hosts(cluster: ClusterFile, member: Member) -> tuple[str, ...]:
    """Return who may use a member's protected routes: those of the file, Foreman where it names none, and the member."""
    names = [*(word(str(name)).lower() for name in cluster.trusted_names), host(member)]
    return tuple(dict.fromkeys(names))


def service(balancing: Balancing, name: str) -> Service:
    """Return a service that has to be there.

    Raises:
        Misconfigured: the balancer offers none of that name.
    """
    found = balancing.service(name)
    if found is None:
        raise Misconfigured(
            f"The balancer offers no {name}, so clients do not reach it at the address: see services.{name}"
        )
    return found


def registration_url(balancing: Balancing) -> str:
    """Return where hosts register: at the address, never at a member."""
    found = service(balancing, "smartproxy")
    return url("https", balancing.address.lower(), found.listen_port)


def template_url(balancing: Balancing) -> str:
    """Return where hosts get templates: over HTTP where that is offered, else from the Smart Proxy's port.

    Members that have no port of ``anaconda`` listen on that one only (docs/facts/deployment.md §5.2).
    """
    plain = balancing.service("anaconda")
    if plain is not None:
        return url("http", balancing.address.lower(), plain.listen_port)
    return registration_url(balancing)


def puppet_ca(cluster: ClusterFile, balancing: Balancing) -> PuppetCA | None:
    """Return where members' own Puppet finds the CA; None: the cluster has none.

    Raises:
        Misconfigured: several members could be it, and none is named.
    """
    found = balancing.service("puppetca")
    if found is None:
        return None
    if signs_itself(cluster):
        return PuppetCA(balancing.address.lower(), found.listen_port, None)
    if cluster.signer == "any" and len(cluster.members) > 1:
        raise Misconfigured("Nobody says which member signs Puppet certificates: set signer")
    signer = host(cluster.members[0] if cluster.signer == "any" else cluster.member(cluster.signer))
    return PuppetCA(signer, found.port_on(signer), signer)


def archive(member: str) -> str:
    """Return where a member's certificates lie in one file, on Foreman's host and on its own."""
    return f"/root/{member}-certs.tar"


def copied(place: str, member: str, there: str | None = None) -> str:
    """Return the command that brings a file to a member, to the same place unless another is named."""
    return command("scp", "-p", place, f"root@{member}:{there or place}")


@dataclass(frozen=True, slots=True)
class CustomCertificate:
    """A member's certificate from a CA of the site's own, as files where the commands are run."""

    certificate: str
    key: str
    ca: str

    def proven(self, names: Sequence[str]) -> list[str]:
        """Return the commands that fail unless it carries every name, which nothing else looks at."""
        return [
            command("openssl", "verify", "-verify_hostname", name, "-CAfile", self.ca, self.certificate)
            for name in names
        ]


def custom_certificate(site: Site, member: str) -> CustomCertificate | None:
    """Return the files in the directory that ``--custom-certificates`` names; None: Foreman issues all of them."""
    directory: Path | None = site.given.get("custom_certificates")
    if directory is None:
        return None
    return CustomCertificate(*(str(directory / name) for name in (f"{member}.crt", f"{member}.key", "ca.crt")))
