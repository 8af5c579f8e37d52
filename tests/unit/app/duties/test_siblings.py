from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from muster.app.duties import siblings as siblings_module
from muster.app.duties.siblings import Siblings
from muster.app.listed import Listed
from muster.cluster import roster
from muster.cluster.roster import Report, Roster
from muster.content.fill import Sibling
from muster.kernel.secrets import Secret
from muster.store.engine import opened

pytestmark = pytest.mark.anyio


def report(number: int, state: str) -> Report:
    name = f"proxy0{number}.example.com"
    ready = {"https": {"state": state, "reason": ""}}
    return Report(name, number, "0.1.0", "1", "host", 1, "ready", "", {}, ready, {})


async def test_who_is_ready_for_content_is_told_each_time_that_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [
        SimpleNamespace(name=f"proxy0{n}.example.com", address=f"192.0.2.{n}", kind=kind, ports={})
        for n, kind in ((1, "muster"), (2, "muster"), (3, "muster"), (4, "foreman"))
    ]
    listed = cast(Listed, SimpleNamespace(latest=SimpleNamespace(members=members), look=lambda: None))
    told: list[tuple[Sequence[Sibling], Sequence[str]]] = []

    def tell(siblings: Sequence[Sibling], names: Sequence[str]) -> None:
        told.append((siblings, names))

    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        duty = Siblings("proxy01.example.com", 443, listed, store, tell)
        all_names = tuple(m.name for m in members[:3])
        await duty.beat()
        assert told == [((), all_names)]
        for number, state in ((1, "ready"), (2, "ready"), (3, "unready"), (4, "ready")):
            await Roster(store).beat(report(number, state), first=True)
        for _ in range(2):
            await duty.beat()
        second = Sibling("proxy02.example.com", "192.0.2.2", 443)
        assert told[1:] == [((second,), all_names)]
        await Roster(store).beat(report(3, "ready"), first=False)
        await duty.beat()
        assert told[-1][0] == (second, Sibling("proxy03.example.com", "192.0.2.3", 443))
        # Who is silent is not there.
        monkeypatch.setattr(roster, "SILENT_AFTER_S", -1.0)
        await duty.beat()
        assert told[-1] == ((), all_names)
    # Without the store whoever was told last is.
    await duty.beat()
    assert len(told) == 4


async def test_who_was_ready_a_moment_ago_is_asked_for_what_clients_left_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [
        SimpleNamespace(name=f"proxy0{n}.example.com", address=f"192.0.2.{n}", kind="muster", ports={}) for n in (1, 2)
    ]
    listed = cast(Listed, SimpleNamespace(latest=SimpleNamespace(members=members), look=lambda: None))
    told: list[Sequence[Sibling]] = []
    second = Sibling("proxy02.example.com", "192.0.2.2", 443)
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        duty = Siblings("proxy01.example.com", 443, listed, store, lambda siblings, _: told.append(siblings))
        for state in ("ready", "starting"):
            await Roster(store).beat(report(2, state), first=True)
            await duty.beat()
        # It starts again, and its other ports may take clients before everybody knows that it is ready for these.
        assert told == [(second,)]
        monkeypatch.setattr(siblings_module, "_RETURNS_S", 0.0)
        await duty.beat()
        assert told == [(second,), ()]


async def test_who_leaves_the_cluster_file_is_believed_no_longer_also_without_the_store(tmp_path: Path) -> None:
    members = [
        SimpleNamespace(name=f"proxy0{n}.example.com", address=f"192.0.2.{n}", kind="muster", ports={})
        for n in (1, 2, 3)
    ]
    left = SimpleNamespace(members=members)
    listed = SimpleNamespace(latest=left)
    listed.look = lambda: setattr(listed, "latest", left)
    told: list[tuple[Sequence[Sibling], Sequence[str]]] = []

    def tell(siblings: Sequence[Sibling], names: Sequence[str]) -> None:
        told.append((siblings, names))

    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        duty = Siblings("proxy01.example.com", 443, cast(Listed, listed), store, tell)
        for number in (2, 3):
            await Roster(store).beat(report(number, "ready"), first=True)
        await duty.beat()
        assert len(told[-1][0]) == 2
    left = SimpleNamespace(members=members[:2])
    await duty.beat()
    assert told[-1] == (
        (Sibling("proxy02.example.com", "192.0.2.2", 443),), ("proxy01.example.com", "proxy02.example.com"),
    )  # fmt: skip


def test_an_item_of_the_workers_line_is_a_sibling_again() -> None:
    one = Sibling("proxy02.example.com", "192.0.2.2", 443)
    said: Any = list(one)
    assert Sibling(*said) == one
