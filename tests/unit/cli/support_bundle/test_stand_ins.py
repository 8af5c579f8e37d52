"""Names and addresses: what stands for them, the same everywhere."""

from __future__ import annotations

import pytest

from muster.cli.support_bundle.stand_ins import StandIns


def _known() -> StandIns:
    found = StandIns()
    found.learn(["proxy.corp.test", "gandalf.corp.test", "proxy02.corp.test", "foreman.corp.test", "db7.lan"])
    return found


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("proxy.corp.test:9090", "host1.example.com:9090"),
        ("https://GANDALF.corp.test/x", "https://host2.example.com/x"),
        ("be/gandalf is UP", "be/host2 is UP"),
        ("proxy02.corp.test.pem", "host3.example.com.pem"),
        ("srv_proxy02.corp.test", "srv_host3.example.com"),
        # In the same domain, and of nobody known.
        ("web.corp.test and web.corp.test", "host6.example.com and host6.example.com"),
        ("a.b.corp.test", "host6.example.com"),
        ("corp.test", "example.com"),
        ("db7.lan", "host5.domain2.example.com"),
        ("db8.lan", "host6.domain2.example.com"),
        # Words of every sentence, modules, versions.
        ("the proxy foreman knows", "the proxy foreman knows"),
        ("muster.cli.status 2.6.12 haproxy.cfg", "muster.cli.status 2.6.12 haproxy.cfg"),
        ("lan is a word, gandalfs too", "lan is a word, gandalfs too"),
        ("notcorp.test", "notcorp.test"),
    ],
)
def test_hosts_and_domains(text: str, becomes: str) -> None:
    assert _known().text(text) == becomes


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("10.1.2.3:80 10.1.2.4 10.1.2.3", "192.0.2.1:80 192.0.2.2 192.0.2.1"),
        ("10.0.0.0/24", "192.0.2.1/24"),
        ("127.0.0.1 0.0.0.0 255.255.255.255", "127.0.0.1 0.0.0.0 255.255.255.255"),
        ("1.2.3 1.2.3.4.5 300.1.1.1", "1.2.3 1.2.3.4.5 300.1.1.1"),
        ("[fd00::1]:80 FD00:0:0:0:0:0:0:1 ::1 ::", "[2001:db8::1]:80 2001:db8::1 ::1 ::"),
        ("at 12:34:56 and ::ffff:10.1.2.3", "at 12:34:56 and ::ffff:192.0.2.1"),
        ("00:16:3E:aa:bb:cc 00-16-3e-aa-bb-cc", "00:00:5e:00:53:00 00:00:5e:00:53:00"),
        # A fingerprint is no MAC address.
        ("AA:BB:CC:DD:EE:FF:00:11:22:33", "AA:BB:CC:DD:EE:FF:00:11:22:33"),
    ],
)
def test_addresses(text: str, becomes: str) -> None:
    assert StandIns().text(text) == becomes


def test_many_addresses_each_get_one_of_their_own() -> None:
    found = StandIns()
    given = [f"10.{n >> 8}.{n & 255}.7" for n in range(2000)]
    stand_ins = [found.text(a) for a in given]
    assert len(set(stand_ins)) == 2000
    assert stand_ins[253:255] == ["192.0.2.254", "198.51.100.1"]
    macs = [found.text(f"52:54:00:00:{n >> 8:02x}:{n & 255:02x}") for n in range(600)]
    assert len(set(macs)) == 600


def test_hosts_of_urls_are_learnt_wherever_they_stand() -> None:
    found = _known()
    found.learn_from('{"url": "https://cdn.vendor.test:8443/x", "b": "postgresql://u:***@db.other.test/x"}')
    assert found.text("asked cdn.vendor.test, then db.other.test") == (
        "asked host6.domain3.example.com, then host7.domain4.example.com"
    )


@pytest.mark.parametrize("name", ["5.0", "localhost", "local", "foreman", "", "10.1.2.3", "-x-", "a" * 300, "a..b"])
def test_what_is_no_name_of_a_host_is_not_learnt(name: str) -> None:
    found = StandIns()
    found.learn([name])
    text = f"version 5.0 of local foreman {name}"
    assert found.text(text).startswith("version 5.0 of local foreman ")
