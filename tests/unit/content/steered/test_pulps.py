"""What is asked of one Pulp: nothing of another name is changed, a task that runs is gone on with, reasons are passed on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from muster.cluster.steered import SteeredRepository
from muster.content.backend import Answer, BadGateway, once
from muster.content.pulp import ROOT
from muster.content.steered.pulps import LABEL, SteeredPulp
from muster.content.steered.stages import At, Turned
from muster.kernel.errors import Conflict, MusterError, Rejected, Unavailable
from muster.kernel.secrets import Secret

pytestmark = pytest.mark.anyio

WANTED = SteeredRepository.model_validate({"kind": "yum", "url": "http://origin.test/os", "path": "rocky9"})
REPOSITORY = f"{ROOT}repositories/rpm/rpm/0/"
OTHER_VERSION = f"{ROOT}repositories/rpm/rpm/9/versions/1/"
OURS = {LABEL: "here"}


class Program:
    """A Pulp that answers with what is set down, and makes what it is asked for.

    Attributes:
        asked: method, path and content of all that came.
    """

    name, url = "pulp@a", "http://pulp.test"

    def __init__(self, **answers: Any) -> None:
        self.answers = {f"{ROOT}{path}": said for path, said in answers.items()}
        self.objects: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str, Any]] = []

    def has(self, path: str, **content: Any) -> str:
        href = f"{ROOT}{path}{len(self.objects)}/"
        self.objects[href] = {"pulp_href": href, **content}
        return href

    async def ask(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: AsyncIterator[bytes] | None = None,
        length: int | None = None,
    ) -> Answer:
        at, query = urlsplit(path).path, parse_qs(urlsplit(path).query)
        content: Any = json.loads(b"".join([piece async for piece in body])) if body is not None else None
        self.asked.append((method, at, content))
        status, said = 200, self.answers.get(at)
        if said is None and at in self.objects:
            said = self.objects[at]
            if method == "PATCH":
                said |= content
        elif said is None and method == "POST":
            self.has(at.removeprefix(ROOT), **content)
        elif said is None:
            there = [o for h, o in self.objects.items() if h.startswith(at)]
            said = {
                "next": None,
                "results": [o for o in there if o.get("name") == query.get("name", [o.get("name")])[0]],
            }
        return Answer(self.name, status, (), once(json.dumps(said or {}).encode()), lambda: None)

    @property
    def changes(self) -> list[tuple[str, str, Any]]:
        return [a for a in self.asked if a[0] != "GET"]


def pulp(program: Program) -> SteeredPulp:
    one = SteeredPulp(program, Secret("word"))
    one.cluster = "here"
    return one


def task(state: str, **more: Any) -> dict[str, Any]:
    return {"tasks/1/": {"state": state, "created_resources": [], **more}}


SYNCING = At("syncing", REPOSITORY, f"{ROOT}tasks/1/")


async def test_what_is_needed_is_made_once_and_brought_up_to_date() -> None:
    program = Program()
    it = pulp(program)
    href = await it.ensured("rocky9", WANTED)
    assert href.startswith(f"{ROOT}repositories/rpm/rpm/")
    made = {path: content for _, path, content in program.changes}
    assert made[f"{ROOT}remotes/rpm/rpm/"]["url"] == "http://origin.test/os/"
    assert made[f"{ROOT}distributions/rpm/rpm/"]["base_path"] == "rocky9"
    assert all(c["name"] == "muster/here/rocky9" and c["pulp_labels"][LABEL] == "here" for c in made.values())
    program.asked.clear()
    assert await it.ensured("rocky9", WANTED) == href
    assert program.changes == []
    await it.ensured("rocky9", WANTED.model_copy(update={"policy": "immediate"}))
    ((method, _, content),) = program.changes
    assert (method, content) == ("PATCH", {"policy": "immediate"})


@pytest.mark.parametrize("labels", [{}, {LABEL: "elsewhere"}, None])
async def test_what_has_the_name_and_is_not_ours_is_not_changed(labels: Any) -> None:
    program = Program()
    program.has("repositories/rpm/rpm/", name="muster/here/rocky9", pulp_labels=labels)
    with pytest.raises(Conflict, match="somebody else's"):
        await pulp(program).ensured("rocky9", WANTED)
    assert [path for _, path, _ in program.changes] == [f"{ROOT}remotes/rpm/rpm/"]


async def test_a_synchronisation_that_is_under_way_is_gone_on_with() -> None:
    program = Program(**{
        "tasks/": {"next": None, "results": [
            {"name": "pulpcore.app.tasks.base.general_update", "pulp_href": f"{ROOT}tasks/1/"},
            {"name": "pulp_rpm.app.tasks.synchronizing.synchronize", "pulp_href": f"{ROOT}tasks/2/"},
        ]},
    })  # fmt: skip
    program.has("remotes/rpm/rpm/", name="muster/here/rocky9", pulp_labels=OURS)
    assert await pulp(program).begun("rocky9", "yum", REPOSITORY) == f"{ROOT}tasks/2/"
    assert program.changes == []


@pytest.mark.parametrize("anew", [False, True])
async def test_a_pulp_that_got_something_else_looks_at_the_origin_again_though_nothing_is_new(anew: bool) -> None:
    program = Program()
    program.has("remotes/deb/apt/", name="muster/here/debian", pulp_labels=OURS)
    repository = program.has("repositories/deb/apt/", name="muster/here/debian", pulp_labels=OURS)
    with contextlib.suppress(MusterError):
        await pulp(program).begun("debian", "deb", str(repository), anew=anew)
    ((_, _, told),) = program.changes
    assert told.get("optimize", True) is not anew


@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        (task("waiting"), Unavailable, "none of its workers"),
        (task("failed", error={"description": "no space left"}), Rejected, "no space left"),
        (task("canceled"), Rejected, "does not say why"),
        (task("completed", created_resources=["http://elsewhere.test/"]), BadGateway, "no object of it"),
        ({**task("completed"), "repositories/rpm/rpm/0/": {"latest_version_href": OTHER_VERSION}},
         BadGateway, "another repository"),
    ],
)  # fmt: skip
async def test_a_task_that_brings_nothing_says_why(said: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        await pulp(Program(**said)).looked(SYNCING, 1)


async def test_a_task_brings_a_version_and_perhaps_a_publication() -> None:
    version, publication = f"{REPOSITORY}versions/3/", f"{ROOT}publications/rpm/rpm/5/"
    said = {**task("completed", created_resources=[version, publication, None]),
            "repositories/rpm/rpm/0/": {"latest_version_href": version}}  # fmt: skip
    at, _ = await pulp(Program(**said)).looked(SYNCING, 4)
    assert at == At("synced", REPOSITORY, version=version, publication=publication, ended=4)
    at, far = await pulp(Program(**task("running", progress_reports=[{"message": "Parsed", "done": 7}, 3]))).looked(
        SYNCING, 1
    )
    assert (at.phase, far) == ("syncing", {"Parsed": 7})


def listed(*packages: str, counts: int = 0) -> Program:
    present = {"rpm.package": {"count": len(packages)}, "rpm.modulemd": {"count": counts}}
    return Program(**{
        "repositories/rpm/rpm/0/versions/1/": {"content_summary": {"present": present}},
        "content/rpm/packages/": {"next": None, "results": [{"pkgId": p, "location_href": f"{p}.rpm"} for p in packages]},
        **{f"content/rpm/{what}/": {"next": None, "results": []} for what in ("advisories", "repo_metadata_files")},
    })  # fmt: skip


async def test_equal_content_has_one_digest_in_whatever_order_it_is_told() -> None:
    at = At("synced", REPOSITORY, version=f"{REPOSITORY}versions/1/")
    one = await pulp(listed("aa", "bb")).read("yum", at)
    assert one.packages == 2
    assert (await pulp(listed("bb", "aa")).read("yum", at)).digest == one.digest
    others = [await pulp(p).read("yum", at) for p in (listed("aa"), listed("aa", "bc"), listed("aa", "bb", counts=1))]
    assert len({one.digest, *(o.digest for o in others)}) == 4


async def test_what_was_published_before_is_not_published_again() -> None:
    program = Program()
    publication = program.has("publications/rpm/rpm/")
    at = At("synced", REPOSITORY, version=f"{REPOSITORY}versions/1/", digest="d")
    known = [Turned(at.version, publication)]
    assert (await pulp(program).published("yum", at, known, again=False)).publication == publication
    assert program.changes == []


async def test_what_is_signed_is_refused_as_far_as_pulp_says_so() -> None:
    for name, is_signed in (("Release", False), ("InRelease", True), ("Release.gpg", True)):
        results = [{"artifacts": {f"dists/stable/{name}": f"{ROOT}artifacts/1/"}}]
        one = pulp(Program(**{"content/deb/release_files/": {"next": None, "results": results}}))
        if is_signed:
            with pytest.raises(Rejected, match="has signed it"):
                await one.refuse_signed("deb", f"{REPOSITORY}versions/1/")
        else:
            await one.refuse_signed("deb", f"{REPOSITORY}versions/1/")
