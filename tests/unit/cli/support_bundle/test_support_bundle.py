"""The bundle as an administrator gets it: complete as far as can be, without a secret, and never over something else."""

from __future__ import annotations

import json
import stat
import tarfile
from pathlib import Path

import pytest
from click.testing import Result

from muster.kernel.errors import Conflict
from tests.unit.cli.support_bundle.bundle import PLANTED, bundled, made, unpacked

_ALL = {
    "contents.json", "versions.json", "environment.json", "config-check.json", "certificates.json", "disks.json",
    "cluster.yaml", "settings.json", "status.json", "parity.json", "services.json", "store.json", "logs.json",
    "units.txt", "journal.txt",
    "haproxy/version.txt", "haproxy/info.txt", "haproxy/stat.csv", "haproxy/in-force.cfg", "haproxy/lb01.cfg",
    "metrics/gandalf.corp.test.prom", "metrics/proxy02.corp.test.prom",
}  # fmt: skip


def _done(result: Result) -> Result:
    assert result.exception is None, (result.exception, result.output)
    return result


@pytest.mark.parametrize("options", [(), ("--doctor",), ("--anonymous",)])
def test_no_secret_that_was_planted_anywhere_is_in_it(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSTER_API_TOKEN", "planted-env")
    monkeypatch.setenv("MUSTER_STORE", "postgresql://u:planted-env@db.corp.test/x")
    run = tmp_path / "run"
    run.mkdir()
    (run / "haproxy.cfg").write_text("userlist x\n  user a insecure-password planted-in-force\n")
    # Nobody listens there: what it says of the store has the URL in it.
    store = "postgresql://muster:planted-store@127.0.0.14:1/muster"
    with made(tmp_path, store=store) as file:
        result = _done(bundled(file, "--output", str(tmp_path / "b.tar.gz"), *options, run=run))
    found = unpacked(tmp_path / "b.tar.gz")
    for name, text in found.items():
        assert [p for p in PLANTED if p in text] == [], name
        assert "planted" not in text, name
        assert "PLANTED" not in text, name
    assert "planted" not in result.output
    # That they were there to be found is seen by what is left around them.
    assert found["logs.json"].count("***") >= 7
    assert "Finished GET /register?token=*** with 200" in found["logs.json"]
    assert "insecure-password ***" in found["haproxy/in-force.cfg"]
    assert 'key_secret: "***"' in found["cluster.yaml"]


def test_everything_is_in_it_or_named_with_its_reason(tmp_path: Path) -> None:
    with made(tmp_path) as file:
        _done(bundled(file, "--doctor", "--output", str(tmp_path / "b.tar.gz")))
    found = unpacked(tmp_path / "b.tar.gz")
    contents = {row["file"]: row for row in json.loads(found["contents.json"])}
    assert contents.keys() | {"contents.json"} == _ALL | {"doctor.json"}
    assert {name for name, row in contents.items() if row["failed"] is None} == found.keys() - {"contents.json"}
    for name, row in contents.items():
        assert row["failed"] or row["bytes"] == len(found[name].encode())
    # There is no store, the second member is down, and no balancer runs.
    assert "has no schema yet" in contents["store.json"]["failed"]
    assert "failed" in contents["metrics/proxy02.corp.test.prom"]["failed"]
    assert "no balancer runs on this host" in contents["haproxy/info.txt"]["failed"]
    assert json.loads(found["logs.json"])["of"]["members"]["asked"] == "gandalf.corp.test"
    # Nor was one made by looking.
    assert json.loads(found["config-check.json"])["valid"] is True


def test_of_a_file_that_nobody_can_read_the_rest_is_there(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("store: {url: 'postgresql://m:planted@h/x'\nmembers: [password: |\n planted\n")
    _done(bundled(file, "--output", str(tmp_path / "b.tar.gz")))
    found = unpacked(tmp_path / "b.tar.gz")
    contents = {row["file"]: row["failed"] for row in json.loads(found["contents.json"])}
    assert "nobody can tell what in it is secret" in contents["cluster.yaml"]
    assert json.loads(found["config-check.json"])["valid"] is False
    assert "versions.json" in found
    assert "planted" not in "".join(found.values())


def test_the_anonymous_one_names_no_host_and_no_address_of_the_site(tmp_path: Path) -> None:
    with made(tmp_path) as file:
        _done(bundled(file, "--anonymous", "--doctor", "--output", str(tmp_path / "b.tar.gz")))
    found = unpacked(tmp_path / "b.tar.gz")
    for name, text in found.items():
        for word in ("corp.test", "gandalf", "proxy02", "10.20.30.", "52:54:00"):
            assert word not in text.lower(), (name, word)
            assert word not in name
    # The same stand-in in all of them, also where only the first label stands.
    member = json.loads(found["status.json"])["members"][0]["name"]
    assert member.endswith(".example.com")
    assert f"metrics/{member}.prom" in found
    assert f'member="{member.partition(".")[0]}"' in found[f"metrics/{member}.prom"]
    assert json.loads(found["logs.json"])["of"]["members"]["asked"] == member
    assert f"name: {member}" in found["cluster.yaml"]


def test_it_is_listed_first_and_written_when_a_person_says_yes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, output = tmp_path / "none.yaml", tmp_path / "b.tar.gz"
    monkeypatch.setattr("muster.cli.support_bundle._asks", lambda: True)
    refused = bundled(file, "--output", str(output), given="n\n")
    assert type(refused.exception).__name__ == "Abort"
    assert "versions.json" in refused.output
    assert not output.exists()
    _done(bundled(file, "--output", str(output), given="y\n"))
    assert output.exists()
    _done(bundled(file, "--output", str(output), "--force", "--yes"))


@pytest.mark.parametrize("option", ["--list", "--dry-run"])
def test_listing_writes_nothing(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = _done(bundled(tmp_path / "none.yaml", option))
    assert "Nothing was written; the archive would have" in result.output
    assert "cluster.yaml: Reading cluster file" in result.output
    assert list(tmp_path.iterdir()) == []


def test_json_says_the_same_and_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("muster.cli.support_bundle._asks", lambda: True)
    said = json.loads(_done(bundled(tmp_path / "none.yaml", "--json")).stdout)
    (written,) = tmp_path.iterdir()
    assert (said["file"], said["written"], said["bytes"]) == (written.name, True, written.stat().st_size)
    assert {row["file"] for row in said["files"]} >= {"contents.json", "versions.json", "cluster.yaml"}


def test_what_is_there_already_stays(tmp_path: Path) -> None:
    output = tmp_path / "b.tar.gz"
    output.write_text("mine")
    refused = bundled(tmp_path / "none.yaml", "--output", str(output))
    assert isinstance(refused.exception, Conflict)
    assert output.read_text() == "mine"
    _done(bundled(tmp_path / "none.yaml", "--output", str(output), "--force"))
    assert tarfile.is_tarfile(output)
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["b.tar.gz"]
