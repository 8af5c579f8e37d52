"""A dashboard for Grafana over what :mod:`muster.derived.prometheus` collects; it has rows for what this cluster has.

Source: Grafana's JSON model of a dashboard, schemaVersion 36 (Grafana 9 and later).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from muster.balancer.model import Balancing, signs_itself
from muster.balancer.words import word
from muster.cluster.file import ClusterFile
from muster.derived.output import Document, Output, Site
from muster.derived.prometheus import of_cluster, scraped

_WIDTH = 24
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_BAD, _GOOD, _WARNING = "red", "green", "orange"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        shows: expressions, with ``@`` for the cluster, and what each line is called.
        unit: Grafana's word for it.
        kind: Grafana's word for how it is drawn.
        width: of 24.
        steps: from which value on a colour holds, the first from the least on.
    """

    title: str
    shows: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    steps: tuple[tuple[float | None, str], ...] = ((None, _GOOD),)


_CLUSTER = (
    Panel(
        "Members that answer", (("count(muster_store_up{@})", ""),),
        kind="stat", width=4, height=4, steps=((None, _BAD), (1, _WARNING), (2, _GOOD)),
    ),
    Panel(
        "Ready members of the service with fewest", (("min(sum by (service) (muster_service_ready{@}))", ""),),
        kind="stat", width=4, height=4, steps=((None, _BAD), (1, _WARNING), (2, _GOOD)),
    ),
    Panel(
        "Store", (("min(muster_store_up{@})", ""),),
        kind="stat", width=4, height=4, steps=((None, _BAD), (1, _GOOD)),
    ),
    Panel(
        "Fields that differ", (("max(muster_parity_drift{@})", ""),),
        kind="stat", width=4, height=4, steps=((None, _GOOD), (1, _WARNING)),
    ),
    Panel(
        "Next end of a certificate", (("min(muster_expiry_timestamp_seconds{@} - time())", ""),),
        unit="s", kind="stat", width=4, height=4, steps=((None, _BAD), (7 * 86_400, _WARNING), (30 * 86_400, _GOOD)),
    ),
    Panel(
        "Alerts", (('count(ALERTS{@,alertstate="firing"}) or vector(0)', ""),),
        kind="stat", width=4, height=4, steps=((None, _GOOD), (1, _BAD)),
    ),
    Panel(
        "Services and members", (("muster_service_ready{@}", "{{service}} · {{instance}}"),),
        kind="state-timeline", width=24, height=12, steps=((None, _BAD), (1, _GOOD)),
    ),
    Panel("Why not", (("muster_service_unready{@} == 1", ""),), kind="table", width=24, height=6),
)  # fmt: skip
_TRAFFIC = (
    Panel(
        "Calls, by status",
        (("sum by (status) (rate(muster_request_seconds_count{@}[$__rate_interval]))", "{{status}}"),),
        unit="reqps",
    ),
    Panel(
        "Calls, by member",
        (("sum by (instance) (rate(muster_request_seconds_count{@}[$__rate_interval]))", "{{instance}}"),),
        unit="reqps",
    ),
    Panel(
        "Calls that failed, by route",
        (('sum by (route) (rate(muster_request_seconds_count{@,status=~"5.."}[$__rate_interval]))', "{{route}}"),),
        unit="reqps",
    ),
    Panel(
        "Time a call takes",
        tuple(
            (
                f"histogram_quantile({q}, sum by (le) (rate(muster_request_seconds_bucket{{@}}[$__rate_interval])))",
                f"{float(q):.0%}",
            )
            for q in ("0.5", "0.95", "0.99")
        ),
        unit="s",
    ),
    Panel(
        "Time 95 % of calls take, by route",
        (
            (
                "histogram_quantile(0.95, sum by (le, route) (rate(muster_request_seconds_bucket{@}[$__rate_interval])))",
                "{{route}}",
            ),
        ),
        unit="s",
    ),
    Panel(
        "Time 95 % of providers' operations take",
        (
            (
                "histogram_quantile(0.95, sum by (le, contract, operation) "
                "(rate(muster_operation_seconds_bucket{@}[$__rate_interval])))",
                "{{contract}} {{operation}}",
            ),
        ),
        unit="s",
    ),
    Panel(
        "Providers' operations, by outcome",
        (
            (
                "sum by (contract, outcome) (rate(muster_operation_seconds_count{@}[$__rate_interval]))",
                "{{contract}} {{outcome}}",
            ),
        ),
        unit="ops",
    ),
    Panel(
        "Open connections",
        (("sum by (instance, listener) (muster_connections{@})", "{{listener}} · {{instance}}"),),
    ),
    Panel(
        "Connections closed unheard",
        (("sum by (why) (rate(muster_connections_refused_total{@}[$__rate_interval]))", "{{why}}"),),
        unit="cps",
    ),
    Panel(
        "What bodies and replies hold",
        (("sum by (instance) (muster_edge_held_bytes{@})", "{{instance}}"),),
        unit="bytes",
    ),
    Panel(
        "Memory",
        (("sum by (instance) (process_resident_memory_bytes{@})", "{{instance}}"),),
        unit="bytes",
    ),
    Panel(
        "Cores",
        (("sum by (instance) (rate(process_cpu_seconds_total{@}[$__rate_interval]))", "{{instance}}"),),
    ),
)
_CERTIFICATES = (
    Panel(
        "Until certificates end",
        (("muster_expiry_timestamp_seconds{@} - time()", "{{what}} · {{instance}}"),),
        unit="s",
        width=12,
    ),
    Panel(
        "Fields in which a member differs from most",
        (
            ("max by (member) (muster_census_drift{@})", "{{member}}"),
            ("muster_parity_drift{@}", "{{instance}}, by itself"),
        ),
        width=12,
    ),
)
_PUPPET_CA = (
    Panel(
        "Until the revocation list ends",
        (("muster_puppet_ca_crl_expiry_timestamp_seconds{@} - time()", "{{instance}}"),),
        unit="s",
    ),
    Panel("Number of the revocation list", (("muster_puppet_ca_crl_number{@}", "{{instance}}"),)),
    Panel(
        "Requests that wait for an administrator",
        (
            ("max(muster_puppet_ca_requests_waiting{@})", "waiting"),
            ("max(muster_puppet_ca_requests_waiting_limit{@})", "as many as may"),
        ),
    ),
)
_CONTENT = (
    Panel(
        "Who had the bytes",
        (("sum by (source) (rate(muster_content_answers_total{@}[$__rate_interval]))", "{{source}}"),),
        unit="reqps",
    ),
    Panel(
        "The longest wait for a newer version",
        (("max by (instance) (muster_content_waiting_seconds{@})", "{{instance}}"),),
        unit="s",
    ),
    Panel("Repositories that a member is behind with", (("muster_content_behind{@}", "{{instance}}"),)),
    Panel(
        "Repositories and versions",
        (
            ("max(muster_content_repositories{@})", "repositories"),
            ("muster_content_versions{@}", "versions on {{instance}}"),
        ),
    ),
    Panel(
        "Room taken, of what content may",
        (("muster_content_kept_bytes{@} / muster_content_kept_limit_bytes{@}", "{{instance}}"),),
        unit="percentunit",
    ),
    Panel(
        "Room free on services' disks",
        (
            (
                "max by (member, kind) (muster_storage_free_bytes{@} / muster_storage_total_bytes{@})",
                "{{kind}} · {{member}}",
            ),
        ),
        unit="percentunit",
    ),
    Panel(
        "Calls for which the own Pulp was not enough",
        (("sum by (outcome) (rate(muster_content_fills_total{@}[$__rate_interval]))", "{{outcome}}"),),
        unit="reqps",
    ),
    Panel(
        "Versions brought to disks",
        (("sum by (outcome) (rate(muster_content_stagings_total{@}[$__rate_interval]))", "{{outcome}}"),),
    ),
    Panel(
        "Questions to Pulps",
        (("sum by (outcome) (rate(muster_content_polls_total{@}[$__rate_interval]))", "{{outcome}}"),),
    ),
)


def _balancers(balancing: Balancing) -> tuple[Panel, ...]:
    services = "|".join(word(s.name) for s in balancing.services)
    return (
        Panel(
            "Members a balancer leads clients to",
            ((f'haproxy_backend_active_servers{{@,proxy=~"{services}"}}', "{{proxy}} · {{instance}}"),),
        ),
        Panel(
            "New connections",
            (
                (
                    f'sum by (proxy) (rate(haproxy_backend_sessions_total{{@,proxy=~"{services}"}}[$__rate_interval]))',
                    "{{proxy}}",
                ),
            ),
            unit="cps",
        ),
        Panel(
            "New connections, by member",
            (
                (
                    f'sum by (server) (rate(haproxy_server_sessions_total{{@,proxy=~"{services}"}}[$__rate_interval]))',
                    "{{server}}",
                ),
            ),
            unit="cps",
        ),
        Panel(
            "Bytes to clients",
            (
                (
                    f'sum by (proxy) (rate(haproxy_backend_bytes_out_total{{@,proxy=~"{services}"}}[$__rate_interval]))',
                    "{{proxy}}",
                ),
            ),
            unit="Bps",
        ),
        Panel(
            "Clients that wait for a member",
            ((f'sum by (proxy) (haproxy_backend_current_queue{{@,proxy=~"{services}"}})', "{{proxy}}"),),
        ),
        Panel(
            "Connections held, of those that may be",
            (("haproxy_process_current_connections{@} / haproxy_process_max_connections{@}", "{{instance}}"),),
            unit="percentunit",
        ),
    )


def panels(balancing: Balancing, cluster: ClusterFile) -> dict[str, tuple[Panel, ...]]:
    """Return the panels this cluster has metrics for, by the title of their row."""
    watched = any(m.kind == "muster" for m in cluster.members) and balancing.service("smartproxy") is not None
    exporters = any(b.metrics_port is not None for b in cluster.balancers)
    rows = {
        "Cluster": _CLUSTER if watched else (),
        "Traffic": _TRAFFIC if watched else (),
        "Certificates and drift": _CERTIFICATES if watched else (),
        "Puppet CA": _PUPPET_CA if watched and signs_itself(cluster) else (),
        "Content": _CONTENT if watched and cluster.content is not None else (),
        "Balancers": _balancers(balancing) if exporters else (),
    }
    return {title: found for title, found in rows.items() if found}


def dashboard(balancing: Balancing, cluster: ClusterFile) -> dict[str, Any]:
    """Return the dashboard.

    Raises:
        Misconfigured: nobody in this cluster has metrics.
    """
    scraped(balancing, cluster)
    name = word(cluster.cluster)
    return {
        "uid": f"muster-{name}"[:40],
        "title": f"Muster: {name}",
        "tags": ["foreman", "muster"],
        "schemaVersion": 36,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                {
                    "name": "cluster",
                    "label": "Cluster",
                    "type": "constant",
                    "hide": 2,
                    "query": name,
                    "current": {"text": name, "value": name},
                },
            ]
        },
        "panels": list(_placed(panels(balancing, cluster))),
    }


def _placed(rows: dict[str, tuple[Panel, ...]]) -> Iterator[dict[str, Any]]:
    number, below = 1, 0
    for title, found in rows.items():
        place = {"x": 0, "y": below, "w": _WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        number, below, right, highest = number + 1, below + 1, 0, 0
        for panel in found:
            if right + panel.width > _WIDTH:
                below, right, highest = below + highest, 0, 0
            place = {"x": right, "y": below, "w": panel.width, "h": panel.height}
            yield {"id": number, "gridPos": place, **_drawn(panel)}
            number, right, highest = number + 1, right + panel.width, max(highest, panel.height)
        below += highest


def _drawn(panel: Panel) -> dict[str, Any]:
    at_once = panel.kind in ("stat", "table")
    return {
        "type": panel.kind,
        "title": panel.title,
        "datasource": _SOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + n),
                "datasource": _SOURCE,
                "expr": of_cluster(expression, "$cluster"),
                "legendFormat": called or "__auto",
                "instant": at_once,
                "range": not at_once,
                **({"format": "table"} if panel.kind == "table" else {}),
            }
            for n, (expression, called) in enumerate(panel.shows)
        ],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "thresholds": {"mode": "absolute", "steps": [{"value": v, "color": c} for v, c in panel.steps]},
            },
            "overrides": [],
        },
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}} if panel.kind == "stat" else {},
    }


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:  # noqa: ARG001
    text = json.dumps(dashboard(balancing, cluster), indent=1, ensure_ascii=False)
    return (Document("muster-dashboard.json", f"{text}\n", "grafana"),)


OUTPUT = Output(
    word="grafana",
    help="Render a dashboard for Grafana: services and members, traffic, certificates, content and balancers.",
    goes="Into Grafana by Dashboards, Import, or into the directory of its provisioning; over what `prometheus` collects.",
    rendered=_documents,
    as_json=lambda balancing, cluster, site: dashboard(balancing, cluster),  # noqa: ARG005
)
