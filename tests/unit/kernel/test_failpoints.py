from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import muster
from muster.kernel import failpoints
from muster.kernel.errors import Misconfigured, Unavailable

SOURCE = Path(muster.__file__).parent
FUNCTIONS = ("before_commit", "after_commit")


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm({})


def armed(text: str) -> None:
    failpoints.arm({failpoints.VARIABLE: text})


def said(call: ast.Call) -> str | None:
    """Return the text that a call's first argument is, None when it is none."""
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    """Yield every call of a method or a module's function in the source: its name, itself, and on what."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                yield node.func.attr, node, ast.unparse(node.func.value)


def units() -> Iterator[ast.Call]:
    """Yield every call that opens a unit of the store which writes, or carries one out."""
    for name, call, on in calls():
        if name in ("write", "carry_out") and on.rpartition(".")[2].lstrip("_") == "store":
            yield call


def test_every_unit_that_writes_names_its_step() -> None:
    assert [ast.unparse(call) for call in units() if not said(call)] == []


def test_every_declared_step_is_used_exactly_once_with_both_its_places() -> None:
    opened = Counter(map(said, units()))
    marks = {
        function: Counter(
            step for name, call, on in calls() if (name, on) == (function, "failpoints") and (step := said(call))
        )
        for function in FUNCTIONS
    }
    assert marks["before_commit"] == marks["after_commit"]
    assert opened + marks["before_commit"] == Counter(dict.fromkeys(failpoints.STEPS, 1))


def test_every_step_has_two_places() -> None:
    assert {f"{s}.{p}-commit" for s in failpoints.STEPS for p in ("before", "after")} == failpoints.POINTS
    assert all(
        step == step.lower() and step.replace("-", "").isalpha() and text for step, text in failpoints.STEPS.items()
    )


def test_unarmed_nothing_happens() -> None:
    failpoints.arm({"PATH": "/bin"})
    assert failpoints.armed() == ""
    for step in failpoints.STEPS:
        failpoints.before_commit(step)
        failpoints.after_commit(step)
    armed("")
    assert failpoints.armed() == ""


def test_an_error_comes_at_its_place_every_time_or_once() -> None:
    armed("sign.before-commit=error,revoke.after-commit=error@2")
    assert failpoints.armed() == "revoke.after-commit, sign.before-commit"
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"Stopped at sign\.before-commit, because MUSTER_FAILPOINTS says so"):
            failpoints.before_commit("sign")
    failpoints.after_commit("sign")
    failpoints.after_commit("revoke")
    with pytest.raises(Unavailable):
        failpoints.after_commit("revoke")
    failpoints.after_commit("revoke")


def test_a_sleep_stops_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("muster.kernel.failpoints.time.sleep", slept.append)
    armed("life.before-commit=sleep:0.25,wish.before-commit=sleep:60@2")
    failpoints.before_commit("life")
    failpoints.before_commit("wish")
    failpoints.before_commit("wish")
    assert slept == [0.25, 60.0]


def test_a_kill_comes_at_the_arrival_that_was_asked_for() -> None:
    program = (
        "import os\nfrom muster.kernel import failpoints\nfailpoints.arm(os.environ)\n"
        "for n in range(9):\n    failpoints.after_commit('sign')\n    print(n + 1, flush=True)\n"
    )
    environment = {**os.environ, failpoints.VARIABLE: "sign.after-commit=kill@3"}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.split()) == (-signal.SIGKILL, ["1", "2"])
    assert failpoints.parsed("sign.after-commit=kill")["sign.after-commit"].at == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("signs.after-commit=kill", r"names signs\.after-commit, which is no failpoint; did you mean sign\.after-commit\?"),
        ("sign=kill", "names sign, which is no failpoint"),
        ("sign.after-commit", r"wants  at sign\.after-commit, which is none of"),
        ("sign.after-commit=kill@0", "wants kill@0 at"),
        ("sign.after-commit=kill@3 ", "wants kill@3  at"),
        ("sign.after-commit=kill@3\n", r"wants kill@3\\n at"),
        ("sign.after-commit=sleep:60.5", "wants sleep:60.5 at"),
        ("sign.after-commit=sleep:1e9", "wants sleep:1e9 at"),
        ("sign.after-commit=lie", r"none of kill, error and sleep:SECONDS \(up to 60\)"),
        ("sign.after-commit=kill,", "names , which is no failpoint"),
        ("sign.after-commit=kill,sign.after-commit=error", r"names sign\.after-commit twice"),
        ("x" * 5000, "has more than 4096 characters"),
    ],
)  # fmt: skip
def test_what_it_does_not_know_arms_nothing(text: str, why: str) -> None:
    armed("sign.after-commit=error")
    with pytest.raises(Misconfigured, match=why):
        armed(text)
    assert failpoints.armed() == "sign.after-commit"


def test_whether_a_step_is_armed_is_known_by_its_name() -> None:
    assert not failpoints.is_armed("sign")
    armed("sign.before-commit=error,revoke.after-commit=error@2")
    assert failpoints.is_armed("sign")
    assert failpoints.is_armed("revoke")
    assert not failpoints.is_armed("renew")
    assert not failpoints.is_armed("")


def test_a_command_refuses_an_unknown_place_before_it_does_anything() -> None:
    environment = {**os.environ, failpoints.VARIABLE: "sing.after-commit=kill"}
    command = [sys.executable, "-m", "muster", "serve", "--cluster", "/nonexistent"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 4
    assert (
        "MUSTER_FAILPOINTS names sing.after-commit, which is no failpoint; did you mean sign.after-commit?"
        in ran.stderr
    )
