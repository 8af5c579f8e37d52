"""How Ruby Smart Proxies are deployed in containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.derived.foremanctl import OUTPUT
from muster.derived.output import Site
from muster.kernel.errors import Misconfigured
from muster.kernel.settings import parse
from tests.servers.stubs import options, ran
from tests.unit.derived.test_ruby_settings import CLUSTER, REST

CONTAINERS = f"generation: foremanctl\n{REST}"
PROGRAMS = ["foremanctl", "scp", "openssl"]


def scripts(rest: str = CONTAINERS, **given: Any) -> dict[str, str]:
    cluster = parse(f"{CLUSTER}{rest}").parsed(ClusterFile)
    return {d.name: d.text for d in OUTPUT.rendered(modelled(cluster), cluster, Site(given=given))}


def test_the_bundle_carries_the_address_and_the_member_is_led_to_it(tmp_path: Path) -> None:
    found = scripts()
    assert list(found) == [f"proxy0{n}.test/{f}.sh" for n in (1, 2) for f in ("auth-bundle", "deploy-proxy")]
    said = ran(found["proxy02.test/auth-bundle.sh"], tmp_path, PROGRAMS)
    assert said.of("foremanctl") == [
        ["auth-bundle", "proxy02.test", "--server-alias", "cluster.test", "--server-alias", "proxies.test"]
    ]
    assert said.of("scp") == [
        [
            "-p",
            "/var/lib/foremanctl/certs/bundles/proxy02.test.tar.gz",
            "root@proxy02.test:/root/proxy02.test.tar.gz",
        ]
    ]
    (words,) = ran(found["proxy02.test/deploy-proxy.sh"], tmp_path, PROGRAMS).of("foremanctl")
    assert words[0] == "deploy-proxy"
    assert options(words[1:]) == {
        "--flavor": ["foreman-proxy-content"],
        "--auth-bundle": ["/root/proxy02.test.tar.gz"],
        "--foreman-fqdn": ["foreman.test"],
        "--registration-url": ["https://cluster.test:8443"],
        "--templates-url": ["https://cluster.test:8443"],
    }


def test_templates_come_over_http_where_the_file_has_a_port_for_them(tmp_path: Path) -> None:
    found = scripts(f"{CONTAINERS}services: {{anaconda: {{}}}}\n")
    (words,) = ran(found["proxy01.test/deploy-proxy.sh"], tmp_path, PROGRAMS).of("foremanctl")
    assert options(words)["--templates-url"] == ["http://cluster.test:8000"]


def test_a_bundle_that_is_there_is_made_anew_only_on_request(tmp_path: Path) -> None:
    def made(**given: Any) -> list[str]:
        (words,) = ran(scripts(**given)["proxy01.test/auth-bundle.sh"], tmp_path, PROGRAMS).of("foremanctl")
        return words

    assert "--certificate-renew" not in made()
    assert made(renew=True)[-1] == "--certificate-renew"
    assert "--renew" in scripts()["proxy01.test/auth-bundle.sh"]


def test_a_certificate_of_the_sites_own_gets_no_aliases_and_is_looked_at(tmp_path: Path) -> None:
    text = scripts(custom_certificates=Path("/root/certs"))["proxy02.test/auth-bundle.sh"]
    said = ran(text, tmp_path, PROGRAMS)
    (words,) = said.of("foremanctl")
    assert options(words[2:]) == {
        "--certificate-source": ["custom_server"],
        "--certificate-server-certificate": ["/root/certs/proxy02.test.crt"],
        "--certificate-server-key": ["/root/certs/proxy02.test.key"],
    }
    assert [one[2] for one in said.of("openssl")] == ["proxy02.test", "cluster.test", "proxies.test"]
    assert ran(text, tmp_path, PROGRAMS, failing=["openssl"]).of("foremanctl") == []


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        (REST, "generation: foremanctl"),
        ("generation: foremanctl\n", "set foreman.url"),
        ('generation: foremanctl\nforeman: {url: "https://192.0.2.9"}\n', "name it there"),
    ],
)
def test_what_is_missing_is_named_by_its_key(rest: str, why: str) -> None:
    with pytest.raises(Misconfigured, match=why):
        scripts(rest)
