"""What hosts are told, in force: packets that pass a kernel's rules, and those that do not."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from muster.cli import muster
from tests.servers import available, firewalld
from tests.servers.namespaces import DEVICE, Host, segment

# Numbered as segment() does: .11 and so on.
CLUSTER = f"""\
schema: 1
cluster: demo
address: cluster.test
store: {{url: "sqlite:////nowhere/x.db"}}
members:
- {{id: 1, name: proxy01.test, address: 10.231.7.13}}
balancers:
- {{name: lb1, address: 10.231.7.11, metrics_port: 8405}}
- {{name: lb2, address: 10.231.7.12}}
virtual_address: {{address: 10.231.7.100/24, interface: {DEVICE}, router_id: 51}}
signer: proxy01.test
network: {{foreman: [10.231.7.14/32], clients: [10.231.7.15/32]}}
"""
NAMES = ("lb1", "lb2", "proxy01", "foreman", "client", "stranger")
UNITS = Path(__file__).parents[2] / "packaging" / "systemd"
_VRRP = 112


def written(word: str, directory: Path, text: str = CLUSTER) -> Path:
    file = directory / "cluster.yaml"
    file.write_text(text)
    arguments = ["render", word, "--cluster", str(file), "--output", str(directory / word)]
    said = CliRunner().invoke(muster, arguments, catch_exceptions=False)
    assert said.exit_code == 0, said.output
    return directory / word


def run(host: Host, *command: str | Path) -> str:
    done = subprocess.run(host.command(*command), capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def reaches(caller: Host, host: Host, port: int) -> bool:
    """Whether a connection is carried: what is said by one end arrives at the other."""
    with host.listening(port) as listener, caller.opened() as s:
        listener.settimeout(10)
        s.settimeout(10)
        try:
            s.connect((host.address, port))
        except ConnectionRefusedError:
            return False
        except OSError as e:
            # As firewalld refuses what nobody spoke of.
            if e.errno == errno.EHOSTUNREACH:
                return False
            raise
        taken, _ = listener.accept()
        with taken:
            s.sendall(b"hello")
            return taken.recv(16) == b"hello"


def refused(host: Host) -> list[int]:
    """How many packets each rule that refuses has refused."""
    listed = run(host, "nft", "list", "table", "inet", "muster").splitlines()
    return [int(line.split("packets ")[1].split()[0]) for line in listed if "counter" in line]


@pytest.fixture
def hosts(needs: Callable[[str], None]) -> Iterator[dict[str, Host]]:
    needs("namespaces")
    needs("nft")
    with segment(*NAMES) as made:
        yield dict(zip(NAMES, made, strict=True))


def loaded(hosts: dict[str, Host], directory: Path) -> Path:
    rules = written("nftables", directory)
    for name, below in (("lb1", "balancers/lb1"), ("lb2", "balancers/lb2"), ("proxy01", "proxy01.test")):
        run(hosts[name], str(available.sbin("nft")), "-f", rules / below / "muster.nft")
    return rules


def test_connections_are_carried_for_whom_they_are_for_and_refused_to_others(
    hosts: dict[str, Host], tmp_path: Path
) -> None:
    assert reaches(hosts["stranger"], hosts["lb1"], 443)
    loaded(hosts, tmp_path)
    may = {
        ("client", "lb1", 443): True,
        ("proxy01", "lb1", 443): True,
        ("stranger", "lb1", 443): False,
        ("lb2", "lb1", 8405): True,
        ("client", "lb1", 8405): False,
        ("lb1", "proxy01", 9090): True,
        ("foreman", "proxy01", 9090): True,
        ("client", "proxy01", 9090): False,
        # Whatever else runs there is left alone, whoever calls.
        ("stranger", "lb1", 22): True,
        ("stranger", "proxy01", 22): True,
        # The balancer's port, where nothing of a member's is.
        ("stranger", "proxy01", 8141): True,
    }
    assert {c: reaches(hosts[c[0]], hosts[c[1]], c[2]) for c in may} == may
    assert [n > 0 for n in refused(hosts["lb1"])] == [True, True, False]


def test_rules_are_loaded_again_without_a_trace_of_those_before(hosts: dict[str, Host], tmp_path: Path) -> None:
    rules = loaded(hosts, tmp_path)
    lb1 = hosts["lb1"]
    other = "table inet others { chain input { type filter hook input priority 10; tcp dport 2222 accept; }; }"
    run(lb1, "nft", other)
    before = run(lb1, "nft", "-s", "list", "ruleset")
    with lb1.listening(443) as listener, hosts["client"].opened() as s:
        s.settimeout(10)
        listener.settimeout(10)
        s.connect((lb1.address, 443))
        taken, _ = listener.accept()
        run(lb1, "nft", "-f", rules / "balancers/lb1/muster.nft")
        assert sorted(run(lb1, "nft", "-s", "list", "ruleset").split()) == sorted(before.split())
        with taken:
            s.sendall(b"still")
            assert taken.recv(16) == b"still"


def test_a_spoilt_file_leaves_the_rules_that_are_in_force(hosts: dict[str, Host], tmp_path: Path) -> None:
    rules = loaded(hosts, tmp_path) / "balancers/lb1/muster.nft"
    rules.write_text(rules.read_text().replace("tcp reset", "tcp reseet"))
    spoilt = subprocess.run(
        hosts["lb1"].command("nft", "-f", rules), capture_output=True, text=True, timeout=20, check=False
    )
    assert spoilt.returncode != 0
    assert not reaches(hosts["stranger"], hosts["lb1"], 443)


def test_only_the_other_balancer_speaks_of_our_virtual_address(hosts: dict[str, Host], tmp_path: Path) -> None:
    loaded(hosts, tmp_path)
    lb1 = hosts["lb1"]
    with _raw(lb1) as heard:
        for caller, router_id in (("stranger", 51), ("stranger", 52), ("lb2", 51)):
            with _raw(hosts[caller]) as s:
                # Version 3, an advertisement, of this group; what follows is for keepalived, which is not there.
                s.sendto(
                    struct.pack("!BBBBHH4s", 0x31, router_id, 100, 1, 100, 0, b"\x0a\xe7\x07\x64"), (lb1.address, 0)
                )
        got: list[tuple[str, int]] = []
        with contextlib.suppress(TimeoutError):
            while len(got) < 2:
                packet, (address, _) = heard.recvfrom(2048)
                got.append((address, packet[21]))
    assert got == [(hosts["stranger"].address, 52), (hosts["lb2"].address, 51)]
    assert refused(lb1)[-1] == 1


def _raw(host: Host) -> socket.socket:
    def opened() -> socket.socket:
        host.enter()
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, _VRRP)

    with ThreadPoolExecutor(1) as thread:
        s = thread.submit(opened).result()
    s.settimeout(10)
    return s


def test_firewalld_carries_what_it_shall_and_refuses_the_rest(
    needs: Callable[[str], None], hosts: dict[str, Host], tmp_path: Path
) -> None:
    needs("firewall-offline-cmd")
    rendered = written("firewalld", tmp_path)
    with (
        firewalld.running(hosts["lb1"], rendered / "balancers/lb1", zone={DEVICE: "public"}),
        firewalld.running(hosts["proxy01"], rendered / "proxy01.test", zone={DEVICE: "trusted"}),
    ):
        may = {
            ("client", "lb1", 443): True,
            ("stranger", "lb1", 443): False,
            ("lb2", "lb1", 8405): True,
            ("client", "lb1", 8405): False,
            ("lb1", "proxy01", 9090): True,
            ("foreman", "proxy01", 9090): True,
            # Although the zone lets everything in; of other ports it decides.
            ("client", "proxy01", 9090): False,
            ("client", "proxy01", 8405): True,
            ("stranger", "lb1", 22): True,
            ("stranger", "lb1", 2222): False,
        }
        assert {c: reaches(hosts[c[0]], hosts[c[1]], c[2]) for c in may} == may


def test_clients_come_in_by_the_zone_that_is_named(
    needs: Callable[[str], None], hosts: dict[str, Host], tmp_path: Path
) -> None:
    needs("firewall-offline-cmd")
    named = CLUSTER.replace("network: {", "network: {firewall_zone: external, ")
    rendered = written("firewalld", tmp_path, named) / "balancers/lb1"
    for zone, may in (("external", True), ("public", False)):
        with firewalld.running(hosts["lb1"], rendered, zone={DEVICE: zone}):
            assert reaches(hosts["client"], hosts["lb1"], 443) is may


def test_a_shell_runs_what_selinux_is_told(tmp_path: Path) -> None:
    said = tmp_path / "said"
    ports = tmp_path / "ports"
    for name in ("semanage", "setsebool"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\n[ "$1 $2" = "port -l" ] && exec cat {ports}\necho "{name} $*" >> {said}\n')
        program.chmod(0o755)

    def run(text: str, labelled: str) -> None:
        # As semanage lists them.
        listed = (("http_cache_port_t", "8080, 1883"), ("http_port_t", labelled))
        ports.write_text("".join(f"{label:<30} tcp      {numbers}\n" for label, numbers in listed))
        file, made = tmp_path / "cluster.yaml", tmp_path / "run.sh"
        file.write_text(text)
        arguments = ["render", "selinux", "--cluster", str(file), "--output", str(made)]
        assert CliRunner().invoke(muster, arguments, catch_exceptions=False).exit_code == 0
        subprocess.run([made], env={"PATH": f"{tmp_path}/bin:/bin:/usr/bin"}, check=True, timeout=20)

    narrow = CLUSTER.replace(", metrics_port: 8405", "") + "generation: foremanctl\nservices: {mqtt: {}}\n"
    run(CLUSTER, "80, 81, 443")
    run(narrow, "80, 11883, 443")
    run(narrow, "1883, 80, 443")
    run(narrow, "80, 443, 1883")
    assert said.read_text().splitlines() == [
        "setsebool -P haproxy_connect_any on",
        "semanage port -a -t http_port_t -p tcp 1883",
    ]


def test_systemd_takes_the_packaged_units_with_what_is_rendered(needs: Callable[[str], None], tmp_path: Path) -> None:
    needs("systemd-analyze")
    everything = CLUSTER.replace("metrics_port: 8405", "maxconn: 100000") + (
        "edge: {stop_timeout_s: 300, memory_bytes: 100000000, connections: 8000}\n"
        "content: {workers: 4, foreman_key: /etc/foreman-proxy/key.pem, foreman_certificate: /etc/foreman-proxy/c.pem}\n"
        "authority: {key: {kind: signer, socket: /run/muster-signer/socket}, push_crl: [/etc/puppetlabs/crl.pem]}\n"
    )
    everything = everything.replace("signer: proxy01.test\n", "")
    rendered = written("systemd", tmp_path, everything)
    for host, unit in (("proxy01.test", "muster-member.service"), ("balancers/lb1", "muster-balancer.service")):
        # All of them, because they name each other; their program is on no host that tests.
        for packaged in UNITS.glob("*.service"):
            there = rendered / host / packaged.name
            there.write_text(packaged.read_text().replace("/opt/muster/bin/muster", "/bin/true"))
        said = subprocess.run(
            ["systemd-analyze", "verify", rendered / host / unit],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (said.returncode, said.stderr) == (0, "")
