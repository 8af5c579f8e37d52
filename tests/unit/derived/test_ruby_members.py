"""What all Ruby Smart Proxies are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.derived.output import Site
from muster.derived.ruby_members import (
    PuppetCA,
    client_names,
    custom_certificate,
    foreman_host,
    foreman_url,
    members,
    puppet_ca,
)
from muster.kernel.errors import Misconfigured
from muster.kernel.settings import parse
from tests.unit.derived.test_ruby_settings import CLUSTER, REST


def cluster(rest: str = REST) -> ClusterFile:
    return parse(f"{CLUSTER}{rest}").parsed(ClusterFile)


def test_names_are_in_small_letters_because_the_installer_takes_no_others() -> None:
    assert client_names(cluster()) == ("cluster.test", "proxies.test")
    assert [str(m.name).lower() for m in members(cluster(), Site())] == ["proxy01.test", "proxy02.test"]


def test_foreman_is_a_name() -> None:
    assert foreman_url(cluster('foreman: {url: "https://F.test:8443/foreman/"}\n')) == "https://F.test:8443/foreman"
    assert foreman_host(cluster('foreman: {url: "https://F.test:8443/foreman"}\n')) == "f.test"
    for address in ("192.0.2.9", "[2001:db8::9]"):
        with pytest.raises(Misconfigured, match="name it there"):
            foreman_host(cluster(f'foreman: {{url: "https://{address}"}}\n'))


def test_the_only_member_there_is_signs_without_being_named() -> None:
    one = parse(CLUSTER.rsplit("- ", 1)[0]).parsed(ClusterFile)
    assert puppet_ca(one, modelled(one)) == PuppetCA("proxy01.test", 8140, "proxy01.test")


def test_a_sites_own_certificates_are_a_file_of_each_member() -> None:
    assert custom_certificate(Site(), "a.test") is None
    found = custom_certificate(Site(given={"custom_certificates": Path("/c")}), "a.test")
    assert found is not None
    assert (found.certificate, found.key, found.ca) == ("/c/a.test.crt", "/c/a.test.key", "/c/ca.crt")
