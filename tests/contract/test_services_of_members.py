"""The services register with real members: what they find out, what Ruby members tell, and what a change does at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.cli.demo.bind import free_port
from muster.kernel.files import write_atomically
from muster.pki import bundles
from muster.pki.bundles import BundleRequest
from tests.servers import member, pulp, ruby
from tests.servers.client import PATIENCE_S, Answer, Place, ask
from tests.servers.local import muster
from tests.servers.member import CLUSTER_ADDRESS, TRUSTED, Member
from tests.servers.pulp import Pulp
from tests.servers.ruby import RubyProxy, feature

OLD, CONTAINER = "old.example.com", "container.example.com"
PASSWORD = "s3cret-of-pulp"
TOLD: dict[str, Any] = {
    "pulp_url": "https://old.example.com", "content_app_url": "https://proxy.example.com/pulp/content", "mirror": True,
    "username": "admin", "password": PASSWORD, "rhsm_url": "https://proxy.example.com/rhsm",
}  # fmt: skip
STATUS = {"versions": [], "storage": {"total": 1000, "used": 950, "free": 50}}


def told(proxy: Member, path: str = "/services") -> Any:
    answer = proxy.ask("GET", path)
    assert answer.status == 200, answer.text
    return json.loads(answer.text)


def sent(
    proxy: Member, method: str, path: str, content: Any = None, *, version: int, name: str | None = TRUSTED
) -> Answer:
    body = json.dumps(content).encode() if content is not None else b""
    return ask(proxy.https, method, path, tls=proxy.tls(name), body=body, headers={"If-Match": f'"{version}"'})


def waited(found: Callable[[], Any]) -> Any:
    limit = time.monotonic() + PATIENCE_S
    while not (value := found()):
        assert time.monotonic() < limit, "it never came"
        time.sleep(0.1)
    return value


@pytest.fixture
def among_rubys(tmp_path: Path) -> Iterator[Member]:
    """A member of ours beside a Ruby proxy, and one in containers, whose Pulp answers for itself on 443."""
    ours = member.made(tmp_path)
    at = {OLD: "127.0.2.21", CONTAINER: "127.0.2.22"}
    own = free_port(at[CONTAINER])
    content = yaml.safe_load(ours.cluster_file.read_text())
    content["members"] += [
        {"id": 4000 + n, "name": name, "address": address, "kind": "foreman"}
        for n, (name, address) in enumerate(at.items())
    ]
    content["services"]["https"] = {"member_port": own, "check": "tcp"}
    write_atomically(ours.cluster_file, yaml.safe_dump(content))
    old = RubyProxy(Place(at[OLD], ours.https.port), ours.name)
    old.features = {"pulpcore": {**feature(**TOLD), "capabilities": ["core", "rpm"]}, "logs": feature()}
    old.raw["/pulpcore/status"] = (200, json.dumps(STATUS))
    container = RubyProxy(Place(at[CONTAINER], ours.https.port), ours.name, features={"logs": feature()})
    of_pulp = RubyProxy(Place(at[CONTAINER], own), ours.name)
    of_pulp.raw["/pulp/api/v3/smart_proxy/v2/features"] = (200, json.dumps({"pulpcore": feature(**TOLD)}))
    with ExitStack() as stack:
        for proxy, name in ((old, OLD), (container, CONTAINER), (of_pulp, CONTAINER)):
            bundle = ours.authority.issue(BundleRequest("member", name, (CLUSTER_ADDRESS,)), now=datetime.now(UTC))
            stack.enter_context(ruby.running(proxy, bundles.write(bundle, ours.pki), ours.ca))
        ours.start()
        stack.callback(ours.stop)
        yield ours


def test_ruby_members_features_are_entries_of_their_own_without_passwords(among_rubys: Member) -> None:
    def both() -> dict[str, Any] | None:
        of_members = {k: v for k, v in told(among_rubys).items() if "@" in k}
        return of_members if len(of_members) >= 2 else None

    found = waited(both)
    assert {n: s["source"] for n, s in found.items()} == {
        f"pulp@{OLD}": f"features of {OLD}",
        f"pulp@{CONTAINER}": f"features of {CONTAINER}'s Pulp",
    }
    one = found[f"pulp@{OLD}"]
    assert (one["control_url"], one["client_urls"]) == (TOLD["pulp_url"], {"any": TOLD["content_app_url"]})
    facts = {f["name"]: f["value"] for f in one["facts"]}
    assert (facts["mirror"], facts["capabilities"], facts["storage_free_bytes"]) == (True, ["core", "rpm"], 50)
    # The other one says nothing of its disk, which is no error.
    assert not [f for f in found[f"pulp@{CONTAINER}"]["facts"] if f["name"].startswith("storage")]
    assert PASSWORD not in (among_rubys.directory / "store.db").read_bytes().decode("latin-1")
    metrics = among_rubys.ask("GET", "/metrics").text
    assert f'muster_storage_free_bytes{{kind="pulp",member="{OLD}"}} 50.0' in metrics
    assert f'member="{CONTAINER}"' not in metrics


def test_the_doctor_and_show_say_that_a_disk_is_nearly_full(among_rubys: Member) -> None:
    waited(lambda: f"pulp@{OLD}" in told(among_rubys))
    place = ("--cluster", str(among_rubys.cluster_file))
    write_atomically(among_rubys.pki / "ca.pem", among_rubys.ca.read_bytes())
    said = muster("doctor", "--json", *place, "--pki", str(among_rubys.pki))
    (short,) = [f for f in json.loads(said.out)["findings"] if f["code"] == "SERVICE-STORAGE"]
    assert (short["severity"], short["place"]) == ("warning", f"pulp of {OLD}")
    assert "5 %" in short["sentence"]
    shown = muster("services", "show", f"pulp@{OLD}", *place)
    assert "storage_free_bytes: 0.0 GiB" in shown.out
    assert f"features of {OLD}" in shown.out


@pytest.fixture(scope="module")
def one(needs: Callable[[str], None]) -> Iterator[Pulp]:
    needs("pulp")
    with pulp.running("moves", address="127.0.0.65") as running:
        yield running


def test_a_pulp_that_moves_is_told_and_asked_at_once(one: Pulp, tmp_path: Path) -> None:
    there, nowhere = f"http://{one.address}:{one.api_port}", f"http://127.0.0.66:{free_port('127.0.0.66')}"
    settings = {"pulp_url": nowhere, "content_app_url": "https://proxy.example.com/pulp/content"}
    with member.running(tmp_path, features={"pulpcore": settings}) as proxy:
        assert proxy.ask("GET", "/pulpcore/status").status == 503
        assert told(proxy, "/v2/features")["pulpcore"]["capabilities"] == []
        assert sent(proxy, "PUT", "/services/pulp", {"control_url": there}, version=1).status == 412
        assert sent(proxy, "PUT", "/services/pulp", {"control_url": there}, version=0, name="agent.test").status == 403
        done = sent(proxy, "PUT", "/services/pulp", {"control_url": there, "weight": "essential"}, version=0)
        assert (done.status, done.headers["etag"]) == (200, '"1"')
        entry = told(proxy, "/v2/features")["pulpcore"]
        assert entry["settings"]["pulp_url"] == there
        assert {"core", "rpm"} <= set(entry["capabilities"])
        assert proxy.ask("GET", "/pulpcore/status").status == 200
        facts = waited(lambda: {f["name"]: f for f in told(proxy, "/services/pulp")["facts"]})
        assert facts["storage_total_bytes"]["value"] == one.api.get("status/")["storage"]["total"]
        assert (facts["versions"]["member"], facts["versions"]["source"]) == (proxy.name, f"asked by {proxy.name}")
        # Back where nobody is: now that is the whole member's matter.
        at = {"control_url": nowhere, "client_urls": {"any": "https://elsewhere.example.com/pulp/content"}}
        assert sent(proxy, "PUT", "/services/pulp", at, version=1).status == 200
        entry = told(proxy, "/v2/features")["pulpcore"]
        assert entry["settings"]["content_app_url"] == "https://elsewhere.example.com/pulp/content"
        assert {"core", "rpm"} <= set(entry["capabilities"])
        waited(lambda: proxy.ask("GET", "/health/ready?service=smartproxy", name=None).status == 503)
        assert sent(proxy, "DELETE", "/services/pulp", version=2).status == 200
        waited(lambda: proxy.ask("GET", "/health/ready?service=smartproxy", name=None).status == 200)
        assert told(proxy, "/v2/features")["pulpcore"]["settings"]["content_app_url"] == settings["content_app_url"]
