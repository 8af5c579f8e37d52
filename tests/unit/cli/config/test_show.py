"""What a cluster file is understood as."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from muster.cli import muster
from tests.unit.cli.config.calls import CLUSTER, OFF


def test_what_is_understood_has_the_generation_s_services_and_the_store_s_place_without_its_password(
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


def test_a_secret_of_a_feature_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    dns = "dns: {nsupdate: {key_name: k, key_secret: aHVudGVyMg==}}"
    pulp = "pulpcore: {pulp_url: 'https://{member}', content_app_url: 'https://x.test/pulp/content', password: hunter2}"
    file.write_text(CLUSTER + f"{OFF}}}\nfeatures: {{{dns}, {pulp}}}\n")
    told = CliRunner().invoke(muster, ["config", "show", "--json", "--cluster", str(file)], standalone_mode=False)
    assert json.loads(told.output)["features"] == {
        "dns": {"nsupdate": {"key_name": "k", "key_secret": "***"}},
        "pulpcore": {
            "pulp_url": "https://{member}",
            "content_app_url": "https://x.test/pulp/content",
            "password": "***",
        },
    }
