from __future__ import annotations

import json

import pytest

from tests.unit.cluster.written import SHARED, SMALL, parsed, schema_problems


@pytest.mark.parametrize("address", ["127.0.0.256", "192.0.2", "192.0.2.1.5", "10"])
def test_an_address_with_a_slip_is_not_taken_for_a_host_name(address: str) -> None:
    found = schema_problems(SMALL.replace("127.0.0.11", f'"{address}"'))
    assert [p.where for p in found] == ["members[0].address"]


def test_a_store_url_is_never_repeated_in_a_problem() -> None:
    found = schema_problems(SMALL.replace("sqlite:///var/muster.db", "mysql://u:hunter2@h/d"))
    assert "hunter2" not in "".join(map(str, found))


@pytest.mark.parametrize(
    "address", ["192.0.2.10", "192.0.2.0/24", "192.0.2.255/24", "127.0.0.5/8", "x/24", "192.0.2.10/33", "fd00::/64", 7]
)
def test_an_address_that_no_host_could_have_is_refused_with_its_line(address: object) -> None:
    (found,) = schema_problems(SHARED.replace("192.0.2.10/24", str(address)))
    assert (found.line, found.where) == (12, "virtual_address.address")


@pytest.mark.parametrize("address", ["192.0.2.10/32", "192.0.2.0/31", "fd00::a/64"])
def test_short_networks_and_ipv6_are_fine(address: str) -> None:
    assert parsed(SHARED.replace("192.0.2.10/24", address)).virtual_address is not None


@pytest.mark.parametrize(
    "url",
    [
        "http://h:99999", "http://h:0", "http://...", "http://-", "http://[:::::]:1", "http://[12]", "http://10.0.0.256",
        "http://h/path", "unix:relative", "http://{address}{address}", "unix:/{address}", "http://h:1\n", "ftp://h",
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["pulp_content_url", "pulp_api_url"])
def test_a_program_is_where_something_can_listen(key: str, url: str) -> None:
    found = schema_problems(f"{SMALL}content: {{{key}: {json.dumps(url)}}}\n")
    assert [p.where for p in found] == [f"content.{key}"]


@pytest.mark.parametrize("key", ["pulp_content_url", "pulp_api_url", "registry_url"])
@pytest.mark.parametrize(
    "url",
    ["http://h.test:1", "https://{address}:65535", "https://{address}", "http://[fd00::1]:24816", "unix:/run/p.sock"],
)
def test_a_program_may_be_anywhere(key: str, url: str) -> None:
    assert parsed(f"{SMALL}content: {{{key}: {json.dumps(url)}}}\n").content is not None


def test_a_registry_may_lie_below_a_path() -> None:
    at = "https://{address}:9443/container_gateway"
    content = parsed(f"{SMALL}content: {{registry_url: {json.dumps(at)}}}\n").content
    assert content is not None
    assert content.registry_url == at
    for path in ("/..", "/a/../b", "/a//b", "/a?b", "/", "//a", "/%2e"):
        url = json.dumps(f"https://h.test{path}")
        assert schema_problems(f"{SMALL}content: {{registry_url: {url}}}\n"), path


@pytest.mark.parametrize(
    "url", ["http://h:99999", "https://:::", "https://[x", "https://[fe]/", "https://10.0.0.256/foreman"]
)
def test_foreman_is_where_something_can_listen(url: str) -> None:
    assert [p.where for p in schema_problems(f"{SMALL}foreman: {{url: {json.dumps(url)}}}\n")] == ["foreman.url"]


@pytest.mark.parametrize(
    "url", ["https://foreman.test", "https://f.test:8443/foreman", "http://[fd00::1]:3000", "https://10.0.0.2"]
)
def test_foreman_may_be_anywhere(url: str) -> None:
    assert parsed(f"{SMALL}foreman: {{url: {json.dumps(url)}}}\n").foreman.url == url


@pytest.mark.parametrize(("host", "network"), [("192.0.2.30", "192.0.2.30/32"), ("2001:db8::30", "2001:db8::30/128")])
def test_of_one_host_it_is_said_how_it_is_written_as_a_network(host: str, network: str) -> None:
    (found,) = schema_problems(f"{SMALL}network: {{foreman: ['{host}']}}\n")
    assert (found.where, found.sentence) == ("network.foreman[0]", f"is one address; as a network it is {network}")
    assert str(parsed(f"{SMALL}network: {{foreman: ['{network}']}}\n").network.foreman[0]) == network
