from __future__ import annotations

import os
import subprocess
from pathlib import Path

from muster.balancer.checks import _full, _meaning, limit_of


def test_a_balancer_is_nearly_full_at_nine_tenths() -> None:
    assert [f.code for f in _full({"CurrConns": "900", "Maxconn": "1000"})] == ["BALANCER-FULL"]
    assert list(_full({"CurrConns": "899", "Maxconn": "1000"})) == []
    assert list(_full({})) == []


def test_every_stage_of_a_check_has_a_cause_of_its_own() -> None:
    causes = [_meaning(code)[0] for code in ("L4TOUT", "L4CON", "L6RSP", "L7TOUT", "L7STS", "")]
    assert len(set(causes)) == len(causes)
    assert _meaning("L6TOUT") == _meaning("L6RSP")


def test_the_limit_is_that_of_the_process_asked_about() -> None:
    words = Path("/proc/self/limits").read_text().partition("Max open files")[2].split()
    assert limit_of(os.getpid()) == int(words[1])
    assert limit_of(None) > 0


def test_a_process_may_raise_its_soft_limit_to_the_hard_one() -> None:
    """HAProxy does, to what it counts itself; a login shell's soft limit is 1024 on most hosts."""
    script = "ulimit -Sn 200; ulimit -Hn 300; echo; read _"
    with subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as limited:
        assert limited.stdin is not None
        assert limited.stdout is not None
        limited.stdout.readline()
        found = limit_of(limited.pid)
        limited.stdin.close()
    assert found == 300
