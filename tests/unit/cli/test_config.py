from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from muster.cli import INVALID_SETTINGS, muster
from muster.cluster.file import load
from muster.kernel.errors import Conflict, Misconfigured
from muster.kernel.settings import InvalidSettings

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
    (tmp_path / "x.pem").write_text("there")
    assert warned(tmp_path, f"{CLUSTER}{OFF}}}\n{added.replace('/x.pem', str(tmp_path / 'x.pem'))}") == where


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
    assert "valid; 1 member," in said
    assert "geheim" not in said


def said(tmp_path: Path, text: str) -> tuple[int, list[tuple[int, str, str]], str]:
    """Return the exit code, the warnings, and what a person is told."""
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    told = CliRunner().invoke(muster, ["config", "check", str(file), "--json"], standalone_mode=False)
    plain = CliRunner().invoke(muster, ["config", "check", str(file)], standalone_mode=False)
    assert (told.exception, plain.exception) == (None, None)
    found = [(p["line"], p["where"], p["sentence"]) for p in json.loads(told.output)["warnings"]]
    return told.return_value, found, plain.output


def test_files_that_are_named_and_absent_are_warned_of(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("x")
    text = CLUSTER.replace('muster.db"', f'muster.db", password_file: {tmp_path}/none') + (
        f"{OFF}}}\nforeman: {{ca_file: {there}, trusted_hosts: []}}\n"
        f"features: {{dns: {{nsupdate: {{key_file: {tmp_path}/dns.key}}}}}}\n"
    )
    code, found, plain = said(tmp_path, text)
    assert [(line, where) for line, where, _ in found] == [
        (4, "store.password_file"), (8, "features.dns.nsupdate.key_file"),
    ]  # fmt: skip
    assert (code, f"{tmp_path}/none is not on this host" in found[0][2]) == (0, True)
    assert "cluster.yaml: warning: line 4: store.password_file: " in plain
    assert "valid; 1 member, profile current; 2 warnings" in plain


def test_an_authority_whose_service_is_disabled_is_warned_of(tmp_path: Path) -> None:
    code, found, _ = said(tmp_path, CLUSTER + f"{OFF}}}\nauthority: {{}}\n")
    assert (code, [w for _, w, _ in found]) == (0, ["authority"])
    assert "puppetca is disabled" in found[0][2]
    assert said(tmp_path, CLUSTER + "services: {puppet: {enabled: false}}\nauthority: {}\n")[1] == []


def test_a_file_that_is_no_cluster_file_is_called_so_without_our_own_names(tmp_path: Path) -> None:
    file = tmp_path / "passwd"
    file.write_text("root:x:0:0:root:/root:/bin/bash\n")
    told = CliRunner().invoke(muster, ["config", "check", str(file)], standalone_mode=False)
    assert told.return_value == INVALID_SETTINGS
    assert "is not a mapping of settings" in told.output
    assert "ClusterFile" not in told.output
    assert told.output.endswith("1 problem\n")


@pytest.mark.parametrize("command", ["status", "doctor", "parity", "drain"])
def test_without_a_cluster_file_it_is_said_how_to_come_by_one(tmp_path: Path, command: str) -> None:
    arguments = [command, *(["proxy01"] if command == "drain" else []), "--cluster", str(tmp_path / "cluster.yaml")]
    told = CliRunner().invoke(muster, arguments, standalone_mode=False)
    assert isinstance(told.exception, Misconfigured)
    assert all(w in str(told.exception) for w in ("There is no cluster file", "--cluster", "config init", "muster up"))


def test_what_is_understood_has_the_profile_s_services_and_the_store_s_place_without_its_password(
    tmp_path: Path,
) -> None:
    file = tmp_path / "cluster.yaml"
    url = "postgresql://muster:hunter2@db.test/muster"
    file.write_text(CLUSTER.replace("sqlite:////var/muster.db", url) + f"{OFF}}}\n")
    told = CliRunner().invoke(muster, ["config", "show", "--json", "--cluster", str(file)], standalone_mode=False)
    content = json.loads(told.output)
    assert content["store"]["url"] == "postgresql://muster:***@db.test/muster"
    services = content["services"]
    assert list(services) == ["http", "https", "anaconda", "smartproxy", "puppetca", "puppet"]
    assert {k: services["smartproxy"][k] for k in ("enabled", "listen_port", "member_port", "balance")} == {
        "enabled": True, "listen_port": 9090, "member_port": 9090, "balance": "roundrobin",
    }  # fmt: skip
    assert services["puppet"]["enabled"] is False


def first(file: Path, *arguments: str) -> Any:
    given = ["config", "init", "--cluster", str(file), "--address", "proxy.test", "--balancer", "lb=192.0.2.10"]
    return CliRunner().invoke(muster, [*given, *arguments])


def test_a_first_cluster_file_is_valid_and_replaces_none(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    two = ("--member", "proxy01.test=192.0.2.11", "--member", "proxy02.test=192.0.2.12", "--foreman", "foreman.test")
    dry = first(file, *two, "--dry-run")
    assert (dry.exit_code, file.exists()) == (0, False)
    written = first(file, *two)
    assert written.exit_code == 0, written.output
    assert checked(tmp_path, file.read_text()) == (0, [])
    # What it writes is no cause for a warning but of the files that are still to be brought.
    assert [where for _, where, why in said(tmp_path, file.read_text())[1] if "is not on this host" not in why] == []
    cluster, _ = load(file)
    assert [(m.id, str(m.name), m.address) for m in cluster.members] == [
        (1, "proxy01.test", "192.0.2.11"), (2, "proxy02.test", "192.0.2.12"),
    ]  # fmt: skip
    assert cluster.store.url.reveal() == (
        "postgresql://muster@192.0.2.10/muster?sslmode=verify-full&sslrootcert=/etc/muster/db-ca.pem"
    )
    assert (cluster.foreman.trusted_hosts, file.read_text() in dry.output) == (("foreman.test",), True)
    assert isinstance(first(file, *two).exception, Conflict)
    assert first(file, *two, "--force", "--json").exit_code == 0


@pytest.mark.parametrize(
    "url", ["postgresql://u:geheim@db/x", "postgresql://u@db/x?password=geheim", "mysql://u:geheim@db"]
)
def test_a_first_cluster_file_takes_no_password_from_the_list_of_processes(tmp_path: Path, url: str) -> None:
    file = tmp_path / "cluster.yaml"
    told = first(file, "--member", "proxy01.test=192.0.2.11", "--store", url)
    assert (told.exit_code, file.exists()) == (2, False)
    assert "geheim" not in told.output


def test_an_absent_file_that_the_database_is_verified_with_is_warned_of(tmp_path: Path) -> None:
    there = tmp_path / "db-ca.pem"
    url = f"postgresql://u@db/x?sslmode=verify-full&sslrootcert={there}"
    text = CLUSTER.replace("sqlite:////var/muster.db", url) + f"{OFF}}}\n"
    code, found, _ = said(tmp_path, text)
    assert (code, [(line, where) for line, where, _ in found]) == (0, [(4, "store.url")])
    assert f"sslrootcert {there} is not on this host" in found[0][2]
    there.write_text("x")
    assert said(tmp_path, text)[1] == []
    assert said(tmp_path, text.replace(str(there), "system"))[1] == []


def test_a_first_cluster_of_ruby_members_needs_no_postgresql(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    assert first(file, "--ruby", "rb1.test=192.0.2.21", "--ruby", "rb2.test=192.0.2.22").exit_code == 0
    cluster, _ = load(file)
    assert ({m.kind for m in cluster.members}, cluster.store.url.reveal()) == (
        {"foreman"}, "sqlite:////var/lib/muster/muster.db",
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [(), ("--member", "proxy01.test"), ("--member", "a b=192.0.2.1")])
def test_what_is_no_member_is_wrong_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert first(tmp_path / "cluster.yaml", *arguments).exit_code == 2


@pytest.mark.parametrize("name", ["a: {b", "x, y", "\x1b[2J"])
def test_a_name_that_would_change_the_file_is_refused(tmp_path: Path, name: str) -> None:
    said = first(tmp_path / "cluster.yaml", "--name", name, "--member", "proxy01.test=192.0.2.11")
    assert isinstance(said.exception, InvalidSettings)
    assert not (tmp_path / "cluster.yaml").exists()


@pytest.mark.parametrize(
    "url",
    ["postgresql://muster:hunter2@db.test/muster", "postgresql://db.test/muster?user=muster&password=hunter2"],
)
def test_a_password_in_the_stores_url_is_refused_on_the_command_line_and_hidden_from_a_file(
    tmp_path: Path, url: str
) -> None:
    file = tmp_path / "cluster.yaml"
    refused = first(file, "--member", "proxy01.test=192.0.2.11", "--store", url)
    assert (refused.exit_code, file.exists(), "hunter2" in refused.output) == (2, False, False)
    file.write_text(CLUSTER.replace("sqlite:////var/muster.db", url) + f"{OFF}}}\n")
    told = CliRunner().invoke(muster, ["config", "show", "--cluster", str(file)])
    assert "hunter2" not in told.output
    assert url.replace("hunter2", "***") in told.output


def test_a_first_cluster_file_is_for_everybody_to_read(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    url = "postgresql://muster@db.test/muster"
    assert first(file, "--member", "proxy01.test=192.0.2.11", "--store", url).exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o644
