"""``adopt``: what it prints and writes, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from muster.app.settings import checked
from muster.cli import muster
from muster.kernel.errors import Conflict, Misconfigured, MusterError, Rejected
from muster.kernel.settings import InvalidSettings
from tests.servers.hand_made import FOUR, NINE, haproxy_cfg, settings_of
from tests.unit.cli.calls import wrong_usage

MEMBERS = {"proxy01.example.net": "192.0.2.11", "proxy02.example.net": "192.0.2.12"}
ADDRESS = "smartproxy.example.net"


@pytest.fixture
def haproxy(tmp_path: Path) -> Path:
    file = tmp_path / "haproxy.cfg"
    file.write_text(haproxy_cfg(FOUR, list(MEMBERS.values())))
    return file


def adopt(haproxy: Path, *arguments: str) -> Result:
    members = [f"--member={name}={address}" for name, address in MEMBERS.items()]
    given = ["adopt", "--haproxy", str(haproxy), "--balancer", "lb=192.0.2.10", *members, *arguments]
    result = CliRunner().invoke(muster, given, standalone_mode=False)
    if isinstance(result.exception, MusterError):
        raise result.exception
    return result


def test_the_file_is_printed_with_what_was_found_at_its_head(haproxy: Path, tmp_path: Path) -> None:
    result = adopt(haproxy, "--address", ADDRESS)
    assert result.return_value == 0
    assert "# - warning ADOPT-SOCKET haproxy.cfg line 4: No member can be drained" in result.output
    assert "puppet: {enabled: false}  # haproxy.cfg has nothing on port 8140" in result.output
    (tmp_path / "cluster.yaml").write_text(result.output)
    cluster, problems = checked(tmp_path / "cluster.yaml")
    assert problems == []
    assert cluster is not None
    assert [str(m.name) for m in cluster.members] == list(MEMBERS)


def test_it_is_written_once_and_replaced_only_by_force(haproxy: Path, tmp_path: Path) -> None:
    output = tmp_path / "cluster.yaml"
    given = ("--address", ADDRESS, "--output", str(output))
    assert "schema: 1" in adopt(haproxy, *given, "--dry-run").output
    assert not output.exists()
    assert f"Wrote {output}" in adopt(haproxy, *given).output
    output.write_text("mine\n")
    for further in ((), ("--dry-run",)):
        with pytest.raises(Conflict, match="--force replaces it"):
            adopt(haproxy, *given, *further)
    assert output.read_text() == "mine\n"
    adopt(haproxy, *given, "--force")
    assert "schema: 1" in output.read_text()
    assert output.stat().st_mode & 0o777 == 0o644


def test_programs_get_everything_as_json(haproxy: Path) -> None:
    said = json.loads(adopt(haproxy, "--address", ADDRESS, "--json").output)
    assert said["content"]["address"] == ADDRESS
    assert {f["code"] for f in said["findings"]} >= {"ADOPT-SOCKET", "ADOPT-HASH"}
    assert yaml.safe_load(said["text"]) == said["content"]


def test_settings_of_a_directory_and_an_archive_say_the_address(haproxy: Path, tmp_path: Path) -> None:
    told = [f"--settings={n}={settings_of(tmp_path / n, n, address=ADDRESS)}" for n in MEMBERS]
    result = adopt(haproxy, *told)
    assert result.return_value == 0
    assert yaml.safe_load(result.output)["address"] == ADDRESS
    with pytest.raises(Rejected, match="HAProxy leads to no member of that name"):
        adopt(haproxy, *told, f"--settings=other.example.net={tmp_path / 'proxy01.example.net'}")
    with pytest.raises(Misconfigured, match="nowhere"):
        adopt(haproxy, f"--settings=proxy01.example.net={tmp_path / 'nowhere'}")


def test_an_error_is_exit_1_and_the_file_is_there(haproxy: Path, tmp_path: Path) -> None:
    haproxy.write_text(haproxy.read_text().replace("bind *:443", "bind *:443 ssl crt /etc/site.pem"))
    result = adopt(haproxy, "--address", ADDRESS, "--output", str(tmp_path / "cluster.yaml"))
    assert result.return_value == 1
    assert "error ADOPT-TLS-ENDED haproxy.cfg line 24" in result.output
    assert (tmp_path / "cluster.yaml").exists()


def test_what_config_check_would_refuse_is_not_written(haproxy: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="which was not written"):
        adopt(haproxy, "--address", "proxy01.example.net", "--output", str(tmp_path / "cluster.yaml"))
    assert not (tmp_path / "cluster.yaml").exists()


def test_odd_names_stay_within_their_line(haproxy: Path) -> None:
    odd = "listen \x85\u2028: {evil}\n bind :7001\n acl \x85members: []\n server a 192.0.2.11:7001\n"
    haproxy.write_text(haproxy_cfg(NINE, list(MEMBERS.values())) + odd)
    result = adopt(haproxy, "--address", ADDRESS)
    content = yaml.safe_load(result.output)
    assert [m["name"] for m in content["members"]] == list(MEMBERS)
    assert "listen_port" in next(iter(s for n, s in content["services"].items() if n not in {"amqp", "docker"}))


@pytest.mark.parametrize(
    "option", ["--member=x", "--balancer=x", "--settings=x", "--settings=x=", "--member=a b=192.0.2.1"]
)
def test_half_an_option_is_wrong_usage(haproxy: Path, option: str) -> None:
    assert wrong_usage("adopt", "--haproxy", str(haproxy), option)
