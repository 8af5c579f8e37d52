from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from muster.app.duties.puppet_code import PuppetCodeRead
from muster.features.puppet.code import Code
from muster.features.puppet.settings import CodeSettings


def duty(*found: Code) -> PuppetCodeRead:
    answers: Iterator[Code] = iter(found)
    return PuppetCodeRead(CodeSettings(every_s=5), read=lambda: next(answers))


async def test_before_the_code_was_read_a_member_is_compared_with_nobody() -> None:
    one = duty(Code("read", {"production": "a", "state": "b"}))
    assert one.facts() == {}
    await one.beat()
    assert one.facts() == {"puppet_code": "read", "puppet_code.production": "a", "puppet_code.state": "b"}
    assert not one.found().notes


async def test_what_could_not_be_read_is_a_note_until_it_is_read() -> None:
    one = duty(
        Code("unreadable", problems=("Puppet's code in /x cannot be read: Permission denied",)),
        Code("read", {"production": "unreadable"}, "s", ("one", "two", "three")),
        Code("read", {"production": "a"}, "s"),
    )
    await one.beat()
    assert one.facts() == {"puppet_code": "unreadable"}
    assert one.found().notes == ("Puppet's code in /x cannot be read: Permission denied",)
    assert not one.found().down
    await one.beat()
    assert one.found().notes == ("one (and 2 more)",)
    await one.beat()
    assert one.facts() == {"puppet_code": "read", "puppet_code.production": "a", "puppet_code.(shared)": "s"}
    assert not one.found().notes


async def test_it_reads_what_the_settings_name(tmp_path: Path) -> None:
    (tmp_path / "environments/production").mkdir(parents=True)
    (tmp_path / "environments/production/environment.conf").write_text("x")
    one = PuppetCodeRead(CodeSettings(environments=(tmp_path / "environments",)))
    await one.beat()
    assert list(one.facts()) == ["puppet_code", "puppet_code.production"]
