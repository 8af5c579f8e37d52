from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from muster.features.dhcp import shapes
from muster.features.dhcp.contract import Reservation, Subnet
from muster.features.dhcp.isc import grammar
from muster.features.dhcp.isc.grammar import Configuration, configuration, reservations
from muster.kernel.errors import Misconfigured
from muster.kernel.names import MACAddress

RECORDED = Path(__file__).parents[4] / "wire/recorded/smart-proxy"
MAIN = Path("/etc/dhcp/dhcpd.conf")


def read(text: str, **others: str) -> Configuration:
    files = {str(MAIN): text} | {f"/etc/dhcp/{name}": content for name, content in others.items()}

    def content(path: Path) -> str:
        try:
            return files[str(path)]
        except KeyError:
            raise Misconfigured(f"Reading dhcpd's file {path} failed: No such file") from None

    return configuration(MAIN, content)


def reserved(found: Configuration) -> list[Reservation]:
    def within(ip: IPv4Address) -> Subnet | None:
        return next((s for s in found.subnets if ip in s.network), None)

    return [one for host in found.hosts for one in reservations(host, within)]


def answered(seq: int) -> str:
    lines = (json.loads(line) for line in (RECORDED / "dhcp.jsonl").read_text().splitlines())
    return next(str(line["body"]) for line in lines if line["seq"] == seq)


def test_subnets_are_told_as_the_ruby_proxy_told_them() -> None:
    found = configuration(RECORDED / "environment/dhcpd.conf", lambda path: path.read_text())
    assert not found.problems
    assert json.dumps([shapes.of_subnet(s) for s in found.subnets], separators=(",", ":")) == answered(237)


def test_hosts_of_the_file_are_told_as_the_ruby_proxy_told_them() -> None:
    found = configuration(RECORDED / "environment/dhcpd.conf", lambda path: path.read_text())
    static, grouped = reserved(found)
    assert [shapes.of_record(static)] == json.loads(answered(295))
    assert [shapes.of_record(grouped)] == json.loads(answered(302))
    assert [h.name for h in found.hosts][-1] == "other.net"


NASTY = r"""
# } { " ;
option space SUNW; option SUNW.root-path-name code 4 = text;
option agent.circuit-id code 1 = string;
failover peer "a{b" { primary; address 10.0.0.1; peer address 10.0.0.2; mclt 3600; hba ff:ff; load balance max seconds 3; }
key "k;}" { algorithm hmac-md5; secret "YQ=="; };
zone example.test. { primary 127.0.0.1; key k; }
class "x\"};" { match if (option vendor-class-identifier = "}") or not exists host-name;
  subnet 9.9.9.0 netmask 255.255.255.0 { } }
subclass "allocation-class-1" 1:8:0:2b:4c:39:ad {
  option root-path "a"; host inner { } }
if option user-class = "iPXE" { filename "a"; } elsif exists agent.remote-id { filename "}"; } else { filename "b"; }
on commit { set x = concat("{", binary-to-ascii(16, 8, ":", hardware));
  execute("/bin/x", "}", x); if known { log(info, ";"); } }
shared-network "s{" { pool { allow members of "x"; range 10.1.0.5 10.1.0.6; }
  subnet 10.1.0.0 netmask 255.255.255.0 {
    option domain-name "a;b"; option ntp-servers 10.1.0.3, ntp.example.test; option interface-mtu 0x5dc;
    range 10.1.0.7; range dynamic-bootp 10.1.0.8 10.1.0.9; range 10.9.0.1 10.9.0.2; range 10.1.0.9 10.1.0.8; range x;
    group { host in_group { hardware ethernet 0:1:2:a:B:c; fixed-address 10.1.0.20, name.example.test, 10.2.0.1; } }
  } }
host a_b { hardware ethernet 00:11:22:33:44:55; fixed-address 10.1.0.21; option host-name = concat("a", "b");
  option root-path "x y", z w; option ip "1"; option dhcp-parameter-request-list = concat(option x, 2b:2c);
  next-server 0a:01:00:02; if exists x { filename "no"; } }
host "quoted name" { hardware token-ring 00:11:22:33:44:56; fixed-address 10.1.0.22; dynamic; option routers a, b; }
host no_mac { fixed-address 10.1.0.23; } host nowhere { hardware ethernet 00:11:22:33:44:57; fixed-address 11.0.0.1; }
host eight { hardware ethernet 00:11:22:33:44:57:58:59; fixed-address 10.1.0.24; }
host no_address { hardware ethernet 00:11:22:33:44:57; }
"""


def test_whatever_dhcpd_conf_may_hold_is_passed_over() -> None:
    found = read(NASTY)
    assert not found.problems
    told = {"domain_name": [["a;b"]], "ntp_servers": [["10.1.0.3"], ["ntp.example.test"]], "interface_mtu": [["0x5dc"]]}
    assert found.subnets == [Subnet(IPv4Network("10.1.0.0/24"), {**told, "range": ["10.1.0.8", "10.1.0.9"]})]
    grouped, under, quoted = reserved(found)
    assert (grouped.name, grouped.mac, str(grouped.ip)) == (
        "in_group",
        MACAddress.parse("00:01:02:0a:0b:0c"),
        "10.1.0.20",
    )
    assert (under.name, under.options["nextServer"]) == ("a_b", "10.1.0.2")
    # An expression, whose value nobody but dhcpd can know.
    assert str(under.options["hostname"]).startswith("concat(")
    assert under.options["root_path"] == [["x y"], ["z", "w"]]
    assert "ip" not in under.options
    assert "filename" not in under.options
    assert (quoted.name, quoted.deletable) == ("quoted name", True)
    assert quoted.options == {"hostname": "quoted name", "hardware_type": "token-ring", "routers": ["a", "b"]}


def test_included_files_stand_where_they_are_included() -> None:
    found = read(
        'subnet 10.0.0.0 netmask 255.0.0.0 { include "options"; } include "more/hosts"; include "/abs";',
        options='option routers 10.0.0.1; include "deeper";',
        deeper="range 10.0.0.5 10.0.0.6;",
        **{"more/hosts": 'include "options"; host h { hardware ethernet 00:11:22:33:44:55; fixed-address 10.0.0.9; }'},
    )
    assert found.subnets[0].options == {"routers": ["10.0.0.1"], "range": ["10.0.0.5", "10.0.0.6"]}
    assert [r.name for r in reserved(found)] == ["h"]
    assert found.problems == ("Reading dhcpd's file /abs failed: No such file",)
    assert Path("/abs") in found.files
    assert Path("/etc/dhcp/deeper") in found.files


def test_a_file_that_includes_itself_is_a_problem_and_no_more() -> None:
    found = read(
        'include "a"; subnet 10.0.0.0 netmask 255.0.0.0 { }', a='include "b";', b='include "a"; include "x\\000y";'
    )
    assert len(found.subnets) == 1
    assert found.problems[0] == "/etc/dhcp/a includes itself"
    assert "which no file can be called" in found.problems[1]


def test_too_many_includes_within_each_other_are_not_read() -> None:
    others = {f"f{n}": f'include "f{n + 1}";' for n in range(50)}
    found = read('include "f0";', **others)
    assert "one too many" in found.problems[0]
    assert len(found.files) <= grammar.MAX_INCLUDES + 1


def test_too_many_files_are_not_read() -> None:
    names = [f"f{n}" for n in range(grammar.MAX_FILES + 50)]
    found = read("".join(f'include "{name}";' for name in names), **dict.fromkeys(names, "x;"))
    assert len(found.files) == grammar.MAX_FILES
    assert 0 < len(found.problems) <= 20


def test_too_much_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "MAX_CHARACTERS", 100)
    found = read('include "a";', a="x" * 200)
    assert "is too large" in found.problems[0]


def test_a_main_file_that_cannot_be_read_is_misconfigured() -> None:
    def nothing(path: Path) -> Any:
        raise Misconfigured(f"Reading {path} failed")

    with pytest.raises(Misconfigured):
        configuration(MAIN, nothing)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("subnet 10.0.0.1 netmask 255.0.0.0 { }", "has host bits set"),
        ("subnet 10.0.0.0 netmask 255.0.255.0 { }", "subnet 10.0.0.0 netmask 255.0.255.0"),
        ("subnet x netmask 255.0.0.0 { }", "subnet x"),
        ("subnet 10.0.0.0 { }", "a network and its mask are expected"),
        ("subnet 10.0.0.0 netmask 255.0.0.0 {} subnet 10.1.0.0 netmask 255.255.0.0 {}", "overlaps another subnet"),
        ("subnet 10.0.0.0 netmask 255.0.0.0 {", "/etc/dhcp/dhcpd.conf: a block is not closed"),
    ],
)
def test_what_is_no_subnet_is_a_problem(text: str, says: str) -> None:
    found = read(text)
    assert any(says in problem for problem in found.problems)
    assert len(found.subnets) == ("255.0.0.0 {" in text and "10.0.0.0" in text)


SECRETS = r"""
# secret c29tZXRoaW5n in a comment
include "keys";
omapi-port 7911;
key muster { algorithm hmac-sha256; secret c29tZXRoaW5n; };
omapi-key muster;
KEY "quoted" { algorithm hmac-md5; SECRET "c29tZXRoaW5n"; }
zone example.com. { primary 127.0.0.1; key muster; }
ldap-password "c29tZXRoaW5n";
failover peer "p" { primary; address 10.0.0.1; }
class "c" { match if substring(option host-name, 0, 1) = "c29tZXRoaW5n"; }
secret c29tZXRoaW5n;
option password code 200 = text;
subnet 10.0.0.0 netmask 255.255.255.0 {
  secret c29tZXRoaW5n;
  option password "c29tZXRoaW5n";
  option routers 10.0.0.1, 10.0.0.2;
  option domain-name "a; } \"b";
  range 10.0.0.10 10.0.0.20;
  key inner { secret c29tZXRoaW5n; }
  include "keys";
  pool { range 10.0.0.30 10.0.0.40; deny members of "c"; }
}
shared-network "s" { secret c29tZXRoaW5n; group { filename "c29tZXRoaW5n"; include "hosts";
  subnet 10.1.0.0 netmask 255.255.0.0 { option domain-name-servers 10.1.0.1; } } }
host h { hardware ethernet 00:11:22:33:44:01; fixed-address 10.0.0.5; filename "pxe"; option host-name "h";
  ddns-hostname "x"; secret c29tZXRoaW5n; key k { secret c29tZXRoaW5n; } if option x = "c29tZXRoaW5n" { filename "no"; } }
"""
HOSTS = "host i { hardware ethernet 0:1:2:3:4:5; fixed-address 10.1.0.5, 10.1.0.6; next-server 0a:01:00:09; dynamic; }"


def test_what_is_told_of_a_configuration_says_the_same_and_nothing_else() -> None:
    files = {str(MAIN): SECRETS, "/etc/dhcp/keys": "key k2 { secret c29tZXRoaW5n; };", "/etc/dhcp/hosts": HOSTS}

    def content(path: Path) -> str:
        return files[str(path)]

    meant = configuration(MAIN, content)
    told = grammar.reduced(MAIN, content)
    again = configuration(MAIN, lambda _: told.text)
    assert len(meant.subnets) == len(meant.hosts) == 2
    assert (again.subnets, again.hosts, again.problems) == (meant.subnets, meant.hosts, ())
    assert told.files == meant.files
    assert again.files == (MAIN,)
    for word in ("c29tZXRoaW5n", "secret", "key", "password", "include", "comment", "class"):
        assert word not in told.text.lower()


@pytest.mark.parametrize("text", [NASTY, (RECORDED / "environment/dhcpd.conf").read_text(), "", "host", "} {"])
def test_whatever_a_configuration_says_is_told(text: str) -> None:
    def content(path: Path) -> str:
        if path != MAIN:
            raise Misconfigured("No such file")
        return text

    meant, told = configuration(MAIN, content), grammar.reduced(MAIN, content)
    again = configuration(MAIN, lambda _: told.text)
    assert (again.subnets, again.hosts) == (meant.subnets, meant.hosts)
    assert grammar.reduced(MAIN, lambda _: told.text).text == told.text
