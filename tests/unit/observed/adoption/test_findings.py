from __future__ import annotations

from pathlib import Path

import pytest

from muster.balancer.haproxy.found import found
from muster.foreman.ruby_settings import read
from muster.kernel.findings import Finding
from muster.observed.adoption.content import Told, adopted
from tests.servers.hand_made import FOUR, NINE, haproxy_cfg, settings_of

ADDRESS = "smartproxy.example.net"
FIRST, SECOND = "proxy01.example.net", "proxy02.example.net"
GOOD = f"""\
global
  stats socket /x level admin expose-fd listeners
defaults
  timeout client 10m
  timeout server 10m
  option httpchk
listen https
  bind :443
  server a {FIRST}:443 check
  server b {SECOND}:443 check
"""


def of(text: str) -> list[Finding]:
    return list(adopted(found(text), {}, Told(ADDRESS, balancer=("lb", "192.0.2.10"))).findings)


def told(directory: Path, **given: dict[str, dict[str, str]]) -> list[Finding]:
    """What is found when the first member's settings are changed by ``main`` and ``files``."""
    settings = {
        name: read(settings_of(directory / name, name, address=ADDRESS, **(given if name == FIRST else {})))  # type: ignore[arg-type]
        for name in (FIRST, SECOND)
    }
    return list(adopted(found(GOOD), settings, Told(balancer=("lb", "192.0.2.10"))).findings)


def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path) -> None:
    assert of(GOOD) == []
    assert told(tmp_path) == []


def test_the_balancers_of_2018_and_2025_have_what_is_known_of_them() -> None:
    codes = [[f.code for f in of(haproxy_cfg(rows, [FIRST, SECOND]))] for rows in (NINE, FOUR)]
    common = ["ADOPT-SOCKET", "ADOPT-HANDOVER", "ADOPT-CHECK"]
    assert codes[0] == [*common, "ADOPT-TUNNEL", "ADOPT-TIMEOUT", "ADOPT-TIMEOUT", "ADOPT-HASH", *["ADOPT-GONE"] * 3]
    assert codes[1] == [*common, "ADOPT-TIMEOUT", "ADOPT-TIMEOUT", "ADOPT-HASH"]


@pytest.mark.parametrize(
    ("before", "after", "code", "line", "severity"),
    [
        ("bind :443", "bind :443 ssl crt /x.pem", "ADOPT-TLS-ENDED", 8, "error"),
        (":443 check\n  server b", ":443 check ssl\n  server b", "ADOPT-TLS-ENDED", 9, "error"),
        ("bind :443", "bind :443\n  mode http", "ADOPT-MODE-HTTP", 9, "error"),
        ("bind :443", "bind :80\n  mode http", "ADOPT-MODE-HTTP", 9, "warning"),
        ("bind :443", "bind :443 accept-proxy", "ADOPT-PROXY-HEADER", 8, "warning"),
        (":443 check\n  server b", ":443 check send-proxy-v2\n  server b", "ADOPT-PROXY-HEADER", 9, "error"),
        ("  option httpchk\n", "", "ADOPT-CHECK", 6, "warning"),
        (":443 check\n  server b", ":443\n  server b", "ADOPT-CHECK", 9, "warning"),
        (" level admin", "", "ADOPT-SOCKET", 2, "warning"),
        (" expose-fd listeners", "", "ADOPT-HANDOVER", 2, "warning"),
        ("bind :443", "bind :443\n  balance source", "ADOPT-HASH", 9, "warning"),
        ("bind :443", "bind :443\n  balance rdp-cookie(x)", "ADOPT-NOT-OFFERED", 9, "warning"),
        ("client 10m", "client 30s", "ADOPT-TIMEOUT", 4, "warning"),
        ("server 10m", "server 30s", "ADOPT-TIMEOUT", 5, "warning"),
        ("listen https\n  bind :443", "listen mqtt\n  bind :1883", "ADOPT-TUNNEL", 7, "warning"),
        ("listen https\n  bind :443", "listen ca\n  bind :8141", "ADOPT-PUPPETCA", 7, "error"),
        ("check\n  server b", "check\n  server c other.example.net:443 check\n  server b", None, 0, ""),
        (f"b {SECOND}:443 check", f"b {SECOND}:443 check backup", "ADOPT-BACKUP", 10, "warning"),
        (f"b {SECOND}:443 check", f"b {SECOND}:443 check disabled", "ADOPT-DISABLED", 10, "warning"),
        (f"b {SECOND}:443 check", f"b {SECOND}:443 check weight 0", "ADOPT-DISABLED", 10, "warning"),
        (f"b {SECOND}:443 check", f"b {FIRST}:444 check", "ADOPT-NOT-OFFERED", 10, "warning"),
        ("bind :443", "bind :443\n  acl x src 192.0.2.1", "ADOPT-NOT-OFFERED", 9, "warning"),
        ("listen https", "listen stats\n  bind :8404\n  stats enable\nlisten https", "ADOPT-NOT-OFFERED", 9, "warning"),
    ],
)
def test_each_thing_that_is_wrong_is_found_where_it_stands(
    before: str, after: str, code: str | None, line: int, severity: str
) -> None:
    assert before in GOOD
    listed = of(GOOD.replace(before, after))
    if code is None:
        assert listed == []
        return
    (one,) = [f for f in listed if f.code == code and f.place == f"haproxy.cfg line {line}"]
    assert one.severity == severity
    assert one.sentence
    assert one.cause
    assert one.remedy


def test_a_service_that_some_members_lack_is_found() -> None:
    (one,) = of(GOOD + f"listen http\n  bind :80\n  server a {FIRST}:80 check\n")
    assert (one.code, one.place) == ("ADOPT-MEMBERS-DIFFER", "haproxy.cfg line 11")
    assert SECOND in one.sentence


def test_a_member_whose_weight_differs_between_services_is_found() -> None:
    more = f"listen http\n  bind :80\n  server a {FIRST}:80 check weight 4\n  server b {SECOND}:80 check\n"
    (one,) = of(GOOD + more)
    assert one.code == "ADOPT-WEIGHTS"
    assert "https 100, http 25" in one.cause


def test_a_port_that_two_have_is_left_to_the_first() -> None:
    text = (
        GOOD
        + f"listen more\n  bind 192.0.2.9:443\n  bind :444\n  server a {FIRST}:444 check\n  server b {SECOND}:444 check\n"
    )
    it = adopted(found(text), {}, Told(ADDRESS, balancer=("lb", "192.0.2.10")))
    (one,) = it.findings
    assert (one.code, one.place, one.sentence) == (
        "ADOPT-NOT-OFFERED",
        "haproxy.cfg line 12",
        "Port 443 of more is not taken over",
    )
    assert it.content["services"]["more"]["listen_port"] == 444


def test_what_leads_to_the_same_on_another_address_is_the_same_service() -> None:
    text = GOOD + f"listen six\n  bind [2001:db8::1]:443\n  server a {FIRST}:443 check\n  server b {SECOND}:443 check\n"
    it = adopted(found(text), {}, Told(ADDRESS, balancer=("lb", "192.0.2.10")))
    assert it.findings == ()
    assert "six" not in it.content["services"]


URL, PORT = "https://elsewhere.example.net", f"https://{ADDRESS}:8443"


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        ({"registration": ":enabled: true\n"}, "ADOPT-URL", "registration_url is missing"),
        ({"templates": f":enabled: true\n:template_url: {URL}\n"}, "ADOPT-URL", "template_url"),
        ({"pulpcore": f":enabled: https\n:pulp_url: https://{FIRST}\n"}, "ADOPT-URL", "rhsm_url is missing"),
        ({"pulpcore": f":enabled: https\n:pulp_url: https://{ADDRESS}\n"}, "ADOPT-PULP-URL", "not the member's own"),
        ({"container_gateway": f":enabled: https\n:client_endpoint: {URL}\n"}, "ADOPT-URL", "client_endpoint"),
        ({"dns": ":enabled: https\n"}, "ADOPT-FEATURES", "dns is not enabled"),
        (
            {"registration": f":enabled: true\n:registration_url: https://{ADDRESS}:8443\n"},
            "ADOPT-SETTINGS-DIFFER",
            "differs",
        ),
    ],
)
def test_settings_of_features_are_compared_with_the_address_and_each_other(
    tmp_path: Path, files: dict[str, str], code: str, said: str
) -> None:
    assert said in " ".join(f.sentence for f in told(tmp_path, files=files) if f.code == code)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("main", "code", "said"),
    [
        ({":trusted_hosts:": f"[{SECOND}]"}, "ADOPT-TRUSTED", "lacks Foreman"),
        ({":trusted_hosts:": ""}, "ADOPT-TRUSTED", "is absent"),
        ({":tls_min_version:": "'1.3'"}, "ADOPT-SETTINGS-DIFFER", "limits of TLS"),
        (
            {":tls_min_version:": "'1.3'", ":tls_disabled_versions:": "['1.2']"},
            "ADOPT-TLS-SETTINGS",
            "tls_disabled_versions stand beside tls_min_version",
        ),
        ({":foreman_url:": "https://other.example.net"}, "ADOPT-SETTINGS-DIFFER", "foreman_url"),
    ],
)
def test_settings_of_the_proxy_itself_are_looked_at(tmp_path: Path, main: dict[str, str], code: str, said: str) -> None:
    assert said in " ".join(f.sentence for f in told(tmp_path, main=main) if f.code == code)  # type: ignore[arg-type]


def test_a_port_that_is_not_the_smart_proxys_is_found(tmp_path: Path) -> None:
    text = GOOD.replace("listen https\n  bind :443", "listen proxy\n  bind :9090").replace(":443 check", ":9090 check")
    main = {":https_port:": "8443"}
    settings = {FIRST: read(settings_of(tmp_path / "p", FIRST, address=ADDRESS, main=main))}
    (one,) = adopted(found(text), settings, Told(balancer=("lb", "192.0.2.10"))).findings
    assert (one.code, one.place) == ("ADOPT-PORT", FIRST)


def test_a_password_in_a_url_is_not_shown(tmp_path: Path) -> None:
    files = {"templates": ":enabled: true\n:template_url: https://me:hidden@elsewhere.example.net\n"}
    said = repr(told(tmp_path, files=files))  # type: ignore[arg-type]
    assert "elsewhere.example.net" in said
    assert "hidden" not in said
