"""A real member says which Puppet code its host has: to the store, by which members are compared, and in its readiness."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from muster.observed.statements import Statements
from tests.servers import member
from tests.servers.member import Member

# A member states what it is made of every ten seconds.
_PATIENCE_S = 60.0
_CODE = "muster.puppet_code"


@pytest.fixture
def environments(tmp_path: Path) -> Path:
    for name in ("production", "testing"):
        (tmp_path / "code" / name / "manifests").mkdir(parents=True)
        (tmp_path / "code" / name / "manifests" / "site.pp").write_text(f"# {name}\n")
    return tmp_path / "code"


@pytest.fixture
def running(environments: Path, tmp_path: Path) -> Iterator[Member]:
    puppet = {"provider": "memory", "code": {"environments": [str(environments)], "every_s": 5}}
    with member.running(tmp_path / "member", features={"puppet": puppet}) as found:
        yield found


def stated(running: Member, until: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
    """Return what the member told the store of its code, once that is so."""
    limit = time.monotonic() + _PATIENCE_S
    told: Mapping[str, Any] = {}
    while not until(told):
        assert time.monotonic() < limit, told
        time.sleep(0.1)
        told = running.tell(Statements(running.process.store).told).get(running.name, {})
    return {field: value for field, value in told.items() if field.startswith(_CODE)}


def test_a_member_states_which_code_its_host_has_and_what_changed(running: Member, environments: Path) -> None:
    first = stated(running, lambda told: _CODE in told)
    assert sorted(first) == [_CODE, f"{_CODE}.production", f"{_CODE}.testing"]
    assert first[_CODE] == "read"
    (environments / "production" / "manifests" / "site.pp").write_text("# another\n")
    changed = f"{_CODE}.production"
    second = stated(running, lambda told: changed in told and told[changed] != first[changed])
    assert {field for field in first if first[field] != second[field]} == {changed}
    environments.rename(environments.with_name("gone"))
    assert stated(running, lambda told: told.get(_CODE) == "absent") == {_CODE: "absent"}
    ready = running.ask("GET", "/health/ready?service=smartproxy")
    assert ready.status == 200
    assert f"There is no Puppet code on this host: no {environments}" in ready.text
