"""``muster services``: read, changed in versions, tried dry; as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from muster.cli import muster
from muster.cli.change import who
from muster.cluster.services import Outdated
from muster.kernel.errors import Conflict, NotFound, Rejected
from tests.unit.cli.calls import run, wrong_usage

PULP = """\
features: {pulpcore: {pulp_url: "https://{member}", content_app_url: "https://proxy.test/pulp/content"}}
"""


@pytest.fixture
def with_pulp(with_store: Path) -> Path:
    with_store.write_text(with_store.read_text() + PULP)
    return with_store


def shown(file: Path, name: str) -> Any:
    return json.loads(run(file, "services", "show", name, "--json").output)


def test_what_the_settings_say_is_listed(with_pulp: Path) -> None:
    listed = json.loads(run(with_pulp, "services", "list", "--json").output)["services"]
    assert [(s["name"], s["source"], s["weight"]) for s in listed] == [
        ("pulp", "settings", "functional"), ("store", "settings", "essential"),
    ]  # fmt: skip
    text = run(with_pulp, "services", "list").output
    assert text.startswith(
        "pulp: functional, by settings\n"
        "    control URL  https://{member}\n"
        "    for any      https://proxy.test/pulp/content\n"
        "store: essential, by settings\n"
    )


def test_a_service_is_moved_and_moved_back(with_pulp: Path) -> None:
    dry = run(with_pulp, "services", "set", "pulp", "--control-url", "https://dmz.test", "--dry-run")
    assert dry.output.startswith("Nothing was changed; with this, pulp is https://dmz.test;")
    assert shown(with_pulp, "pulp")["version"] == 0
    done = run(with_pulp, "services", "set", "pulp", "--control-url", "https://dmz.test", "--if-version", "0", "--json")
    assert json.loads(done.output)["now"]["control_url"] == "https://dmz.test"
    with pytest.raises(Outdated):
        run(with_pulp, "services", "set", "pulp", "--weight", "essential", "--if-version", "0")
    args = ("--client-url", "192.0.2.0/24=https://dmz.test/pulp/content", "--weight", "essential")
    run(with_pulp, "services", "set", "pulp", *args, "--if-version", "1")
    text = run(with_pulp, "services", "show", "pulp").output
    assert "control URL    https://dmz.test  (administrator)" in text
    assert "for any        https://proxy.test/pulp/content  (settings)" in text
    assert "for 192.0.2.0/24 https://dmz.test/pulp/content  (administrator)" in text
    assert [c["version"] for c in shown(with_pulp, "pulp")["changes"]] == [2, 1]
    run(with_pulp, "services", "set", "pulp", "--client-url", "192.0.2.0/24=")
    text = run(with_pulp, "services", "show", "pulp").output
    assert f"set by {who()}: for 192.0.2.0/24 taken out\n" in text
    assert f"set by {who()}: for 192.0.2.0/24 https://dmz.test/pulp/content, weight essential\n" in text
    assert f"set by {who()}: control URL https://dmz.test\n" in text
    assert set(shown(with_pulp, "pulp")["client_urls"]) == {"any"}
    assert "by settings" in run(with_pulp, "services", "remove", "pulp", "--dry-run").output
    run(with_pulp, "services", "remove", "pulp")
    assert (shown(with_pulp, "pulp")["control_url"], shown(with_pulp, "pulp")["version"]) == ("https://{member}", 0)
    with pytest.raises(NotFound):
        run(with_pulp, "services", "remove", "pulp")


def test_one_that_no_setting_names_is_added_once(file: Path) -> None:
    at = ("services", "add", "pulp@dmz", "--control-url", "https://dmz.test")
    for _ in range(2):
        assert run(file, *at).output == "pulp@dmz is https://dmz.test; functional.\n"
    with pytest.raises(Conflict):
        run(file, "services", "add", "pulp@dmz", "--control-url", "https://other.test")
    with pytest.raises(Rejected, match="begins with its kind"):
        run(file, "services", "add", "frob", "--control-url", "https://other.test")
    assert run(file, "services", "remove", "pulp@dmz").output == "pulp@dmz is gone.\n"


def test_what_nobody_else_names_is_not_left_without_a_url(file: Path) -> None:
    run(file, "services", "add", "pulp@dmz", "--control-url", "https://dmz.test")
    with pytest.raises(Rejected, match="muster services remove takes"):
        run(file, "services", "set", "pulp@dmz", "--control-url", "")
    assert shown(file, "pulp@dmz")["control_url"] == "https://dmz.test"
    assert run(file, "services", "set", "store", "--weight", "functional").exit_code == 0


def test_a_change_is_shown_as_it_was_typed(file: Path) -> None:
    urls = ("--client-url", "any=https://a.test/x", "--client-url", "dmz=https://b.test")
    run(file, "services", "add", "pulp@dmz", *urls)
    run(file, "services", "set", "pulp@dmz", "--client-url", "dmz=")
    text = run(file, "services", "show", "pulp@dmz").output
    assert ": for any https://a.test/x, for dmz https://b.test\n" in text
    assert ": for dmz taken out\n" in text


def test_a_secret_that_somebody_typed_is_not_repeated(file: Path) -> None:
    arguments = ["services", "set", "pulp", "--client-url", "https://anna:hunter2@dmz.test", "--cluster", str(file)]
    assert "hunter2" not in CliRunner().invoke(muster, arguments).output


MOVED = ("--control-url", "https://dmz.test")


def test_what_members_do_not_follow_is_said_when_it_is_moved(file: Path) -> None:
    run(file, "services", "add", "pulp", *MOVED)
    assert "while the feature pulpcore is off" in run(file, "services", "set", "pulp", *MOVED, "--dry-run").output
    run(file, "services", "remove", "pulp")
    file.write_text(f"{file.read_text()}content: {{services: [http], registry_url: 'http://{{address}}:5001'}}\n")
    assert "Members go by the cluster file" in run(file, "services", "set", "registry", *MOVED).output
    # Content follows it.
    assert run(file, "services", "set", "pulp", *MOVED, "--dry-run").output.endswith("functional.\n")
    file.write_text(f"{file.read_text()}{PULP}")
    assert run(file, "services", "set", "pulp", *MOVED).output.endswith("functional.\n")
    for name, note in (("pulp@dmz", "Members go by the cluster file"), ("pulp@proxy01.test", "")):
        run(file, "services", "add", name, *MOVED)
        said = run(file, "services", "set", name, *MOVED).output.partition("functional.")[2].strip()
        assert (said.startswith(note), bool(said)) == (True, bool(note))


def test_a_pulp_that_is_steered_is_followed(file: Path) -> None:
    file.write_text(f"{file.read_text()}content: {{services: [http], steered: {{pulps: [pulp@dmz]}}}}\n")
    run(file, "services", "add", "pulp@dmz", *MOVED)
    run(file, "services", "add", "pulp@other", *MOVED)
    assert run(file, "services", "set", "pulp@dmz", *MOVED).output.endswith("functional.\n")
    assert "moves nothing" in run(file, "services", "set", "pulp@other", *MOVED).output


def test_what_has_half_a_members_name_is_refused(file: Path) -> None:
    with pytest.raises(Rejected, match=r"the member is called proxy01\.test, so pulp@proxy01\.test"):
        run(file, "services", "add", "pulp@proxy01", "--control-url", "https://dmz.test")
    added = run(file, "services", "add", "pulp@proxy01.test", "--control-url", "https://dmz.test")
    assert added.output == "pulp@proxy01.test is https://dmz.test; functional.\n"


def test_a_change_that_says_nothing_is_wrong_usage(file: Path) -> None:
    at = ("--cluster", str(file))
    assert wrong_usage("services", "set", "store", *at)
    assert wrong_usage("services", "set", "store", "--client-url", "no-url", *at)
    assert wrong_usage("services", "set", "store", "--weight", "heavy", *at)
