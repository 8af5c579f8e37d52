from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.features.puppet import code
from muster.features.puppet.code import TOO_LARGE, UNREADABLE, Code, Reader

FILES = {
    "production/environment.conf": "modulepath = site:modules\n",
    "production/manifests/site.pp": "include web\n",
    "production/modules/web/manifests/init.pp": "class web { }\n",
    "production/modules/web/files/.hidden": "served all the same\n",
    "production/modules/db/manifests/init.pp": "class db { }\n",
    "production/data/common.yaml": "a: 1\n",
    "testing/manifests/site.pp": "\n",
}


def written(home: Path, files: dict[str, str] = FILES, *, at: float = 1e9) -> Path:
    for path, content in files.items():
        target = home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        os.utime(target, (at, at))
    return home


def read(*directories: Path, shared: tuple[Path, ...] = ()) -> Code:
    return Reader(directories, shared, pause=lambda: None).read()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return written(tmp_path / "environments")


def test_the_same_code_is_the_same_wherever_and_whenever_it_was_written(home: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "other" / "place", dict(reversed(FILES.items())), at=1.5e9)
    found = read(home)
    assert found == read(other)
    assert found.state == "read"
    assert sorted(found.environments) == ["production", "testing"]
    assert all(len(digest) == 16 for digest in found.environments.values())
    assert found.environments["production"] != found.environments["testing"]


@pytest.mark.parametrize("path", [p for p in FILES if p.startswith("production")])
def test_each_file_of_an_environment_counts_and_no_other_environment_changes(home: Path, path: str) -> None:
    reader = Reader([home], pause=lambda: None)
    before = reader.read().environments
    content = (home / path).read_text()
    # As long as before, so that only its times and content tell.
    (home / path).write_text(content[:-2] + "#\n")
    after = reader.read().environments
    assert after["production"] != before["production"]
    assert after["testing"] == before["testing"]
    (home / path).write_text(content)
    assert reader.read().environments == before


@pytest.mark.parametrize("change", ["renamed", "moved", "gone", "added"])
def test_what_is_called_otherwise_or_gone_counts(home: Path, change: str) -> None:
    before = read(home).environments["production"]
    one = home / "production/modules/web/manifests/init.pp"
    match change:
        case "renamed":
            one.rename(one.with_name("other.pp"))
        case "moved":
            shutil.move(home / "production/modules/web", home / "production/modules/web2")
        case "gone":
            one.unlink()
        case _:
            (one.parent / "more.pp").touch()
    assert read(home).environments["production"] != before


def test_what_only_a_deployment_knows_does_not_count(home: Path) -> None:
    before = read(home)
    written(
        home,
        {
            "production/.r10k-deploy.json": '{"signature": "a", "finished_at": "now"}',
            "production/.g10k-deploy.json": "{}",
            "production/.git/HEAD": "ref: refs/heads/production\n",
            "production/.resource_types/web.pp": "# This file was made on some day\n",
            "production/modules/web/.git": "gitdir: elsewhere\n",
            "production/modules/web/.latest_commit": "abc\n",
        },
    )
    (home / "production/empty/directory").mkdir(parents=True)
    assert read(home) == before


def in_an_hour() -> int:
    """No file is new by this clock."""
    return time.time_ns() + 3_600_000_000_000


def test_what_has_not_changed_is_not_read_again(home: Path) -> None:
    reader = Reader([home], pause=lambda: None, now_ns=in_an_hour)
    first = reader.read()
    whole = sum(len(c) for c in FILES.values())
    assert reader.read_bytes == whole
    assert reader.read() == first
    assert reader.read_bytes == whole
    changed = home / "production/modules/web/manifests/init.pp"
    changed.write_text("class web { notify { 'x': } }\n")
    assert reader.read().environments["production"] != first.environments["production"]
    # Of the module that has it, and of nothing else.
    assert reader.read_bytes == whole + changed.stat().st_size + len(FILES["production/modules/web/files/.hidden"])


def test_what_was_changed_a_moment_ago_may_change_within_one_tick_of_the_clock_and_is_read_again(home: Path) -> None:
    reader = Reader([home], pause=lambda: None)
    assert reader.read() == reader.read()
    assert reader.read_bytes == 2 * sum(len(c) for c in FILES.values())


def test_a_file_that_was_put_in_place_with_its_old_times_and_size_is_another(home: Path) -> None:
    reader = Reader([home], pause=lambda: None, now_ns=in_an_hour)
    before = reader.read()
    one = home / "production/data/common.yaml"
    beside = one.with_name("new")
    beside.write_text("a: 2\n")
    at = one.stat()
    os.utime(beside, ns=(at.st_atime_ns, at.st_mtime_ns))
    beside.rename(one)
    assert reader.read().environments["production"] != before.environments["production"]


def test_an_environment_that_is_a_link_is_what_it_leads_to(home: Path, tmp_path: Path) -> None:
    deployed = written(tmp_path / "deployed", {"a/manifests/site.pp": "1", "b/manifests/site.pp": "2"})
    (home / "staging").symlink_to(deployed / "a")
    first = read(home).environments["staging"]
    (home / "staging").unlink()
    (home / "staging").symlink_to(deployed / "b")
    second = read(home).environments["staging"]
    shutil.copytree(deployed / "a", home / "copied")
    assert first != second
    assert read(home).environments["copied"] == first


def test_links_that_lead_back_or_nowhere_and_what_is_no_file_end_nothing(home: Path) -> None:
    (home / "production/modules/web/back").symlink_to(home / "production")
    (home / "production/modules/self").symlink_to("self")
    (home / "production/self").symlink_to(".")
    (home / "broken").symlink_to("nowhere")
    (home / "loop").symlink_to("loop")
    os.mkfifo(home / "production/modules/web/pipe")
    found = read(home)
    assert sorted(found.environments) == ["production", "testing"]
    assert (found.state, found.problems) == ("read", ())
    assert len(found.environments["production"]) == 16


def test_names_that_are_no_text_count(home: Path) -> None:
    before = read(home).environments["production"]
    with open(os.fsencode(home) + b"/production/data/\xff\n.yaml", "wb"):  # noqa: PTH123 - no path of text
        pass
    found = read(home)
    assert found.environments["production"] != before
    assert len(found.environments["production"]) == 16


def test_only_what_puppetserver_takes_for_environments_are_some(home: Path) -> None:
    for name in (".hidden", "with-dash", "with.dot", "UPPER_1"):
        written(home, {f"{name}/manifests/site.pp": "x"})
    (home / "README").write_text("no environment\n")
    assert sorted(read(home).environments) == ["UPPER_1", "production", "testing"]


def test_of_several_directories_the_first_that_has_the_name_counts(home: Path, tmp_path: Path) -> None:
    second = written(tmp_path / "second", {"production/manifests/site.pp": "other", "more/manifests/site.pp": "x"})
    found = read(home, tmp_path / "absent", second)
    assert sorted(found.environments) == ["more", "production", "testing"]
    assert found.environments["production"] == read(home).environments["production"]


def test_what_all_environments_use_is_one_digest(home: Path, tmp_path: Path) -> None:
    modules = written(tmp_path / "modules", {"stdlib/metadata.json": "{}"})
    before = read(home, shared=(modules,))
    assert len(before.shared) == 16
    assert before.environments == read(home).environments
    (modules / "stdlib/metadata.json").write_text("{ }")
    after = read(home, shared=(modules,))
    assert after.shared != before.shared
    assert after.environments == before.environments
    gone = read(home, shared=(modules, tmp_path / "gone"))
    assert gone.shared == UNREADABLE
    assert gone.problems == (f"Puppet's code in {tmp_path}/gone cannot be read: No such file or directory",)


def test_where_there_is_no_code_that_is_said(tmp_path: Path) -> None:
    found = read(tmp_path / "a", tmp_path / "b")
    assert (found.state, found.environments) == ("absent", {})
    assert found.problems == (f"There is no Puppet code on this host: no {tmp_path}/a nor {tmp_path}/b",)


def test_more_than_is_read_is_said_and_no_digest_is_made_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_MOST_FILES", 6)
    found = read(home)
    assert found.environments["production"] == TOO_LARGE
    assert len(found.environments["testing"]) == 16
    assert found.problems == (f"{home}/production has more than 6 files or 4 GiB, and was not read",)
    monkeypatch.setattr(code, "MOST_ENVIRONMENTS", 1)
    assert list(read(home).environments) == ["production"]


def test_links_that_make_many_paths_of_few_directories_end(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(12):
        (home / f"testing/modules/m/d{n}").mkdir(parents=True)
    for n in range(12):
        for other in range(12):
            (home / f"testing/modules/m/d{n}/to{other}").symlink_to(f"../d{other}")
    monkeypatch.setattr(code, "_MOST_FILES", 10_000)
    assert read(home).environments["testing"] == TOO_LARGE


_AS_ANOTHER = """
import os, sys
from pathlib import Path
from muster.features.puppet.code import Reader
os.setgid(23456); os.setuid(12345)
found = Reader([Path(sys.argv[1])]).read()
print(found.state, *sorted(found.environments.items()), *found.problems, sep="|")
"""


@pytest.fixture
def readable(home: Path) -> Iterator[Path]:
    """Somewhere that any account may go to."""
    with tempfile.TemporaryDirectory(prefix="muster-code-") as directory:
        Path(directory).chmod(0o755)
        yield Path(shutil.copytree(home, Path(directory) / "environments"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another account")
@pytest.mark.parametrize(
    ("closed", "said"),
    [
        ("", "unreadable|Puppet's code in {home} cannot be read: Permission denied"),
        ("production", "read|('production', 'unreadable')|('testing', '{testing}')|Puppet's code in {home}/production"),
        (
            "production/modules/web/manifests/init.pp",
            "read|('production', 'unreadable')|('testing', '{testing}')|Puppet's code in "
            "{home}/production/modules/web/manifests/init.pp cannot be read: Permission denied",
        ),
    ],
    ids=["all", "an environment", "a file"],
)
def test_an_account_that_may_not_read_it_says_what(readable: Path, closed: str, said: str) -> None:
    testing = read(readable).environments["testing"]
    (readable / closed).chmod(0o600)
    ran = subprocess.run(
        [sys.executable, "-c", _AS_ANOTHER, str(readable)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(said.format(home=readable, testing=testing)), ran.stdout
