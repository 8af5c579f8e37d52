"""What ``muster content keepers`` shows: what is ours in each Pulp, and which could not be asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result

from muster.kernel.errors import Misconfigured
from tests.servers.pulp_api_stand_in import PulpApi
from tests.unit.cli.calls import run


def keepers(file: Path, api: PulpApi, *arguments: str) -> Result:
    text = file.read_text().partition("content:")[0]
    file.write_text(f"{text}content: {{keepers: 2, pulp_api_url: '{api.url}'}}\n")
    return run(file, "content", "keepers", *arguments)


def test_each_keeper_is_listed_the_newest_first(file: Path) -> None:
    api = PulpApi()
    for number, cluster in ((0, "demo"), (1, "demo"), (2, "another")):
        labels = {"muster_keeper": cluster, "muster_turn": str(number + 4)}
        api.distribute(f"org/muster-keep/{number}/repo", publication=f"/pulp/api/v3/{number}/", pulp_labels=labels)
    with api.running():
        said = keepers(file, api, "--json")
        told = json.loads(said.output)
        text = keepers(file, api)
    assert said.return_value == 0
    assert (told["cluster"], told["wanted"]) == ("demo", 2)
    assert [m["name"] for m in told["members"]] == ["proxy01.test", "proxy02.test"]
    assert [(k["base_path"], k["publication"], k["turn"]) for k in told["members"][1]["keepers"]] == [
        ("org/muster-keep/1/repo", "/pulp/api/v3/1/", 5),
        ("org/muster-keep/0/repo", "/pulp/api/v3/0/", 4),
    ]
    assert "proxy01.test: 2 keepers of 1 repository\n    org/muster-keep/1/repo  /pulp/api/v3/1/\n" in text.output
    assert api.changes() == []


def test_a_pulp_without_keepers_has_none(file: Path) -> None:
    api = PulpApi()
    with api.running():
        said = keepers(file, api)
    assert said.output.startswith("proxy01.test: no keepers\nproxy02.test: no keepers\nWanted: 2 ")


def test_a_pulp_that_does_not_say_is_wrong(file: Path) -> None:
    api = PulpApi(broken=(403, b""))
    with api.running():
        said = keepers(file, api)
    assert said.return_value == 1
    assert "proxy01.test: Pulp's API answers 403 to GET" in said.output
    assert "content: pulp_password_file" in said.output


def test_a_cluster_without_pulps_has_none(file: Path) -> None:
    with pytest.raises(Misconfigured, match="no section content"):
        run(file, "content", "keepers")
    file.write_text(file.read_text().partition("content:")[0] + "content: {pulp_api_url: null}\n")
    with pytest.raises(Misconfigured, match="says pulp_api_url: null in content: members have no Pulps"):
        run(file, "content", "keepers")
