"""Machines are discovered, and told what to boot, through a real member, before stand-ins for Foreman and for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from muster.features.discovery.facts import LARGEST_BYTES
from tests.servers import discovered, foreman_for_hosts, member
from tests.servers.client import Answer, Connection, ask, request
from tests.servers.discovered import FACTS, Machine
from tests.servers.foreman_for_hosts import ForemanForHosts
from tests.servers.member import Member

MACHINE, NOBODY = "127.0.0.91", "127.0.0.92"
SENT = json.dumps({"facts": FACTS}).encode()


@pytest.fixture(scope="module")
def foreman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForemanForHosts]:
    with foreman_for_hosts.running(tmp_path_factory.mktemp("foreman")) as running:
        yield running


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with discovered.running(tmp_path_factory.mktemp("machine"), MACHINE) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(foreman: ForemanForHosts, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    settings = {
        "enabled": True, "node_port": machine.place.port, "node_networks": ["127.0.0.88/29", "fd00::/8"],
        "node_timeout_s": 1, "foreman_timeout_s": 5, "facts_per_minute": 30,
    }  # fmt: skip
    with member.running(
        tmp_path_factory.mktemp("proxy"),
        features={"discovery": settings},
        foreman={"url": foreman.url, "ca_file": str(foreman.ca_file), "trusted_hosts": [member.TRUSTED]},
    ) as running:
        foreman.believe(running.ca)
        yield running


@pytest.fixture(autouse=True)
def _as_before(foreman: ForemanForHosts, machine: Machine) -> Iterator[None]:
    foreman.asked.clear()
    machine.asked.clear()
    yield
    foreman.may_answer.set()
    foreman.discovered, foreman.cut = (201, b'{"id":7}'), None
    machine.answers.clear()
    machine.headers.clear()
    machine.delay_s = 0.0


def create(
    proxy: Member, body: bytes = SENT, *, source: str, plain: bool = False, headers: Mapping[str, str] | None = None
) -> Answer:
    """Send facts as the image does: without a certificate, from an address of its own."""
    place, tls = (proxy.http, None) if plain else (proxy.https, proxy.tls(None))
    sent = {"Content-Type": "application/json", **(headers or {})}
    return ask(place, "POST", "/discovery/create", tls=tls, source=source, headers=sent, body=body)


@pytest.mark.parametrize("plain", [True, False], ids=["http", "https"])
def test_facts_go_to_foreman_as_they_came_and_its_answer_comes_back(
    proxy: Member, foreman: ForemanForHosts, *, plain: bool
) -> None:
    forged = {"X-Forwarded-For": "192.0.2.66", "Authorization": "x"}
    answer = create(proxy, source="127.0.2.1", plain=plain, headers=forged)
    assert (answer.status, answer.body) == (201, b'{"id":7}')
    assert answer.headers["content-type"] == "application/json"
    (one,) = foreman.asked
    assert (one.method, one.path, one.body) == ("POST", "/api/v2/discovered_hosts/facts", SENT)
    assert one.client == proxy.name
    assert one.headers == {
        "host": foreman.url.removeprefix("https://"), "accept": "*/*, application/json,version=2",
        "content-type": "application/json", "accept-encoding": "identity", "content-length": str(len(SENT)),
        "connection": "close",
    }  # fmt: skip


@pytest.mark.parametrize("status", [403, 422, 500])
def test_what_foreman_refuses_is_said_in_its_own_words(proxy: Member, foreman: ForemanForHosts, status: int) -> None:
    foreman.discovered = status, b'{"message":"no"}'
    answer = create(proxy, source="127.0.2.2")
    assert (answer.status, answer.body) == (status, b'{"message":"no"}')


def test_the_image_takes_200_and_201_alone_for_success_and_nothing_is_followed(
    proxy: Member, foreman: ForemanForHosts
) -> None:
    for status, seen in ((200, 200), (202, 200), (302, 502)):
        foreman.discovered = status, b"{}"
        assert create(proxy, source="127.0.2.3").status == seen


@pytest.mark.parametrize(
    "body", [b"", b"nojson", b"[1]", b'{"facts":[]}', b'{"facts":{"a":NaN}}', b'{"facts":{}', b"[" * 100_000, b"\xff{}"]
)
def test_what_are_no_facts_is_refused_and_foreman_not_asked(
    proxy: Member, foreman: ForemanForHosts, body: bytes
) -> None:
    answer = create(proxy, body, source="127.0.2.4")
    assert answer.status == 400
    assert answer.text.startswith("Failed to hand facts to Foreman: the body ")
    assert not foreman.asked


def test_facts_of_a_large_machine_pass_and_longer_ones_do_not(proxy: Member, foreman: ForemanForHosts) -> None:
    large = json.dumps({"facts": {f"fact{i}": "x" * 90 for i in range(20_000)}}).encode()
    # Longer than other bodies may be.
    assert (1 << 20) < len(large) < LARGEST_BYTES
    assert create(proxy, large, source="127.0.2.5").status == 201
    assert foreman.asked[0].body == large
    with Connection(proxy.https, tls=proxy.tls(None), source="127.0.2.5") as connection:
        connection.send(request("POST", "/discovery/create", {"Content-Length": str(LARGEST_BYTES + 1)}))
        assert connection.answer().status == 413
    chunks = b"".join(b"10000\r\n%s\r\n" % (b" " * 65536) for _ in range((LARGEST_BYTES >> 16) + 1))
    with Connection(proxy.https, tls=proxy.tls(None), source="127.0.2.5") as connection:
        connection.send(request("POST", "/discovery/create", {"Transfer-Encoding": "chunked"}) + chunks + b"0\r\n\r\n")
        assert connection.answer().status == 413
    many = b'{"facts":{"a":[' + b"0," * 250_000 + b"0]}}"
    assert create(proxy, many, source="127.0.2.5").text.endswith("the body holds more than 200000 values")
    assert len(foreman.asked) == 1


def test_who_comes_too_often_is_told_so_and_takes_it_from_nobody_else(proxy: Member, foreman: ForemanForHosts) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: create(proxy, b"[]", source="127.0.2.6"), range(36)))
    told = [a for a in found if a.status == 429]
    assert {a.status for a in found} == {400, 429}
    # Within the seconds of the test one or two more are due.
    assert 3 <= len(told) <= 6
    assert told[0].headers["retry-after"] == "5"
    assert create(proxy, source="127.0.2.7").status == 201
    assert len(foreman.asked) == 1


def test_a_foreman_that_is_away_is_a_503_and_one_that_breaks_off_too(proxy: Member, foreman: ForemanForHosts) -> None:
    foreman.cut = 3
    assert create(proxy, source="127.0.2.9").status == 503
    foreman.cut = None
    foreman.stop()
    try:
        answer = create(proxy, source="127.0.2.9")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert answer.text.startswith("Failed to hand facts to Foreman: ")
    finally:
        foreman.start()
    assert create(proxy, source="127.0.2.9").status == 201


def test_a_machine_that_leaves_before_its_facts_are_whole_reaches_nobody(
    proxy: Member, foreman: ForemanForHosts
) -> None:
    with Connection(proxy.https, tls=proxy.tls(None), source="127.0.2.10") as connection:
        connection.send(request("POST", "/discovery/create", {"Content-Length": "1000"}) + SENT)
    assert create(proxy, source="127.0.2.10").status == 201
    assert len(foreman.asked) == 1


def test_a_machine_s_inventory_is_what_it_says_itself(proxy: Member, machine: Machine) -> None:
    answer = proxy.ask("GET", f"/discovery/{MACHINE}/inventory/facter")
    assert (answer.status, json.loads(answer.body)) == (200, FACTS)
    assert answer.headers["content-type"] == "application/json"
    (one,) = machine.asked
    assert one.headers == {
        "host": f"{MACHINE}:{machine.place.port}", "accept": "application/json", "accept-encoding": "identity",
        "connection": "close",
    }  # fmt: skip


def test_the_image_s_own_facts_are_for_clients_with_a_certificate_and_its_refusal_is_passed_on(proxy: Member) -> None:
    answer = proxy.ask("GET", f"/discovery/{MACHINE}/facts")
    assert answer.status == 403
    assert (
        answer.text
        == f"Failed to read the facts: the machine at {MACHINE} answers 403: No client SSL certificate supplied"
    )


def test_machines_are_told_to_boot(proxy: Member, machine: Machine) -> None:
    said = b'{"kernel":"http://k","initram":"http://i","append":"a=b"}'
    for path, body, asked in (
        ("power/reboot", b"", "/power/reboot"),
        ("power/kexec", said, "/power/kexec"),
        ("reboot", b"", f"/bmc/{MACHINE}/chassis/power/cycle"),
    ):
        machine.asked.clear()
        answer = proxy.ask("PUT", f"/discovery/{MACHINE}/{path}", body=body)
        assert (answer.status, answer.body) == (200, b'{"result":true}')
        (one,) = machine.asked
        assert (one.method, one.path, one.body, one.headers["content-length"]) == ("PUT", asked, body, str(len(body)))


@pytest.mark.parametrize("body", [b"", b"nojson", b"[]"])
def test_a_kexec_without_an_object_of_json_reaches_no_machine(proxy: Member, machine: Machine, body: bytes) -> None:
    answer = proxy.ask("PUT", f"/discovery/{MACHINE}/power/kexec", body=body)
    assert (answer.status, answer.text[:25]) == (400, "Failed to boot by kexec: ")
    assert not machine.asked


@pytest.mark.parametrize(
    "where", ["localhost", "256.1.1.1", "127.1", "2130706433", "127.0.0.1", "127.0.0.91:22", "::ffff:127.0.0.1",
              "fe80::1%25lo", "10.0.0.1", "0.0.0.0", "::1", "127.0.0.91%2f..", "a%0d%0ab"],
)  # fmt: skip
def test_only_addresses_of_node_networks_are_asked(proxy: Member, machine: Machine, where: str) -> None:
    answer = proxy.ask("GET", f"/discovery/{where}/inventory/facter")
    assert answer.status in (400, 404)
    assert not machine.asked


def test_an_address_of_ipv4_may_be_written_as_one_of_ipv6(proxy: Member) -> None:
    assert proxy.ask("GET", f"/discovery/::ffff:{MACHINE}/inventory/facter").status == 200


def test_what_a_machine_does_not_answer_is_said_in_time(proxy: Member, machine: Machine) -> None:
    path = f"/discovery/{MACHINE}/inventory/facter"
    assert "cannot be reached" in proxy.ask("GET", f"/discovery/{NOBODY}/inventory/facter").text
    machine.delay_s = 1.5
    late = proxy.ask("GET", path)
    assert (late.status, late.text) == (
        504, f"Failed to read the inventory: the machine at {MACHINE} did not answer within 1 s",
    )  # fmt: skip
    machine.delay_s = 0
    for status in (301, 206):
        machine.answers["/inventory/facter"] = status, b"{}"
        assert proxy.ask("GET", path).status == 502
    machine.answers["/inventory/facter"] = 200, b" " * (LARGEST_BYTES + 1)
    assert "more than 4 MiB" in proxy.ask("GET", path).text
    machine.answers["/inventory/facter"] = 200, b"{}"
    machine.headers["Content-Encoding"] = "gzip"
    assert proxy.ask("GET", path).status == 502


def test_nobody_without_foreman_s_name_reaches_a_machine(proxy: Member, machine: Machine) -> None:
    for method, path in (("GET", "inventory/facter"), ("GET", "facts"), ("PUT", "power/reboot"), ("PUT", "reboot")):
        for name in (None, "other.example.com"):
            assert proxy.ask(method, f"/discovery/{MACHINE}/{path}", name=name).status == 403
    assert ask(proxy.http, "PUT", f"/discovery/{MACHINE}/power/kexec", body=b"{}").status == 403
    assert not machine.asked


def test_a_discovery_is_told_of_by_the_machine_s_hardware_address(proxy: Member) -> None:
    assert create(proxy, source="127.0.2.11").status == 201
    found = [r["message"] for r in json.loads(proxy.ask("GET", "/logs").body)["logs"]]
    assert any("A machine was discovered" in m and f"about={FACTS['discovery_bootif']}" in m for m in found)
    assert not any("RedHat" in m for m in found)


@pytest.mark.parametrize("names", [True, False])
def test_certificates_are_verified_where_a_ca_is_named(
    foreman: ForemanForHosts, tmp_path: Path, *, names: bool
) -> None:
    with discovered.running(tmp_path / "machine", "127.0.0.93", names=names) as other:
        settings: dict[str, Any] = {
            "node_port": other.place.port, "node_networks": ["127.0.0.93/32"], "node_ca_file": str(other.certificate),
        }  # fmt: skip
        with member.running(
            tmp_path,
            features={"discovery": settings},
            foreman={"url": foreman.url, "ca_file": str(foreman.ca_file), "trusted_hosts": [member.TRUSTED]},
        ) as careful:
            answer = careful.ask("GET", "/discovery/127.0.0.93/inventory/facter")
            assert answer.status == (200 if names else 503)
            assert bool(other.asked) is names
