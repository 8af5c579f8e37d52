"""Drop-ins for the units in ``packaging/systemd``: what of them depends on the cluster file, and nothing else.

The units themselves are installed as they are, so that an update of Muster changes them and a change of the cluster file
changes these. A drop-in names whose host it is, and raises what the units have for the defaults of the cluster file where
this one asks for more; it never lowers anything.

Source: systemd.exec(5), systemd.resource-control(5); the reasons for each figure stand in the units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from muster.balancer.haproxy.descriptors import needed
from muster.balancer.model import Balancing, Service
from muster.balancer.words import path, word
from muster.cluster.file import Balancer, ClusterFile, Member
from muster.derived import consumer
from muster.derived.output import Document, Output, Site, Trial
from muster.kernel.process import run
from muster.version import VERSION

_DROP_IN = "cluster.conf"
_STATE = Path("/var/lib/muster")
_FOREMAN_PROXY = Path("/etc/foreman-proxy")
_SIGNER_SOCKET = Path("/run/muster-signer/socket")
# What the units have.
_MEMBER_DESCRIPTORS, _BALANCER_DESCRIPTORS = 16_384, 65_536
_MEMBER_STOP_S, _BALANCER_CONNECTIONS, _BALANCER_MB = 90, 4000, 1024
# A member at rest and its connections, without what edge.memory_bytes allows; and how much of it is beyond the first limit.
_MEMBER_MB, _EDGE_MB, _MAX_OF_HIGH = 480, 32, 1.5
# To end after its calls have, and before it is killed.
_MARGIN_S = 17
_CONNECTION_KB = 2 * 34
_PROXY_DHCP_PORT = 67
_LOCAL_FIRST = "# What stands in /etc/default/muster goes before it."
_STUB = "[Service]\nExecStart=/bin/true\n"


def of_member(balancing: Balancing, cluster: ClusterFile, member: Member) -> str:
    """Return the drop-in of one member's unit."""
    own = [s for s in balancing.services if _listens(s, member)]
    lines = [*_head(cluster, f"member {word(member.name)}")]
    if cluster.authority is not None and cluster.authority.key.kind == "signer":
        lines += ["[Unit]", *_signer(cluster.authority.key.socket)]
    lines += [
        "[Service]",
        "# What stands in /etc/default/muster goes before it.",
        f"Environment=MUSTER_MEMBER={word(member.name)}",
    ]
    low = sorted({port for port in (*(s.port_on(member.name) for s in own), *_of_machines(cluster)) if port < 1024})
    if low:
        lines += [
            f"# It listens on {', '.join(f'{p:d}' for p in low)}.",
            "AmbientCapabilities=CAP_NET_BIND_SERVICE",
            "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
        ]
    descriptors = 2 * cluster.edge.connections * len(own)
    if descriptors > _MEMBER_DESCRIPTORS:
        lines += [f"# edge.connections on each of {len(own)} listeners, twice.", f"LimitNOFILE={descriptors:d}"]
    lines += [*_member_memory(cluster), *_member_stop(cluster), *_files(cluster)]
    return "\n".join(lines) + "\n"


def of_balancer(balancing: Balancing, cluster: ClusterFile, balancer: Balancer) -> str:
    """Return the drop-in of one balancer's unit."""
    name = word(balancer.name)
    lines = [*_head(cluster, f"balancer {name}"), "[Service]", _LOCAL_FIRST, f"Environment=MUSTER_BALANCER={name}"]
    virtual = cluster.virtual_address
    if virtual is not None and virtual.script_user != "muster":
        user = word(virtual.script_user)
        lines += [
            "# virtual_address.script_user: keepalived asks as the account that owns HAProxy's socket.",
            f"User={user}",
        ]
    descriptors = needed(balancing, balancer.maxconn)
    if descriptors > _BALANCER_DESCRIPTORS:
        lines += [f"# maxconn is {balancer.maxconn:d}.", f"LimitNOFILE={descriptors:d}"]
    more = balancer.maxconn - _BALANCER_CONNECTIONS
    if more > 0:
        high = _BALANCER_MB + math.ceil(more * _CONNECTION_KB / 1024)
        lines += [f"# maxconn is {balancer.maxconn:d}.", *_memory(high)]
    # It says there what its checks say.
    lines += _store(cluster)
    return "\n".join(lines) + "\n"


def _of_machines(cluster: ClusterFile) -> Iterator[int]:
    """Yield the UDP ports on which members answer machines that boot."""
    if cluster.netboot.tftp is not None:
        yield cluster.netboot.tftp.port
    if cluster.netboot.proxy_dhcp is not None:
        yield _PROXY_DHCP_PORT


def _listens(service: Service, member: Member) -> bool:
    """Whether the member itself does, and no program beside it."""
    return any(s.name == member.name.lower() and s.beside is None for s in service.servers)


def _head(cluster: ClusterFile, whose: str) -> Iterator[str]:
    yield f"# Rendered by Muster {VERSION} for {whose} of cluster {word(cluster.cluster)}."
    yield "# Do not edit: change the cluster file and run muster render systemd again."


def _signer(socket: Path | None) -> Iterator[str]:
    yield "# authority.key.kind is signer."
    if socket != _SIGNER_SOCKET:
        yield f"# The unit listens on {_SIGNER_SOCKET}, authority.key.socket is another: give its ExecStart that one."
    yield "Wants=muster-ca-signer.service"


def _member_memory(cluster: ClusterFile) -> Iterator[str]:
    workers = cluster.content.workers if cluster.content is not None else 1
    edge = math.ceil(cluster.edge.memory_bytes / (1 << 20))
    if workers > 1 or edge > _EDGE_MB:
        yield f"# edge.memory_bytes, in {workers} processes." if workers > 1 else "# edge.memory_bytes."
        yield from _memory(workers * (_MEMBER_MB + edge))


def _memory(high: int) -> tuple[str, str]:
    return (f"MemoryHigh={high:d}M", f"MemoryMax={int(high * _MAX_OF_HIGH):d}M")


def _member_stop(cluster: ClusterFile) -> Iterator[str]:
    edge = cluster.edge
    stop_s = math.ceil(edge.drain_s + edge.handshake_timeout_s + edge.stop_timeout_s) + _MARGIN_S
    if stop_s > _MEMBER_STOP_S:
        yield "# edge.drain_s, edge.handshake_timeout_s and edge.stop_timeout_s."
        yield f"TimeoutStopSec={stop_s:d}"


def _files(cluster: ClusterFile) -> Iterator[str]:
    lists = cluster.authority.push_crl if cluster.authority is not None else ()
    if lists:
        yield "# authority.push_crl; the group that may write there."
        yield "SupplementaryGroups=puppet"
        yield f"ReadWritePaths={' '.join(dict.fromkeys(path(p.parent) for p in lists))}"
    content = cluster.content
    keys = (content.foreman_certificate, content.foreman_key) if content is not None else ()
    if any(k is not None and k.is_relative_to(_FOREMAN_PROXY) for k in keys):
        yield "# content.foreman_key. A group that the host lacks keeps the member from starting: strike the line there."
        yield "SupplementaryGroups=foreman-proxy"
    signed = cluster.features.get("puppetca", {}).get("autosign_file")
    if isinstance(signed, str) and signed.startswith("/"):
        # A directory that is not there keeps a unit from starting, and this one's want is a note.
        yield "# features.puppetca.autosign_file."
        yield f"ReadWritePaths=-{path(Path(signed).parent)}"
    named = cluster.netboot.root or cluster.features.get("tftp", {}).get("tftproot")
    boot = Path(named) if isinstance(named, str | Path) else None
    if boot is not None and boot.is_absolute() and not boot.is_relative_to(_STATE):
        # The same: the feature says what is wrong.
        yield "# netboot.root, or features.tftp.tftproot."
        yield f"ReadWritePaths=-{path(boot)}"
    dhcp = cluster.features.get("dhcp", {})
    if str(dhcp.get("provider", dhcp.get("use_provider"))).removeprefix("dhcp_") == "dnsmasq":
        target = (dhcp.get("dnsmasq") or {}).get("target_dir", "/var/lib/muster-dnsmasq")
        yield "# features.dhcp.dnsmasq.target_dir."
        yield f"ReadWritePaths=-{path(Path(str(target)))}"
    yield from _store(cluster)


def _store(cluster: ClusterFile) -> Iterator[str]:
    url = cluster.store.url.reveal()
    if url.startswith("sqlite:///"):
        directory = Path(url.removeprefix("sqlite:///")).parent
        if not directory.is_relative_to(_STATE):
            yield "# store.url."
            yield f"ReadWritePaths={path(directory)}"


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:
    members = [
        Document(
            f"{word(m.name)}/muster-member.service.d/{_DROP_IN}", of_member(balancing, cluster, m), "systemd-analyze"
        )
        for m in site.members(cluster)
        if m.kind == "muster"
    ]
    balancers = [
        Document(
            f"balancers/{word(b.name)}/muster-balancer.service.d/{_DROP_IN}",
            of_balancer(balancing, cluster, b),
            "systemd-analyze",
        )
        for b in (cluster.balancers if site.member is None else ())
    ]
    return (*balancers, *members)


async def _accepted(directory: Path, documents: Sequence[Document]) -> None:
    analyze = consumer.found("systemd-analyze", "install the package systemd")
    for document in documents:
        drop_in = directory / document.name
        unit = drop_in.parent.with_suffix("")
        # The real one would be looked at for its program, too, which is where it will run.
        unit.write_text(_STUB, encoding="utf-8")
        said = await run([analyze, "verify", unit], timeout_s=30)
        # What it does not know it ignores, says so, and ends with status 0.
        if said.status != 0 or str(directory) in said.stderr:
            raise consumer.refusal("systemd-analyze", said)


OUTPUT = Output(
    word="systemd",
    help="Render drop-ins for the units of members and balancers: whose host it is, and limits as this cluster needs them.",
    goes=(
        "`/etc/systemd/system` on the host that the directory is named after, beside the packaged units; then "
        "`systemctl daemon-reload`."
    ),
    rendered=_documents,
    needs=frozenset({"member"}),
    check=Trial("systemd-analyze", "Ask systemd-analyze verify what it thinks of them.", _accepted),
    in_directory=True,
    output_help="Write them below this directory, one directory for each host, instead of showing them.",
)
