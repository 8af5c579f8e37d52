"""Facts of a member's host, from a real Facter through a real member."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import member
from tests.servers.member import Member


@pytest.fixture(scope="module")
def proxy(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    needs("facter")
    with member.running(tmp_path_factory.mktemp("proxy"), features={"facts": {}}) as running:
        yield running


def test_facts_are_what_facter_says_names_from_before_included(proxy: Member) -> None:
    answer = proxy.ask("GET", "/facts")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    facts = json.loads(answer.body)
    said = subprocess.run(["facter", "os.name", "kernelrelease"], capture_output=True, timeout=60, check=False).stdout
    assert f"kernelrelease => {facts['kernelrelease']}\nos.name => {facts['os']['name']}\n" == said.decode()
    assert facts["osfamily"] == facts["os"]["family"]
    assert json.loads(proxy.ask("GET", "/facts/").body) == facts


def test_one_fact_is_found_by_its_name_or_its_path(proxy: Member) -> None:
    facts = json.loads(proxy.ask("GET", "/facts").body)
    for name, value in (("kernel", facts["kernel"]), ("os.family", facts["os"]["family"]), ("os", facts["os"])):
        assert json.loads(proxy.ask("GET", f"/facts/{name}").body) == {name: value}


@pytest.mark.parametrize("name", ["nonesuch", "os.nonesuch", "kernel.name", "a%0d%0ab", "--help"])
def test_a_fact_that_there_is_not_is_a_404(proxy: Member, name: str) -> None:
    answer = proxy.ask("GET", f"/facts/{name}")
    assert answer.status == 404


def test_facts_are_for_trusted_hosts(proxy: Member) -> None:
    for name in (None, "other.example.com"):
        assert proxy.ask("GET", "/facts", name=name).status == 403


def test_without_facter_the_feature_has_failed_and_says_how_to_get_it(tmp_path: Path) -> None:
    with member.running(tmp_path, features={"facts": {"facter": "/nonexistent/facter"}, "logs": {}}) as proxy:
        assert json.loads(proxy.ask("GET", "/v2/features").body)["facts"]["state"] == "failed"
        answer = proxy.ask("GET", "/facts")
        assert (answer.status, "/nonexistent/facter" in answer.text) == (503, True)
        assert json.loads(proxy.ask("GET", "/features").body) == ["logs"]
