from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from muster.edge import metrics
from muster.edge.metrics import EdgeMetrics
from muster.edge.routes import Access
from muster.kernel.rings import LogRecord, LogRings
from tests.unit.edge.calls import request


async def exposed(counted: EdgeMetrics) -> dict[str, float]:
    text = (await counted.exposition()).decode()
    return {
        s.name + str(sorted(s.labels.items())): s.value for f in text_string_to_metric_families(text) for s in f.samples
    }


async def test_requests_are_counted_by_method_route_and_status() -> None:
    counted = EdgeMetrics(CollectorRegistry())
    counted.observe("GET", "/dns/{value}", 200, 0.004)
    counted.observe("GET", "/dns/{value}", 200, 0.3)
    counted.observe("GET", "/dns/{value}", 503, 0.3)
    shown = await exposed(counted)
    labels = [("method", "GET"), ("route", "/dns/{value}"), ("status", "200")]
    assert shown[f"muster_request_seconds_count{labels}"] == 2
    assert shown[f"muster_request_seconds_bucket{sorted([('le', '0.005'), *labels])}"] == 1


async def test_what_changes_between_scrapes_is_refreshed_before_each() -> None:
    counted = EdgeMetrics(CollectorRegistry())
    assert (await exposed(counted))["muster_store_up[]"] == 0
    counted.on_scrape(lambda: counted.store_up.inc())
    assert (await exposed(counted))["muster_store_up[]"] == 1
    assert (await exposed(counted))["muster_store_up[]"] == 2


async def test_log_records_that_were_not_shared_are_counted() -> None:
    counted, rings = EdgeMetrics(CollectorRegistry()), LogRings(size=2)
    counted.follow(rings)
    assert (await exposed(counted))["muster_log_records_unshared_total[]"] == 0
    for n in range(5):
        rings.add(LogRecord(float(n), "INFO", "said"))
    assert (await exposed(counted))["muster_log_records_unshared_total[]"] == 3


async def test_what_workers_count_stands_beside_it_with_their_number() -> None:
    counted, worker = EdgeMetrics(CollectorRegistry()), EdgeMetrics(CollectorRegistry())
    for which, calls in ((counted, 1), (worker, 3)):
        for _ in range(calls):
            which.observe("GET", "/pulp/content", 200, 0.004)
        which.certificate_alarm.labels("30").set(1)
    Gauge("process_open_fds", "Descriptors", registry=worker.registry).set(7)

    async def told() -> dict[str, str]:
        return {"2": generate_latest(worker.registry).decode()}

    counted.with_workers(told)
    for _ in range(2):
        shown = await exposed(counted)
        labels = [("method", "GET"), ("route", "/pulp/content"), ("status", "200")]
        assert shown[f"muster_request_seconds_count{labels}"] == 1
        assert shown[f"muster_request_seconds_count{[*labels, ('worker', '2')]}"] == 3
        assert shown["process_open_fds[('worker', '2')]"] == 7
        assert [name for name in shown if name.startswith("muster_certificate_alarm")] == [
            "muster_certificate_alarm[('days', '30')]"
        ]


async def test_the_answer_is_labelled_as_prometheus_expects() -> None:
    answer = await metrics.metrics(EdgeMetrics(CollectorRegistry()), request())
    assert dict(answer.headers)[b"content-type"].startswith(b"text/plain; version=")
    assert b"muster_store_up 0.0" in answer.body


def test_metrics_are_for_the_cluster_only() -> None:
    assert metrics.MOUNT.access is Access.CLUSTER


async def test_what_ends_is_shown_with_its_alarms_and_goes_when_it_is_no_longer_known() -> None:
    counted = EdgeMetrics(CollectorRegistry())
    now = datetime(2026, 1, 1, tzinfo=UTC)
    soon, later = now + timedelta(days=6), now + timedelta(days=400)
    counted.show_ends({"member": later, "balancer-check": soon}, now)
    shown = await exposed(counted)
    assert shown["muster_expiry_timestamp_seconds[('what', 'balancer-check')]"] == soon.timestamp()
    alarms = {k: v for k, v in shown.items() if k.startswith("muster_expiry_alarm")}
    assert {k for k, v in alarms.items() if v} == {
        f"muster_expiry_alarm[('days', '{d}'), ('what', 'balancer-check')]" for d in (30, 7)
    }
    assert len(alarms) == 6
    counted.show_ends({"member": later}, now)
    assert not [k for k in await exposed(counted) if "balancer-check" in k]


async def test_a_reason_that_still_holds_is_never_gone_for_a_moment() -> None:
    counted = EdgeMetrics(CollectorRegistry())
    counted.judge({"puppet": "disk full", "smartproxy": "it drains"})
    shown = counted.unready.labels("puppet", "disk full")
    counted.judge({"puppet": "disk full", "smartproxy": ""})
    assert counted.unready.labels("puppet", "disk full") is shown
    reasons = [name for name in await exposed(counted) if name.startswith("muster_service_unready")]
    assert reasons == [f"muster_service_unready{[('reason', 'disk full'), ('service', 'puppet')]}"]
