"""The cluster's records, carried out by a real nsupdate on a real BIND, and a host that asks a member under its name."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

from muster.cli import muster
from tests.servers import bind

CLUSTER = """\
schema: 1
cluster: demo
address: proxies.example.net
aliases: [smartproxy.example.net]
store: {{url: "postgresql://muster@127.0.0.1/muster"}}
members:
- {{id: 1, name: proxy01.example.net, address: 192.0.2.21}}
- {{id: 2, name: proxy02.example.net, address: "2001:db8::22"}}
balancers:
- {{name: lb1, address: 192.0.2.11}}
- {{name: lb2, address: 192.0.2.12}}
signer: proxy01.example.net
network: {{dns_server: {server}, dns_ttl_s: 300}}
{rest}
"""


def rendered(directory: Path, word: str, server: str, rest: str = "") -> str:
    file = directory / "cluster.yaml"
    file.write_text(CLUSTER.format(server=server, rest=rest))
    said = CliRunner().invoke(muster, ["render", word, "--cluster", str(file)])
    assert said.exception is None, said.output
    return said.stdout


def test_nsupdate_carries_out_what_is_rendered_and_twice_is_once(tmp_path: Path, needs: Callable[[str], None]) -> None:
    needs("bind")
    needs("nsupdate")
    zones = [
        bind.Zone("example.net", ["proxies A 198.51.100.1", "other A 198.51.100.2"]),
        bind.Zone("2.0.192.in-addr.arpa"),
        bind.Zone("8.b.d.0.1.0.0.2.ip6.arpa"),
    ]
    with bind.running(tmp_path / "bind", zones=zones) as server:
        for rest in ("", "", "virtual_address: {address: 192.0.2.10/24, interface: eth0}"):
            text = rendered(tmp_path, "nsupdate", server.address, rest)
            # The test's server has no standard port.
            text = text.replace(f"server {server.address}", f"server {server.address} {server.port}")
            (tmp_path / "update").write_text(text)
            done = subprocess.run(
                ["nsupdate", "-k", server.key_file, tmp_path / "update"], capture_output=True, text=True, check=False
            )
            assert (done.returncode, done.stderr) == (0, "")
            wanted = ["192.0.2.10"] if rest else ["192.0.2.11", "192.0.2.12"]
            for name in ("proxies", "smartproxy"):
                found = server.dig(f"{name}.example.net", "A")
                assert found == [f"{name}.example.net. 300 IN A {at}" for at in wanted]
        assert server.dig("proxy02.example.net", "AAAA") == ["proxy02.example.net. 300 IN AAAA 2001:db8::22"]
        (back,) = server.dig("21.2.0.192.in-addr.arpa", "PTR")
        assert back.endswith(" PTR proxy01.example.net.")
        assert len(server.dig("other.example.net", "A")) == 1


def test_the_lines_of_the_zone_are_what_a_server_answers(tmp_path: Path, needs: Callable[[str], None]) -> None:
    needs("bind")
    lines = [line for line in rendered(tmp_path, "dns-zone", "192.0.2.53").splitlines() if not line.startswith(";")]
    with bind.running(tmp_path / "bind", zones=[bind.Zone("example.net", lines)]) as server:
        assert len(server.dig("proxies.example.net", "A")) == 2
        assert server.dig("proxy01.example.net", "A") == ["proxy01.example.net. 300 IN A 192.0.2.21"]
