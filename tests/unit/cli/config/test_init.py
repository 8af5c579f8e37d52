"""The first cluster file that ``muster config init`` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from muster.cli import muster
from muster.cluster.file import load
from muster.kernel.errors import Conflict
from muster.kernel.settings import InvalidSettings
from tests.unit.cli.config.calls import CLUSTER, OFF, checked, said


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


def test_a_first_cluster_on_loopback_shares_one_host_and_takes_no_port_from_its_members(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    two = ("--member", "proxy01.test=127.0.0.211", "--member", "proxy02.test=127.0.0.212")
    written = first(file, *two, "--balancer", "lb=127.0.0.210")
    assert written.exit_code == 0, written.output
    cluster, _ = load(file)
    assert cluster.balancers[0].bind == "127.0.0.210"
    assert cluster.store.url.reveal() == "sqlite:////var/lib/muster/muster.db"


def test_the_first_store_of_ruby_members_lies_where_the_packaged_units_may_write(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    written = first(file, "--ruby", "proxy01.test=192.0.2.11", "--ruby", "proxy02.test=192.0.2.12")
    assert written.exit_code == 0, written.output
    place = Path(load(file)[0].store.url.reveal().removeprefix("sqlite:///"))
    # Members of that kind have no unit of ours, so it is the balancer's that makes the directory.
    for unit in ("muster-balancer", "muster-member"):
        says = (Path(__file__).parents[4] / "packaging" / "systemd" / f"{unit}.service").read_text("utf-8").splitlines()
        assert "ProtectSystem=strict" in says
        assert f"StateDirectory={place.parent.relative_to('/var/lib')}" in says


def test_a_first_cluster_file_that_cannot_be_is_not_spoken_of_as_if_it_were_there(tmp_path: Path) -> None:
    told = first(tmp_path / "cluster.yaml", "--member", "proxy.test=192.0.2.11")
    assert isinstance(told.exception, InvalidSettings)
    assert f"{tmp_path}/cluster.yaml, which was not written, has 1 problem:" in str(told.exception)


@pytest.mark.parametrize(
    "url", ["postgresql://u:geheim@db/x", "postgresql://u@db/x?password=geheim", "mysql://u:geheim@db"]
)
def test_a_first_cluster_file_takes_no_password_from_the_list_of_processes(tmp_path: Path, url: str) -> None:
    file = tmp_path / "cluster.yaml"
    told = first(file, "--member", "proxy01.test=192.0.2.11", "--store", url)
    assert (told.exit_code, file.exists()) == (2, False)
    assert "geheim" not in told.output


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


@pytest.mark.parametrize("generation", ["seed", "installer", "foremanctl"])
@pytest.mark.parametrize("kind", ["--member", "--ruby"])
def test_a_first_cluster_is_of_the_generation_that_is_named(generation: str, kind: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    two = (kind, "proxy01.test=192.0.2.11", kind, "proxy02.test=192.0.2.12")
    written = first(file, *two, "--generation", generation)
    assert written.exit_code == 0, written.output
    assert load(file)[0].generation == generation
    assert [where for _, where, why in said(tmp_path, file.read_text())[1] if "is not on this host" not in why] == []
