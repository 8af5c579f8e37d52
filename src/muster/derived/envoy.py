"""Envoy's configuration from the model, as files it watches: a bootstrap that never changes, and what may.

``bootstrap.json`` names the directory; ``listeners.json``, ``clusters.json`` and one ``endpoints-SERVICE.json`` per
service are read again whenever they are replaced by a rename, without a restart and without a lost connection.

What Envoy does otherwise than HAProxy is said by :func:`lacks`.

Source: docs/facts/balancer.md §3; envoyproxy.io, v3 API.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster.balancer.model import Balancing, Server, Service
from muster.balancer.words import address, is_name, matching, path, word
from muster.cluster.file import Balancer, ClusterFile
from muster.derived import consumer
from muster.derived.output import Document, Output, Place, Site, Trial
from muster.kernel.files import write_atomically

_TYPES = "type.googleapis.com/envoy"
_SPREAD = {"roundrobin": "ROUND_ROBIN", "leastconn": "LEAST_REQUEST", "random": "RANDOM", "source": "RING_HASH"}
_URI = re.compile(r"/[a-z/]{1,100}(?:\?service=[a-z0-9-]{1,63})?\Z")

_DIRECTORY = Path("/etc/muster/envoy")
_BOOTSTRAP = "bootstrap.json"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EnvoyPaths:
    """Where Envoy finds its files.

    Attributes:
        config: the directory of the files this module renders, as Envoy will see it.
        run: directory of the administration socket.
        pki: directory of ``ca.pem`` and ``check.pem``, as for HAProxy.
    """

    config: Path
    run: Path
    pki: Path


def lacks(balancing: Balancing, which: Balancer) -> list[str]:
    """Return what this Envoy does not do and HAProxy would, one sentence each."""
    found = [
        "One client address may hold any number of connections; only their sum is limited.",
        "Balancers of different kinds do not agree on a client's member; only put Envoy beside Envoy.",
    ]
    mixed = [s.name for s in balancing.services if len({_asked(x) for x in s.servers}) > 1]
    if mixed:
        found.append(f"Some members of {', '.join(mixed)} are not asked whether they serve, only watched for failures.")
    if which.metrics_port is not None:
        found.append("There is no metrics port; the administration socket has /stats/prometheus.")
    return found


def rendered(
    balancing: Balancing, *, which: Balancer, paths: EnvoyPaths, dual_stack: bool = True
) -> Mapping[str, Json]:
    """Return the content of every file by its name; written as JSON, which Envoy reads.

    Raises:
        Rejected: a name, address or path holds what cannot stand in a balancer's configuration.
    """
    by_dns = {s.name for s in balancing.services if any(is_name(x.address) for x in s.servers)}
    files = {
        _BOOTSTRAP: _bootstrap(balancing, which, paths),
        "listeners.json": _resources([_listener(s, which, dual_stack) for s in balancing.services]),
        "clusters.json": _resources([_cluster(balancing, s, which, paths) for s in balancing.services]),
    }
    for service in balancing.services:
        if service.name not in by_dns:
            files[_endpoints_name(service)] = _resources(
                [_typed("config.endpoint.v3.ClusterLoadAssignment", _endpoints(service))]
            )
    return files


def _bootstrap(balancing: Balancing, which: Balancer, paths: EnvoyPaths) -> Json:
    return {
        "node": {"id": word(which.name), "cluster": word(balancing.cluster)},
        "admin": {"address": {"pipe": {"path": path(paths.run / "envoy-admin.sock"), "mode": 0o600}}},
        "dynamic_resources": {
            "lds_config": _watched(paths, "listeners.json"),
            "cds_config": _watched(paths, "clusters.json"),
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": _typed(
                        "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        {"max_active_downstream_connections": which.maxconn},
                    ),
                }
            ]
        },
    }


def _listener(service: Service, which: Balancer, dual_stack: bool) -> Json:
    name, timeouts = word(service.name), service.timeouts
    proxy: Json = {
        "stat_prefix": name,
        "cluster": name,
        "idle_timeout": _duration(timeouts.tunnel_s or timeouts.idle_s),
        "max_connect_attempts": 4,
    }
    if service.balance == "source":
        proxy["hash_policy"] = [{"source_ip": {}}]
    chain: Json = {
        "filters": [
            {
                "name": "envoy.filters.network.tcp_proxy",
                "typed_config": _typed("extensions.filters.network.tcp_proxy.v3.TcpProxy", proxy),
            }
        ]
    }
    listener: Json = {"name": name, "address": _bind(which, service.listen_port, dual_stack), "filter_chains": [chain]}
    if service.also_listen_ports:
        also = [{"address": _bind(which, port, dual_stack)} for port in service.also_listen_ports]
        listener["additional_addresses"] = also
    if service.traffic != "plain":
        # What begins with no ClientHello finds no chain and is closed before it reaches a member.
        chain["filter_chain_match"] = {"transport_protocol": "tls"}
        listener["listener_filters_timeout"] = _duration(timeouts.hello_s)
        listener["listener_filters"] = [
            {
                "name": "envoy.filters.listener.tls_inspector",
                "typed_config": _typed("extensions.filters.listener.tls_inspector.v3.TlsInspector", {}),
            }
        ]
    return _typed("config.listener.v3.Listener", listener)


def _cluster(balancing: Balancing, service: Service, which: Balancer, paths: EnvoyPaths) -> Json:
    name = word(service.name)
    limits = {"priority": "DEFAULT", "max_connections": which.maxconn, "max_pending_requests": which.maxconn}
    cluster: Json = {
        "name": name,
        "connect_timeout": _duration(service.timeouts.connect_s),
        "lb_policy": _SPREAD[service.balance],
        # The share of healthy members below which all are served: only when there is none.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0.1}},
        "circuit_breakers": {"thresholds": [limits]},
        "outlier_detection": {
            "consecutive_5xx": 3,
            "interval": "1s",
            "base_ejection_time": "5s",
            "max_ejection_percent": 100,
        },
        "transport_socket_matches": _sockets(balancing, paths),
        "health_checks": [_health_check(balancing, service)],
        # Otherwise a member that left the file stays for as long as it answers.
        "ignore_health_on_host_removal": True,
    }
    if service.maxconn_per_member is not None:
        cluster["circuit_breakers"]["per_host_thresholds"] = [{"max_connections": service.maxconn_per_member}]
    if service.traffic == "tls-tunnel":
        keepalive = {"keepalive_time": 60, "keepalive_interval": 10, "keepalive_probes": 3}
        cluster["upstream_connection_options"] = {"tcp_keepalive": keepalive}
        cluster["close_connections_on_host_health_failure"] = True
    if any(is_name(server.address) for server in service.servers):
        cluster |= {"type": "STRICT_DNS", "load_assignment": _endpoints(service)}
    else:
        cluster |= {"type": "EDS", "eds_cluster_config": {"eds_config": _watched(paths, _endpoints_name(service))}}
    return _typed("config.cluster.v3.Cluster", cluster)


def _sockets(balancing: Balancing, paths: EnvoyPaths) -> list[Json]:
    """How a connection begins: questions are mutual TLS, clients' bytes pass as they are, perhaps behind a header."""
    asking = _asking(balancing, paths)
    plain = {
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": _typed("extensions.transport_sockets.raw_buffer.v3.RawBuffer", {}),
    }
    return [
        {"name": "asking-proxied", "match": {"asking": "proxied"}, "transport_socket": _proxied(asking)},
        {"name": "asking", "match": {"asking": "plain"}, "transport_socket": asking},
        {"name": "proxied", "match": {"proxied": "yes"}, "transport_socket": _proxied(plain)},
        {"name": "plain", "match": {}, "transport_socket": plain},
    ]


def _asking(balancing: Balancing, paths: EnvoyPaths) -> Json:
    both = path(paths.pki / "check.pem")
    name = word(balancing.address)
    san = {"san_type": "DNS", "matcher": {"exact": name}}
    validation = {"trusted_ca": {"filename": path(paths.pki / "ca.pem")}, "match_typed_subject_alt_names": [san]}
    certificate = {"certificate_chain": {"filename": both}, "private_key": {"filename": both}}
    tls = {"sni": name, "common_tls_context": {"tls_certificates": [certificate], "validation_context": validation}}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": _typed("extensions.transport_sockets.tls.v3.UpstreamTlsContext", tls),
    }


def _proxied(inner: Json) -> Json:
    wrapped = {"config": {"version": "V2"}, "transport_socket": inner}
    kind = "extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"
    return {"name": "envoy.transport_sockets.upstream_proxy_protocol", "typed_config": _typed(kind, wrapped)}


def _health_check(balancing: Balancing, service: Service) -> Json:
    check = service.check
    kind, uri, proxied = _commonest(service)
    found: Json = {
        "timeout": _duration(service.timeouts.check_s),
        "interval": _duration(check.every_s),
        "unhealthy_interval": _duration(check.down_s),
        "unhealthy_edge_interval": _duration(check.doubting_s),
        "no_traffic_interval": _duration(check.every_s),
        "unhealthy_threshold": check.fall,
        "healthy_threshold": check.rise,
    }
    if kind == "connect":
        return found | {"tcp_health_check": {}}
    return found | {
        "transport_socket_match_criteria": {"asking": "proxied" if proxied else "plain"},
        "http_health_check": {"host": word(balancing.address), "path": matching(_URI, uri, "check URI")},
    }


def _endpoints(service: Service) -> Json:
    common = _commonest(service)
    return {
        "cluster_name": word(service.name),
        "endpoints": [{"lb_endpoints": [_endpoint(s, _asked(s) == common) for s in service.servers]}],
    }


def _endpoint(server: Server, asked: bool) -> Json:
    # Balancers agree on a client's member through the permanent number, whatever order the members stand in.
    metadata: Json = {"envoy.lb": {"hash_key": f"{server.id:d}"}}
    if server.proxied:
        metadata["envoy.transport_socket_match"] = {"proxied": "yes"}
    check = {"port_value": server.question.port} if asked else {"disable_active_health_check": True}
    endpoint = {
        "address": _socket_address(server.address, server.port),
        "health_check_config": check,
        "hostname": word(server.name),
    }
    return {"endpoint": endpoint, "load_balancing_weight": server.weight, "metadata": {"filter_metadata": metadata}}


def _asked(server: Server) -> tuple[str, str, bool]:
    return server.question.kind, server.question.uri, server.question.proxied


def _commonest(service: Service) -> tuple[str, str, bool]:
    """A cluster asks all its members one question; that of the most is it."""
    return Counter(_asked(s) for s in service.servers).most_common(1)[0][0]


def _endpoints_name(service: Service) -> str:
    return f"endpoints-{word(service.name)}.json"


def _watched(paths: EnvoyPaths, name: str) -> Json:
    return {"resource_api_version": "V3", "path_config_source": {"path": path(paths.config / name)}}


def _bind(which: Balancer, port: int, dual_stack: bool) -> Json:
    if which.bind != "*":
        return _socket_address(which.bind, port)
    if dual_stack:
        return {"socket_address": {"address": "::", "port_value": port, "ipv4_compat": True}}
    return _socket_address("0.0.0.0", port)


def _socket_address(host: str, port: int) -> Json:
    return {"socket_address": {"address": address(host), "port_value": port}}


def _resources(resources: list[Json]) -> Json:
    return {"resources": resources}


def _typed(kind: str, content: Json) -> Json:
    return {"@type": f"{_TYPES}.{kind}", **content}


def _duration(seconds: float) -> str:
    return f"{seconds:g}s"


def _files(balancing: Balancing, cluster: ClusterFile, site: Site) -> Mapping[str, Json]:
    paths = EnvoyPaths(site.place or _DIRECTORY, site.run, site.pki)
    return rendered(balancing, which=cluster.balancer(site.balancer), paths=paths, dual_stack=site.dual_stack)


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:
    files = _files(balancing, cluster, site)
    # Endpoints first and listeners last: nothing names a file that is not there yet.
    order = {"clusters.json": 1, _BOOTSTRAP: 2, "listeners.json": 3}
    names = sorted(files, key=lambda n: (order.get(n, 0), n))
    return tuple(Document(name, json.dumps(files[name], indent=2) + "\n", "envoy") for name in names)


async def _accepted(directory: Path, documents: Sequence[Document]) -> None:
    binary = consumer.found("envoy", "install Envoy (envoyproxy.io)")
    # envoy --mode validate opens none of the files it would watch, so it is asked about all of them as one.
    whole = directory / "whole.json"
    write_atomically(whole, json.dumps(_as_one({d.name: json.loads(d.text) for d in documents})))
    said = ("--log-level", "error", "--log-format", "%v")
    await consumer.accepted([binary, "--mode", "validate", "-c", whole, *said], timeout_s=60)


def _as_one(files: Mapping[str, Json]) -> Json:
    """Return a bootstrap that holds what the files it watches hold."""
    clusters = []
    for cluster in _untyped(files["clusters.json"]):
        if cluster["type"] == "EDS":
            del cluster["eds_cluster_config"]
            (endpoints,) = _untyped(files[f"endpoints-{cluster['name']}.json"])
            cluster |= {"type": "STATIC", "load_assignment": endpoints}
        clusters.append(cluster)
    bootstrap = {k: v for k, v in files[_BOOTSTRAP].items() if k != "dynamic_resources"}
    return bootstrap | {"static_resources": {"listeners": _untyped(files["listeners.json"]), "clusters": clusters}}


def _untyped(resources: Json) -> list[Json]:
    return [{k: v for k, v in r.items() if k != "@type"} for r in resources["resources"]]


OUTPUT = Output(
    word="envoy",
    help="Render Envoy's bootstrap and the files it watches (LDS, CDS, EDS); what Envoy does not do goes to stderr.",
    goes="`/etc/muster/envoy` on a balancer that runs Envoy in place of HAProxy.",
    rendered=_documents,
    needs=frozenset({"balancer", "pki", "run"}),
    as_json=_files,
    lacks=lambda balancing, cluster, site: lacks(balancing, cluster.balancer(site.balancer)),
    # JSON holds no comments.
    says_lacks=False,
    check=Trial(
        "envoy", "Ask envoy --mode validate what it thinks of them, with the files of pki on this host.", _accepted
    ),
    installed=Place(str(_DIRECTORY), lambda site: _DIRECTORY),  # noqa: ARG005
    in_directory=True,
    output_help=(
        "Directory to write the files into, as Envoy will see it; without it they are shown as one JSON object."
    ),
)
