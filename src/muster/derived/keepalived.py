"""keepalived's configuration: which balancer owns the address that clients use.

One VRRP instance on every balancer, in unicast (clouds drop multicast), version 3. HAProxy itself is asked every second,
so an owner whose HAProxy is dead or stuck gives the address away while its host lives on. Where members on the balancers'
hosts serve TFTP, an owner whose TFTP does not answer gives it to one whose does; when nobody's does, it stays.

Source: docs/facts/balancer.md §2; keepalived.conf(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster.balancer.haproxy.render import RuntimePaths
from muster.balancer.model import Balancing, modelled
from muster.balancer.words import address, ip, matching, path, word
from muster.cluster.file import Balancer, ClusterFile, VirtualAddress
from muster.derived import consumer
from muster.derived.output import Document, Option, Output, Place, Site, Trial
from muster.kernel.errors import Misconfigured, Unsupported
from muster.version import VERSION

_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}\Z")

_CONFIGURATION = Path("/etc/keepalived/keepalived.conf")

CHECK_SCRIPT_PATH = Path("/usr/local/libexec/muster-balancer-answers")
"""Where the configuration looks for the script; root's, because keepalived runs nothing that others may change."""

CHECK_SCRIPT = '''\
#!/usr/bin/python3 -IS
"""Exits 0 when the balancer of this host is to keep the address, 1 when not. Rendered by Muster.

SOCKET: whether HAProxy answers there. SOCKET tftp PORT OWN SERVICE OTHER...: whether the address OWN answers a request over
TFTP, or none of the others does whose balancer takes connections on port SERVICE.
"""

import socket
import sys
import time

# Nothing below it is ever given: every server answers with an error, and nothing is sent.
REQUEST = b"\\0\\1.muster/answers\\0octet\\0"


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def haproxy(place):
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(0.8)
            s.connect(place)
            s.sendall(b"show info\\n")
            return s.recv(16).startswith(b"Name: HAProxy")
    except OSError:
        return False


def tftp(address, port):
    with socket.socket(family(address), socket.SOCK_DGRAM) as s:
        for _ in range(2):
            try:
                # Connected: a closed port says so at once, and an error comes from the port that was asked.
                s.connect((address, port))
                s.settimeout(0.4)
                s.send(REQUEST)
                return s.recv(512)[:2] == b"\\0\\5"
            except OSError:
                time.sleep(0.05)
    return False


def takes_connections(address, port):
    try:
        with socket.create_connection((address, port), 0.4):
            return True
    except OSError:
        return False


if sys.argv[2:3] == ["tftp"]:
    port, own, service, others = int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), sys.argv[6:]
    stays = tftp(own, port) or not any(takes_connections(o, service) and tftp(o, port) for o in others)
else:
    stays = haproxy(sys.argv[1])
sys.exit(0 if stays else 1)
'''
"""What keepalived runs. It asks questions, because a stopped HAProxy still takes connections.

The socket is always its first word: a script of an older Muster, which knows no more, says then whether HAProxy answers.
"""


@dataclass(frozen=True, slots=True)
class CheckPaths:
    """What the check needs to know about one host.

    Attributes:
        socket: HAProxy's runtime socket.
        script: where :data:`CHECK_SCRIPT` stands.
    """

    socket: Path
    script: Path = CHECK_SCRIPT_PATH


def rendered(cluster: ClusterFile, *, which: Balancer, check: CheckPaths) -> str:
    """Return keepalived's configuration for one balancer.

    Raises:
        Misconfigured: the cluster has no virtual address, or no second balancer to give it to.
        Rejected: a name, address or path holds a character that has a meaning in the file.
    """
    virtual = cluster.virtual_address
    if virtual is None:
        raise Misconfigured("The cluster file has no virtual_address, so keepalived has nothing to move")
    others = tuple(b for b in cluster.balancers if b.name != which.name)
    if not others:
        raise Misconfigured(f"Balancer {which.name} is the only one, so there is nobody to give {virtual.address} to")
    return "\n".join(_lines(cluster, virtual, which, others, check)) + "\n"


def _lines(
    cluster: ClusterFile, virtual: VirtualAddress, which: Balancer, others: tuple[Balancer, ...], check: CheckPaths
) -> Iterator[str]:
    instance = word(cluster.cluster)
    device = matching(_INTERFACE, which.interface or virtual.interface, "interface")
    yield f"# Rendered by Muster {VERSION} for balancer {word(which.name)} of cluster {instance}."
    yield "# Do not edit: change the cluster file and run muster render keepalived again."
    yield "global_defs {"
    yield f"  router_id {word(which.name)}"
    yield "  vrrp_version 3"
    yield "  enable_script_security"
    yield f"  script_user {word(virtual.script_user)}"
    yield "  vrrp_check_unicast_src"
    yield "}"
    yield "vrrp_script haproxy_answers {"
    yield f'  script "{path(check.script)} {path(check.socket)}"'
    yield "  interval 1"
    yield "  timeout 2"
    # Muster starts a dead HAProxy again at once; only a second failure is worth every client's connections.
    yield "  fall 2"
    yield "  rise 2"
    yield "  init_fail"
    yield "}"
    scripts = ["haproxy_answers"]
    if asked := _tftp(cluster, which, others):
        scripts.append("tftp_answers")
        yield "vrrp_script tftp_answers {"
        yield f'  script "{path(check.script)} {path(check.socket)} {asked}"'
        # A member that is slow for a moment is not worth every client's connections either.
        yield "  interval 2"
        yield "  timeout 5"
        yield "  fall 3"
        yield "  rise 2"
        yield "}"
    yield f"vrrp_instance {instance} {{"
    # keepalived takes nopreempt from a balancer that starts as BACKUP only; so nobody starts as MASTER.
    yield "  state BACKUP"
    yield "  nopreempt"
    yield f"  interface {device}"
    yield f"  virtual_router_id {virtual.router_id:d}"
    yield f"  priority {cluster.priority(which):d}"
    yield f"  advert_int {virtual.advert_s:.2f}"
    yield "  garp_master_refresh 60"
    yield f"  unicast_src_ip {_ip(which, virtual)}"
    yield "  unicast_peer {"
    for other in others:
        yield f"    {_ip(other, virtual)}"
    yield "  }"
    yield "  virtual_ipaddress {"
    # Or the owner would call members from the virtual address, which is no balancer's to them.
    deprecated = " preferred_lft 0" if virtual.version == 6 else ""
    yield f"    {_with_prefix(virtual)} dev {device}{deprecated}"
    yield "  }"
    yield "  track_script {"
    for script in scripts:
        yield f"    {script}"
    yield "  }"
    yield "}"


def _tftp(cluster: ClusterFile, which: Balancer, others: tuple[Balancer, ...]) -> str:
    """Return the words by which the script asks for TFTP; empty where no other balancer's host could answer instead."""
    tftp = cluster.netboot.tftp
    if tftp is None or (tftp.addresses is not None and not {"0.0.0.0", "::"} & set(tftp.addresses)):
        # Where members do not listen on every address, nothing is known of the one that moves.
        return ""
    hosts = {m.address for m in cluster.members if m.kind == "muster"}
    able = [b.address for b in others if b.address in hosts]
    services = modelled(cluster, frozenset()).services
    if which.address not in hosts or not able or not services:
        return ""
    port = f"{services[0].listen_port:d}"
    return " ".join(["tftp", f"{tftp.port:d}", address(which.address), port, *map(address, able)])


def _ip(balancer: Balancer, virtual: VirtualAddress) -> str:
    found = ip(balancer.address)
    if found is None or found.version != virtual.version:
        raise Misconfigured(
            f"Balancer {balancer.name} has the address {balancer.address}; to share {virtual.address} it needs an "
            f"IPv{virtual.version} address"
        )
    return address(str(found))


def _with_prefix(virtual: VirtualAddress) -> str:
    host, _, prefix = virtual.address.partition("/")
    return f"{address(host)}/{int(prefix):d}"


def _check_paths(site: Site) -> CheckPaths:
    return CheckPaths(RuntimePaths(site.run, site.run).runtime_socket, _script_path(site))


def _script_path(site: Site) -> Path:
    given: Path | None = site.given.get("script_path")
    return given if given is not None else CHECK_SCRIPT_PATH


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:  # noqa: ARG001
    if site.given.get("script"):
        return (Document(CHECK_SCRIPT_PATH.name, CHECK_SCRIPT, "keepalived", 0o755),)
    text = rendered(cluster, which=cluster.balancer(site.balancer), check=_check_paths(site))
    return (Document(_CONFIGURATION.name, text, "keepalived"),)


def _as_json(balancing: Balancing, cluster: ClusterFile, site: Site) -> dict[str, Any]:  # noqa: ARG001
    which = cluster.balancer(site.balancer)
    return {
        "balancer": which.name,
        "priority": cluster.priority(which),
        "configuration": rendered(cluster, which=which, check=_check_paths(site)),
        "script": CHECK_SCRIPT,
        "script_path": _script_path(site),
    }


async def _accepted(directory: Path, documents: Sequence[Document]) -> None:
    binary = consumer.found("keepalived", "install the package keepalived")
    for document in documents:
        if document.name != _CONFIGURATION.name:
            raise Unsupported("keepalived -t reads no script, only the configuration that names it: leave out --script")
        await consumer.accepted([binary, "-t", "-f", directory / document.name])


OUTPUT = Output(
    word="keepalived",
    help="Render keepalived's configuration, which moves the virtual address to a balancer whose HAProxy answers.",
    goes="`/etc/keepalived/keepalived.conf` on each balancer; then `systemctl reload keepalived`.",
    rendered=_documents,
    needs=frozenset({"balancer", "run"}),
    options=(
        Option("script", "Render the script by which keepalived asks HAProxy, instead."),
        Option("script-path", f"Where that script stands. [default: {CHECK_SCRIPT_PATH}]", "file"),
    ),
    as_json=_as_json,
    check=Trial(
        "keepalived",
        "Ask keepalived -t what it thinks of it; it looks for the interface and the script on this host.",
        _accepted,
    ),
    installed=Place(
        f"{_CONFIGURATION}, the script where it stands",
        lambda site: _script_path(site) if site.given.get("script") else _CONFIGURATION,
    ),
)
