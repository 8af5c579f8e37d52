"""What Prometheus and Grafana are told: promtool reads it, each alert fires when it shall, and every metric there is one."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from click.testing import CliRunner

from muster.app.offers import modelled
from muster.balancer.haproxy import binary as binaries
from muster.balancer.haproxy import render as haproxy
from muster.balancer.haproxy.engine import HAProxyEngine
from muster.balancer.haproxy.render import RuntimePaths
from muster.cli import muster
from muster.cluster.file import ClusterFile
from muster.derived import grafana, prometheus
from muster.kernel.settings import parse
from tests.servers import member
from tests.servers.haproxy import Pki, executables, free_ports

CLUSTER = """\
schema: 1
cluster: demo
address: cluster.test
store: {url: "sqlite:////nowhere/x.db"}
members:
- {id: 1, name: proxy01.test, address: 10.231.7.21}
- {id: 2, name: proxy02.test, address: 10.231.7.22}
- {id: 3, name: proxy03.test, address: 10.231.7.23}
balancers:
- {name: lb1, address: 10.231.7.11, metrics_port: 8405}
authority: {}
content: {}
"""
_VALUE = re.compile(r"\{\{ \$value[^}]*\}\}")
MEMBERS = ("proxy01.test", "proxy02.test", "proxy03.test")
SERVICES = ("http", "https", "anaconda", "puppet", "puppetca", "smartproxy")
# One sample a minute, and the question is put after two hours.
SAMPLES, ASKED_AFTER = 125, "2h"


def series(name: str, instance: str = "proxy02.test", **labels: str) -> str:
    job = "muster-balancers-demo" if instance == "lb1" else "muster-demo"
    given = {"cluster": "demo", "job": job, "instance": instance, **labels}
    pairs = ",".join(f'{k}="{v}"' for k, v in sorted(given.items()))
    return f"{name}{{{pairs}}}"


def always(value: float) -> str:
    return f"{value:g}x{SAMPLES}"


def rising(by: float, start: float = 0) -> str:
    return f"{start:g}+{by:g}x{SAMPLES}"


FAR = always(4e9)


def healthy() -> dict[str, str]:
    """What a cluster says in which nothing is wrong."""
    said = {series("up", "lb1"): always(1)}
    for one in MEMBERS:
        said |= {series("muster_service_ready", one, service=s): always(1) for s in SERVICES}
        said |= {series("muster_expiry_alarm", one, what="member", days=d): always(0) for d in ("30", "7", "1")}
        said |= {
            series("up", one): always(1),
            series("muster_store_up", one): always(1),
            series("muster_parity_drift", one): always(0),
            # Each follows the others in the role, which one of them has; the clock is at as many seconds.
            series("muster_census_timestamp_seconds", one): rising(60) if one == "proxy01.test" else always(0),
            series("muster_census_drift", "proxy01.test", member=one): always(0),
            series("muster_census_unasked", "proxy01.test", member=one): always(0),
            series("muster_operation_seconds_count", one, **DNS, outcome="ok"): rising(60),
            series("muster_operation_seconds_count", one, **DNS, outcome="Unavailable"): always(3),
            series("muster_request_seconds_count", one, route="/dns/{value}", status="200"): rising(60),
            series("muster_request_seconds_count", one, route="/dns/{value}", status="500"): always(2),
            series("muster_request_seconds_count", one, route="/pulp/content", status="502"): always(2),
            series("muster_connections_refused_total", one, listener="https", why="no TLS"): rising(30),
            series("muster_log_records_unshared_total", one): always(0),
            series("muster_storage_total_bytes", one, kind="pulp", member=one): always(1000),
            series("muster_storage_free_bytes", one, kind="pulp", member=one): always(500),
            series("muster_puppet_ca_crl_expiry_timestamp_seconds", one): FAR,
            series("muster_puppet_ca_crl_number", one): always(7),
            series("muster_puppet_ca_ancestor_expiry_timestamp_seconds", one, what="list", ca="Root"): FAR,
            series("muster_puppet_ca_requests_waiting", one): always(10),
            series("muster_puppet_ca_requests_waiting_limit", one): always(100),
            series("muster_provider_lag_seconds", one, feature="dhcp", provider="isc"): always(2),
            series("muster_content_waiting_seconds", one): always(30),
            series("muster_content_behind", one): always(0),
            series("muster_content_kept_bytes", one): always(50),
            series("muster_content_kept_limit_bytes", one): always(100),
            series("muster_content_stagings_total", one, outcome="failed"): always(1),
            series("muster_content_polls_total", one, outcome="unreached"): always(1),
        }
    for proxy in SERVICES:
        said[series("haproxy_backend_active_servers", "lb1", proxy=proxy)] = always(3)
        said[series("haproxy_backend_active_servers", "lb1", proxy=f"{proxy}_panic")] = always(3)
        said[series("haproxy_backend_sessions_total", "lb1", proxy=proxy)] = rising(60)
        said[series("haproxy_backend_sessions_total", "lb1", proxy=f"{proxy}_panic")] = always(4)
        for server in MEMBERS:
            status = series("haproxy_server_status", "lb1", proxy=proxy, server=server, state="DOWN")
            said[status] = always(0)
    said[series("haproxy_process_current_connections", "lb1")] = always(100)
    said[series("haproxy_process_max_connections", "lb1")] = always(4000)
    return said


DNS = {"contract": "DNSProvider", "operation": "add", "provider": "nsupdate"}
TARGET = {"instance": "proxy02.test", "job": "muster-demo"}
BALANCER = {"instance": "lb1", "job": "muster-balancers-demo"}


@dataclass(frozen=True)
class Case:
    """What is wrong, and the one alert it makes.

    Attributes:
        said: what is said instead of what :func:`healthy` has; an empty value: nothing at all.
        labels: the alert's, beside the cluster and the severity.
        value: as its text has it, where it has one.
        also: other alerts of the same cause.
    """

    said: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)
    value: str = ""
    also: tuple[str, ...] = ()


CASES = {
    "MusterMemberDown": Case({series("up"): always(0)}, TARGET),
    "MusterMemberOut": Case(
        {series("muster_service_ready", service=s): always(0) for s in SERVICES}, {"instance": "proxy02.test"}
    ),
    "MusterServiceUnready": Case(
        {series("muster_service_ready", service="puppet"): always(0)}, {**TARGET, "service": "puppet"}
    ),
    "MusterServiceShort": Case(
        {series("muster_service_ready", m, service="puppet"): always(0) for m in MEMBERS[:2]},
        {"service": "puppet"},
        "1",
        also=("MusterServiceUnready",),
    ),
    "MusterServiceDown": Case(
        {series("muster_service_ready", m, service="puppet"): "" for m in MEMBERS}, {"service": "puppet"}
    ),
    "MusterStoreDown": Case({series("muster_store_up"): always(0)}, TARGET),
    "MusterParityDrift": Case({series("muster_parity_drift"): always(2)}, TARGET, "2"),
    "MusterCensusDrift": Case(
        {series("muster_census_drift", "proxy01.test", member="proxy03.test"): always(3)},
        {"member": "proxy03.test"},
        "3",
    ),
    "MusterCensusUnasked": Case(
        {series("muster_census_unasked", "proxy01.test", member="proxy03.test"): always(1)}, {"member": "proxy03.test"}
    ),
    "MusterCensusOld": Case({series("muster_census_timestamp_seconds", "proxy01.test"): always(600)}),
    "MusterProviderUnavailable": Case(
        {series("muster_operation_seconds_count", **DNS, outcome="Unavailable"): rising(1)},
        {"instance": "proxy02.test", "contract": "DNSProvider", "provider": "nsupdate"},
    ),
    "MusterProviderBehind": Case(
        {series("muster_provider_lag_seconds", feature="dhcp", provider="isc"): always(120)},
        {**TARGET, "feature": "dhcp", "provider": "isc"},
        "120",
    ),
    "MusterRepairsStuck": Case(
        {series("muster_group_repairs", feature="dns", provider="ns2", state="stuck"): always(2)},
        {"feature": "dns", "provider": "ns2"},
        "2",
    ),
    "MusterErrors": Case(
        {series("muster_request_seconds_count", route="/dns/{value}", status="500"): rising(1)},
        {"instance": "proxy02.test", "route": "/dns/{value}"},
    ),
    "MusterConnectionsRefused": Case(
        {series("muster_connections_refused_total", listener="https", why="no TLS"): rising(120)},
        {"instance": "proxy02.test", "why": "no TLS"},
        "2",
    ),
    "MusterLogRecordsLost": Case({series("muster_log_records_unshared_total"): rising(1)}, TARGET),
    "MusterStorageNearlyFull": Case(
        {series("muster_storage_free_bytes", kind="pulp", member="proxy02.test"): always(50)},
        {"member": "proxy02.test", "kind": "pulp"},
    ),
    "MusterCertificateEnds": Case(
        {series("muster_expiry_alarm", what="member", days="7"): always(1)},
        {"instance": "proxy02.test", "what": "member"},
    ),
    "MusterCertificateEndsNow": Case(
        {series("muster_expiry_alarm", what="member", days="1"): always(1)},
        {"instance": "proxy02.test", "what": "member"},
    ),
    "MusterRevocationListOld": Case(
        {series("muster_puppet_ca_crl_expiry_timestamp_seconds"): always(7200 + 14 * 86400)}
    ),
    "MusterRevocationListsApart": Case({series("muster_puppet_ca_crl_number"): always(6)}),
    "MusterPuppetCAAncestorEnds": Case(
        {
            series("muster_puppet_ca_ancestor_expiry_timestamp_seconds", what="list", ca="Root"): always(
                7200 + 13 * 86400
            )
        },
        {"what": "list", "ca": "Root"},
    ),
    "MusterRequestsWaiting": Case({series("muster_puppet_ca_requests_waiting"): always(85)}, value="85%"),
    "MusterContentUnanswered": Case(
        {series("muster_request_seconds_count", route="/pulp/content", status="502"): rising(1)},
        {"instance": "proxy02.test", "route": "/pulp/content"},
    ),
    "MusterContentWaiting": Case({series("muster_content_waiting_seconds"): always(960)}, value="16m 0s"),
    "MusterContentBehind": Case({series("muster_content_behind"): always(4)}, TARGET, "4"),
    "MusterContentNearlyFull": Case({series("muster_content_kept_bytes"): always(95)}, TARGET),
    "MusterContentStagingFails": Case(
        {series("muster_content_stagings_total", outcome="failed"): rising(1)}, {"instance": "proxy02.test"}
    ),
    "MusterPulpUnreached": Case(
        {series("muster_content_polls_total", outcome="unreached"): rising(1)}, {"instance": "proxy02.test"}
    ),
    "MusterBalancerDown": Case({series("up", "lb1"): always(0)}, BALANCER),
    "MusterBalancerSeesNobody": Case(
        {series("haproxy_backend_active_servers", "lb1", proxy="puppet"): always(0)}, {**BALANCER, "proxy": "puppet"}
    ),
    "MusterServerDown": Case(
        {series("haproxy_server_status", "lb1", proxy="puppet", server="proxy03.test", state="DOWN"): always(1)},
        {**BALANCER, "proxy": "puppet", "server": "proxy03.test", "state": "DOWN"},
    ),
    "MusterBalancerGuesses": Case(
        {series("haproxy_backend_sessions_total", "lb1", proxy="puppet_panic"): rising(1)},
        {"instance": "lb1", "proxy": "puppet_panic"},
    ),
    "MusterBalancerNearlyFull": Case({series("haproxy_process_current_connections", "lb1"): always(3300)}, BALANCER),
}


def file() -> ClusterFile:
    return parse(CLUSTER).parsed(ClusterFile)


def rendered() -> dict[str, Any]:
    return prometheus.rules(modelled(file()), file())


def rules() -> list[dict[str, Any]]:
    return [rule for group in rendered()["groups"] for rule in group["rules"]]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120, check=False)


def expected(name: str, case: Case) -> dict[str, Any]:
    """Return the alert as promtool compares it: all its labels, and its texts with them."""
    wanted = [r for r in rules() if r["alert"] == name]
    rule = next((r for r in wanted if r["labels"].get("service") == case.labels.get("service")), wanted[0])
    labels = {**rule["labels"], **case.labels}
    texts = {}
    for key, text in rule["annotations"].items():
        for label, value in labels.items():
            text = text.replace(f"{{{{ $labels.{label} }}}}", value)
        texts[key] = _VALUE.sub(case.value, text)
        assert "{{" not in texts[key], texts[key]
    return {"exp_labels": labels, "exp_annotations": texts}


def question(said: Mapping[str, str], alerts: Mapping[str, list[dict[str, Any]]], but: tuple[str, ...] = ()) -> Any:
    """Return what promtool is asked: given what is said, do these alerts fire and no others, but for those not looked at?"""
    given = {**healthy(), **said}
    return {
        "interval": "1m",
        "input_series": [{"series": s, "values": v} for s, v in given.items() if v],
        "alert_rule_test": [
            {"eval_time": ASKED_AFTER, "alertname": name, "exp_alerts": alerts.get(name, [])}
            for name in sorted({r["alert"] for r in rules()} - {*but})
        ],
    }


def test_every_alert_has_a_case() -> None:
    assert {r["alert"] for r in rules()} == set(CASES)


def test_each_alert_fires_once_for_its_cause_and_no_other_does(needs: Callable[[str], None], tmp_path: Path) -> None:
    needs("promtool")
    causes = [question(c.said, {name: [expected(name, c)]}, c.also) for name, c in CASES.items()]
    # In a cluster that is well none does.
    assert asked(tmp_path, question({}, {}), *causes) == ""


@pytest.mark.parametrize("spoilt", [{series("up"): always(1)}, {series("up", m): always(0) for m in MEMBERS}])
def test_an_alert_that_does_not_fire_or_does_twice_is_seen(
    needs: Callable[[str], None], tmp_path: Path, spoilt: dict[str, str]
) -> None:
    needs("promtool")
    name = "MusterMemberDown"
    assert name in asked(tmp_path, question(spoilt, {name: [expected(name, CASES[name])]}))


def asked(directory: Path, *questions: Any) -> str:
    """Return what promtool complains of; empty: all is as expected."""
    (directory / "rules.yml").write_text(yaml.safe_dump(rendered()))
    tests = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": list(questions)}
    (directory / "tests.yml").write_text(yaml.safe_dump(tests))
    said = promtool("test", "rules", directory / "tests.yml")
    return "" if said.returncode == 0 else said.stdout + said.stderr


METRIC = re.compile(r"\b([a-z_]+)\{")
# Prometheus's own, of what it asks and of alerts.
OWN = {"up", "ALERTS"}


def expressions() -> list[str]:
    """Every expression of every output, as Prometheus would be asked."""
    of_rules = [str(rule["expr"]) for rule in rules()]
    shown = grafana.dashboard(modelled(file()), file())["panels"]
    of_panels = [str(t["expr"]) for panel in shown for t in panel.get("targets", ())]
    return of_rules + [e.replace("$__rate_interval", "5m").replace("$cluster", "demo") for e in of_panels]


def families(text: str) -> set[str]:
    """The names of samples that an exposition may hold, those of families that have none yet among them."""
    found = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        found |= {f"{name}_bucket", f"{name}_count", f"{name}_sum"} if kind == "histogram" else {name}
    return found


def test_promtool_reads_every_expression(needs: Callable[[str], None], tmp_path: Path) -> None:
    needs("promtool")
    asked = [{"record": f"asked:{n}", "expr": e} for n, e in enumerate(expressions())]
    assert len(asked) > 80
    (tmp_path / "asked.yml").write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": asked}]}))
    said = promtool("check", "rules", tmp_path / "asked.yml")
    assert said.returncode == 0, said.stdout + said.stderr


def test_every_metric_of_members_is_one_that_a_member_has(tmp_path: Path) -> None:
    wanted = {name for e in expressions() for name in METRIC.findall(e)} - OWN
    own = member.made(tmp_path, authority={}, content={"services": ["https"], "pulp_content_url": "http://127.0.0.1:1"})
    content = yaml.safe_load(own.cluster_file.read_text())
    ports = dict(zip(("https", "puppetca"), free_ports(own.https.address, 2), strict=True))
    content["services"] |= {name: {"member_port": p} for name, p in ports.items()}
    content["authority"] = {"port": ports["puppetca"]}
    own.cluster_file.write_text(yaml.safe_dump(content))
    of_member = ["--cluster", str(own.cluster_file), "--pki", str(own.pki)]
    made = CliRunner().invoke(muster, ["ca", "init", "--key", "ec-p256", *of_member], catch_exceptions=False)
    assert made.exit_code == 0, made.output
    own.start()
    try:
        has = families(own.ask("GET", "/metrics").text)
    finally:
        own.stop()
    assert {n for n in wanted if not n.startswith("haproxy_")} - has == set()


@pytest.mark.anyio
async def test_every_metric_of_balancers_is_one_that_haproxy_has(needs: Callable[[str], None], tmp_path: Path) -> None:
    needs("haproxy")
    Pki.made(tmp_path / "pki")
    address = "127.0.0.33"
    names = [s.name for s in modelled(file()).services]
    metrics, *ports = free_ports(address, len(names) + 1)
    services = "".join(f"  {n}: {{listen_port: {p}}}\n" for n, p in zip(names, ports, strict=True))
    given = CLUSTER.replace("address: 10.231.7.11, metrics_port: 8405", f"address: {address}, metrics_port: {metrics}")
    of = parse(f"{given}services:\n{services}").parsed(ClusterFile)
    paths = RuntimePaths(tmp_path / "run", tmp_path / "pki")
    binary = next(path for path in executables().values() if path is not None)
    version = (await binaries.probed(binary)).version
    text = haproxy.rendered(modelled(of), which=of.balancers[0], runtime=paths, version=version)
    async with HAProxyEngine(paths, binary=binary, min_interval_s=0.0) as engine:
        await engine.apply(text)
        async with aiohttp.ClientSession() as http, http.get(f"http://{address}:{metrics}/metrics") as answer:
            shown = await answer.text()
    wanted = {name for e in expressions() for name in METRIC.findall(e) if name.startswith("haproxy_")}
    assert wanted - families(shown) == set()
    # By these the expressions tell servers and proxies apart.
    assert re.search(r'^haproxy_server_status\{proxy="puppet",server="proxy03\.test",state="DOWN"\} ', shown, re.M)
    assert re.search(r'^haproxy_backend_sessions_total\{proxy="puppet_panic"\} ', shown, re.M)
