"""A repository of a registry as an origin: what its tags name is made into one state, or nothing is."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from structlog.testing import capture_logs

from muster.cluster.mirror import Mirrored, Policy
from muster.content.backend import Answer, once
from muster.content.index import Index
from muster.content.kept import Differs, Kept, Oversized
from muster.content.manifest import TAGS, Manifest
from muster.content.metadata import image
from muster.content.metadata.image import Tags
from muster.content.metadata.malformed import Malformed
from muster.content.mirror import upstream
from muster.content.mirror.sync import synchronised
from muster.content.mirror.targets import Target
from muster.content.mirror.upstream import Upstream, is_like
from muster.kernel.clock import FakeClock
from muster.kernel.errors import MusterError, NotFound, Rejected, Unavailable
from tests.servers import registry_stand_in as made
from tests.servers.registry_stand_in import Pushed

pytestmark = pytest.mark.anyio

URL = "https://registry.test/x"
BASE = "/x/v2/a/b"


class Registry:
    """One without sockets; what it has may be changed at any moment.

    Attributes:
        more: headers of answers, by path.
        less: headers that answers lack.
        wants: what has to be shown, empty: nothing.
        most: how many tags may be asked for at once.
        busy: in how many seconds to ask again, for each answer that says so before one that is one.
    """

    name = "origin r"

    def __init__(self, **tags: Pushed) -> None:
        self.root = Target.of(URL)
        self.tags = dict(tags)
        self.gives: dict[str, bytes] = {}
        self.status: dict[str, int] = {}
        self.less: set[str] = set()
        self.link: list[str] = []
        self.most = 1000
        self.busy: list[str] = []
        self.wants = ""
        self.token = 0
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    async def ask(self, method: str, path: str, headers: Sequence[tuple[str, str]], /) -> Answer:
        await asyncio.sleep(0)
        sent = dict(headers)
        self.asked.append((method, path, sent))
        if self.wants and sent.get("Authorization") != f"{self.wants}{self.token}":
            return self._answer(401, b"", ("WWW-Authenticate", 'Bearer realm="https://auth.test/"'))
        if self.busy:
            return self._answer(429, b"", ("Retry-After", self.busy.pop(0)))
        below = path.removeprefix("/v2/a/b/")
        if below in self.status:
            return self._answer(self.status[below], b"")
        what, _, reference = below.partition("/")
        pushed: dict[str, Pushed] = {}
        for tag, one in self.tags.items():
            pushed |= {tag: one, one.digest: one, **{b.digest: b for b in one.below}}
        if what == "blobs":
            body = next((o.blobs[reference] for o in pushed.values() if reference in o.blobs), None)
            return self._answer(404, b"") if body is None else self._answer(200, self.gives.get(reference, body))
        if what != "manifests" or reference not in pushed:
            return self._answer(404, b"")
        assert "application/vnd.oci.image.index.v1+json" in sent["Accept"]
        found = pushed[reference]
        said = [("Docker-Content-Digest", found.digest), ("Content-Type", f"{found.media}; charset=utf-8")]
        return self._answer(200, self.gives.get(reference, found.body), *said, is_bodiless=method == "HEAD")

    async def ask_at(self, target: Target, headers: Sequence[tuple[str, str]], _why: str, /) -> Answer:
        if target.host == "auth.test":
            self.token += 1
            return self._answer(200, json.dumps({"token": str(self.token)}).encode())
        assert target.base == "https://registry.test"
        self.asked.append(("GET", target.path, dict(headers)))
        path, _, query = target.path.partition("?")
        if path != f"{BASE}/tags/list" or not self.tags:
            return self._answer(404, b"")
        last = parse_qs(query).get("last", [""])[0]
        if "n" in parse_qs(query) and int(parse_qs(query)["n"][0]) > self.most:
            return self._answer(400, b'{"errors": [{"code": "PAGINATION_NUMBER_INVALID"}]}')
        names = self.gives.get("tags/list", json.dumps({"tags": [t for t in self.tags if t > last]}).encode())
        return self._answer(200, names, *(("Link", self.link.pop(0)),) if self.link else ())

    def _answer(self, status: int, body: bytes, *said: tuple[str, str], is_bodiless: bool = False) -> Answer:
        headers = [("Content-Length", str(len(body))), *said]
        kept = [h for h in headers if h[0].lower() not in self.less]
        return Answer(self.name, status, kept, once(b"" if is_bodiless else body), lambda: None)

    def paths(self) -> list[str]:
        found = [f"{method} {path}" for method, path, _ in self.asked]
        self.asked.clear()
        return found


def settings(policy: Policy = "on_demand", **more: Any) -> Mirrored:
    said = {"kind": "container", "url": URL, "upstream": "a/b", "policy": policy, **more}
    return Mirrored.model_validate(said)


def mirrored(registry: Any, *tags: str) -> Upstream:
    return Upstream("r", settings(tags=tags or None), registry)


async def state(it: Upstream) -> Tags:
    answer = await it.ask("GET", f"/{TAGS}", ())
    body = await answer.whole(4 << 20)
    assert body is not None
    return Tags.read(body)


ONE, TWO = made.image("one"), made.image("two", media=made.DOCKER_MANIFEST)
MANY = made.index(ONE, TWO, media=made.DOCKER_LIST)


async def test_what_tags_name_is_one_state_with_all_that_indexes_name() -> None:
    registry = Registry(latest=MANY, one=ONE, again=ONE)
    found = await state(mirrored(registry))
    names = {p: p.digest.removeprefix("sha256:") for p in (ONE, TWO, MANY)}
    assert found.tags == {"latest": names[MANY], "one": names[ONE], "again": names[ONE]}
    assert found.manifests == {names[p]: (p.media, len(p.body)) for p in (ONE, TWO, MANY)}
    # What an image is is not fetched to name it, and an index once alone.
    asked = registry.paths()
    assert asked[0] == f"GET {BASE}/tags/list?n=1000"
    assert sorted(asked[1:]) == sorted([
        "HEAD /v2/a/b/manifests/latest", "HEAD /v2/a/b/manifests/one", "HEAD /v2/a/b/manifests/again",
        f"GET /v2/a/b/manifests/{MANY.digest}",
    ])  # fmt: skip
    it = mirrored(registry)
    await state(it)
    registry.paths()
    await state(it)
    assert not [one for one in registry.paths() if one.startswith("GET /v2")]


async def test_tags_that_are_named_are_asked_for_and_no_list() -> None:
    registry = Registry(latest=ONE, other=TWO)
    assert set((await state(mirrored(registry, "latest"))).tags) == {"latest"}
    assert registry.paths() == ["HEAD /v2/a/b/manifests/latest"]
    for wanted in (("latest", "none"), ("none", "l*")):
        with pytest.raises(NotFound, match="has no tag none"):
            await state(mirrored(registry, *wanted))


async def test_patterns_choose_among_what_is_listed() -> None:
    registry = Registry(latest=ONE, **{"3.1": ONE, "3.2": TWO, "4.0": TWO})
    assert set((await state(mirrored(registry, "3.?", "latest"))).tags) == {"3.1", "3.2", "latest"}
    with pytest.raises(NotFound, match="None of the 4 tags"):
        await state(mirrored(registry, "5*"))


async def test_what_is_left_out_does_not_come_whatever_else_names_it() -> None:
    registry = Registry(**{"latest": ONE, "3.1": ONE, "3.2": TWO, "3.2-rc": TWO})
    for patterns, expected in (
        (("3.*", "!*-rc"), {"3.1", "3.2"}), (("!3.*",), {"latest"}), (("*", "!3.1", "!3.2"), {"latest", "3.2-rc"}),
        (("latest", "3.1", "!3.*"), {"latest"}),
    ):  # fmt: skip
        assert (await state(mirrored(registry, *patterns))).tags.keys() == expected
    with pytest.raises(NotFound, match="None of the 4 tags"):
        await state(mirrored(registry, "!*"))


async def test_a_manifest_that_is_not_there_is_said_with_a_tag_that_can_be_left_out(tmp_path: Path) -> None:
    """Registries that clean up what has no tag leave indexes behind that name what is gone."""
    here, registry = Here(tmp_path, "on_demand"), Registry(latest=ONE, **{"3.1": made.index(made.index(TWO))})
    inner = made.index(TWO)
    registry.tags["3.1"] = Pushed(made.index(inner).body, made.INDEX, below=(inner,))
    with pytest.raises(Unavailable, match=rf'has no .*{TWO.digest}, which the tag 3\.1 leads to.*"!3\.1" in .*tags'):
        await here.sync(registry)
    registry.tags["3.1"] = Pushed(made.index(inner).body, made.INDEX)
    with pytest.raises(Unavailable, match=rf'has no .*{inner.digest}, which the tag 3\.1 leads to.*"!3\.1" in .*tags'):
        await here.sync(registry)
    here.settings = settings("on_demand", tags=["*", "!3.1"])
    assert (await here.sync(registry)).publication.packages == len(ONE.blobs)
    here.kept.close()
    here.packages.close()


def beside(one: Pushed, end: str = ".sig") -> str:
    return f"{one.digest.replace(':', '-')}{end}"


async def test_of_what_lies_beside_images_comes_what_is_of_those(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registries have signatures of all that there ever was."""
    signature, other = made.image("signature"), made.image("other")
    of = {beside(MANY): signature, beside(TWO, ".att"): signature, beside(ONE, ""): made.index(made.image("referrer"))}
    orphans = {beside(made.image(str(n))): other for n in range(5)}
    registry = Registry(**{"3.1": MANY, "4.0": other, **of, beside(signature): made.image("again"), **orphans})
    monkeypatch.setattr(upstream, "LIMIT_TAGS", 5)
    found = await state(mirrored(registry, "3.*", "sha256-*"))
    assert found.tags.keys() == {"3.1", *of, beside(signature)}
    asked = registry.paths()
    assert not [one for one in asked if any(o in one for o in orphans)]
    # They are wanted, or not, as others are.
    assert (await state(mirrored(registry, "3.*"))).tags.keys() == {"3.1"}
    assert (await state(mirrored(registry, "3.1", next(iter(orphans))))).tags.keys() == {"3.1", next(iter(orphans))}
    monkeypatch.setattr(upstream, "LIMIT_TAGS", 4)
    with pytest.raises(Rejected, match=r"5 tags .* are wanted, and 4 are mirrored"):
        await state(mirrored(registry, "3.*", "sha256-*"))
    with pytest.raises(Rejected, match="no tag of an image"):
        await state(mirrored(registry, "sha256-*"))
    # Without patterns all is wanted.
    monkeypatch.setattr(upstream, "LIMIT_TAGS", 50)
    assert (await state(mirrored(registry))).tags.keys() == registry.tags.keys()


@pytest.mark.parametrize(
    ("pattern", "name", "is_it"),
    [
        ("*", "", True), ("*", "abc", True), ("a*c", "abc", True), ("a*c", "ac", True), ("a*c", "acb", False),
        ("?", "", False),
        ("a?c", "abc", True), ("a?c", "ac", False), ("*.*-x", "1.2-x", True), ("a", "ab", False), ("ab", "a", False),
        ("**a**", "bab", True), ("*a*b*c", "xxaxxbxxc", True), ("*a*b*c", "xxcxxbxxa", False), ("a.c", "abc", False),
        ("*a" * 40, "a" * 128, True), ("*a" * 40 + "b", "a" * 128, False),
    ],
)  # fmt: skip
def test_a_pattern_is_of_the_whole_name(pattern: str, name: str, is_it: bool) -> None:
    assert is_like(name, pattern) is is_it


async def test_a_list_in_pages_is_read_to_its_end_and_not_without_one() -> None:
    registry = Registry(a=ONE, b=ONE, c=ONE)
    registry.link = ['<?n=1000&last=a>; rel="next"', f"<https://elsewhere.test{BASE}/tags/list?last=b>; rel=next"]
    assert set((await state(mirrored(registry))).tags) == {"a", "b", "c"}
    assert [p for p in registry.paths() if "tags" in p] == [
        f"GET {BASE}/tags/list?n=1000", f"GET {BASE}/tags/list?n=1000&last=a", f"GET {BASE}/tags/list?last=b",
    ]  # fmt: skip
    registry.link = ['<?last=a>; rel="next"'] * 3
    with pytest.raises(Malformed, match="no end"):
        await state(mirrored(registry))


async def test_a_registry_that_lists_fewer_at_once_says_itself_how_many() -> None:
    # Source: distribution 3.1.0 answers 400 where more are asked for than it gives (its issue 4844).
    registry = Registry(a=ONE, b=ONE)
    registry.most = 100
    registry.link = ['<?last=a>; rel="next"']
    assert set((await state(mirrored(registry))).tags) == {"a", "b"}
    assert [p for p in registry.paths() if "tags" in p] == [
        f"GET {BASE}/tags/list?n=1000", f"GET {BASE}/tags/list", f"GET {BASE}/tags/list?last=a",
    ]  # fmt: skip


async def test_tags_of_what_is_no_image_are_left_out_and_said() -> None:
    old = Pushed(b'{"schemaVersion": 1}', "application/vnd.docker.distribution.manifest.v1+prettyjws")
    registry = Registry(latest=ONE, old=old, gone=TWO)
    registry.status["manifests/gone"] = 404
    with capture_logs() as logged:
        assert set((await state(mirrored(registry))).tags) == {"latest"}
    assert logged[0]["tags"] == ["gone", "old"]
    registry.tags = {"old": old}
    with pytest.raises(Rejected, match="has no tag of an image"):
        await state(mirrored(registry))
    with pytest.raises(NotFound, match="has no tag old"):
        await state(mirrored(registry, "old"))


@pytest.mark.parametrize("less", ["docker-content-digest", "content-type", "content-length"])
async def test_what_is_not_said_of_a_tag_is_looked_at(less: str) -> None:
    registry = Registry(latest=MANY, one=ONE)
    registry.less = {less}
    assert (await state(mirrored(registry))).manifests == (
        await state(mirrored(Registry(latest=MANY, one=ONE)))
    ).manifests


@pytest.mark.parametrize("less", [set(), {"content-type"}])
async def test_an_index_of_other_bytes_than_its_digest_changes_nothing(less: set[str]) -> None:
    registry = Registry(latest=MANY)
    registry.gives = {MANY.digest: MANY.body + b" ", "latest": MANY.body + b" "}
    registry.less = less
    with pytest.raises(Differs, match=MANY.digest):
        await state(mirrored(registry))


@pytest.mark.parametrize(("status", "asked"), [(429, 1), (503, 1), (405, 2)])
async def test_a_registry_that_has_enough_of_it_is_asked_no_more(status: int, asked: int) -> None:
    registry = Registry(latest=ONE)
    registry.status["manifests/latest"] = status
    with pytest.raises(Unavailable, match=f"answers {status} for .*/manifests/latest"):
        await state(mirrored(registry, "latest"))
    assert len(registry.paths()) == asked


async def test_a_registry_that_says_when_is_asked_again_then_but_not_for_ever() -> None:
    registry, clock = Registry(latest=MANY), FakeClock()
    it = Upstream("r", settings(tags=["latest"]), registry, clock=clock)  # type: ignore[arg-type]
    registry.busy = ["2", "7"]
    assert set((await state(it)).tags) == {"latest"}
    assert (clock.slept, len(registry.paths())) == ([2.0, 7.0], 4)
    # Of manifests, too, when they are fetched, and of blobs not: a client waits for those.
    registry.busy = ["0"]
    assert (await it.ask("GET", f"/manifests/{ONE.digest}", ())).status == 200
    registry.busy = ["1"]
    assert (await it.ask("GET", f"/blobs/{next(iter(ONE.blobs))}", ())).status == 429
    assert clock.slept == [2.0, 7.0, 1.0]
    for busy, asked in ((["1"] * 99, 5), (["61"], 1), (["Wed, 21 Oct 2026 07:28:00 GMT"], 1), (["-1"], 1)):
        registry.paths()
        registry.busy = busy
        with pytest.raises(Unavailable, match="answers 429"):
            await state(it)
        assert len(registry.paths()) == asked


async def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(**{f"t{n}": ONE for n in range(5)})
    monkeypatch.setattr(upstream, "LIMIT_TAGS", 4)
    with pytest.raises(Rejected, match=r"5 tags .* are wanted, and 4 are mirrored"):
        await state(mirrored(registry))
    monkeypatch.setattr(upstream, "LIMIT_MANIFESTS", 2)
    registry.tags = {"latest": MANY}
    with pytest.raises(Rejected, match="more than 2 manifests"):
        await state(mirrored(registry))
    registry.tags = {"latest": Pushed(b" " * (image.LIMIT_BYTES + 1), made.MANIFEST)}
    with pytest.raises(Oversized, match="larger than 4 MiB"):
        await state(mirrored(registry))
    registry.less = {"content-length"}
    with pytest.raises(Oversized, match="larger than 4 MiB"):
        await state(mirrored(registry))
    registry.gives["tags/list"] = b" " * (5 << 20)
    with pytest.raises(Oversized, match="list of the tags"):
        await state(mirrored(registry))


async def test_indexes_that_name_too_much_are_not_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "LIMIT_MANIFESTS", 40)
    registry = Registry(**{f"t{n:02}": made.index(*(made.image(f"{n} {m}") for m in range(3))) for n in range(39)})
    it = mirrored(registry)
    with pytest.raises(Rejected, match="more than 40 manifests"):
        await state(it)
    assert len([one for one in registry.paths() if one.startswith("GET /v2")]) < 30


async def test_no_more_is_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "_LIMIT_REMEMBERED", 9)
    registry = Registry(**{f"t{n}": made.index(made.image(str(n)), TWO) for n in range(5)})
    it = mirrored(registry)
    first = await state(it)
    registry.paths()
    assert await state(it) == first
    assert len([one for one in registry.paths() if one.startswith("GET /v2")]) == 2
    # What is nobody's any more makes room when all is known.
    registry.tags = {"new": MANY}
    await state(it)
    await state(it)
    registry.paths()
    await state(it)
    assert not [one for one in registry.paths() if one.startswith("GET /v2")]


async def test_indexes_may_name_indexes_but_not_for_ever() -> None:
    inner = made.index(ONE)
    outer = made.index(inner)
    registry = Registry(latest=Pushed(outer.body, outer.media, below=(inner, ONE)))
    assert len((await state(mirrored(registry))).manifests) == 3
    last = made.index(outer)
    registry.tags = {"latest": Pushed(last.body, last.media, below=(outer, inner, ONE))}
    with pytest.raises(Rejected, match="indexes of indexes"):
        await state(mirrored(registry))


@pytest.mark.parametrize("what", [{"size": 5}, {"mediaType": made.DOCKER_MANIFEST}], ids=["size", "type"])
async def test_a_manifest_that_is_described_in_two_ways_is_neither(what: dict[str, Any]) -> None:
    """Which of them counted would be chance, and members would see the same registry change again and again."""
    said = json.dumps({"schemaVersion": 2, "manifests": [{**ONE.described, **what}]}).encode()
    other = Pushed(said, made.INDEX, below=(ONE,))
    for tags in ({"one": ONE, "other": other}, {"a": other, "b": made.index(ONE)}):
        with pytest.raises(Malformed, match=f"{ONE.digest}.*described"):
            await state(mirrored(Registry(**tags)))


async def test_what_an_index_names_and_is_not_there_is_said() -> None:
    outer = made.index(made.index(ONE))
    with pytest.raises(Unavailable, match=made.index(ONE).digest):
        await state(mirrored(Registry(latest=Pushed(outer.body, outer.media))))


async def test_a_repository_that_is_not_there_is_said() -> None:
    with pytest.raises(NotFound, match=r"There is no repository https://registry\.test/x/v2/a/b"):
        await state(mirrored(Registry()))


async def test_a_token_is_shown_and_had_anew_when_it_counts_no_more() -> None:
    registry = Registry(latest=ONE)
    registry.wants = "Bearer "
    it = mirrored(registry, "latest")
    await state(it)
    registry.token += 1
    (digest, body), *_ = ONE.blobs.items()
    answer = await it.ask("GET", f"/blobs/{digest.replace(':', '%3A')}", [("Range", "bytes=0-"), ("Cookie", "c")])
    assert await answer.whole(1 << 20) == body
    sent = registry.asked[-1][2]
    assert sent == {"Range": "bytes=0-", "Authorization": "Bearer 3"}
    registry.wants = "Basic "
    with pytest.raises(Unavailable, match=r"refuses .*: 401 \(content\.mirror\.repositories\.r\.user"):
        await it.ask("GET", f"/blobs/{digest}", ())
    registry.wants, registry.status[f"blobs/{digest}"] = "", 403
    with pytest.raises(Unavailable, match="403"):
        await it.ask("GET", f"/blobs/{digest}", ())


@pytest.mark.parametrize(
    "path", ["/blobs/x", "/manifests/latest", "/x", "/manifests/..%2f..", "/blobs/sha256:" + "a" * 63]
)
async def test_nothing_else_is_asked_of_a_registry(path: str) -> None:
    registry = Registry(latest=ONE)
    with pytest.raises(Rejected):
        await mirrored(registry).ask("GET", path, ())
    assert registry.asked == []


class Here:
    """A member's two disks."""

    def __init__(self, root: Path, policy: Policy) -> None:
        self.kept = Kept(root / "kept", limit_bytes=1 << 20)
        self.packages = Kept(root / "packages", limit_bytes=1 << 20)
        self.settings = settings(policy)

    async def sync(self, registry: Any, last: Any = None) -> Any:
        it = Upstream("r", self.settings, registry, kept=self.kept.read)
        return await synchronised(
            "r", self.settings, it, self.kept, self.packages, last=last, progress=self.tell, connections=3
        )  # fmt: skip

    async def tell(self, *_: object) -> None:
        """Hear it."""


@pytest.mark.parametrize("policy", ["immediate", "on_demand"])
async def test_it_is_brought_here_whole(tmp_path: Path, policy: Policy) -> None:
    here, registry = Here(tmp_path, policy), Registry(latest=MANY, one=ONE)
    found = await here.sync(registry)
    blobs = {digest: body for one in (ONE, TWO) for digest, body in one.blobs.items()}
    assert (found.publication.packages, found.publication.size_bytes) == (len(blobs), sum(map(len, blobs.values())))
    assert found.publication.origin == "https://registry.test/x/v2/a/b"
    body = await here.kept.read(found.publication.parts[""])
    assert body is not None
    manifest = Manifest.read(body)
    hexes = {p.digest.removeprefix("sha256:") for p in (ONE, TWO, MANY)}
    assert manifest.files == {TAGS: manifest.digest, **{f"manifests/sha256:{h}": h for h in hexes}}
    assert await here.kept.has(*manifest.needed)
    path = await here.kept.path(manifest.packages)
    assert path is not None
    index = Index.opened(path)
    for digest, blob in blobs.items():
        expected = index.find(f"blobs/{digest}")
        assert expected == (len(blob), "sha256", hashlib.sha256(blob).hexdigest())
    index.close()
    assert await here.packages.has(*(d.removeprefix("sha256:") for d in blobs)) is (policy == "immediate")
    assert found.fetched == (len(blobs) if policy == "immediate" else 0)
    # A second time only what names the state is asked for.
    registry.paths()
    assert (await here.sync(registry, found.publication)).publication is found.publication
    assert len([p for p in registry.paths() if "tags/list" in p]) == 1
    registry.tags["one"] = TWO
    newer = await here.sync(registry, found.publication)
    assert newer.publication.digest != found.publication.digest
    assert not [p for p in registry.paths() if "blobs" in p]
    here.kept.close()
    here.packages.close()


async def test_a_manifest_is_asked_for_once_and_never_again(tmp_path: Path) -> None:
    """Registries count that, and give so many to each address and no more."""
    here, registry = Here(tmp_path, "on_demand"), Registry(latest=MANY, one=ONE, other=made.index(made.image("x")))
    found = await here.sync(registry)
    manifests = [made.index(made.image("x")), made.image("x"), MANY, ONE, TWO]
    got = sorted(p for p in registry.paths() if p.startswith("GET /v2/a/b/manifests/"))
    assert got == sorted(f"GET /v2/a/b/manifests/{one.digest}" for one in manifests)
    # Nor by a process that begins anew.
    registry.tags["new"] = TWO
    await here.sync(registry, found.publication)
    assert not [p for p in registry.paths() if p.startswith("GET /v2/a/b/manifests/")]
    here.kept.close()
    here.packages.close()


async def test_many_manifests_come_at_once(tmp_path: Path) -> None:
    here, registry = Here(tmp_path, "on_demand"), Registry(**{f"t{n}": made.image(str(n)) for n in range(20)})
    asking = most = 0
    ask = registry.ask

    async def counted(method: str, path: str, headers: Sequence[tuple[str, str]], /) -> Answer:
        nonlocal asking, most
        asking += method == "GET"
        most = max(most, asking)
        await asyncio.sleep(0.01)
        asking -= method == "GET"
        return await ask(method, path, headers)

    registry.ask = counted  # type: ignore[method-assign]
    await here.sync(registry)
    assert most == 3
    here.kept.close()
    here.packages.close()


@pytest.mark.parametrize("policy", ["immediate", "on_demand"])
async def test_a_blob_of_two_lengths_is_not_left_out_in_silence(tmp_path: Path, policy: Policy) -> None:
    here = Here(tmp_path, policy)
    digest = next(d for d, b in ONE.blobs.items() if b.startswith(b"layer"))
    said = json.loads(ONE.body)
    said["layers"][0]["size"] += 1
    other = Pushed(json.dumps(said).encode(), ONE.media, ONE.blobs)
    with pytest.raises(Malformed, match=f"{digest} with different sizes"):
        await here.sync(Registry(one=ONE, other=other))
    assert not [p for p in tmp_path.rglob("sha256/*/*") if p.is_file()]
    here.kept.close()
    here.packages.close()


async def test_one_manifest_of_other_bytes_and_nothing_stays(tmp_path: Path) -> None:
    here, registry = Here(tmp_path, "immediate"), Registry(latest=MANY)
    for gives in ({ONE.digest: ONE.body[:-1] + b" "}, {next(iter(TWO.blobs)): b"x"}):
        registry.gives = gives
        with pytest.raises(MusterError, match=next(iter(gives))):
            await here.sync(registry)
        assert not [p for p in tmp_path.rglob("sha256/*/*") if p.is_file()]
    here.kept.close()
    here.packages.close()
