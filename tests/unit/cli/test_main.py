"""What leaves ``main``: a documented exit code, and a sentence where an administrator can do something about it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from muster import cli
from muster.kernel.errors import Misconfigured, Unavailable

CLUSTER = """\
schema: 1
cluster: demo
address: proxy.test
store: {url: "sqlite:////nowhere/store.db"}
members: [{id: 1, name: proxy01.test, address: 127.0.0.11}]
services: {puppetca: {enabled: false}, puppet: {enabled: false}}
"""


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> Any:
    monkeypatch.setattr(sys, "argv", ["muster", *(str(a) for a in arguments)])
    with pytest.raises(SystemExit) as raised:
        cli.main()
    return raised.value.code


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli.muster, "main", fail)


def test_a_file_the_system_refuses_is_named_and_could_not_be_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER)
    # Nobody's existence can be asked under a name that is too long: the system raises, for root as well.
    pki = tmp_path / ("x" * 300)
    for command in (("certs", "show"), ("certs", "verify"), ("status",), ("doctor",)):
        assert ended(monkeypatch, *command, "--cluster", file, "--pki", pki) == cli.NOT_DONE
        said = capsys.readouterr().err
        assert said.startswith("Error: ")
        assert "File name too long" in said
        assert said.count("\n") == 1


def test_a_permission_that_lacks_says_who_has_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/etc/muster/pki/ca.pem"))
    assert ended(monkeypatch) == cli.NOT_DONE
    assert capsys.readouterr().err == (
        "Error: /etc/muster/pki/ca.pem cannot be used: Permission denied; run it as root or as the account the file "
        "belongs to\n"
    )


def test_a_full_disk_is_a_sentence_and_a_reader_that_left_is_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert ended(monkeypatch) == cli.NOT_DONE
    assert capsys.readouterr().err == "Error: Writing failed: No space left on device\n"
    failing(monkeypatch, BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))
    assert ended(monkeypatch) == 0


@pytest.mark.parametrize("bug", [TimeoutError(), ConnectionRefusedError(errno.ECONNREFUSED, "refused"), KeyError("x")])
def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, bug: Exception) -> None:
    failing(monkeypatch, bug)
    monkeypatch.setattr(sys, "argv", ["muster"])
    with pytest.raises(type(bug)):
        cli.main()


def test_a_message_keeps_its_lines_and_says_nothing_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, Unavailable("It did not come up: one\n\x1b]0;two\x07"))
    assert ended(monkeypatch) == cli.NOT_DONE
    assert capsys.readouterr().err == "Error: It did not come up: one\n\\x1b]0;two\\x07\n"


@pytest.mark.parametrize("command", ["status", "doctor", "parity", "drain"])
def test_without_a_cluster_file_it_is_said_how_to_come_by_one(tmp_path: Path, command: str) -> None:
    arguments = [command, *(["proxy01"] if command == "drain" else []), "--cluster", str(tmp_path / "cluster.yaml")]
    told = CliRunner().invoke(cli.muster, arguments, standalone_mode=False)
    assert isinstance(told.exception, Misconfigured)
    assert all(w in str(told.exception) for w in ("There is no cluster file", "--cluster", "config init", "muster up"))


# Root with neither of these is, to other people's files, an ordinary user; the interpreter may be in a place of its own.
_WITHOUT = "-dac_override,-dac_read_search"


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("setpriv") is None, reason="root and setpriv are needed")
@pytest.mark.parametrize("command", [("status",), ("doctor",), ("certs", "show"), ("certs", "verify")])
def test_who_may_not_look_into_the_directory_is_told_which(command: tuple[str, ...], tmp_path: Path) -> None:
    file, pki = tmp_path / "cluster.yaml", tmp_path / "pki"
    file.write_text(CLUSTER)
    pki.mkdir(mode=0o700)
    os.chown(pki, 65534, 65534)
    said = subprocess.run(
        ["setpriv", f"--inh-caps={_WITHOUT}", f"--bounding-set={_WITHOUT}", sys.executable, "-m", "muster", *command,
         "--cluster", str(file)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if said.stderr.startswith("setpriv:"):
        pytest.skip(said.stderr)
    assert (said.returncode, "Traceback" in said.stderr) == (cli.NOT_DONE, False), said
    assert f"Error: {pki}/" in said.stderr
    assert "Permission denied; run it as root" in said.stderr
