from __future__ import annotations

import pytest

from muster.balancer.haproxy.found import found
from muster.kernel.errors import Misconfigured
from tests.servers.hand_made import FOUR, NINE, haproxy_cfg

FREE = """\
# A file as people write them.
global
    stats socket /run/haproxy/admin.sock mode 660 level admin expose-fd listeners
    stats socket ipv4@127.0.0.1:9999 level operator

defaults base
    mode http
    timeout client 30s
    timeout server 2h
    default-server check inter 2s weight 7
    option httpchk

defaults from base
    mode tcp

listen content   # content of all kinds
    bind "*:443",:8443
    bind [2001:db8::1]:443 v6only
    bind 192.0.2.10:1443 ssl crt /etc/site.pem
    balance source
    hash-type consistent
    server first [2001:db8::11]:443
    server 'second' proxy02.example.net:443 no-check backup disabled weight 3
    server third 192.0.2.13 send-proxy port 9090 check-ssl

frontend plain
    bind :80
    bind unix@/run/x.sock
    bind :8000-8002
    acl nobody src 192.0.2.66
    use_backend other if nobody
    default_backend web

backend web from base
    server one 192.0.2.11:80
backend other
    timeout server 5x
"""


def test_sections_inherit_from_the_defaults_above_or_from_named_ones() -> None:
    content, plain, web, other = found(FREE).sections
    assert (content.mode, plain.mode, web.mode, other.mode) == ("tcp", "tcp", "http", "tcp")
    assert content.timeouts == {"client": 30.0, "server": 7200.0}
    assert content.asks
    assert content.line_of("timeout client") == 8
    assert [s.line for s in (content, plain, web, other)] == [16, 26, 34, 36]


def test_binds_have_each_address_port_and_line() -> None:
    content, plain, *_ = found(FREE).sections
    assert [(b.host, b.port, b.line, b.tls) for b in content.binds] == [
        ("", 443, 17, False), ("", 8443, 17, False), ("2001:db8::1", 443, 18, False), ("192.0.2.10", 1443, 19, True),
    ]  # fmt: skip
    assert [b.port for b in plain.binds] == [80, 8000, 8001, 8002]


def test_servers_have_their_options_over_those_of_default_server() -> None:
    first, second, third = found(FREE).sections[0].servers
    assert (first.host, first.port, first.checked, first.weight, first.backup) == ("2001:db8::11", 443, True, 7, False)
    assert (second.name, second.checked, second.backup, second.disabled, second.weight) == (
        "second", False, True, True, 3,
    )  # fmt: skip
    assert (third.port, third.check_port, third.proxied, third.check_tls) == (None, 9090, True, True)


def test_a_frontend_leads_to_its_backends_and_a_listen_section_to_itself() -> None:
    it = found(FREE)
    content, plain, web, other = it.sections
    assert it.fronts == (content, plain)
    assert it.servers_of(content) == (content,)
    assert it.servers_of(plain) == (web, other)


def test_sockets_say_what_they_allow() -> None:
    admin, operator = found(FREE).sockets
    assert (admin.level, admin.hands_over, admin.line) == ("admin", True, 3)
    assert (operator.level, operator.hands_over) == ("operator", False)
    assert found("global\n stats socket /x\n").sockets[0].level == "operator"


def test_what_is_not_understood_is_noted_with_its_line() -> None:
    assert [(n.line, n.words) for n in found(FREE).noted] == [
        (28, "bind unix@/run/x.sock"),
        (30, "acl nobody src 192.0.2.66"),
        (31, "use_backend other if nobody"),
        (37, "timeout server 5x"),
    ]


def test_quotes_backslashes_and_comments_are_haproxys() -> None:
    it = found('frontend "a b"\n bind ":80" # :81\n bind \\:82\n default_backend \'x#y\'\nbackend x\\#y\n')
    front, back = it.sections
    assert (front.name, [b.port for b in front.binds], front.backends) == ("a b", [80, 82], ("x#y",))
    assert it.servers_of(front) == (back,)


@pytest.mark.parametrize("rows", [NINE, FOUR])
def test_the_balancers_of_2018_and_2025_are_read_whole(rows: tuple[tuple[str, int, int, str, bool], ...]) -> None:
    it = found(haproxy_cfg(rows, ["192.0.2.1", "192.0.2.2"]))
    assert it.noted == ()
    assert [(f.name, f.binds[0].port) for f in it.fronts] == [(name, port) for name, port, *_ in rows]
    for front, (_, _, port, balance, only_first) in zip(it.fronts, rows, strict=True):
        (back,) = it.servers_of(front)
        assert (back.balance, back.asks, back.mode) == (balance, False, "tcp")
        hosts = ["192.0.2.1"] if only_first else ["192.0.2.1", "192.0.2.2"]
        assert [(s.host, s.port, s.checked) for s in back.servers] == [(h, port, True) for h in hosts]
        assert back.timeouts["client"] == 60.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no section"),
        ("hello\nworld\n", "holds no section"),
        ("frontend\n", "line 1: frontend has no name"),
        ('frontend a\n bind ":80\n', "line 2: a quote that is opened and never closed"),
        ("backend a from nowhere\n", "line 1: from nowhere: no such defaults stand above"),
        ("backend a\n" + "x" * 9000, "line 2 has more than 8192 characters"),
        ("backend a\n" + "x " * 300, "line 2 has more than 256 words"),
        ("\n" * 20_001, "more than 20000 lines"),
        ("#" * ((1 << 20) + 1), "larger than 1048576 bytes"),
        ("backend a\n" * 1001, "more than 1000 frontends"),
        ("backend a\n" + " server x 192.0.2.1:80\n" * 1001, "more than 1000 servers"),
    ],
)
def test_what_is_no_configuration_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        found(text, "haproxy.cfg")
    assert said in str(refused.value)
    assert str(refused.value).startswith("haproxy.cfg")


@pytest.mark.parametrize(
    "line",
    [
        "bind", "bind :0", "bind :70000", "bind :1-60000", "bind :80-70", "bind $PORT", "server", "server a", "server a :80",
        "server a 192.0.2.300:80", "server a host:+8000", "server a ${HOST}:80", "server a x\\ny:80", "mode",
        "timeout client", "timeout client ever", "balance", "option", "hash-type", "http-request deny", "tcp-check",
        "default_backend", ".if defined(X)", "\x00\x01", "stats enable",
    ],
)  # fmt: skip
def test_half_a_directive_is_noted_and_nothing_else(line: str) -> None:
    it = found(f"listen a\n bind :443\n {line}\n server one 192.0.2.1:443\n")
    assert [n.line for n in it.noted] == [3]
    assert [b.port for b in it.sections[0].binds] == [443]
    assert [s.host for s in it.sections[0].servers] == ["192.0.2.1"]
    assert all(n.words.isprintable() for n in it.noted)
