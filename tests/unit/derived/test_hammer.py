"""What Foreman is told of Ruby Smart Proxies."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.derived.hammer import OUTPUT
from muster.derived.output import Site
from muster.kernel.errors import Misconfigured
from muster.kernel.settings import InvalidSettings, parse
from tests.servers.stubs import Ran, ran
from tests.unit.derived.test_ruby_settings import CLUSTER

FOREMAN = """\
foreman:
  organizations: [Default Organization, Ops & Co (Brno)]
  locations: [Brno, Europe/Brno]
  lifecycle_environments: [Library, "Dev, early"]
  download_policy: on_demand
"""


def scripts(rest: str = FOREMAN) -> dict[str, str]:
    cluster = parse(f"{CLUSTER}{rest}").parsed(ClusterFile)
    return {d.name: d.text for d in OUTPUT.rendered(modelled(cluster), cluster, Site())}


def told(rest: str, directory: Path, carried: str = "", *, failing: bool = False) -> Ran:
    text = scripts(rest)["proxy02.test/hammer.sh"]
    return ran(text, directory, ["hammer"], answers={"hammer": carried}, failing=["hammer"] if failing else [])


def test_each_member_is_given_the_same_and_asked_for_its_features_anew(tmp_path: Path) -> None:
    assert set(scripts()) == {"proxy01.test/hammer.sh", "proxy02.test/hammer.sh"}
    own = ["--smart-proxy", "proxy02.test"]
    content = ["--name", "proxy02.test", "--organization", "Default Organization"]
    assert told(FOREMAN, tmp_path).of("hammer") == [
        ["proxy", "info", "--name", "proxy02.test"],
        ["organization", "add-smart-proxy", "--name", "Default Organization", *own],
        ["organization", "add-smart-proxy", "--name", "Ops & Co (Brno)", *own],
        ["location", "add-smart-proxy", "--name", "Brno", *own],
        ["location", "add-smart-proxy", "--title", "Europe/Brno", *own],
        ["proxy", "update", "--name", "proxy02.test", "--download-policy", "on_demand"],
        ["proxy", "refresh-features", "--name", "proxy02.test"],
        [
            *("--no-headers", "--csv", "--csv-separator", "|"),
            *("proxy", "content", "lifecycle-environments", *content),
        ],
        ["proxy", "content", "add-lifecycle-environment", *content, "--lifecycle-environment", "Library"],
        ["proxy", "content", "add-lifecycle-environment", *content, "--lifecycle-environment", "Dev, early"],
        ["proxy", "content", "synchronize", "--name", "proxy02.test", "--async"],
    ]


@pytest.mark.parametrize(
    ("carried", "added"),
    [
        ("1|Library|Default Organization\n7|Dev, early|Default Organization\n", []),
        ("1|Library|Default Organization\n", ["Dev, early"]),
        # Neither a part of a name nor the organisation's name is the name.
        ("7|Dev, early and late|Library\n", ["Library", "Dev, early"]),
        ("7|Not Library|Default Organization\n", ["Library", "Dev, early"]),
    ],
)
def test_what_it_carries_already_is_not_added_again(carried: str, added: list[str], tmp_path: Path) -> None:
    found = [
        words[-1]
        for words in told(FOREMAN, tmp_path, carried).of("hammer")
        if words[2:3] == ["add-lifecycle-environment"]
    ]
    assert found == added


def test_a_member_that_is_not_registered_ends_it(tmp_path: Path) -> None:
    said = told(FOREMAN, tmp_path, failing=True)
    assert said.status != 0
    assert said.of("hammer") == [["proxy", "info", "--name", "proxy02.test"]]


def test_in_2018_words_were_others(tmp_path: Path) -> None:
    calls = told(f"generation: seed\n{FOREMAN}", tmp_path).of("hammer")
    assert ["capsule", "content", "add-lifecycle-environment"] in [words[:3] for words in calls]
    assert [words[-2] for words in calls if words[2:3] == ["add-lifecycle-environment"]] == ["--environment"] * 2


def test_in_containers_pulp_is_a_smart_proxy_of_its_own(tmp_path: Path) -> None:
    calls = told(f"generation: foremanctl\n{FOREMAN}", tmp_path).of("hammer")
    for record in ("proxy02.test", "proxy02.test-pulp"):
        assert ["organization", "add-smart-proxy", "--name", "Ops & Co (Brno)", "--smart-proxy", record] in calls
        assert ["proxy", "refresh-features", "--name", record] in calls
    added = [words for words in calls if words[2:3] == ["add-lifecycle-environment"]]
    assert {words[4] for words in added} == {"proxy02.test-pulp"}
    assert ["proxy", "update", "--name", "proxy02.test-pulp", "--download-policy", "on_demand"] in calls


def test_a_file_that_says_nothing_has_the_features_refreshed(tmp_path: Path) -> None:
    assert told("", tmp_path).of("hammer") == [
        ["proxy", "info", "--name", "proxy02.test"],
        ["proxy", "refresh-features", "--name", "proxy02.test"],
    ]


def test_lifecycle_environments_need_an_organisation() -> None:
    with pytest.raises(Misconfigured, match=r"foreman\.organizations"):
        scripts("foreman: {lifecycle_environments: [Library]}\n")


@pytest.mark.parametrize("name", ["a|b", "a\\nb", "$(id)", "a`b", "a;b", "it's"])
def test_a_name_that_could_mean_something_is_refused_with_its_line(name: str) -> None:
    with pytest.raises(InvalidSettings, match="organizations"):
        scripts(f'foreman: {{organizations: ["{name}"]}}\n')
