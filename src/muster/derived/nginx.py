"""nginx's configuration from the model: the stream module passes every service's bytes on, as HAProxy would.

What open nginx lacks is left out and said by :func:`lacks`: it asks members nothing, it learns of a dead one from
connections that fail, and it speaks version 1 of the PROXY protocol, which members refuse.

Source: docs/facts/balancer.md §3; nginx.org, ngx_stream_core_module and its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster.balancer.model import Balancing, Server, Service
from muster.balancer.words import is_name, path, target, word
from muster.cluster.file import Balancer, ClusterFile
from muster.derived import consumer
from muster.derived.output import Document, Output, Site, Trial
from muster.kernel.errors import Misconfigured, Rejected, Unavailable
from muster.version import VERSION

_SPREAD = {"roundrobin": "", "leastconn": "least_conn", "random": "random", "source": "hash $remote_addr consistent"}

PACKAGED_MODULES = ("/etc/nginx/modules-enabled/*.conf", "/usr/share/nginx/modules/*.conf")
"""Where Debian and Red Hat name modules to load; a pattern that matches nothing is no error."""


@dataclass(frozen=True, slots=True)
class NginxPaths:
    """Where nginx's own files live.

    Attributes:
        run: directory of the pid file and of the log.
        modules: patterns of files that load modules; none when the stream module is built in.
    """

    run: Path
    modules: tuple[str, ...] = PACKAGED_MODULES


def lacks(cluster: ClusterFile, which: Balancer) -> list[str]:
    """Return what an nginx with this configuration does not do and HAProxy would, one sentence each."""
    found = [
        "Members are not asked whether they are ready: a draining one keeps its share until it closes its ports, and a "
        "hanging one keeps it for good.",
        "Balancers of different kinds do not agree on a client's member; only put nginx beside nginx.",
    ]
    if cluster.edge.proxy_protocol != "off":
        found.append("Members see the balancer's address instead of the client's: nginx speaks PROXY version 1 only.")
    if which.metrics_port is not None:
        found.append("There is no metrics port.")
    named = sorted({str(m.name) for m in cluster.members if is_name(m.address)})
    if named:
        found.append(f"The addresses of {', '.join(named)} are looked up once, when nginx starts or reloads.")
    return found


def rendered(
    cluster: ClusterFile, balancing: Balancing, *, which: Balancer, paths: NginxPaths, dual_stack: bool = True
) -> str:
    """Return a whole configuration, fit for ``nginx -c``, for one balancer.

    Raises:
        Misconfigured: members demand a PROXY header of version 2, which nginx cannot send.
        Rejected: a name, address or path holds a character that has a meaning in the file.
    """
    if cluster.edge.proxy_protocol == "required":
        raise Misconfigured("edge.proxy_protocol is required, and nginx cannot send version 2: members would refuse it")
    return "\n".join(_lines(cluster, balancing, which, paths, dual_stack)) + "\n"


def found() -> Path:
    """Return the nginx of the system.

    Raises:
        Unavailable: there is none.
    """
    return consumer.found("nginx", "install the packages nginx and libnginx-mod-stream")


def _lines(
    cluster: ClusterFile, balancing: Balancing, which: Balancer, paths: NginxPaths, dual_stack: bool
) -> Iterator[str]:
    yield f"# Rendered by Muster {VERSION} for balancer {word(which.name)} of cluster {word(balancing.cluster)}."
    yield "# Do not edit: change the cluster file and run muster render nginx again."
    yield from (f"# {sentence}" for sentence in lacks(cluster, which))
    yield from (f"include {_pattern(p)};" for p in paths.modules)
    yield "worker_processes auto;"
    # Each connection is two, and every worker may meet them all.
    yield f"worker_rlimit_nofile {2 * which.maxconn + 200:d};"
    yield f"pid {path(paths.run / 'nginx.pid')};"
    yield f"error_log {path(paths.run / 'nginx.log')} warn;"
    yield "events {"
    yield f"  worker_connections {2 * which.maxconn + 100:d};"
    yield "}"
    yield "stream {"
    yield "  limit_conn_zone $binary_remote_addr zone=sources:10m;"
    yield f"  limit_conn sources {balancing.connections_per_source:d};"
    yield "  proxy_connect_timeout 1s;"
    yield "  proxy_next_upstream_tries 4;"
    for service in balancing.services:
        yield from _upstream(service)
        yield from _server(service, which, dual_stack)
    yield "}"


def _upstream(service: Service) -> Iterator[str]:
    name = word(service.name)
    yield f"  upstream {name} {{"
    # Workers share what they learn of dead members, and count connections together.
    yield f"    zone {name} 128k;"
    if spread := _SPREAD[service.balance]:
        yield f"    {spread};"
    for server in service.servers:
        limit = f" max_conns={service.maxconn_per_member:d}" if service.maxconn_per_member is not None else ""
        yield f"    server {_target(server)}{limit}; # {word(server.name)}, id {server.id:d}"
    yield "  }"
    if service.traffic != "plain":
        # A variable that is empty closes the connection: what begins with no ClientHello reaches no member.
        yield f"  map $ssl_preread_protocol $to_{_variable(name)} {{"
        yield '    "" "";'
        yield f"    default {name};"
        yield "  }"


def _server(service: Service, which: Balancer, dual_stack: bool) -> Iterator[str]:
    name, timeouts = word(service.name), service.timeouts
    tunnel = service.traffic == "tls-tunnel"
    yield "  server {"
    for port in service.listen_ports:
        for bind in _binds(which, port, dual_stack):
            yield f"    listen {bind}{' so_keepalive=60s:10s:3' if tunnel else ''};"
    if tunnel:
        yield "    proxy_socket_keepalive on;"
    yield f"    proxy_timeout {_seconds(timeouts.tunnel_s or timeouts.idle_s)};"
    if service.traffic == "plain":
        yield f"    proxy_pass {name};"
    else:
        yield f"    preread_timeout {_seconds(timeouts.hello_s)};"
        yield "    ssl_preread on;"
        yield f"    proxy_pass $to_{_variable(name)};"
    yield "  }"


def _target(server: Server) -> str:
    # One lost connection in a second is an accident, three are a dead member; asked again after five seconds.
    return f"{target(server.address, server.port)} weight={server.weight:d} max_fails=3 fail_timeout=5s"


def _binds(which: Balancer, port: int, dual_stack: bool) -> tuple[str, ...]:
    if which.bind != "*":
        return (target(which.bind, port),)
    # Two sockets: on a shared one IPv4 clients hash as IPv6, and balancers that are bound otherwise disagree.
    return (f"{port:d}", f"[::]:{port:d} ipv6only=on") if dual_stack else (f"{port:d}",)


def _pattern(text: str) -> str:
    path(Path(text.replace("*", "")))
    return text


def _variable(name: str) -> str:
    return name.replace("-", "_").replace(".", "_")


def _seconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms" if seconds % 1 else f"{round(seconds)}s"


def _text(balancing: Balancing, cluster: ClusterFile, site: Site) -> str:
    which, paths = cluster.balancer(site.balancer), NginxPaths(site.run)
    return rendered(cluster, balancing, which=which, paths=paths, dual_stack=site.dual_stack)


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:
    return (Document("nginx.conf", _text(balancing, cluster, site), "nginx"),)


def _as_json(balancing: Balancing, cluster: ClusterFile, site: Site) -> dict[str, Any]:
    which = cluster.balancer(site.balancer)
    text = _text(balancing, cluster, site)
    return {"balancer": which.name, "configuration": text, "lacks": lacks(cluster, which)}


async def _accepted(directory: Path, documents: Sequence[Document]) -> None:
    for document in documents:
        try:
            await consumer.accepted([found(), "-t", "-q", "-e", "stderr", "-c", directory / document.name])
        except Rejected as e:
            # It opens the ports although it only looks.
            if "bind() to" in str(e) and "Permission denied" in str(e):
                raise Unavailable(f"{found()} -t opens the ports it is told of: run this as root") from e
            raise


OUTPUT = Output(
    word="nginx",
    help="Render an nginx (stream) configuration for one balancer; its head and --json say what nginx does not do.",
    goes="On a balancer that runs nginx in place of HAProxy, as its main configuration.",
    rendered=_documents,
    needs=frozenset({"balancer", "run"}),
    as_json=_as_json,
    lacks=lambda balancing, cluster, site: lacks(cluster, cluster.balancer(site.balancer)),  # noqa: ARG005
    # nginx -t makes the pid file and the log it is told of.
    check=Trial("nginx", "Ask nginx -t what it thinks of it.", _accepted, scratch_run=True),
)
