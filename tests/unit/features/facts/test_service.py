from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from muster.edge.feature import Surroundings
from muster.features.facts import service
from muster.features.facts.service import Facts
from muster.features.facts.settings import FactsSettings
from muster.kernel.errors import Misconfigured, NotFound, Unavailable

pytestmark = pytest.mark.anyio

FACTS = {"kernel": "Linux", "os": {"family": "Debian"}, "a.b": 1, "zero": 0, "list": [{"x": "y"}], "none": None}


class Facter:
    """Answers when it is let."""

    def __init__(self, said: Mapping[str, Any] | Exception = FACTS) -> None:
        self.said = said
        self.times = 0
        self.may = asyncio.Event()
        self.may.set()

    async def __call__(self) -> Mapping[str, Any]:
        self.times += 1
        await self.may.wait()
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


async def test_all_who_come_meanwhile_share_one_question_and_later_ones_what_came_of_it() -> None:
    facter, now = Facter(), [100.0]
    facts = Facts(facter, kept_s=60, monotonic=lambda: now[0])
    assert await asyncio.gather(*(facts.every() for _ in range(50))) == [FACTS] * 50
    assert facter.times == 1
    now[0] += 59
    await facts.every()
    assert facter.times == 1
    now[0] += 2
    await facts.every()
    assert facter.times == 2


async def test_a_failure_is_for_those_who_waited_and_is_not_kept() -> None:
    facter = Facter(Unavailable("no"))
    facts = Facts(facter, kept_s=60)
    found = await asyncio.gather(*(facts.every() for _ in range(5)), return_exceptions=True)
    assert [type(f) for f in found] == [Unavailable] * 5
    assert facter.times == 1
    facter.said = FACTS
    assert await facts.every() == FACTS


async def test_who_leaves_takes_the_answer_from_nobody_and_the_end_ends_the_question() -> None:
    facter = Facter()
    facter.may.clear()
    facts = Facts(facter, kept_s=60)
    leaving, staying = (asyncio.create_task(facts.every()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    facter.may.set()
    assert await staying == FACTS
    facter.may.clear()
    last = asyncio.create_task(Facts(facter, kept_s=0).every())
    await asyncio.sleep(0)
    last.cancel()
    ending = Facts(facter, kept_s=0)
    waiting = asyncio.create_task(ending.every())
    await asyncio.sleep(0)
    await ending.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize(
    ("name", "value"),
    [("kernel", "Linux"), ("os.family", "Debian"), ("a.b", 1), ("zero", 0), ("list.0.x", "y"), ("os", FACTS["os"])],
)
async def test_a_fact_is_found_by_name_before_it_is_by_path(name: str, value: Any) -> None:
    assert await Facts(Facter(), kept_s=60).one(name) == value


@pytest.mark.parametrize(
    "name", ["", ".", "os.", "os.x", "kernel.x", "list.1", "list.x", "list.-1", "none", "a", "x" * 999]
)
async def test_what_is_no_fact_is_not_found(name: str) -> None:
    with pytest.raises(NotFound, match=r"^Fact .* not found$"):
        await Facts(Facter(), kept_s=60).one(name)


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


async def asked(tmp_path: Path, text: str, **given: Any) -> Mapping[str, Any]:
    settings = FactsSettings(facter=str(program(tmp_path / "facter", text)), **given)
    async with service.opened(settings, Surroundings("m", None, tmp_path, tmp_path, tmp_path)) as facts:  # type: ignore[arg-type]
        return await facts.every()


async def test_facter_is_asked_for_json_and_names_from_before_and_may_complain(tmp_path: Path) -> None:
    said = 'printf \'{"asked": "%s"}\' "$*"; echo "ERROR no such file" >&2; exit 1'
    assert await asked(tmp_path, said) == {"asked": "--no-color --json --show-legacy"}
    assert await asked(tmp_path, said, legacy=False) == {"asked": "--no-color --json"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo first >&2; echo '\033[31mlast' >&2; exit 3", "with status 3: \\\\x1b\\[31mlast"),
        ("echo '[1]'", "with status 0$"),
        ("echo '{'", "printed no facts"),
        ("head -c 1100000 /dev/zero | tr '\\0' '['", "more than 1 MiB"),
    ],
)
async def test_what_are_no_facts_is_said_with_facters_last_words(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Unavailable, match=said):
        await asked(tmp_path, text)


async def test_a_facter_that_hangs_is_killed(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"did not finish within 0\.1 s and was killed"):
        await asked(tmp_path, "sleep 60", timeout_s=0.1)


def test_facter_is_where_it_is_named_else_on_the_path_else_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = program(tmp_path / "facter", "")
    assert service.program(FactsSettings(facter=str(named))) == str(named)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert service.program(FactsSettings()) == str(named)
    monkeypatch.setattr(service, "_PACKAGED", str(tmp_path / "none"))
    for where in (str(tmp_path), str(tmp_path / "none")):
        with pytest.raises(Misconfigured, match="which facter names, is no program"):
            service.program(FactsSettings(facter=where))
    named.unlink()
    with pytest.raises(Misconfigured, match="Facter is not on this host"):
        service.program(FactsSettings())


@pytest.mark.parametrize("path", ["facter", "-x", "/a b", "/a\n", "/a;b", ""])
def test_the_program_is_a_plain_absolute_path(path: str) -> None:
    with pytest.raises(ValueError, match="facter"):
        FactsSettings(facter=path)
