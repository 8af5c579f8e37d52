"""What a client gets below a repository that is followed, from whichever disk or Pulp has it, and who may have it."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from muster.content import kept, repositories
from muster.content.backend import Answer
from muster.content.call import Call
from muster.content.files import Opened
from muster.content.given import Clients, Given, Remembered
from muster.content.known import Followed, Known
from muster.content.manifest import REPOMD, Manifest
from muster.content.metrics import AnswerMetrics
from muster.content.repositories import Repositories
from muster.content.views import Shown
from muster.edge.replies import Reply, Streamed
from muster.kernel.errors import Unavailable
from tests.servers.pulp_stand_in import Version, version
from tests.unit.content.world import PATH, Member, World, digest, world
from tests.unit.edge.calls import request

pytestmark = pytest.mark.anyio

ONE = version(1, {"same": b"the same " * 30, "again": b"built 1 " * 30, "of1": b"of one"})
TWO = version(2, {"same": b"the same " * 30, "again": b"built 2 " * 30, "of2": b"of two"})
CERTIFICATE = b"certificate"
AGAIN, SAME = "Packages/again.rpm", "Packages/same.rpm"


@dataclass
class Answered:
    status: int
    body: bytes
    headers: dict[str, str]


class It:
    """One process of a member that answers, and what it was told: what is shown, and what is followed."""

    def __init__(self, member: Member, call: Call) -> None:
        self.member, self.call = member, call
        self.shown: Shown | None = None
        self.asked: list[tuple[str, bytes | None]] = []
        self.known = Known()
        self.registry = CollectorRegistry()
        self.remembered = Remembered()
        self.repositories = Repositories(
            member.kept, self.known, self._current, Clients(self.remembered.note, self.remembered.noted), hold_s=0.0,
            counted=AnswerMetrics(self.registry),
        )  # fmt: skip

    async def _current(self, path: str, certificate: bytes | None, *, alone: bool = False) -> Shown | None:
        self.asked.append((path, certificate))
        return self.shown

    async def stage(self, *versions: Version, of: Member | None = None, is_open: bool | None = True) -> list[str]:
        """Bring versions to this disk, or another, and show the first; return the digests of their manifests."""
        on = of if of is not None else self.member
        manifests = []
        before = on.pulp.carries.get(PATH)
        for one in versions:
            on.pulp.carries[PATH] = one
            manifests.append(await on.staging.keep(await on.staging.staged(PATH, one.repomd, None)))
        on.pulp.carries[PATH] = before
        self.shown = Shown(digest(versions[0]), manifests[0])
        self.known.repositories = {PATH: Followed(tuple(manifests) if of is None else (), is_open)}
        self.member.pulp.asked.clear()
        return manifests

    async def get(
        self, below: str, *, method: str = "GET", between: bool = False, call: Call | None = None, **headers: str
    ) -> Answered | None:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        with_these = replace(call or self.call, sent=[*(call or self.call).sent, *sent.items()])
        path = f"{PATH}/{below}"
        raw = {name.lower(): value for name, value in sent.items()}
        found = await self.repositories.answer(
            with_these, path, path, request(method, path, headers=raw), is_between_us=between
        )
        return await whole(found) if found is not None else None

    def counted(self, source: str) -> float:
        return self.registry.get_sample_value("muster_content_answers_total", {"source": source}) or 0.0


async def whole(found: Reply | Streamed) -> Answered:
    said = {k.decode(): v.decode() for k, v in found.headers}
    if isinstance(found, Reply):
        return Answered(found.status, found.body, said)
    try:
        return Answered(found.status, b"".join([piece async for piece in found.pieces]), said)
    finally:
        found.end()


@pytest.fixture
async def members(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
async def it(members: World) -> It:
    one = members["p1"]
    return It(one, one.staging._call(None))


def tag(body: bytes) -> str:
    return f'"sha256:{hashlib.sha256(body).hexdigest()}"'


async def test_all_of_the_version_that_is_shown_comes_from_the_disk(it: It) -> None:
    await it.stage(ONE)
    it.member.pulp.why = "it is away"
    for name in (REPOMD, f"{REPOMD}.asc", ONE.primary):
        found = await it.get(name)
        assert found is not None
        assert (found.status, found.body, found.headers["etag"]) == (200, ONE.files[name], tag(ONE.files[name])), name
    assert it.counted("disk") == 3
    found = await it.get(f"{REPOMD}.key")
    assert found is not None
    assert found.status == 404


async def test_what_is_not_shown_is_its_pulps_to_answer(it: It) -> None:
    it.member.pulp.carries[PATH] = ONE
    assert await it.get(REPOMD) is None
    assert it.asked == [(PATH, None)]
    # Of what is in no repository, or has two names, nobody is asked.
    for below in ("x", "repodata/x.xml", f"{REPOMD}?x", f"/{REPOMD}", f"%41/{REPOMD}"):
        assert await it.get(below) is None
    assert len(it.asked) == 1


async def test_only_its_repomd_makes_a_repository_followed(it: It) -> None:
    assert await it.get("treeinfo") is None
    assert it.asked == []


async def test_a_repository_inside_another_is_one_of_its_own(it: It) -> None:
    await it.stage(TWO)
    it.member.pulp.carries[f"{PATH}/inside"] = ONE
    it.shown = None
    assert await it.get(f"inside/{REPOMD}") is None
    assert it.asked == [(f"{PATH}/inside", None)]


async def test_what_a_suite_names_is_no_suite_of_its_own(it: It) -> None:
    suite, body = f"{PATH}/dists/stable", b"Component: main\n"
    kept = it.member.kept
    files = {"Release": await kept.add_bytes(b"Suite: stable\n"), "main/Release": await kept.add_bytes(body)}
    manifest = await it.member.staging.keep(Manifest(-1, 1.0, files, ""))
    it.known.repositories = {suite: Followed((manifest,), True)}
    it.shown = Shown(files["Release"], manifest)
    asked = request("GET", f"{suite}/main/Release")
    found = await it.repositories.answer(it.call, asked.path, asked.path, asked, is_between_us=False)
    assert found is not None
    assert (await whole(found)).body == body
    assert it.asked == [(suite, None)]


@pytest.mark.parametrize("entry", [f"AppStream/{REPOMD}", "dists/stable/InRelease"])
async def test_a_repository_within_one_that_is_followed_is_followed_itself(entry: str, it: It) -> None:
    await it.stage(ONE)
    it.member.pulp.carries[PATH] = ONE
    it.member.pulp.instead[f"{PATH}/{entry}"] = b"an entry of its own"
    await it.get(entry)
    within = entry.removesuffix(f"/{REPOMD}").removesuffix("/InRelease")
    assert [path for path, _ in it.asked] == [f"{PATH}/{within}"]
    await it.get(REPOMD)
    assert [path for path, _ in it.asked][1:] == [PATH]


async def test_a_client_that_has_it_gets_304(it: It) -> None:
    await it.stage(ONE)
    found = await it.get(REPOMD, If_None_Match=tag(ONE.repomd))
    assert found is not None
    assert (found.status, found.body) == (304, b"")


async def test_a_version_of_before_is_to_be_had_by_its_digests(it: It) -> None:
    await it.stage(TWO, ONE)
    found = await it.get(ONE.primary)
    assert found is not None
    assert found.body == ONE.files[ONE.primary]
    assert await it.get("repodata/" + "0" * 64 + "-primary.xml.gz") is None


async def test_what_another_repository_has_is_not_to_be_had_by_its_digest(it: It) -> None:
    """Whoever is let in to one repository, and knows a digest of a guarded one, is not let in to that."""
    (manifest,) = await it.stage(ONE, is_open=False)
    found = await it.member.staging.manifest(manifest)
    assert found is not None
    other, it.shown = "/pulp/content/open", None
    it.known.repositories = {**it.known.repositories, other: Followed((), True)}
    for key in (ONE.primary.removeprefix("repodata/")[:64], digest(ONE), manifest, found.packages):
        for is_between_us in (False, True):
            path = f"{other}/repodata/{key}-primary.xml.gz"
            asked = request("GET", path)
            assert await it.repositories.answer(it.call, path, path, asked, is_between_us=is_between_us) is None, key


async def test_what_is_shown_before_this_process_has_heard_of_it_comes_from_the_disk(it: It) -> None:
    await it.stage(ONE)
    it.known.repositories = {PATH: Followed((), True)}
    it.member.pulp.why = "it is away"
    found = await it.get(ONE.primary)
    assert found is not None
    assert found.body == ONE.files[ONE.primary]


async def test_a_guard_is_asked_each_time_and_as_the_client(it: It) -> None:
    await it.stage(ONE, is_open=False)
    it.member.pulp.carries[PATH] = ONE
    it.member.pulp.allowed = {CERTIFICATE}
    for name in (REPOMD, f"{REPOMD}.asc", ONE.primary):
        found = await it.get(name)
        assert found is not None
        assert (found.status, found.body) == (403, b""), name
    head = await it.get(SAME, method="HEAD")
    assert head is not None
    assert head.status == 403
    known = await it.get(SAME, If_None_Match=tag(ONE.files[SAME]))
    assert known is not None
    assert known.status == 403
    host = it.member.staging._call(CERTIFICATE)
    found = await it.get(REPOMD, call=host)
    assert found is not None
    assert found.status == 200
    assert it.asked == [(PATH, CERTIFICATE)]


async def test_what_may_have_a_guard_is_for_nobody_while_no_pulp_says_who_may(it: It) -> None:
    await it.stage(ONE, is_open=False)
    it.member.pulp.why = "it is away"
    with pytest.raises(Unavailable):
        await it.get(REPOMD)


async def test_where_a_pulp_sends_clients_elsewhere_it_is_its_own_to_answer(it: It) -> None:
    await it.stage(ONE, is_open=False)
    it.member.pulp.status = 302
    for name, method in ((REPOMD, "GET"), (ONE.primary, "GET"), (SAME, "HEAD")):
        assert await it.get(name, method=method) is None, name


async def test_what_was_open_long_ago_is_asked_for_again_before_anybody_is_let_in(it: It) -> None:
    await it.stage(ONE, is_open=None)
    it.member.pulp.carries[PATH] = ONE
    it.member.pulp.allowed = {CERTIFICATE}
    for name in (REPOMD, ONE.primary):
        found = await it.get(name)
        assert found is not None
        assert (found.status, found.body) == (403, b""), name
    it.member.pulp.allowed = None
    for name in (REPOMD, ONE.primary):
        found = await it.get(name)
        assert found is not None
        assert found.status == 200, name


@pytest.mark.parametrize(("why", "status"), [("it is away", None), ("", 502)])
async def test_what_was_open_long_ago_is_to_be_had_while_no_pulp_can_be_asked(
    it: It, why: str, status: int | None
) -> None:
    await it.stage(ONE, is_open=None)
    it.member.pulp.why, it.member.pulp.status = why, status
    for name in (REPOMD, ONE.primary):
        found = await it.get(name)
        assert found is not None
        assert found.status == 200, name


async def test_a_package_is_what_the_version_names(it: It) -> None:
    await it.stage(TWO, ONE)
    it.member.pulp.carries[PATH] = TWO
    found = await it.get(AGAIN)
    assert found is not None
    assert (found.status, found.body, found.headers["etag"]) == (200, TWO.files[AGAIN], tag(TWO.files[AGAIN]))
    assert it.counted("pulp") == 1


async def test_a_pulp_with_other_bytes_is_passed_over_for_one_that_has_these(members: World, it: It) -> None:
    assert len(ONE.files[AGAIN]) == len(TWO.files[AGAIN])
    await it.stage(TWO, ONE)
    it.member.pulp.carries[PATH] = ONE
    members["p2"].pulp.carries[PATH] = TWO
    found = await it.get(AGAIN)
    assert found is not None
    assert found.body == TWO.files[AGAIN]
    assert it.counted("sibling") == 1


async def test_where_no_pulp_has_these_bytes_it_is_404(it: It) -> None:
    await it.stage(TWO)
    it.member.pulp.carries[PATH] = ONE
    found = await it.get(AGAIN)
    assert found is not None
    assert found.status == 404


async def test_what_the_version_does_not_name_is_its_pulps_to_answer(it: It) -> None:
    await it.stage(ONE)
    assert await it.get("Packages/of2.rpm") is None


async def test_what_is_named_is_answered_for_without_asking_for_its_bytes(it: It) -> None:
    await it.stage(ONE)
    body = ONE.files[SAME]
    head = await it.get(SAME, method="HEAD")
    assert head is not None
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(body)), b"")
    for found, status in (
        (await it.get(SAME, If_None_Match=tag(body)), 304), (await it.get(SAME, If_Match='"other"'), 412),
    ):  # fmt: skip
        assert found is not None
        assert found.status == status
    assert it.member.pulp.asked == []


async def test_a_part_of_a_package_is_of_the_bytes_that_are_named(it: It) -> None:
    await it.stage(ONE)
    it.member.pulp.carries[PATH] = ONE
    body = ONE.files[SAME]
    part = await it.get(SAME, Range="bytes=10-19", If_Range=tag(body))
    assert part is not None
    assert (part.status, part.body) == (206, body[10:20])
    all_of_it = await it.get(SAME, Range="bytes=10-19", If_Range='"other"')
    assert all_of_it is not None
    assert (all_of_it.status, all_of_it.body) == (200, body)


@pytest.mark.parametrize(
    ("wanted", "first", "last"), [("bytes=0-9", 0, 9), ("bytes=-5", -5, None), ("bytes=100-", 100, None)]
)
@pytest.mark.parametrize("has_instead", [b"built 1 " * 30, b"shorter", b"longer " * 99], ids=["same", "less", "more"])
async def test_a_part_is_of_a_pulp_that_has_these_bytes(
    members: World, it: It, wanted: str, first: int, last: int | None, has_instead: bytes
) -> None:
    await it.stage(TWO, ONE)
    it.member.pulp.carries[PATH] = replace(ONE, files={**ONE.files, AGAIN: has_instead})
    members["p2"].pulp.carries[PATH] = TWO
    body = TWO.files[AGAIN]
    part = body[first : last + 1 if last is not None else None]
    for _ in range(2):
        found = await it.get(AGAIN, Range=wanted)
        assert found is not None
        assert (found.status, found.body, found.headers["etag"]) == (206, part, tag(body))
        at = body.index(part) if last is not None else len(body) - len(part)
        assert found.headers["content-range"] == f"bytes {at}-{at + len(part) - 1}/{len(body)}"
        assert found.headers["content-length"] == str(len(part))


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ("bytes=240-", 416),
        ("bytes=-0", 416),
        ("bytes=0-1,5-6", 200),
        ("bytes=9-1", 200),
        ("items=0-1", 200),
        ("x", 200),
    ],
)
async def test_what_is_no_part_is_answered_here(it: It, wanted: str, status: int) -> None:
    await it.stage(TWO)
    it.member.pulp.carries[PATH] = TWO
    found = await it.get(AGAIN, Range=wanted)
    assert found is not None
    assert (found.status, found.body) == (status, TWO.files[AGAIN] if status == 200 else b"")
    if status == 416:
        assert found.headers["content-range"] == "bytes */240"
        assert it.member.pulp.asked == []


async def test_a_part_that_is_outside_is_said_to_nobody_who_may_not_read(it: It) -> None:
    await it.stage(ONE, is_open=False)
    it.member.pulp.carries[PATH] = ONE
    it.member.pulp.allowed = set()
    found = await it.get(AGAIN, Range="bytes=999999-")
    assert found is not None
    assert (found.status, "content-range" in found.headers) == (403, False)


async def test_large_bytes_that_differ_are_cut_and_then_passed_over(members: World, it: It) -> None:
    one, two = (version(n, {"again": b"built %d " % n * 200_000}) for n in (1, 2))
    body = two.files[AGAIN]
    await it.stage(two, one)
    it.member.pulp.carries[PATH] = one
    members["p2"].pulp.carries[PATH] = two
    with pytest.raises(Unavailable, match="other bytes"):
        await it.get(AGAIN)
    found = await it.get(AGAIN)
    assert found is not None
    assert found.body == body
    # Of a part that is not known to be it the whole is looked at.
    part = await it.get(AGAIN, Range="bytes=1000000-1000009")
    assert part is not None
    assert (part.status, part.body) == (206, body[1_000_000:1_000_010])
    # It has them by now.
    it.member.pulp.carries[PATH] = two
    found = await it.get(AGAIN)
    assert found is not None
    assert (found.body, it.counted("pulp")) == (body, 2)


async def test_a_validator_that_is_large_is_not_remembered(it: It, monkeypatch: pytest.MonkeyPatch) -> None:
    await it.stage(ONE)
    it.member.pulp.carries[PATH] = ONE
    ask = it.member.pulp.ask

    async def tagged(*sent: Any) -> Answer:
        answer = await ask(*sent)
        return replace(answer, headers=[*answer.headers, ("ETag", f'"{"x" * 16_000}"')])

    monkeypatch.setattr(it.member.pulp, "ask", tagged)
    found = await it.get(AGAIN)
    assert found is not None
    assert found.body == ONE.files[AGAIN]
    assert not it.repositories._verified


async def test_a_part_of_large_bytes_that_differ_is_cut(it: It) -> None:
    one, two = (version(n, {"again": b"built %d " % n * 200_000}) for n in (1, 2))
    await it.stage(two, one)
    it.member.pulp.carries[PATH] = one
    with pytest.raises(Unavailable, match="other bytes"):
        await it.get(AGAIN, Range="bytes=0-9")


@pytest.mark.parametrize("status", [204, 304, 410, 416])
async def test_what_is_no_answer_to_the_question_is_passed_over(members: World, it: It, status: int) -> None:
    await it.stage(ONE)
    it.member.pulp.carries[PATH] = members["p2"].pulp.carries[PATH] = ONE
    it.member.pulp.status = status
    found = await it.get(AGAIN)
    assert found is not None
    assert (found.status, found.body) == (200, ONE.files[AGAIN])


async def test_what_is_not_on_this_disk_yet_comes_from_another_members(members: World, it: It) -> None:
    await it.stage(ONE, of=members["p2"])
    found = await it.get(REPOMD)
    assert found is not None
    assert (found.status, found.body) == (200, ONE.repomd)
    assert (it.counted("disk"), it.counted("sibling")) == (0, 1)


async def test_what_is_shown_and_nowhere_is_unavailable_and_nothing_else(members: World, it: It) -> None:
    (manifest,) = await it.stage(ONE, of=members["p2"])
    await members["p2"].kept.drop(manifest)
    with pytest.raises(Unavailable, match="not on this disk yet"):
        await it.get(REPOMD)


async def test_a_damaged_file_is_had_from_elsewhere(members: World, it: It) -> None:
    await it.stage(ONE, of=members["p2"])
    await it.stage(ONE)
    path = await it.member.kept.path(digest(ONE))
    assert path is not None
    await asyncio.sleep(0.01)
    path.unlink()
    path.write_bytes(b"x" * len(ONE.repomd))
    found = await it.get(REPOMD)
    assert found is not None
    assert found.body == ONE.repomd
    # So that it is brought again.
    assert not path.exists()


async def test_a_disk_that_refuses_keeps_nobody_from_what_others_have(
    members: World, it: It, monkeypatch: pytest.MonkeyPatch
) -> None:
    await it.stage(ONE, of=members["p2"])
    await it.stage(ONE)
    it.member.pulp.carries[PATH] = ONE
    here = kept._descriptor

    def refused(at: Path) -> int:
        if it.member.kept._root in at.parents:
            raise OSError(errno.EIO, "Input/output error")
        return here(at)

    monkeypatch.setattr(kept, "_descriptor", refused)
    found = await it.get(REPOMD)
    assert found is not None
    assert (found.status, found.body) == (200, ONE.repomd)
    # What its name or nothing tells from another's is its Pulp's to answer.
    for name in (ONE.primary, SAME):
        assert await it.get(name) is None, name


async def test_a_file_that_becomes_shorter_while_it_is_read_is_not_given(
    members: World, it: It, monkeypatch: pytest.MonkeyPatch
) -> None:
    await it.stage(ONE, of=members["p2"])
    await it.stage(ONE)
    taken = it.member.kept.taken

    async def shortened(found: Opened) -> bytes:
        path = await it.member.kept.path(digest(ONE))
        assert path is not None
        os.truncate(path, 5)
        return await taken(found)

    await it.get(f"{REPOMD}.asc")
    monkeypatch.setattr(it.member.kept, "taken", shortened)
    found = await it.get(REPOMD)
    assert found is not None
    assert (found.status, found.body) == (200, ONE.repomd)


async def test_an_index_that_breaks_while_it_is_open_says_nothing(it: It) -> None:
    (manifest,) = await it.stage(ONE)
    assert await it.get(SAME, method="HEAD") is not None
    said = await it.member.staging.manifest(manifest)
    assert said is not None
    path = await it.member.kept.path(said.packages)
    assert path is not None
    os.truncate(path, 50)
    for _ in range(2):
        assert await it.get(SAME, method="HEAD") is None


async def test_of_many_versions_the_newest_are_looked_through(it: It, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repositories, "_VERSIONS", 2)
    three = [version(n, {f"of{n}": b"of %d" % n}) for n in (3, 2, 1)]
    await it.stage(*three)
    found = [await it.get(f"Packages/of{n}.rpm", method="HEAD") is not None for n in (3, 2, 1)]
    assert found == [True, True, False]


async def test_a_repository_that_is_forgotten_meanwhile_is_its_pulps(it: It, monkeypatch: pytest.MonkeyPatch) -> None:
    suites = [f"{PATH}/dists/{name}" for name in ("stable", "testing")]
    release = await it.member.kept.add_bytes(b"Suite: stable\n")
    manifest = await it.member.staging.keep(Manifest(-1, 1.0, {"Release": release}, ""))
    it.known.repositories = dict.fromkeys(suites, Followed((manifest,), True))
    here = it.repositories._manifest_here

    async def forgotten(one: str) -> Manifest | None:
        it.known.repositories = {}
        return await here(one)

    monkeypatch.setattr(it.repositories, "_manifest_here", forgotten)
    assert await it.get("pool/x.deb") is None


async def test_other_members_get_what_is_named_by_its_digest_alone(it: It) -> None:
    await it.stage(ONE)
    found = await it.get(ONE.primary, between=True)
    assert found is not None
    assert found.body == ONE.files[ONE.primary]
    for below in (REPOMD, SAME):
        assert await it.get(below, between=True) is None
    kept = await it.repositories.to_member(f"/kept/{digest(ONE)}", request("GET", "/x"))
    assert (await whole(kept)).body == ONE.repomd
    for path in (f"/kept/{'0' * 64}", "/kept/..", "/else"):
        assert (await whole(await it.repositories.to_member(path, request("GET", "/x")))).status == 404


async def test_another_member_hears_what_a_client_was_given_here(it: It) -> None:
    key, manifest = "a" * 32, "b" * 64
    await it.remembered.note(key, manifest)

    async def told(path: str) -> Answered:
        return await whole(await it.repositories.to_member(path, request("GET", f"/.muster{path}")))

    answer = await told(f"/given/{key}")
    given = Given.read(answer.body)
    assert answer.status == 200
    assert given is not None
    assert given.manifest == manifest
    for path in (f"/given/{'c' * 32}", f"/given/{key}x", f"/given/{key[1:]}", "/given/", "/given", f"/given/{key}/"):
        assert (await told(path)).status == 404


async def test_who_was_given_a_treeinfo_is_given_it_again_while_another_one_is_new(it: It) -> None:
    """Its images are found by what it was given."""
    one, two = (replace(v, files={**v.files, "treeinfo": b"[tree %d]" % v.revision}) for v in (ONE, TWO))
    old, new = await it.stage(one, two)
    for shown, expected in ((old, one), (new, one)):
        it.shown = Shown(digest(one if shown == old else two), shown, is_new=True)
        found = await it.get("treeinfo")
        assert found is not None
        assert found.body == expected.files["treeinfo"]
    # Whoever has asked for the entry since has another one.
    assert await it.get(REPOMD) is not None
    found = await it.get("treeinfo")
    assert found is not None
    assert found.body == two.files["treeinfo"]
