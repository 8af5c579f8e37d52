"""``drain``, ``maintenance``, ``ready``, ``remove``, ``add``: what their options allow and a dry run leaves alone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from muster.cli import muster
from muster.cli.drain import _shut, reported, who
from muster.cluster.file import ClusterFile
from muster.cluster.life import changed, life_of
from muster.cluster.observations import Observation, Observed, Opinion, told
from muster.cluster.roster import Report, Roster
from muster.kernel.errors import Conflict, MusterError, Rejected
from muster.kernel.secrets import Secret
from muster.kernel.settings import InvalidSettings, parse
from muster.pki.authority import ClusterCA
from muster.store.engine import opened

CLUSTER = """\
schema: 1
cluster: demo
address: proxy.test
store: {{url: "sqlite:///{store}"}}
members:
- {{id: 1, name: proxy01.test, address: 127.0.0.11}}
- {{id: 2, name: proxy02.test, address: 127.0.0.12}}
services: {{puppetca: {{enabled: false}}, puppet: {{enabled: false}}}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER.format(store=tmp_path / "store.db"))
    ClusterCA.create(tmp_path / "pki", "demo", now=datetime.now(UTC))
    return path


def run(file: Path, command: str, *arguments: str) -> Result:
    result = CliRunner().invoke(muster, [command, *arguments, "--cluster", str(file)], standalone_mode=False)
    if isinstance(result.exception, MusterError):
        raise result.exception
    return result


def wrong_usage(command: str, *arguments: str) -> bool:
    result = CliRunner().invoke(muster, [command, *arguments])
    return result.exit_code == 2 and result.output.replace("\n", "").isprintable()


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


def test_the_commands_have_the_same_options_and_each_its_own_wish(file: Path) -> None:
    for command, step in (("drain", "wait until"), ("maintenance", "stop checking"), ("remove", "forget")):
        said = run(file, command, "proxy01", "--force", "--reason", "why", "--dry-run")
        assert step in said.output
        assert "Nothing was changed; proxy01.test is wished to be ready now." in said.output
    assert "admit proxy01.test" in run(file, "ready", "proxy01", "--dry-run").output

    async def wishes() -> int:
        async with opened(Secret(f"sqlite:///{file.parent / 'store.db'}")) as store:
            return len(await Roster(store).wishes())

    assert asyncio.run(wishes()) == 0


def test_what_the_store_says_reaches_the_terminal_as_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    reported({"done": True, "steps": ["a\x1b[2J"], "sentence": "proxy01 is drained by \x1b[31mx\n."}, False)
    assert capsys.readouterr().out == "  1. a\\x1b[2J\nproxy01 is drained by \\x1b[31mx\\n.\n"


def test_whoever_gives_the_command_has_a_name_that_can_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "\x1b[31mroot" + "x" * 500)
    assert who().isprintable()
    assert len(who()) < 100


def test_a_dry_add_refuses_what_the_real_one_refuses_and_touches_nothing(file: Path) -> None:
    new = ("proxy03.test", "--address", "127.0.0.13")
    directory = file.parent / "pki" / "members" / "proxy03.test"
    before = file.read_text()
    with pytest.raises(InvalidSettings, match="is the cluster's address") as raised:
        run(file, "add", "proxy.test", "--address", "127.0.0.13", "--dry-run")
    assert raised.value.path == str(file)
    directory.mkdir(parents=True)
    for further in ((), ("--dry-run",)):
        with pytest.raises(Conflict, match="was not made by Muster"):
            run(file, "add", *new, *further)
    directory.rmdir()
    ClusterCA.create(
        file.parent / "pki", "demo", now=datetime.now(UTC) - timedelta(days=9), valid_days=1, overwrite=True
    )
    for further in ((), ("--dry-run",)):
        with pytest.raises(Rejected, match="expired on"):
            run(file, "add", *new, *further)
    assert file.read_text() == before
    assert [p.name for p in file.parent.iterdir() if p.name.startswith(".")] == []


def test_a_member_is_added_with_a_dot_at_its_end_and_without(file: Path) -> None:
    assert run(file, "add", "proxy03.test.", "--address", "127.0.0.13").exit_code == 0
    assert (file.parent / "pki" / "members" / "proxy03.test" / "cert.pem").exists()
    assert "name: proxy03.test," in file.read_text()
    assert wrong_usage("add", "proxy04.test", "--address", "a..b")


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


def test_an_added_member_s_needs_are_listed_whole(file: Path) -> None:
    text = file.read_text().replace('store.db"', f'store.db", password_file: {file.parent}/store.password')
    text = text.replace("puppetca: {enabled: false}", "puppetca: {listen_port: 8141}")
    file.write_text(f"{text}authority: {{}}\nfeatures: {{dns: {{nsupdate: {{key_file: {file.parent}/dns.key}}}}}}\n")
    (file.parent / "store.password").write_text("word")
    said = run(file, "add", "proxy03.test", "--address", "127.0.0.13", "--dry-run").output
    pki = file.parent / "pki"
    for needed in (
        file, file.parent / "store.password", file.parent / "dns.key", pki / "ca.pem", f"{pki}/members/proxy03.test/",
        pki / "puppet-ca" / "ca_key.pem", "chown -R muster:", "systemctl enable --now muster-member", f"never {pki}/ca.key",
    ):  # fmt: skip
        assert str(needed) in said
    ruby = run(file, "add", "rb1.test", "--address", "127.0.0.14", "--kind", "foreman", "--dry-run").output
    assert "a certificate with the names rb1.test and proxy.test" in ruby
    assert "muster certs import rb1.test" in ruby


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
