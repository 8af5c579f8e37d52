"""What container clients get of what is mirrored, from one member's disk."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from muster.cluster.mirror import Mirror
from muster.content import images as module
from muster.content import index
from muster.content.backend import Answer, BadGateway
from muster.content.call import Call
from muster.content.fill import Behind
from muster.content.given import Clients, Remembered
from muster.content.images import Images
from muster.content.kept import Differs, Kept
from muster.content.known import Followed, Known
from muster.content.manifest import TAGS, Manifest
from muster.content.metadata.image import Tags
from muster.content.metadata.primary import Package
from muster.content.mirror.answers import Answers
from muster.content.mirror.carried import Carried, Fronted
from muster.content.mirror.packages import Packages
from muster.content.repositories import Repositories
from muster.content.views import Shown
from muster.edge.replies import Reply
from muster.edge.request import Request
from muster.kernel.errors import Misconfigured, MusterError, NotFound, Unavailable
from tests.servers.registry_stand_in import Pushed, image
from tests.unit.edge.calls import request

pytestmark = pytest.mark.anyio

AT = "/pulp/content/muster/library/container/app"
ONE, TWO = image("one"), image("two")


class It:
    """A member that has versions of one repository, and shows one of them."""

    def __init__(self, root: Path) -> None:
        self.kept = Kept(root / "kept", limit_bytes=1 << 20)
        self.shown: Shown | None = None
        carried = Carried(self.kept)
        self.carried = carried.known
        packages = Packages(Kept(root / "packages", limit_bytes=1 << 20), _nobody, _no_origin)
        self.answers = answers = Answers(carried, packages, {"app": "on_demand"}, packages.fetch, wait_s=1)
        self.root = root
        remembered = Remembered()
        self.repositories = Repositories(
            self.kept, Known(), self._current, Clients(remembered.note, remembered.noted), hold_s=0.0, mirror=answers
        )
        self.call = Call(Fronted(None, carried), None, (), Behind("", None))
        settings = {"kind": "container", "url": "https://r.test", "upstream": "a"}
        images = Images.of(
            Mirror.model_validate({"repositories": {"app": settings}, "environments": ["library", "test"]})
        )
        assert images is not None
        self.images = images

    async def _current(self, path: str, certificate: bytes | None, *, alone: bool = False) -> Shown | None:
        return self.shown if path == AT and certificate is None and not alone else None

    async def show(self, *, is_here: bool = True, packages: Sequence[Package] = (), **tags: Pushed) -> None:
        manifests = {p.digest.removeprefix("sha256:"): (p.media, len(p.body)) for p in tags.values()}
        said = Tags({tag: p.digest.removeprefix("sha256:") for tag, p in tags.items()}, manifests)
        files = {f"manifests/{p.digest}": await self.kept.add_bytes(p.body) for p in tags.values()}
        files[TAGS] = await self.kept.add_bytes(said.written())
        index.write(self.root / "index", packages)
        named = await self.kept.add_bytes((self.root / "index").read_bytes()) if packages else ""
        manifest = Manifest(-1, 0.0, files, named)
        digest = await self.kept.add_bytes(manifest.written())
        self.shown = Shown(manifest.digest, digest)
        if is_here:
            before = self.carried.repositories.get(AT)
            self.carried.repositories = {AT: Followed((digest, *(before.manifests if before else ())), is_open=True)}

    async def get(
        self, path: str, *, method: str = "GET", is_alone: bool = True, **headers: str
    ) -> tuple[int, bytes, dict[str, str]] | None:
        path, _, query = path.partition("?")
        asked = request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        whole = f"{path}?{query}" if query else path
        found = await self.images.answer(self.repositories, self.call, whole, asked, is_alone=is_alone)
        if found is None:
            return None
        said = {k.decode(): v.decode() for k, v in found.headers}
        if isinstance(found, Reply):
            return found.status, found.body, said
        body = b"".join([piece async for piece in found.pieces])
        return found.status, body, said

    async def of(self, below: str, **more: Any) -> tuple[int, bytes, dict[str, str]]:
        found = await self.get(f"/v2/muster/library/app/{below}", **more)
        assert found is not None
        assert found[2]["docker-distribution-api-version"] == "registry/2.0"
        return found


async def _nobody(_: str) -> Answer:
    return Answer.absent("nobody")


async def _no_origin(_: str) -> Any:
    raise NotFound("there is none")


@pytest.fixture
async def it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[It]:
    # The clients stay.
    monkeypatch.setattr(Request, "gone", lambda _: asyncio.sleep(60))
    it = It(tmp_path)
    yield it
    it.repositories.close()
    it.kept.close()


async def test_a_tag_names_what_is_shown_and_a_digest_also_what_was(it: It) -> None:
    await it.show(latest=ONE)
    await it.show(latest=TWO)
    status, body, said = await it.of("manifests/latest")
    assert (status, body, said["content-type"]) == (200, TWO.body, TWO.media)
    assert (said["docker-content-digest"], said["etag"]) == (TWO.digest, f'"{TWO.digest}"')
    assert said["cache-control"] == "no-cache"
    for one in (ONE, TWO):
        for written in (one.digest, one.digest.replace(":", "%3A")):
            status, body, said = await it.of(f"manifests/{written}")
            assert (status, body, said["docker-content-digest"]) == (200, one.body, one.digest)
    status, body, said = await it.of("manifests/latest", method="HEAD")
    assert (status, body, said["content-length"]) == (200, b"", str(len(TWO.body)))
    assert (await it.of("manifests/latest", if_none_match=f'"{TWO.digest}"'))[0] == 304


async def test_what_is_on_its_way_here_is_waited_for(it: It) -> None:
    await it.show(latest=ONE)
    await it.show(latest=TWO, is_here=False)
    assert (await it.of("manifests/latest"))[1] == TWO.body
    with pytest.raises(Unavailable):
        await it.of(f"blobs/{next(iter(TWO.blobs))}")


async def test_what_tags_name_is_read_once_for_many_and_for_many_repositories(
    it: It, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []

    def counted(body: bytes) -> Tags:
        read.append(body)
        return Tags.read(body)

    monkeypatch.setattr(module, "Tags", type("Counted", (), {"read": staticmethod(counted)}))
    shown = []
    for n in range(40):
        await it.show(is_here=True, packages=(), **{"latest": ONE, f"t{n}": TWO})
        shown.append(it.shown)
    await asyncio.gather(*(it.of("manifests/latest") for _ in range(20)))
    assert len(read) == 1
    for one in shown * 2:
        it.shown = one
        await it.of("manifests/latest")
    assert len(read) == 40
    # They are no small matter, so not all stays.
    monkeypatch.setattr(module, "_REMEMBERED", 6)
    for one in shown[-3:] * 2:
        it.shown = one
        await it.of("manifests/latest")
    assert len(read) == 40
    for one, times in ((shown[-3], 40), (shown[0], 41), (shown[-3], 41), (shown[-2], 42)):
        it.shown = one
        await it.of("manifests/latest")
        assert len(read) == times


@pytest.mark.parametrize("error", [Unavailable, Misconfigured, Differs, BadGateway])
async def test_why_an_origin_does_not_give_a_blob_is_for_the_log(
    it: It, monkeypatch: pytest.MonkeyPatch, error: type[MusterError]
) -> None:
    """Whoever reaches the port asks, and need not know accounts, files and what lies in the networks of members."""
    package = Package(f"blobs/{next(iter(ONE.blobs))}", 5, "sha256", "a" * 64)
    await it.show(latest=ONE, packages=[package])

    async def refused(*_: object, **__: object) -> None:
        raise error("https://10.0.0.1/token refuses the account mirror (/etc/secret/password)")

    monkeypatch.setattr(it.answers, "package", refused)
    with capture_logs() as logged:
        for _ in range(3):
            if error is Unavailable:
                with pytest.raises(Unavailable) as raised:
                    await it.of(package.href)
                said = str(raised.value)
            else:
                status, body, _ = await it.of(package.href)
                said = json.loads(body)["errors"][0]["message"]
                assert status == error.status
            assert said == f"{package.href} is not to be had now; the member's log says why"
    assert [(one["path"], "account mirror" in one["why"]) for one in logged] == [(package.href, True)]


@pytest.mark.parametrize(
    ("below", "code"),
    [
        ("manifests/none", "MANIFEST_UNKNOWN"), (f"manifests/{TWO.digest}", "MANIFEST_UNKNOWN"),
        ("manifests/%0a", "MANIFEST_UNKNOWN"), (f"manifests/{ONE.digest[7:]}", "MANIFEST_UNKNOWN"),
        ("manifests/a/b", "UNSUPPORTED"), ("tags/list/x", "UNSUPPORTED"), ("x", "UNSUPPORTED"), ("blobs/x", "UNSUPPORTED"),
        (f"referrers/{ONE.digest}", "UNSUPPORTED"), (f"blobs/{ONE.digest}", "BLOB_UNKNOWN"),
    ],
)  # fmt: skip
async def test_what_is_not_there_is_said_as_clients_read_it(it: It, below: str, code: str) -> None:
    await it.show(latest=ONE)
    status, body, _ = await it.of(below)
    assert (status, json.loads(body)["errors"][0]["code"]) == (404, code)


async def test_what_another_repository_has_on_this_disk_is_not_read_through_this_one(it: It) -> None:
    await it.show(latest=ONE)
    for body in (TWO.body, *TWO.blobs.values()):
        await it.kept.add_bytes(body)
        await it.answers.packages.kept.add_bytes(body)
    for method in ("GET", "HEAD"):
        assert (await it.of(f"manifests/{TWO.digest}", method=method))[0] == 404
        for digest in (*TWO.blobs, TWO.digest, ONE.digest):
            assert (await it.of(f"blobs/{digest}", method=method))[0] == 404


async def test_what_is_not_published_has_no_name(it: It) -> None:
    for below in ("library/app/manifests/latest", "test/app/tags/list", "none/app/tags/list"):
        found = await it.get(f"/v2/muster/{below}")
        assert found is not None
        assert (found[0], json.loads(found[1])["errors"][0]["code"]) == (404, "NAME_UNKNOWN")


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "OPTIONS"])
async def test_nothing_is_changed(it: It, method: str) -> None:
    await it.show(latest=ONE)
    for below in ("manifests/latest", "blobs/uploads/", f"blobs/{ONE.digest}"):
        status, body, said = await it.of(below, method=method)
        assert (status, said["allow"], json.loads(body)["errors"][0]["code"]) == (405, "GET, HEAD", "UNSUPPORTED")


@pytest.mark.parametrize(
    "path", ["/v2/", "/v2", "/v2/library/app/manifests/latest", "/v2/_catalog", "/v2/muster/x/app/y"]
)
async def test_a_registry_has_all_other_names(it: It, path: str) -> None:
    assert await it.get(path, is_alone=False) is None
    found = await it.get(path)
    assert found is not None
    assert found[0] == (200 if path in ("/v2/", "/v2") else 404)


@pytest.mark.parametrize(
    ("query", "tags", "link"),
    [
        ("", ["a", "b", "c"], ""), ("?n=2", ["a", "b"], "n=2&last=b"), ("?n=2&last=b", ["c"], ""),
        ("?n=3", ["a", "b", "c"], ""),
        ("?last=a", ["b", "c"], ""), ("?n=0", [], ""), ("?last=z", [], ""), ("?n=1&last=aa", ["b"], "n=1&last=b"),
    ],
)  # fmt: skip
async def test_tags_are_listed_in_order_and_in_pages(it: It, query: str, tags: list[str], link: str) -> None:
    await it.show(c=ONE, a=ONE, b=TWO)
    status, body, said = await it.of(f"tags/list{query}")
    assert (status, json.loads(body)) == (200, {"name": "muster/library/app", "tags": tags})
    expected = f'</v2/muster/library/app/tags/list?{link}>; rel="next"' if link else None
    assert said.get("link") == expected


@pytest.mark.parametrize(
    "query", ["n=x", "n=-1", "n=", "n=1e9", "n=9999999999", "&".join(f"a{n}=1" for n in range(30))]
)
async def test_a_list_is_asked_for_with_a_number(it: It, query: str) -> None:
    await it.show(c=ONE)
    assert (await it.of(f"tags/list?{query}"))[0] == 400


async def test_nothing_is_answered_where_no_image_is_mirrored() -> None:
    assert Images.of(Mirror()) is None
    assert Images.of(Mirror.model_validate({"repositories": {"a": {"kind": "yum", "url": "http://a.test"}}})) is None
