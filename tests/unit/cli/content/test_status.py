"""``muster content status``: what a person and a program see of the repositories that clients ask for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from muster.cli.content.status import _named, shown
from muster.cluster.roster import Roster
from muster.content.states import State, states
from muster.content.views import Told, Views
from muster.kernel.errors import Misconfigured, NotFound
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from tests.unit.cli.calls import CLUSTER, run
from tests.unit.cli.content.mirroring import in_store, mirroring, publish, yum
from tests.unit.cli.terminal import CLEAN, EVIL, printed
from tests.unit.content.pictures import LAG_S, MEMBERS, both, picture, seen, told, version

ONE, TWO = version(1), version(2)
NAMES = ("proxy01.test", "proxy02.test")
CONTENT = """\
content:
  pulp_content_url: http://127.0.0.1:24816
  pulp_api_url: http://127.0.0.1:24817
"""
PATH = "/pulp/content/Org/Library/r"


def found(*of: State) -> dict[str, Any]:
    return {"members": list(MEMBERS), "lag_s": LAG_S, "repositories": [s.as_json() for s in of]}


def many(count: int, *behind: int) -> list[State]:
    pictures = [
        picture(
            {m: told(ONE if n in behind and m == "p1.test" else TWO, TWO) for m in MEMBERS}, ONE, TWO, shown=TWO,
            path=f"/pulp/content/{n:04}",
        )
        for n in range(count)
    ]  # fmt: skip
    return states(both(*pictures), MEMBERS, ["https"], LAG_S)


def test_of_a_thousand_those_with_a_matter_come_first_and_the_rest_is_a_line() -> None:
    lines = printed(shown(found(*many(1000, 7, 900)))).splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "/pulp/content/0007", "/pulp/content/0900",
        "1000 repositories: 2 with something wrong, 998 as they should be (--all lists these, too).",
    ]  # fmt: skip
    assert lines[1] == f"    {TWO} for 50 min, asked for 5 s ago"
    assert lines[2] == f"    the Pulp of p1.test still carries {ONE}, for 50 min"
    assert max(map(cell_len, lines)) <= 90
    everything = printed(shown(found(*many(1000, 7, 900)), is_all=True)).splitlines()
    assert len(everything) == 2 * 1000 + 2 + 1
    assert everything[-1] == "1000 repositories: 2 with something wrong, 998 as they should be."


def test_few_are_listed_whether_or_not_there_is_a_matter() -> None:
    lines = printed(shown(found(*many(2)))).splitlines()
    assert lines[0] == "/pulp/content/0000"
    assert lines[-1] == "2 repositories: 2 as they should be."
    assert printed(shown(found(*many(1)))).splitlines()[-1] == "1 repository: 1 as it should be."
    assert printed(shown(found(*many(1, 0)))).splitlines()[-1] == "1 repository: 1 with something wrong."


def test_none_is_said() -> None:
    assert printed(shown(found())).strip() == "Clients have asked for no repository yet."


def test_of_one_every_member_is_told() -> None:
    says = {"p1.test": told(ONE, TWO), "p2.test": told(TWO, ONE, TWO)}
    (of,) = states(picture(says, ONE, TWO, shown=TWO, members={m: seen(m) for m in MEMBERS}), MEMBERS, ["https"], LAG_S)
    said = printed(shown(found(of), is_one=True)).splitlines()
    assert said[0] == "/pulp/content/r"
    for name, has, disk in (("p1", ONE, "1 version on its disk"), ("p2", TWO, "2 versions on its disk")):
        at = said.index(f"    {name}.test: its Pulp has {has}; said 1 s ago")
        assert said[at + 1] == f"        {disk}, what is shown among them"
    # Each thing that is the matter stands there once.
    assert sum(f"still carries {ONE}" in text for text in said) == 1
    assert "    p3.test: has said nothing of it" in said


def test_what_members_left_in_the_store_is_shown_and_not_obeyed() -> None:
    says = {m: told(TWO, ONE, trouble=EVIL) for m in MEMBERS}
    of = states(picture(says, ONE, TWO, shown=ONE, path=f"/pulp/{EVIL}"), MEMBERS, ["https"], LAG_S)
    for is_one in (False, True):
        said = printed(shown(found(*of), is_one=is_one))
        assert CLEAN in said
        assert said.replace("\n", "").isprintable()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the file of a cluster in whose store a Pulp lags."""
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.format(store=tmp_path / "muster.db") + CONTENT)

    async def fill() -> None:
        from tests.unit.content.test_views import report

        async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
            views = Views(store)
            await views.ask({PATH: None})
            await views.know(PATH, [("1" * 64, 1, 1.0, "a" * 64), ("2" * 64, 2, 2.0, "b" * 64)])
            for number, name in enumerate(NAMES, 1):
                await Roster(store).beat(report(name, number), first=True)
                carried = f"{number}" * 64
                await views.tell(name, {PATH: Told(True, carried, frozenset(["1" * 64, "2" * 64]), None)})
            (row,) = (await views.picture(60)).rows.values()
            from muster.content.view import Decided, View

            assert await views.show(row, Decided(View(0, "2" * 64, 1000.0), None, "why"))

    asyncio.run(fill())
    return file


def test_it_is_read_out_of_the_store_for_programs(file: Path) -> None:
    result = run(file, "content", "status", "--json")
    said = json.loads(result.stdout)
    assert result.return_value == 1
    assert said["members"] == list(NAMES)
    (one,) = said["repositories"]
    assert (one["path"], one["is_wrong"], one["digest"]) == (PATH, True, "2" * 64)
    assert [m["kind"] for m in one["matters"]] == ["behind"]


@pytest.mark.parametrize(
    "named",
    [
        PATH, f"{PATH}/", "Org/Library/r", f"{PATH}/repodata/repomd.xml",
        f"https://proxy.test{PATH}/repodata/",
    ],
)  # fmt: skip
def test_one_is_found_by_what_people_copy(named: str, file: Path) -> None:
    result = run(file, "content", "status", named)
    assert result.stdout.startswith(f"{PATH}\n")
    assert "proxy01.test: its Pulp has revision 1" in result.stdout


@pytest.mark.parametrize("end", ["", "/", "/InRelease", "/Release"])
def test_a_suite_is_found_by_what_people_copy(end: str) -> None:
    path = "/pulp/content/Org/deb/dists/stable"
    of = states(picture({}, ONE, TWO, shown=ONE, path=path), MEMBERS, ["https"], LAG_S)
    assert _named(of, f"https://proxy.test{path}{end}").path == path
    assert _named(of, f"Org/deb/dists/stable{end}").path == path


def test_one_that_nobody_asked_for_is_not_found_and_one_that_is_near_is_named(file: Path) -> None:
    with pytest.raises(
        NotFound, match=r"no repository /pulp/content/Org/Library/x.*; /pulp/content/Org/Library/r they did"
    ):
        run(file, "content", "status", "/pulp/content/Org/Library/x")


@pytest.mark.parametrize("content", ["", f"{CONTENT}  one_version: false\n"])
def test_where_each_pulp_answers_for_itself_that_is_said(content: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.format(store=tmp_path / "muster.db") + content)
    with pytest.raises(Misconfigured, match="each Pulp answers for itself"):
        run(file, "content", "status")


def test_of_what_is_mirrored_the_publication_is_said(tmp_path: Path) -> None:
    file = mirroring(tmp_path)
    publish(file, yum())
    path = "/pulp/content/muster/library/yum/rocky"

    async def asked(store: Store) -> None:
        await Views(store).ask({path: None, PATH: None})

    in_store(file, asked)
    told = json.loads(run(file, "content", "status", "--json").stdout)["repositories"]
    assert {one["path"]: one["publication"] for one in told} == {path: yum().digest, PATH: ""}
    said = run(file, "content", "status", path).stdout
    assert f"    from publication {yum().digest[:12]}\n" in said
