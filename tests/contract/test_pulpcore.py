"""The Pulpcore feature on a real Pulp, through a real member."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import member, pulp
from tests.servers.client import ask, tls_client
from tests.servers.member import TRUSTED, Member
from tests.servers.pulp import Pulp

PASSWORD = "s3cret-of-pulp"
CONTENT = "https://proxy.example.com/pulp/content"


@pytest.fixture(scope="module")
def one(needs: Callable[[str], None]) -> Iterator[Pulp]:
    needs("pulp")
    with pulp.running("told", address="127.0.0.64") as running:
        yield running


def url(of: Pulp) -> str:
    return f"http://{of.address}:{of.api_port}"


@pytest.fixture(scope="module")
def proxy(one: Pulp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    pulpcore = {
        "pulp_url": url(one), "content_app_url": CONTENT, "mirror": True, "enabled": True, "username": "admin",
        "password": PASSWORD, "readiness": "essential",
    }  # fmt: skip
    with member.running(tmp_path_factory.mktemp("pulpcore"), features={"pulpcore": pulpcore}) as running:
        yield running


def told(proxy: Member, path: str = "/v2/features", name: str | None = TRUSTED) -> Any:
    answer = proxy.ask("GET", path, name=name)
    assert answer.status == 200, answer.text
    return json.loads(answer.text)


def test_foreman_hears_where_pulp_is_and_what_it_can_do(proxy: Member, one: Pulp) -> None:
    entry = told(proxy)["pulpcore"]
    assert entry["state"] == "running"
    assert entry["settings"] == {
        "pulp_url": url(one), "mirror": True, "content_app_url": CONTENT, "username": "admin", "password": PASSWORD,
        "client_authentication": ["password", "client_certificate"], "rhsm_url": None,
    }  # fmt: skip
    assert {"core", "rpm", "deb", "container"} <= set(entry["capabilities"])
    assert entry["capabilities"] == sorted(v["component"] for v in one.api.get("status/")["versions"])
    assert "pulpcore" in told(proxy, "/features", None)


def test_the_password_is_for_trusted_hosts_with_a_certificate(proxy: Member) -> None:
    assert proxy.ask("GET", "/v2/features", name=None).status == 403
    assert proxy.ask("GET", "/v2/features", name="agent.example.com").status == 403
    for path in ("/features", "/version", "/pulpcore/status", "/pulp/api/v3/smart_proxy/features"):
        assert PASSWORD not in proxy.ask("GET", path, name=None).text
    assert PASSWORD not in (proxy.directory / "store.db").read_bytes().decode("latin-1")
    assert not [line for line in proxy.access_lines if PASSWORD in line]


def test_the_status_is_pulps_for_anybody(proxy: Member, one: Pulp) -> None:
    answer = ask(proxy.https, "GET", "/pulpcore/status", tls=tls_client(proxy.ca))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    said, own = json.loads(answer.text), one.api.get("status/")
    assert said["versions"] == own["versions"]
    assert said["storage"]["total"] == own["storage"]["total"]


def test_pulps_own_record_is_answered_beside(proxy: Member) -> None:
    below = "/pulp/api/v3/smart_proxy"
    assert told(proxy, f"{below}/features", None) == ["pulpcore"]
    assert told(proxy, f"{below}/v2/features") == {"pulpcore": told(proxy)["pulpcore"]}
    assert list(told(proxy, f"{below}/version", None)["modules"]) == ["pulpcore"]
    assert proxy.ask("GET", f"{below}/v2/features", name=None).status == 403


def test_a_pulp_that_is_away_leaves_what_it_can_and_says_so(proxy: Member, one: Pulp) -> None:
    capabilities = told(proxy)["pulpcore"]["capabilities"]
    one.end("api")
    try:
        # What Pulp said last is told for two seconds.
        end = time.monotonic() + 30
        while (answer := proxy.ask("GET", "/pulpcore/status", name=None)).status == 200:
            assert time.monotonic() < end, answer.text
            time.sleep(0.2)
        assert answer.status == 503
        assert answer.text.startswith(f"Communication error with '{one.address}': ")
        assert told(proxy)["pulpcore"]["capabilities"] == capabilities
    finally:
        one.start()


def test_a_member_without_the_feature_says_503_and_nothing_of_it(tmp_path: Path) -> None:
    with member.running(tmp_path) as plain:
        assert "pulpcore" not in told(plain)
        assert plain.ask("GET", "/pulpcore/status").status == 503
        assert plain.ask("GET", "/pulp/api/v3/smart_proxy/v2/features").status == 503
