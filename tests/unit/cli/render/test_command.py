from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from muster.app.outputs import offers
from muster.balancer.haproxy import descriptors
from muster.balancer.model import Balancing
from muster.cli import muster
from muster.cli.options import first_sentence
from muster.cli.render import OUTPUTS, Outputs
from muster.cluster.file import ClusterFile
from muster.derived.output import Document, Option, Output, Site, Trial
from muster.features.dns.settings import DNSSettings
from muster.kernel.errors import Misconfigured, Rejected, Unavailable, Unsupported

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


def test_a_difference_is_shown_with_exit_1_and_none_with_0_and_nothing_is_written(file: Path, tmp_path: Path) -> None:
    place = tmp_path / "keepalived.conf"
    asked = ("keepalived", "--balancer", "lb1", "--output", place, "--diff")
    new = rendered(file, *asked)
    assert (new.exit_code, new.stdout.splitlines()[0], place.exists()) == (1, "--- /dev/null", False)
    assert rendered(file, *asked[:-1]).exit_code == 0
    same = rendered(file, *asked)
    assert (same.exit_code, same.stdout) == (0, "")
    edited = place.read_text().replace("  rise 2\n", "  rise 3\n")
    place.write_text(edited)
    other = rendered(file, *asked, "--dry-run")
    assert other.exit_code == 1
    assert [x for x in other.stdout.splitlines() if x[0] in "+-"] == [
        f"--- {place}",
        f"+++ {place}\trendered",
        "-  rise 3",
        "+  rise 2",
    ]
    assert place.read_text() == edited


def test_differences_are_for_programs_too(file: Path, tmp_path: Path) -> None:
    place = tmp_path / "puppet.conf"
    place.write_text("[main]\n")
    said = rendered(file, "puppet-conf", "--output", place, "--diff", "--json")
    assert said.exit_code == 1
    found = json.loads(said.stdout)
    assert (found["differs"], found["files"][0]["file"]) == (True, str(place))
    assert "+server = cluster.test\n" in found["files"][0]["diff"]
    assert rendered(file, "puppet-conf", "--output", place).exit_code == 0
    said = rendered(file, "puppet-conf", "--output", place, "--diff", "--json")
    assert (said.exit_code, json.loads(said.stdout)["differs"]) == (0, False)


def test_a_directory_is_compared_file_by_file(file: Path, tmp_path: Path) -> None:
    directory = tmp_path / "envoy"
    asked = ("envoy", "--balancer", "lb1", "--output", directory)
    assert rendered(file, *asked).exit_code == 0
    assert rendered(file, *asked, "--diff").stdout == ""
    (directory / "listeners.json").unlink()
    said = rendered(file, *asked, "--diff")
    assert said.exit_code == 1
    heads = [x for x in said.stdout.splitlines() if x.startswith(("--- ", "+++ "))]
    assert heads == ["--- /dev/null", f"+++ {directory / 'listeners.json'}\trendered"]
    assert not (directory / "listeners.json").exists()


def test_where_an_output_has_a_place_of_its_own_a_difference_needs_no_other(file: Path, tmp_path: Path) -> None:
    place = tmp_path / "answers"
    asked = ("keepalived", "--script", "--script-path", place)
    assert rendered(file, *asked, "--diff").exit_code == 1
    assert rendered(file, *asked, "--output", place).exit_code == 0
    assert rendered(file, *asked, "--diff").exit_code == 0
    said = rendered(file, "nginx", "--balancer", "lb1", "--diff")
    assert (said.exit_code, "--diff needs --output" in said.output) == (2, True)


def test_the_table_is_written_as_it_is_shown(file: Path, tmp_path: Path) -> None:
    assert rendered(file, "table", "--output", tmp_path / "table.txt").exit_code == 0
    assert (tmp_path / "table.txt").read_text() == rendered(file, "table").stdout


def test_a_check_of_a_script_says_that_there_is_none(file: Path, needs: Callable[[str], None]) -> None:
    needs("keepalived")
    said = rendered(file, "keepalived", "--script", "--check")
    assert isinstance(said.exception, Unsupported)
    assert said.output == ""


def invoked(output: Output, *arguments: str | Path) -> Result:
    offering = type("Offering", (DNSSettings,), {"outputs": (output,), "__module__": __name__})
    words = {**OUTPUTS, output.word: output.help}
    command = Outputs("render", outputs=words, features=lambda: {"dns": offering})
    return CliRunner().invoke(command, [str(a) for a in arguments])


def zone(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:
    provider = DNSSettings.model_validate(cluster.features["dns"]).provider
    return (Document("zone", f"{balancing.address} {provider} {site.given['serial']}\n", "named"),)


async def refusing(directory: Path, documents: Sequence[Document]) -> None:
    raise Rejected(f"named refuses it: {(directory / documents[0].name).read_text()}")


ZONE = Output("zone", "Render a zone.", zone, options=(Option("serial", "With it.", "flag"),))


def test_a_features_output_has_all_that_others_have(file: Path, tmp_path: Path) -> None:
    file.write_text(CLUSTER + "features: {dns: {provider: memory}}\n")
    where = ("zone", "--serial", "--cluster", file)
    assert invoked(ZONE, *where).output == "cluster.test memory True\n"
    assert json.loads(invoked(ZONE, *where, "--json").output) == {"zone": "cluster.test memory True\n"}
    place = tmp_path / "zone"
    for further, code in ((("--diff",), 1), (("--dry-run",), 0), ((), 0), (("--diff",), 0)):
        assert invoked(ZONE, *where, "--output", place, *further).exit_code == code
    assert place.read_text() == "cluster.test memory True\n"
    said = invoked(
        replace(ZONE, check=Trial("named", "Ask.", refusing)), *where, "--check", "--output", tmp_path / "no"
    )
    assert str(said.exception) == "named refuses it: cluster.test memory True\n"
    assert not (tmp_path / "no").exists()


def test_the_list_of_outputs_says_what_the_outputs_say() -> None:
    from_all = OUTPUTS["all"]
    found = sorted([*((one.output.word, one.output.help) for one in offers()), ("all", from_all)])
    assert list(OUTPUTS.items()) == [(word, first_sentence(said)) for word, said in found]


def test_help_lists_what_features_offer(file: Path) -> None:
    said = invoked(ZONE, "--help").output
    assert "Render a zone." in said
    assert said.index("\n  table ") < said.index("\n  zone ")
    assert "--check" not in invoked(ZONE, "zone", "--help").output


def test_who_mistypes_an_output_is_told_which_is_near(file: Path) -> None:
    assert "Did you mean 'nginx'?" in rendered(file, "nginxx").output
    assert "Did you mean 'zone'?" in invoked(ZONE, "zon").output


@pytest.mark.parametrize("features", ["", "features: {dns: {provider: memory, enabled: false}}\n"])
def test_the_output_of_a_feature_that_is_off_is_refused(features: str, file: Path) -> None:
    file.write_text(CLUSTER + features)
    said = invoked(ZONE, "zone", "--cluster", file)
    assert isinstance(said.exception, Misconfigured)
    assert "features.dns" in str(said.exception)


def test_several_files_of_an_output_are_shown_as_one_object_and_what_it_lacks_aside(file: Path) -> None:
    file.write_text(CLUSTER + "features: {dns: {provider: memory}}\n")
    lacking = replace(ZONE, in_directory=True, says_lacks=False, lacks=lambda *_: ("It does not fly.",))
    said = invoked(lacking, "zone", "--cluster", file, "--json")
    assert json.loads(said.stdout) == {"zone": "cluster.test memory False\n"}
    assert said.stderr == "It does not fly.\n"


def test_what_an_output_learns_of_this_host_reaches_it(file: Path) -> None:
    file.write_text(CLUSTER + "features: {dns: {provider: memory}}\n")

    async def learned() -> dict[str, Any]:
        return {"serial": 7}

    assert invoked(replace(ZONE, learned=learned), "zone", "--cluster", file).output == "cluster.test memory 7\n"


def test_everything_is_written_as_one_tree_with_the_reasons_of_what_is_not(file: Path, tmp_path: Path) -> None:
    place = tmp_path / "all"
    dry = rendered(file, "all", "--output", place, "--dry-run")
    assert (dry.exit_code, place.exists(), "README.md" in dry.stdout) == (0, False, True)
    said = rendered(file, "all", "--output", place, "--json")
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert {one["output"] for one in found["rendered"]} >= {"table", "nginx", "envoy", "puppet-conf"}
    page = (place / "README.md").read_text()
    for one in found["rendered"]:
        assert all((place / one["output"] / name).is_file() for name in one["files"])
        assert f"## {one['output']}\n" in page
    for one in found["absent"]:
        assert f"* `{one['output']}`: {one['why']}" in page
    # Of each balancer its own.
    assert {"lb1/nginx.conf", "lb2/nginx.conf"} <= {n for one in found["rendered"] for n in one["files"]}
    assert rendered(file, "all", "--output", place, "--diff").exit_code == 0
    (place / "table" / "table.txt").write_text("other\n")
    assert rendered(file, "all", "--output", place, "--diff").exit_code == 1


def test_several_documents_are_shown_under_their_names(file: Path) -> None:
    said = rendered(file, "envoy", "--balancer", "lb1").stdout
    assert said.startswith("==> ")
    assert "\n==> bootstrap.json <==\n{" in said


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a//b", "", "a b"])
def test_no_document_leaves_its_directory(name: str, tmp_path: Path) -> None:
    output = replace(ZONE, rendered=lambda *_: (Document(name, "x\n", ""),), in_directory=True, options=())
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER + "features: {dns: {provider: memory}}\n")
    said = invoked(output, "zone", "--cluster", file, "--output", tmp_path / "deep" / "out")
    assert isinstance(said.exception, Rejected)
    assert [p.name for p in tmp_path.iterdir()] == ["cluster.yaml"]


def test_what_an_earlier_tree_left_is_said_and_stays(file: Path, tmp_path: Path) -> None:
    place = tmp_path / "all"
    own = place / "notes" / "mine.txt"
    assert rendered(file, "all", "--output", place).exit_code == 0
    own.parent.mkdir()
    own.write_text("mine\n")
    assert "not rendered any more" not in rendered(file, "all", "--output", place).output
    file.write_text(CLUSTER.replace("- {id: 2, name: proxy02.test, address: 10.0.0.2}\n", ""))
    gone = sorted(str(p) for p in place.rglob("*") if p.is_file() and "proxy02" in str(p.relative_to(place)))
    assert gone
    for also in (["--dry-run"], ["--diff"], []):
        said = rendered(file, "all", "--output", place, *also)
        assert [line.partition(": ")[2] for line in said.stderr.splitlines() if "any more" in line] == gone, also
    assert json.loads(rendered(file, "all", "--output", place, "--json").stdout)["left"] == gone
    assert all(Path(p).is_file() for p in gone)
    assert own.is_file()
