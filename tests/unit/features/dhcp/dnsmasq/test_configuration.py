from __future__ import annotations

import time
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from muster.features.dhcp.dnsmasq.configuration import (
    Configuration,
    Host,
    Option,
    Reading,
    host,
    lines,
    option,
    subnets,
)
from muster.kernel.errors import Misconfigured
from muster.kernel.names import MACAddress

MAC = MACAddress.parse("52:54:00:aa:00:01")
IP = IPv4Address("192.0.2.5")


def read(**files: str) -> Configuration:
    there = {Path("/etc") / name.replace("__", "/").replace("_", "."): text for name, text in files.items()}

    def content(path: Path) -> str:
        if path not in there:
            raise Misconfigured(f"Reading {path} failed")
        return there[path]

    def listed(directory: Path) -> Collection[Path]:
        return [path for path in there if path.parent == directory]

    reading = Reading(content, listed)
    reading.file(Path("/etc/main"))
    return reading.found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("52:54:00:aa:00:01,192.0.2.5,web", Host((MAC,), IP, "web")),
        ("52:54:0:aa:0:1 , 192.0.2.5 , web.example.com , 12h", Host((MAC,), IP, "web.example.com")),
        ("web,192.0.2.5,infinite", Host((), IP, "web")),
        ("01-52:54:00:aa:00:01,set:red,set:blue,192.0.2.5", Host((MAC,), IP, None, ("red", "blue"))),
        ("52:54:00:aa:00:01,52:54:00:aa:00:01,net:old,192.0.2.5,3600", Host((MAC, MAC), IP, None, ("old",))),
        ("52:54:00:aa:*:*,192.0.2.5,any", Host((), IP, "any")),
        ("id:01:52:54:00:aa:00:01,tag:x,192.0.2.5", Host((), IP, None)),
        ("id:*,52:54:00:aa:00:01,[2001:db8::5],192.0.2.5", Host((MAC,), IP, None)),
        ("52:54:00:aa:00:01,ignore", Host((MAC,), None, None)),
    ],
)
def test_a_line_of_a_host_is_read_as_dnsmasq_does(line: str, expected: Host) -> None:
    assert host(line) == expected


def test_comments_begin_a_line_or_follow_a_blank_and_none_stands_within_quotes() -> None:
    text = '# one\n  # two\nport=0 # three\ndhcp-boot=a#b\ndhcp-option=67,"a # b"\n\n'
    assert list(lines(text)) == ["port=0", "dhcp-boot=a#b", 'dhcp-option=67,"a # b"']


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("3,192.0.2.1", Option("router", ("192.0.2.1",))),
        (
            "tag:a,tag:b,option:router,192.0.2.1,192.0.2.2",
            Option("router", ("192.0.2.1", "192.0.2.2"), frozenset("ab")),
        ),
        ('option:bootfile-name,"a b"', Option("bootfile-name", ("a b",))),
        ("option6:dns-server,[::]", None),
        ("encap:175,190,x", None),
        ("tag:a", None),
    ],
)
def test_an_option_is_read_as_dnsmasq_does(line: str, expected: Option | None) -> None:
    assert option(line) == expected


def test_subnets_have_what_is_sent_there() -> None:
    found = read(
        main="""
        domain=example.com
        dhcp-range=set:red,192.0.2.10,192.0.2.99,255.255.255.0,12h
        dhcp-range=198.51.100.0,static,255.255.255.192
        dhcp-range=::1,constructor:eth0
        dhcp-option=option:dns-server,0.0.0.0
        dhcp-option=tag:red,option:router,192.0.2.1
        dhcp-option=option:ntp-server,203.0.113.1
        dhcp-option=tag:red,42,203.0.113.2
        dhcp-option=26,9000
        """
    )
    told, problems = subnets(found, [])
    assert not problems
    assert [(str(s.network), dict(s.options)) for s in told] == [
        ("192.0.2.0/24", {
            "routers": ["192.0.2.1"], "domain_name": "example.com", "ntp_servers": ["203.0.113.2"], "interface_mtu": 9000,
            "range": ["192.0.2.10", "192.0.2.99"],
        }),
        ("198.51.100.0/26", {"domain_name": "example.com", "ntp_servers": ["203.0.113.1"], "interface_mtu": 9000}),
    ]  # fmt: skip


def test_a_range_without_a_mask_is_of_a_network_that_is_known_or_a_problem() -> None:
    found = read(main="dhcp-range=192.0.2.10,192.0.2.99,1h\ndhcp-range=10.0.0.1,10.0.0.9")
    told, problems = subnets(found, [IPv4Network("192.0.2.0/23")])
    assert [str(s.network) for s in told] == ["192.0.2.0/23"]
    (problem,) = problems
    assert problem.startswith("dhcp-range 10.0.0.1 has no mask")


def test_ranges_of_networks_that_overlap_are_a_problem() -> None:
    found = read(
        main="dhcp-range=192.0.2.10,192.0.2.99,255.255.255.0\ndhcp-range=192.0.2.128,192.0.2.130,255.255.255.128"
    )
    told, problems = subnets(found, [])
    assert ([str(s.network) for s in told], len(problems)) == (["192.0.2.0/24"], 1)


def test_what_is_included_is_read_and_nothing_else_of_a_directory() -> None:
    found = read(
        main="conf-file=/etc/more\nconf-dir=/etc/d,.bak\nconf-dir=/etc/e,*.conf\nconf-file=/etc/no",
        more="dhcp-hostsfile=/etc/hosts.more\ndhcp-hostsdir=/var/h\ndhcp-optsdir=/var/o\ndhcp-optsfile=/var/f",
        d__a="dhcp-host=52:54:00:aa:00:01,192.0.2.5",
        d__b_bak="dhcp-host=52:54:00:aa:00:02,192.0.2.6",
        e__a_conf="dhcp-host=52:54:00:aa:00:03,192.0.2.7",
        e__b="dhcp-host=52:54:00:aa:00:04,192.0.2.8",
    )
    assert [str(h.ip) for h in found.hosts] == ["192.0.2.5", "192.0.2.7"]
    assert (found.hosts_files, found.hosts_directories) == ([Path("/etc/hosts.more")], [Path("/var/h")])
    assert (found.options_directories, found.options_files) == ([Path("/var/o")], [Path("/var/f")])
    assert found.problems == ["Reading /etc/no failed"]


def test_files_that_include_each_other_are_read_for_a_while_and_said() -> None:
    found = read(main="conf-file=/etc/main\ndhcp-host=52:54:00:aa:00:01,192.0.2.5")
    assert len(found.files) < 20
    assert "are not read" in found.problems[0]


def test_a_line_that_is_none_is_a_problem_and_all_others_count() -> None:
    found = read(main="dhcp-range=what,255\ndhcp-host=52:54:00:aa:00:01,192.0.2.5\nno-such-option=1\nbogus-priv")
    assert (len(found.problems), len(found.hosts)) == (1, 1)


def test_who_boots_everybody_is_known() -> None:
    assert read(main="dhcp-boot=tag:!muster,a.0\ndhcp-boot=tag:x,b.0").boots_everybody is None
    assert read(main="dhcp-boot=tag:x,b.0\ndhcp-boot=c.0,here,192.0.2.1").boots_everybody == "c.0,here,192.0.2.1"


def test_long_lines_are_read_in_time_that_grows_with_them() -> None:
    began = time.monotonic()
    for odd in ("a:" * 200_000, "-" * 400_000, '"' * 400_000, "#" * 400_000, "1," * 200_000, " #" * 200_000):
        list(lines(odd))
        host(odd)
        option(odd)
    assert time.monotonic() - began < 10
