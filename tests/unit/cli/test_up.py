from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from muster.cli import muster
from muster.cli.local import plan
from muster.cli.up import announce
from muster.kernel.errors import MusterError
from muster.kernel.settings import InvalidSettings


def up(tmp_path: Path, *arguments: str | Path) -> Result:
    words = ["up", "--dry-run", "--dir", str(tmp_path / "c"), *(str(a) for a in arguments)]
    result = CliRunner().invoke(muster, words)
    assert not (tmp_path / "c").exists()
    if isinstance(result.exception, MusterError):
        raise result.exception
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize(
    "ports",
    [
        ("smartproxy=²",),
        ("smartproxy=٣",),
        ("smartproxy=0",),
        ("smartproxy=65536",),
        ("smartproxy=" + "9" * 5000,),
        ("smartproxy=",),
        ("smartproxy",),
        ("smart=9090",),
        ("smartproxy=19090\n",),
        ("smartproxy=19090", "anaconda=19090"),
        ("smartproxy=19090", "smartproxy=19091"),
        ("puppetca=18141",),
    ],
)
def test_ports_that_no_cluster_could_have_are_wrong_usage(tmp_path: Path, ports: tuple[str, ...]) -> None:
    result = up(tmp_path, *(w for p in ports for w in ("--port", p)))
    assert result.exit_code == 2
    assert "Error: " in result.output


def test_a_port_that_another_service_would_get_anyhow_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_is_free", lambda *_: True)
    said = up(tmp_path, "--port", "anaconda=9090")
    assert (said.exit_code, "smartproxy and anaconda would both have port 9090" in said.output) == (2, True)
    assert up(tmp_path, "--port", "anaconda=9090", "--port", "smartproxy=9091").exit_code == 0


def test_good_ports_are_taken_as_they_are(tmp_path: Path) -> None:
    said = up(tmp_path, "--puppet-ca", *("--port", "smartproxy=19090", "--port", "puppetca=18141"))
    assert (said.exit_code, "smartproxy 19090" in said.output, "puppetca 18141" in said.output) == (0, True, True)


@pytest.mark.parametrize(
    "url", ["foo://x", "x", "sqlite://", "sqlite:///:memory:", "postgresql://u:geheim@h", "mysql://u:geheim@h/d"]
)
def test_a_store_that_members_could_not_open_is_wrong_usage_and_its_password_is_not_repeated(
    tmp_path: Path, url: str
) -> None:
    result = up(tmp_path, "--store", url)
    assert (result.exit_code, "geheim" in result.output) == (2, False)


@pytest.mark.parametrize(
    "url",
    ["postgresql://u:geheim@h/d", "postgresql://u:geheim@h1,h2:5433/d", "postgresql://u@h/d?password=geheim"],
)
def test_a_password_among_the_arguments_is_wrong_usage_that_names_the_way(tmp_path: Path, url: str) -> None:
    result = up(tmp_path, "--store", url)
    assert (result.exit_code, "geheim" in result.output) == (2, False)
    assert "--store-password-file" in result.output


def test_a_detached_cluster_is_started_with_the_file_of_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "password"
    file.write_text("geheim\n")
    started: list[str] = []

    def popen(arguments: list[str], **_: object) -> None:
        started.extend(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr("muster.cli.up.subprocess.Popen", popen)
    url = "postgresql://u@h/d"
    words = ["up", "--detach", "--dir", str(tmp_path / "c"), "--store", url, "--store-password-file", str(file)]
    CliRunner().invoke(muster, words)
    assert started[started.index("--store") :][:4] == ["--store", url, "--store-password-file", str(file)]
    assert "geheim" not in " ".join(started)


def test_the_file_of_the_password_belongs_to_a_store_and_goes_into_the_cluster_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("geheim\n")
    assert up(tmp_path, "--store-password-file", file).exit_code == 2
    assert up(tmp_path, "--store", "postgresql://u@h/d", "--store-password-file", tmp_path / "none").exit_code == 2
    assert up(tmp_path, "--store", "postgresql://u@h/d", "--store-password-file", file).exit_code == 0
    made = plan.planned(tmp_path / "c", store_url="postgresql://u@h/d", store_password_file=file)
    assert made.document()["store"] == {"url": "postgresql://u@h/d", "password_file": str(file)}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1\nb: 2\n", "line 2: not YAML"),
        ("[dns]", "line 1: is not a mapping of features"),
        ("dns", "line 1: is not a mapping of features"),
        ("dns:\n  provider: memory\n  provder: x\n", "line 3: features.dns.provder: unknown key"),
        ("\nnds: {}\n", "line 2: features.nds: unknown feature 'nds'; did you mean 'dns'?"),
        ("dns: {provider: memory}\ndns: {provider: memory}\n", "line 2: dns: stands twice"),
    ],
)
def test_a_file_of_features_is_judged_with_its_own_lines(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "features.yaml"
    file.write_text(text)
    with pytest.raises(InvalidSettings) as raised:
        up(tmp_path, "--features", file)
    assert raised.value.path == str(file)
    assert [str(p)[: len(problem)] for p in raised.value.problems] == [problem]


def test_features_come_from_a_file_only(tmp_path: Path) -> None:
    assert up(tmp_path, "--features", tmp_path).exit_code == 2
    assert up(tmp_path, "--features", tmp_path / "none").exit_code == 2
    file = tmp_path / "features.yaml"
    file.write_text("dns: {provider: memory}\n")
    assert up(tmp_path, "--features", file).exit_code == 0


def test_a_plan_that_members_would_refuse_is_not_called_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "ADDRESS", "not a name")
    with pytest.raises(InvalidSettings, match="Invalid DNS name"):
        up(tmp_path)


def test_who_waits_for_a_cluster_in_the_background_never_reads_half_a_greeting(tmp_path: Path) -> None:
    # Written in place, the file would be there and empty for a moment: exit status 0, and nothing said.
    ready = tmp_path / "ready"
    ready.write_text("")
    with ready.open() as waiting:
        announce(ready, "The cluster runs\n")
        assert (waiting.read(), ready.read_text()) == ("", "The cluster runs\n")
