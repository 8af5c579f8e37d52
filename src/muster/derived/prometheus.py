"""Prometheus: whom it asks for metrics, and which of them are worth waking somebody for.

Everything it asks bears the cluster's name in the label ``cluster``, and every expression looks at one cluster alone, so
that a Prometheus which watches several tells them apart. ``instance`` is a member's or balancer's name, not its address.

Source: docs/admin/monitoring.md has every metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from muster.balancer.model import Balancing, Service, signs_itself
from muster.balancer.words import target, word
from muster.cluster.file import Balancer, ClusterFile
from muster.derived import consumer
from muster.derived.output import Document, Output, Site, Trial
from muster.kernel.errors import Misconfigured
from muster.version import VERSION

_SMARTPROXY = "smartproxy"
_DAY_S = 86_400
_OF_ANY_CLUSTER = "@"
_KEYS = Path("/etc/prometheus/muster")
_CONFIGURATION = "prometheus.yml"
_RULES = "muster-rules.yml"


@dataclass(frozen=True, slots=True)
class Alert:
    """What is wrong when an expression is true.

    Attributes:
        expression: PromQL, in which ``@`` among the labels stands for this cluster.
        lasting: for how long it has to be true.
        summary: one sentence; ``{{ $labels.x }}`` and ``{{ $value }}`` are Prometheus's.
        remedy: what to do first.
        labels: further ones of its own.
    """

    name: str
    expression: str
    lasting: str
    severity: str
    summary: str
    remedy: str
    labels: tuple[tuple[str, str], ...] = ()

    def of(self, cluster: str) -> dict[str, Any]:
        """Return it as a rule of one cluster."""
        return {
            "alert": self.name,
            "expr": of_cluster(self.expression, cluster),
            "for": self.lasting,
            "labels": {"severity": self.severity, "cluster": cluster, **dict(self.labels)},
            "annotations": {"summary": self.summary, "description": self.remedy},
        }


def of_cluster(expression: str, cluster: str) -> str:
    """Return an expression that looks at one cluster's metrics alone; the name may be a dashboard's variable."""
    return expression.replace(_OF_ANY_CLUSTER, f'cluster="{cluster}"')


def scraped(balancing: Balancing, cluster: ClusterFile) -> dict[str, Any]:
    """Return Prometheus's configuration.

    Raises:
        Misconfigured: nobody in this cluster has metrics.
    """
    name = word(cluster.cluster)
    jobs = [job for job in (_members_job(balancing, cluster, name), _balancers_job(cluster, name)) if job is not None]
    if not jobs:
        raise Misconfigured(
            "Nobody in this cluster has metrics: Ruby members have none, and no balancer has a metrics_port"
        )
    return {"rule_files": [_RULES], "scrape_configs": jobs}


def alerts(balancing: Balancing, cluster: ClusterFile) -> dict[str, tuple[Alert, ...]]:
    """Return what is worth an alert in this cluster, by group; groups that have nothing to look at are absent."""
    watched = _watched(cluster) and balancing.service(_SMARTPROXY) is not None
    groups = {
        "members": (*_of_members(balancing, cluster), *_of_services(balancing, cluster)) if watched else (),
        "certificates": _OF_CERTIFICATES if watched else (),
        "puppet-ca": tuple(_of_puppet_ca(cluster)) if watched and signs_itself(cluster) else (),
        "content": _OF_CONTENT if watched and cluster.content is not None else (),
        "balancers": tuple(_of_balancers(balancing)) if any(b.metrics_port for b in cluster.balancers) else (),
    }
    return {name: found for name, found in groups.items() if found}


def _members_job(balancing: Balancing, cluster: ClusterFile, name: str) -> dict[str, Any] | None:
    service = balancing.service(_SMARTPROXY)
    if service is None or not _watched(cluster):
        return None
    return {
        "job_name": f"muster-{name}",
        "scheme": "https",
        "tls_config": {
            "ca_file": str(_KEYS / "ca.pem"),
            "cert_file": str(_KEYS / "cert.pem"),
            "key_file": str(_KEYS / "key.pem"),
            # Members are asked at their own addresses; their certificates have the cluster's name all the same.
            "server_name": word(cluster.address),
        },
        "static_configs": [
            _asked(target(m.address, service.port_on(m.name)), word(m.name), name)
            for m in cluster.members
            if m.kind == "muster"
        ],
    }


def _balancers_job(cluster: ClusterFile, name: str) -> dict[str, Any] | None:
    asked = [
        _asked(target(_listens(b), b.metrics_port), word(b.name), name)
        for b in cluster.balancers
        if b.metrics_port is not None
    ]
    return {"job_name": f"muster-balancers-{name}", "static_configs": asked} if asked else None


def _asked(where: str, instance: str, cluster: str) -> dict[str, Any]:
    return {"targets": [where], "labels": {"instance": instance, "cluster": cluster}}


def _listens(balancer: Balancer) -> str:
    return balancer.address if balancer.bind == "*" else balancer.bind


def _watched(cluster: ClusterFile) -> int:
    return sum(m.kind == "muster" for m in cluster.members)


def _of_members(balancing: Balancing, cluster: ClusterFile) -> Iterator[Alert]:
    yield Alert(
        "MusterMemberDown",
        f'up{{@,job="muster-{word(cluster.cluster)}"}} == 0',
        "1m",
        "critical",
        "Member {{ $labels.instance }} does not answer.",
        "On its host: systemctl status muster-member, and journalctl -u muster-member.",
    )
    yield Alert(
        "MusterMemberOut",
        "max by (instance) (muster_service_ready{@}) == 0",
        "1h",
        "warning",
        "Member {{ $labels.instance }} has taken no client of any service for an hour.",
        "muster status says why: it may have been drained and forgotten (muster ready readmits it).",
    )
    yield Alert(
        "MusterServiceUnready",
        "muster_service_ready{@} == 0 and on (instance) max by (instance) (muster_service_ready{@}) == 1",
        "15m",
        "warning",
        "Member {{ $labels.instance }} is not ready for {{ $labels.service }}, and takes clients of others.",
        "muster status has the reason; muster doctor says what mends it.",
    )
    yield from _OF_ALL
    short = [s for s in balancing.services if s.destinations == "all" and len(s.servers) > 1 and _all_ours(cluster, s)]
    if short:
        most = max(cluster.min_ready, 1)
        yield Alert(
            "MusterServiceShort",
            f'sum by (service) (muster_service_ready{{@,service=~"{_one_of(short)}"}}) > 0 <= {most:d}',
            "15m",
            "warning",
            "Only {{ $value }} members are ready for {{ $labels.service }}: one failure more, and clients notice.",
            "muster status says which are not, and why.",
        )


def _of_services(balancing: Balancing, cluster: ClusterFile) -> Iterator[Alert]:
    for service in balancing.services:
        if not service.servers or not _all_ours(cluster, service):
            continue
        own = "|".join(word(s.name).replace(".", r"\\.") for s in service.servers)
        only = f',instance=~"(?i:{own})"' if service.destinations == "signer" else ""
        # One rule a service, because metrics that nobody is there to say would make none that says 0.
        yield Alert(
            "MusterServiceDown",
            f'sum(muster_service_ready{{@,service="{word(service.name)}"{only}}} or vector(0)) == 0',
            "1m",
            "critical",
            f"No member is ready for {word(service.name)}.",
            "muster status says why each is not; muster doctor says what mends it.",
            (("service", word(service.name)),),
        )


def _all_ours(cluster: ClusterFile, service: Service) -> bool:
    """Whether members' own metrics speak of every server: Ruby members have none."""
    ours = {m.name.lower() for m in cluster.members if m.kind == "muster"}
    return all(s.name.lower() in ours for s in service.servers)


def _one_of(services: Sequence[Service]) -> str:
    return "|".join(word(s.name) for s in services)


_OF_ALL = (
    Alert(
        "MusterStoreDown",
        "muster_store_up{@} == 0",
        "2m",
        "critical",
        "Member {{ $labels.instance }} does not reach the store: nothing can be drained, and logs are not shared.",
        "muster doctor says what the store answers; services go on meanwhile.",
    ),
    Alert(
        "MusterParityDrift",
        "muster_parity_drift{@} > 0",
        "15m",
        "warning",
        "Member {{ $labels.instance }} differs from most in {{ $value }} fields.",
        "muster parity names the fields.",
    ),
    Alert(
        "MusterCensusDrift",
        "max by (member) (muster_census_drift{@}) > 0",
        "15m",
        "warning",
        "Member {{ $labels.member }} differs from most in {{ $value }} fields, live ports included.",
        "muster parity names the fields.",
    ),
    Alert(
        "MusterCensusUnasked",
        "max by (member) (muster_census_unasked{@}) == 1",
        "15m",
        "warning",
        "Nobody could ask member {{ $labels.member }} what it is made of.",
        "muster parity says what came back.",
    ),
    Alert(
        "MusterCensusOld",
        # Taken about every five minutes, by whichever member has the role.
        "time() - max(muster_census_timestamp_seconds{@}) > 3600",
        "15m",
        "warning",
        "No member has compared all members for an hour.",
        "It needs the store: muster status; then the log of the members says what failed.",
    ),
    Alert(
        "MusterProviderUnavailable",
        "sum by (instance, contract, provider) "
        '(rate(muster_operation_seconds_count{@,outcome=~"Unavailable|NotAsked"}[5m])) > 0',
        "5m",
        "warning",
        "A server that {{ $labels.contract }} ({{ $labels.provider }}) on {{ $labels.instance }} needs does not answer.",
        "muster doctor names the server, and what it was asked.",
    ),
    Alert(
        "MusterProviderBehind",
        # Where files are looked at seldom (poll_s, at most 60), what is known is as old now and then.
        "muster_provider_lag_seconds{@} > 90",
        "5m",
        "warning",
        "What {{ $labels.instance }} knows of the server of {{ $labels.feature }} ({{ $labels.provider }}) is "
        "{{ $value }} s old.",
        "muster status has its note, with the reason.",
    ),
    Alert(
        "MusterRepairsStuck",
        # Every member counts the same rows.
        'max by (feature, provider) (muster_group_repairs{@,state="stuck"}) > 0',
        "5m",
        "warning",
        "{{ $labels.provider }} refused {{ $value }} changes of {{ $labels.feature }} that others of its group have had.",
        "muster repairs list says which and why; then muster repairs retry or drop (docs/admin/groups.md).",
    ),
    Alert(
        "MusterErrors",
        'sum by (instance, route) (rate(muster_request_seconds_count{@,status="500"}[5m])) > 0',
        "5m",
        "warning",
        "Member {{ $labels.instance }} answers {{ $labels.route }} with 500: a bug, or a wrong setting.",
        "Its log has the traceback under the request's id.",
    ),
    Alert(
        "MusterConnectionsRefused",
        "sum by (instance, why) (rate(muster_connections_refused_total{@}[5m])) > 1",
        "15m",
        "info",
        "Member {{ $labels.instance }} closes {{ $value | humanize }} connections a second unheard ({{ $labels.why }}).",
        "Its log says whom; the limits stand under edge in the cluster file.",
    ),
    Alert(
        "MusterLogRecordsLost",
        "rate(muster_log_records_unshared_total{@}[15m]) > 0",
        "15m",
        "info",
        "Member {{ $labels.instance }} logs more than can be shared: other members' /logs lack some of it.",
        "Its own /logs and its journal have them; log.level in the cluster file makes them fewer.",
    ),
    Alert(
        "MusterStorageNearlyFull",
        "max by (member, kind) (muster_storage_free_bytes{@} / muster_storage_total_bytes{@}) < 0.1",
        "10m",
        "warning",
        "Less than a tenth of the disk of {{ $labels.kind }} at member {{ $labels.member }} is free.",
        "Remove what nobody needs there, or give it more room.",
    ),
)
_OF_CERTIFICATES = (
    Alert(
        "MusterCertificateEnds",
        'max by (instance, what) (muster_expiry_alarm{@,days="7"}) == 1',
        "0s",
        "warning",
        "On {{ $labels.instance }} what is called {{ $labels.what }} ends within a week.",
        "muster certs show; then muster certs rotate, --ca for the CA, or muster certs issue --balancer.",
    ),
    Alert(
        "MusterCertificateEndsNow",
        'max by (instance, what) (muster_expiry_alarm{@,days="1"}) == 1',
        "0s",
        "critical",
        "On {{ $labels.instance }} what is called {{ $labels.what }} ends within a day.",
        "muster certs show; then muster certs rotate, --ca for the CA, or muster certs issue --balancer.",
    ),
)
_OF_CONTENT = (
    Alert(
        "MusterContentUnanswered",
        'sum by (instance, route) (rate(muster_request_seconds_count{@,route=~"/pulp.*|/rhsm.*|/v[12].*",'
        'status=~"50[234]"}[5m])) > 0',
        "5m",
        "warning",
        "Pulp, Foreman or the registry behind {{ $labels.route }} does not answer member {{ $labels.instance }}.",
        "muster status; on the member's host the state of Pulp's services.",
    ),
    Alert(
        "MusterContentWaiting",
        "max(muster_content_waiting_seconds{@}) > 900",
        "0s",
        "warning",
        "A newer version of a repository has not been shown for {{ $value | humanizeDuration }}.",
        "muster content status says what it waits for.",
    ),
    Alert(
        "MusterContentBehind",
        "muster_content_behind{@} > 0",
        "15m",
        "warning",
        "Member {{ $labels.instance }} is behind the others with {{ $value }} repositories.",
        "muster content status names them: its Pulp, or its disk, does not follow.",
    ),
    Alert(
        "MusterContentNearlyFull",
        "muster_content_kept_bytes{@} > 0.9 * muster_content_kept_limit_bytes{@}",
        "10m",
        "warning",
        "What content holds on the disk of member {{ $labels.instance }} is nearly all it may.",
        "Raise content.kept_bytes in the cluster file, or have fewer retention_days.",
    ),
    Alert(
        "MusterContentStagingFails",
        'sum by (instance) (rate(muster_content_stagings_total{@,outcome="failed"}[15m])) > 0',
        "15m",
        "warning",
        "Member {{ $labels.instance }} does not get versions of repositories to its disk.",
        "muster content status has the reason.",
    ),
    Alert(
        "MusterPulpUnreached",
        'sum by (instance) (rate(muster_content_polls_total{@,outcome="unreached"}[5m])) > 0',
        "10m",
        "warning",
        "Member {{ $labels.instance }} does not reach its own Pulp to ask for versions.",
        "On its host the state of Pulp's content application.",
    ),
)


def _of_puppet_ca(cluster: ClusterFile) -> Iterator[Alert]:
    # Members renew it 30 days before its end, or a fifth of its life if that is less: at half of that nobody did.
    days = cluster.authority.crl_ttl_days if cluster.authority is not None else 30
    left_s = int(min(30.0, days / 5) / 2 * _DAY_S)
    yield Alert(
        "MusterRevocationListOld",
        f"min(muster_puppet_ca_crl_expiry_timestamp_seconds{{@}}) - time() < {left_s:d}",
        "15m",
        "critical",
        "The Puppet CA's revocation list ends soon, and no member has renewed it: agents will refuse everybody.",
        "muster doctor: the key, or what holds it, cannot be reached.",
    )
    yield Alert(
        "MusterRevocationListsApart",
        "max(muster_puppet_ca_crl_number{@}) - min(muster_puppet_ca_crl_number{@}) > 0",
        "15m",
        "warning",
        "Members serve different revocation lists.",
        "muster status: they do not see the same store, or one does not reach it.",
    )
    yield Alert(
        "MusterPuppetCAAncestorEnds",
        f"min by (what, ca) (muster_puppet_ca_ancestor_expiry_timestamp_seconds{{@}}) - time() < {14 * _DAY_S:d}",
        "0s",
        "warning",
        "The {{ $labels.what }} of {{ $labels.ca }}, above the Puppet CA, ends within two weeks.",
        "Only its key makes another, which any member then takes from an administrator (docs/admin/puppet-ca.md).",
    )
    yield Alert(
        "MusterRequestsWaiting",
        "max(muster_puppet_ca_requests_waiting{@} / muster_puppet_ca_requests_waiting_limit{@}) > 0.8",
        "5m",
        "warning",
        "Soon no new host may ask for a certificate: {{ $value | humanizePercentage }} of those that may wait do.",
        "muster ca list --state requested.",
    )


def _of_balancers(balancing: Balancing) -> Iterator[Alert]:
    services = _one_of(balancing.services)
    yield Alert(
        "MusterBalancerDown",
        f'up{{@,job="muster-balancers-{word(balancing.cluster)}"}} == 0',
        "1m",
        "critical",
        "Balancer {{ $labels.instance }} does not answer.",
        "On its host: systemctl status muster-balancer, and journalctl -u muster-balancer.",
    )
    yield Alert(
        "MusterBalancerSeesNobody",
        f'haproxy_backend_active_servers{{@,proxy=~"{services}"}} == 0',
        "1m",
        "critical",
        "Balancer {{ $labels.instance }} has no member for {{ $labels.proxy }}.",
        "muster status beside it says whether members think so, too; if not, look at what lies between.",
    )
    yield Alert(
        "MusterServerDown",
        f'haproxy_server_status{{@,proxy=~"{services}",state="DOWN"}} == 1',
        "5m",
        "warning",
        "Balancer {{ $labels.instance }} leads nobody of {{ $labels.proxy }} to {{ $labels.server }}.",
        "muster status has the reason the member gives.",
    )
    yield Alert(
        "MusterBalancerGuesses",
        'sum by (instance, proxy) (rate(haproxy_backend_sessions_total{@,proxy=~".+_panic"}[5m])) > 0',
        "0s",
        "warning",
        "Balancer {{ $labels.instance }} leads clients to members that are not ready ({{ $labels.proxy }}).",
        "No member of the service is ready; muster status says why.",
    )
    yield Alert(
        "MusterBalancerNearlyFull",
        "haproxy_process_current_connections{@} > 0.8 * haproxy_process_max_connections{@}",
        "5m",
        "warning",
        "Balancer {{ $labels.instance }} holds more than four fifths of the connections it may.",
        "Raise maxconn of the balancer in the cluster file, if its memory allows.",
    )


def rules(balancing: Balancing, cluster: ClusterFile) -> dict[str, Any]:
    """Return the alerts as Prometheus reads them."""
    name = word(cluster.cluster)
    return {
        "groups": [
            {"name": f"muster-{name}-{group}", "rules": [a.of(name) for a in found]}
            for group, found in alerts(balancing, cluster).items()
        ]
    }


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:  # noqa: ARG001
    head = f"# Rendered by Muster {VERSION} for cluster {word(cluster.cluster)}.\n"
    keys = (
        f"# {_KEYS}/ca.pem is the cluster's CA; cert.pem and key.pem beside it: muster certs issue --client NAME.\n"
        if _watched(cluster)
        else ""
    )
    configuration = scraped(balancing, cluster)
    return (
        Document(_RULES, head + _yaml(rules(balancing, cluster)), "promtool"),
        Document(_CONFIGURATION, head + keys + _yaml(configuration), "promtool"),
    )


def _yaml(content: Any) -> str:
    return str(yaml.safe_dump(content, sort_keys=False, width=118))


def _as_json(balancing: Balancing, cluster: ClusterFile, site: Site) -> dict[str, Any]:  # noqa: ARG001
    return {"configuration": scraped(balancing, cluster), "rules": rules(balancing, cluster)}


async def _accepted(directory: Path, documents: Sequence[Document]) -> None:
    promtool = consumer.found("promtool", "install the package prometheus")
    for document in documents:
        # Not the whole configuration's check: it looks for keys, which are where Prometheus runs.
        about = ("config", "--syntax-only") if document.name == _CONFIGURATION else ("rules",)
        await consumer.accepted([promtool, "check", *about, directory / document.name])


OUTPUT = Output(
    word="prometheus",
    help="Render Prometheus's configuration for members' and balancers' metrics, and rules that say what is worth an alert.",
    goes=(
        "`/etc/prometheus` of the host that watches: the rules as they are, the sections of `prometheus.yml` into what "
        "stands there; then `systemctl reload prometheus`."
    ),
    rendered=_documents,
    as_json=_as_json,
    check=Trial("promtool", "Ask promtool what it thinks of them; it does not look for the keys.", _accepted),
    in_directory=True,
    output_help="Write them to this directory instead of showing them.",
)
