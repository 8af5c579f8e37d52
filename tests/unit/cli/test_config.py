from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from muster.cli import INVALID_SETTINGS, muster

CLUSTER = """\
schema: 1
cluster: demo
address: proxy.test
store: {url: "sqlite:////var/muster.db"}
members: [{id: 1, name: proxy01.test, address: 127.0.0.11}]
"""


def checked(tmp_path: Path, text: str) -> tuple[int, list[tuple[int, str]]]:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    said = CliRunner().invoke(muster, ["config", "check", str(file), "--json"], standalone_mode=False)
    assert said.exception is None, said.exception
    content: Any = json.loads(said.output)
    assert content["valid"] is (said.return_value == 0)
    return said.return_value, [(p["line"], p["where"]) for p in content["problems"]]


OFF = "services: {puppetca: {enabled: false}, puppet: {enabled: false}"


@pytest.mark.parametrize(
    ("added", "where"),
    [
        (f"{OFF}}}\nlog: {{level: UNKNOWN}}\n", (7, "log.level")),
        (f"{OFF},\n  smartproxy: {{enabled: false}}}}\n", (7, "services.smartproxy.enabled")),
    ],
)
def test_a_file_that_cannot_serve_is_not_valid(tmp_path: Path, added: str, where: tuple[int, str]) -> None:
    assert checked(tmp_path, CLUSTER + added) == (INVALID_SETTINGS, [where])
    assert checked(tmp_path, CLUSTER + f"{OFF}}}\n") == (0, [])


def test_a_key_that_stands_twice_hides_no_other_problem(tmp_path: Path) -> None:
    text = CLUSTER + f"cluster: other\n{OFF}}}\nlog: {{level: LOUD}}\nfeatures: {{nds: {{}}}}\nsigner: nobody.test\n"
    code, found = checked(tmp_path, text)
    assert code == INVALID_SETTINGS
    assert found == [(6, "cluster"), (8, "log.level"), (9, "features.nds"), (10, "signer")]


def warned(tmp_path: Path, text: str) -> list[tuple[int, str]]:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    said = CliRunner().invoke(muster, ["config", "check", str(file), "--json"], standalone_mode=False)
    content: Any = json.loads(said.output)
    assert (said.return_value, content["valid"], content["problems"]) == (0, True, [])
    return [(w["line"], w["where"]) for w in content["warnings"]]


@pytest.mark.parametrize(
    ("added", "where"),
    [
        ("foreman: {ca_file: /x.pem}\n", [(7, "foreman.ca_file")]),
        ("foreman: {ca_file: /x.pem, url: 'https://192.0.2.1'}\n", [(7, "foreman.ca_file")]),
        ("foreman: {ca_file: /x.pem, url: 'https://foreman.test'}\n", []),
        ("foreman: {ca_file: /x.pem, trusted_hosts: []}\n", []),
        ("features: {dns: {enabled: true, provider: memory}}\n", [(7, "features.dns.enabled")]),
        ("features: {dns: {enabled: http, provider: memory}}\n", [(7, "features.dns.enabled")]),
        ("features: {dns: {enabled: https, provider: memory}, logs: {enabled: false}}\n", []),
        ("features: {dns: {enabled: true, provider: memory}}\nforeman: {trusted_hosts: [foreman.test]}\n", []),
    ],
)
def test_what_is_valid_and_leaves_callers_out_is_a_warning(
    added: str, where: list[tuple[int, str]], tmp_path: Path
) -> None:
    assert warned(tmp_path, f"{CLUSTER}{OFF}}}\n{added}") == where


@pytest.mark.parametrize(
    ("url", "count"),
    [
        ("postgresql://muster:geheim@db.example.net/muster", 1),
        ("postgresql://muster:geheim@db1.example.net,127.0.0.1,db2.example.net:5433/muster?sslmode=require", 2),
        ("postgresql://muster:geheim@db.example.net/muster?sslmode=verify-full", 0),
        ("postgresql://muster:geheim@127.0.0.1/muster", 0),
        ("postgresql:///muster?host=/run/postgresql", 0),
    ],
)
def test_a_database_across_the_network_that_is_not_verified_is_a_warning(tmp_path: Path, url: str, count: int) -> None:
    text = CLUSTER.replace("sqlite:////var/muster.db", url) + f"{OFF}}}\n"
    assert warned(tmp_path, text) == [(4, "store.url")] * count
    said = CliRunner().invoke(muster, ["config", "check", str(tmp_path / "cluster.yaml")]).output
    assert said.count("warning: line 4: store.url: db") == count
    assert "valid; 1 members" in said
    assert "geheim" not in said


def test_an_authority_that_no_balancer_offers_is_a_warning(tmp_path: Path) -> None:
    assert warned(tmp_path, CLUSTER + f"{OFF}}}\nauthority: {{}}\n") == [(6, "services.puppetca.enabled")]
    assert warned(tmp_path, CLUSTER + "services: {puppet: {enabled: false}}\nauthority: {}\n") == []
