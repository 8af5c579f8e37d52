"""``drain``, ``maintenance``, ``ready``, ``remove``: what their options allow and a dry run leaves alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from muster.cli.change import _shut, reported, who
from muster.cluster.file import ClusterFile
from muster.cluster.life import changed, life_of
from muster.cluster.observations import Observation, Observed, Opinion, told
from muster.cluster.roster import Report, Roster
from muster.kernel.errors import Conflict
from muster.kernel.secrets import Secret
from muster.kernel.settings import parse
from muster.store.engine import opened
from tests.unit.cli.calls import CLUSTER, run, wrong_usage


@pytest.mark.parametrize("command", ["drain", "maintenance", "remove"])
@pytest.mark.parametrize("reason", ["\x1b]0;owned\x07", "a\nb", "a\rb", "\x9b2J", "x" * 201])
def test_a_reason_that_would_speak_to_other_peoples_terminals_is_wrong_usage(command: str, reason: str) -> None:
    assert wrong_usage(command, "proxy01", "--reason", reason)


@pytest.mark.parametrize("command", ["drain", "maintenance", "remove", "ready"])
def test_nobody_waits_for_a_time_that_never_comes(command: str) -> None:
    assert wrong_usage(command, "proxy01", "--wait", "nan")
    assert wrong_usage(command, "proxy01", "--wait", "-1")


def test_who_returns_needs_neither_reason_nor_force() -> None:
    assert wrong_usage("ready", "proxy01", "--reason", "x")
    assert wrong_usage("ready", "proxy01", "--force")


def test_the_commands_have_the_same_options_and_each_its_own_wish(with_store: Path) -> None:
    for command, step in (("drain", "wait until"), ("maintenance", "stop checking"), ("remove", "forget")):
        said = run(with_store, command, "proxy01", "--force", "--reason", "why", "--dry-run")
        assert step in said.output
        assert "Nothing was changed; proxy01.test is wished to be ready now." in said.output
    assert "admit proxy01.test" in run(with_store, "ready", "proxy01", "--dry-run").output

    async def wishes() -> int:
        async with opened(Secret(f"sqlite:///{with_store.parent / 'store.db'}")) as store:
            return len(await Roster(store).wishes())

    assert asyncio.run(wishes()) == 0


@pytest.mark.parametrize("command", ["drain", "maintenance"])
def test_the_only_signer_does_not_leave_unseen_even_by_force(with_store: Path, command: str) -> None:
    with_store.write_text(with_store.read_text().replace("puppetca: {enabled: false}, ", "") + "signer: proxy01.test\n")
    said = run(with_store, command, "proxy01", "--force", "--dry-run")
    assert "proxy01.test is the only signer; no Puppet certificate can be signed until it is back" in said.stderr, (
        said.output
    )
    assert "signer" not in run(with_store, command, "proxy02", "--force", "--dry-run").output


def test_what_the_store_says_reaches_the_terminal_as_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    reported({"done": True, "steps": ["a\x1b[2J"], "sentence": "proxy01 is drained by \x1b[31mx\n."}, False)
    assert capsys.readouterr().out == "  1. a\\x1b[2J\nproxy01 is drained by \\x1b[31mx\\n.\n"


def test_whoever_gives_the_command_has_a_name_that_can_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "\x1b[31mroot" + "x" * 500)
    assert who().isprintable()
    assert len(who()) < 100


def test_a_dry_run_refuses_what_the_steward_would_refuse(file: Path) -> None:
    text = file.read_text().replace("address: 127.0.0.12}", "address: 127.0.0.12, kind: foreman}")
    # Whatever answers on port 8000 of this machine is taken for a Ruby member's anaconda.
    text = text.replace("services: {", "services: {anaconda: {enabled: false}, ")
    file.write_text(text + "balancers: [{name: lb, address: 127.0.0.9, bind: 127.0.0.9}]\n")
    opinions: dict[str, dict[str, Opinion]] = {
        "proxy01.test": {"smartproxy": "up"}, "proxy02.test": {"smartproxy": "down"},
    }  # fmt: skip

    async def prepare() -> None:
        async with opened(Secret(f"sqlite:///{file.parent / 'store.db'}")) as store:
            ready = {"smartproxy": {"state": "ready", "reason": ""}}
            said = Report("proxy01.test", 1, "1", "1", "h", 1, "ready", "", {}, ready, {})
            await Roster(store).beat(said, first=True)
            async with store.write() as uow:
                await told(uow, Observation("lb", "HAProxy", opinions=opinions))
                for name in opinions:
                    await changed(uow, name, "ready", reason="", expected=0)

    asyncio.run(prepare())
    why = "without it too few members would be ready (smartproxy 0; 1 must be)"
    with pytest.raises(Conflict) as raised:
        run(file, "drain", "proxy01", "--dry-run")
    assert str(raised.value).startswith(f"proxy01.test would not be drained: {why}; nothing was changed")
    assert "wait until no balancer" in run(file, "drain", "proxy01", "--dry-run", "--force").output
    assert "wait until no balancer" in run(file, "drain", "proxy02", "--dry-run").output


def test_ready_waits_for_balancers_that_hold_the_member_out() -> None:
    cluster = parse(CLUSTER.format(store="/x") + "balancers: [{name: lb, address: 127.0.0.9}]\n").parsed(ClusterFile)

    def held(held: list[str] | None, age_s: float = 0.0) -> str:
        return _shut(cluster, {"lb": Observed(Observation("lb", held=held), age_s)}, "Proxy01.test")

    assert held(["proxy01.test"]) == "lb has not let it in yet"
    # An older balancer does not say; one that is silent will not.
    assert (held([]), held(None), held(["proxy01.test"], 60), _shut(cluster, {}, "proxy01.test")) == ("", "", "", "")


def test_what_is_left_to_do_comes_after_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    reported({"done": True, "steps": ["copy"], "sentence": "What is left to do:", "steps_follow": True}, False)
    assert capsys.readouterr().out == "What is left to do:\n  1. copy\n"


def test_a_dead_member_is_not_called_ready(file: Path) -> None:
    text = file.read_text().replace("address: 127.0.0.12}", "address: 127.0.0.12, kind: foreman}")
    file.write_text(text + "balancers: [{name: lb, address: 127.0.0.9, bind: 127.0.0.9}]\n")

    async def prepare(beats: bool, **opinion: Opinion) -> None:
        async with opened(Secret(f"sqlite:///{file.parent / 'store.db'}")) as store:
            ready = {"smartproxy": {"state": "ready", "reason": ""}}
            said = Report("proxy01.test", 1, "1", "1", "h", 1, "ready", "", {}, ready, {})
            if beats:
                await Roster(store).beat(said, first=True)
            opinions = {f"{name}.test": {"smartproxy": what} for name, what in opinion.items()}
            async with store.write() as uow:
                await told(uow, Observation("lb", "HAProxy", opinions=opinions, held=[]))
                for name in opinions:
                    if await life_of(uow, name) is None:
                        await changed(uow, name, "ready", reason="", expected=0)

    def said(member: str) -> tuple[int, str]:
        result = run(file, "ready", member, "--wait", "0")
        return result.return_value, result.output

    asyncio.run(prepare(False, proxy01="up", proxy02="down"))
    code, output = said("proxy01")
    assert code == 4
    assert "proxy01.test is not ready: it is silent after 0 s; the wish stands." in output
    code, output = said("proxy02")
    assert code == 4
    assert "proxy02.test is not ready: it fails every check after 0 s" in output
    asyncio.run(prepare(True, proxy01="up", proxy02="up"))
    assert said("proxy01") == (0, "proxy01.test is ready.\n")
    assert said("proxy02") == (0, "proxy02.test is ready.\n")


def test_who_takes_clients_but_not_for_every_service_is_told_with_the_reason(file: Path) -> None:
    async def prepare() -> None:
        async with opened(Secret(f"sqlite:///{file.parent / 'store.db'}")) as store:
            why = {"state": "unready", "reason": "Pulp's content application answers 500"}
            readiness = {"smartproxy": {"state": "ready", "reason": ""}, "https": why, "http": why}
            await Roster(store).beat(
                Report("proxy01.test", 1, "1", "1", "h", 1, "ready", "", {}, readiness, {}), first=True
            )
            async with store.write() as uow:
                await changed(uow, "proxy01.test", "ready", reason="", expected=0)

    asyncio.run(prepare())
    result = run(file, "ready", "proxy01", "--wait", "0")
    said = "proxy01.test is ready, but not for http, https: Pulp's content application answers 500.\n"
    assert (result.return_value, result.output) == (0, said)
