from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from muster.balancer.haproxy import descriptors
from muster.cli import muster
from muster.kernel.errors import Misconfigured, Unavailable

CLUSTER = """\
schema: 1
cluster: demo
address: cluster.test
store: {url: postgresql://muster@db.test/muster}
members:
- {id: 1, name: proxy01.test, address: 10.0.0.1}
- {id: 2, name: proxy02.test, address: 10.0.0.2}
balancers:
- {name: lb1, address: 10.0.0.8}
- {name: lb2, address: 10.0.0.9}
virtual_address: {address: 10.0.0.10/24, interface: eth0}
signer: proxy01.test
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER)
    return path


def rendered(file: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(muster, ["render", *(str(a) for a in arguments), "--cluster", str(file)])


def test_keepalived_shows_one_balancers_configuration_and_json_says_its_priority(file: Path) -> None:
    shown = rendered(file, "keepalived", "--balancer", "lb2")
    assert (shown.exit_code, "unicast_src_ip 10.0.0.9" in shown.stdout) == (0, True)
    said = json.loads(rendered(file, "keepalived", "--balancer", "lb2", "--json").stdout)
    assert (said["priority"], said["configuration"]) == (190, shown.stdout)


def test_which_balancer_must_be_said_when_there_are_several(file: Path) -> None:
    for engine in ("keepalived", "nginx", "envoy"):
        said = rendered(file, engine)
        assert said.exit_code != 0
        assert "lb1, lb2" in said.output + str(said.exception)


def test_keepaliveds_script_is_written_so_that_it_can_be_run(file: Path, tmp_path: Path) -> None:
    script = tmp_path / "answers"
    assert rendered(file, "keepalived", "--script", "--output", script, "--dry-run").exit_code == 0
    assert not script.exists()
    assert rendered(file, "keepalived", "--script", "--output", script).exit_code == 0
    assert os.access(script, os.X_OK)
    shown = rendered(file, "keepalived", "--balancer", "lb1", "--script-path", script, "--run", "/run/x").stdout
    assert f'script "{script} /run/x/runtime.sock"' in shown


def test_nginx_is_shown_with_what_it_lacks(file: Path) -> None:
    shown = rendered(file, "nginx", "--balancer", "lb1")
    assert shown.stdout.startswith("# Rendered by Muster")
    said = json.loads(rendered(file, "nginx", "--balancer", "lb1", "--json").stdout)
    assert said["configuration"] == shown.stdout
    assert said["lacks"]


def test_envoys_files_are_written_into_one_directory_that_they_name(file: Path, tmp_path: Path) -> None:
    directory = tmp_path / "envoy"
    tried = rendered(file, "envoy", "--balancer", "lb1", "--output", directory, "--dry-run")
    assert (tried.exit_code, directory.exists(), "Would write" in tried.stdout) == (0, False, True)
    assert rendered(file, "envoy", "--balancer", "lb1", "--output", directory).exit_code == 0
    bootstrap = json.loads((directory / "bootstrap.json").read_text())
    for config in bootstrap["dynamic_resources"].values():
        assert Path(config["path_config_source"]["path"]).is_file()
    again = rendered(file, "envoy", "--balancer", "lb1", "--output", directory, "--dry-run")
    assert again.stdout.count("nothing would change") == len(list(directory.iterdir()))


def test_the_lines_of_puppet_conf_are_for_people_and_programs(file: Path, tmp_path: Path) -> None:
    shown = rendered(file, "puppet-conf")
    said = json.loads(rendered(file, "puppet-conf", "--json").stdout)
    assert said["configuration"] == shown.stdout
    assert said["main"] == {"server": "cluster.test", "ca_server": "cluster.test", "ca_port": "8141"}
    assert rendered(file, "puppet-conf", "--json", "--output", tmp_path / "out").exit_code == 2


def test_the_table_is_for_people_and_programs(file: Path) -> None:
    assert "smartproxy: port 9090" in rendered(file, "table").stdout
    assert json.loads(rendered(file, "table", "--json").stdout)["address"] == "cluster.test"


def test_a_check_counts_the_descriptors_that_haproxy_itself_does_not(
    file: Path, needs: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("haproxy")
    file.write_text(CLUSTER.replace("{name: lb1,", "{name: lb1, maxconn: 1000000,"))
    monkeypatch.setattr(descriptors, "limit", lambda: 4096)
    for further in ((), ("--json",), ("--dry-run",)):
        said = rendered(file, "haproxy", "--balancer", "lb1", "--check", *further)
        assert isinstance(said.exception, Misconfigured)
        assert "file descriptors (2 x maxconn 1000000" in str(said.exception)
        assert said.output == ""
    assert rendered(file, "haproxy", "--balancer", "lb1").exit_code == 0


@pytest.mark.parametrize("engine", ["haproxy", "keepalived", "nginx"])
def test_json_is_shown_and_never_pretends_to_be_written(file: Path, tmp_path: Path, engine: str) -> None:
    said = rendered(file, engine, "--balancer", "lb1", "--json", "--output", tmp_path / "out")
    assert (said.exit_code, (tmp_path / "out").exists()) == (2, False)


def test_a_dry_run_refuses_a_place_where_nothing_can_be_written(file: Path, tmp_path: Path) -> None:
    for further in ((), ("--dry-run",)):
        said = rendered(file, "keepalived", "--balancer", "lb1", "--output", tmp_path / "none" / "x.conf", *further)
        assert isinstance(said.exception, Unavailable)
