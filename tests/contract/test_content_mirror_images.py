"""Members mirror repositories of registries, and give them to a real client, skopeo: all the same, all at once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from muster.cli.demo.bind import free_port
from muster.kernel.process import clean_environment
from tests.servers import member, registry, registry_stand_in
from tests.servers.client import Answer, Place, ask
from tests.servers.clients import Identity, Skopeo
from tests.servers.member import Member
from tests.servers.packages import Image
from tests.servers.registry_stand_in import INDEX, MANIFEST, Pushed, image, index
from tests.servers.waiting import is_ready, stopped, until

POLICIES = ("immediate", "on_demand", "streamed")
LAG_S = 4.0
SECRET = "n0t-f0r-l0gs"


@dataclass
class Cluster:
    """Members that mirror from registries."""

    members: list[Member]
    ports: dict[str, int]
    stand_in: registry_stand_in.Registry
    real: registry.Registry | None = None
    skopeos: dict[int, Skopeo] = field(default_factory=dict)

    def get(self, at: int, path: str, *, method: str = "GET", service: str = "docker", **more: Any) -> Answer:
        found = self.members[at]
        return ask(Place(found.https.address, self.ports[service]), method, path, tls=found.tls(None), **more)

    def of(self, at: int, name: str, below: str, *, environment: str = "library", **more: Any) -> Answer:
        return self.get(at, f"/v2/muster/{environment}/{name}/{below}", **more)

    def command(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run ``muster content`` as an administrator does, and return what it says as JSON."""
        said = subprocess.run(
            [
                sys.executable, "-m", "muster", "content", *arguments, "--cluster", self.members[0].cluster_file, "--json",
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, env=clean_environment(),
        )  # fmt: skip
        assert said.returncode == code, said.stderr + said.stdout
        assert SECRET not in said.stdout + said.stderr
        found: dict[str, Any] = json.loads(said.stdout)
        return found

    def sync(self, name: str, *, code: int = 0) -> dict[str, Any]:
        (job,) = self.command("sync", name, code=code)["jobs"]
        assert job["state"] == ("done" if code == 0 else "failed"), job
        return dict(job)

    def until_tagged(self, name: str, tag: str, digest: str, *, environment: str = "library") -> None:
        """Return when every member gives a tag so; none gives what was there before after another has not."""
        deadline = time.monotonic() + 30
        is_new = False
        while time.monotonic() < deadline:
            found = [self.digest(at, name, tag, environment) == digest for at in range(len(self.members))]
            assert not is_new or all(found), "older after newer"
            is_new = is_new or any(found)
            if all(found):
                return
            time.sleep(0.05)
        raise AssertionError([self.of(at, name, f"manifests/{tag}") for at in range(len(self.members))])

    def digest(self, at: int, name: str, tag: str, environment: str = "library") -> str:
        answer = self.of(at, name, f"manifests/{tag}", environment=environment, method="HEAD")
        return answer.headers.get("docker-content-digest", "") if answer.status == 200 else ""

    def holds(self, at: int, digest: str) -> bool:
        name = digest.removeprefix("sha256:")
        return (self.members[at].pki / "content-packages" / "sha256" / name[:2] / name).exists()


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    more: dict[str, Any] = getattr(request, "param", {})
    with contextlib.ExitStack() as stack:
        origin = registry_stand_in.Registry("127.0.0.68", free_port("127.0.0.68"))
        stack.enter_context(origin.running())
        real = None
        if more.get("real"):
            home = tmp_path / "origin"
            home.mkdir()
            real = stack.enter_context(registry.running(home, address="127.0.0.67"))
        password = tmp_path / "password"
        password.write_text(f"{SECRET}\n")
        of_stand_in = {"kind": "container", "url": origin.url, "redirects_to": [origin.realm_address]}
        account = {"user": "mirror", "password_file": str(password)}
        repositories: dict[str, Any] = {
            "whole": {**of_stand_in, "upstream": "team/app", "policy": "immediate"},
            "tools": {**of_stand_in, "upstream": "team/app", "tags": ["latest", "3.*"]},
            "chosen": {**of_stand_in, "upstream": "team/app", "tags": ["3.*", "!3.9", "sha256-*"]},
            "passing": {**of_stand_in, "upstream": "team/app", "policy": "streamed"},
            "guarded": {**of_stand_in, "upstream": "team/secret", **account},
        }
        if real is not None:
            tiny = {"kind": "container", "url": f"http://{real.place}", "upstream": "library/tiny"}
            repositories |= {policy.replace("_", "-"): {**tiny, "policy": policy} for policy in POLICIES}

        def content(_: str) -> dict[str, Any]:
            return {
                "services": ["https", "docker"], "pulp_content_url": None, "pulp_api_url": None,
                "workers": more.get("workers", 1), "first_byte_timeout_s": 10, "hold_s": 3, "fill_after_s": 0.3,
                "lag_s": LAG_S, "registry_url": origin.url if more.get("has_registry") else None,
                "mirror": {"repositories": repositories, "environments": ["library", "test"], "timeout_s": 5},
            }  # fmt: skip

        members, ports = member.together(tmp_path, [content] * 2, "https", "docker")
        for one in members:
            one.start()
            stack.callback(stopped, one)
        it = Cluster(members, ports, origin, real)
        until(lambda: all(is_ready(it.members[at]) for at in range(2)))
        yield it


with_a_registry = pytest.mark.parametrize("cluster", [{"real": True}], indirect=True)
also_with_workers = pytest.mark.parametrize(
    "cluster", [{}, {"workers": 2}], ids=["alone", "two workers"], indirect=True
)


def _all_of(cluster: Cluster, name: str, tag: str, pushed: Pushed, *, at: int) -> None:
    """See that a member gives all of what a tag names, byte for byte."""
    found = cluster.of(at, name, f"manifests/{tag}")
    assert (found.status, found.body) == (200, pushed.body), found
    assert found.headers["content-type"] == pushed.media
    assert found.headers["docker-content-digest"] == pushed.digest
    assert found.headers["docker-distribution-api-version"] == "registry/2.0"
    for one in (pushed, *pushed.below):
        named = cluster.of(at, name, f"manifests/{one.digest}")
        assert (named.status, named.body, named.headers["content-type"]) == (200, one.body, one.media)
        assert named.headers["etag"] == f'"{one.digest}"'
        for digest, body in one.blobs.items():
            blob = cluster.of(at, name, f"blobs/{digest}")
            assert (blob.status, blob.body) == (200, body), (name, digest)
            assert (blob.headers["etag"], blob.headers["docker-content-digest"]) == (f'"{digest}"', digest)


@with_a_registry
def test_skopeo_copies_from_every_member_whatever_the_policy(
    tmp_path: Path, needs: Callable[[str], None], cluster: Cluster
) -> None:
    for need in ("registry", "skopeo"):
        needs(need)
    assert cluster.real is not None
    digest = Image(padding=3 << 20).write(tmp_path / "image")
    pushed = Skopeo(tmp_path / "push").push(tmp_path / "image", f"{cluster.real.place}/library/tiny:1.0")
    assert pushed.is_whole, pushed
    for policy in POLICIES:
        name = policy.replace("_", "-")
        assert cluster.sync(name)["result"]["packages"] == 2
        cluster.until_tagged(name, "1.0", digest)
        for at in (1, 0):
            place = f"{cluster.members[at].https.address}:{cluster.ports['docker']}"
            client = Skopeo(tmp_path / f"{name}{at}", Identity(cluster.members[at].ca))
            said = client.inspect(f"{place}/muster/library/{name}:1.0")
            assert (said["Digest"], said["RepoTags"]) == (digest, ["1.0"])
            pulled = client.pull(f"{place}/muster/library/{name}:1.0", "pulled")
            assert pulled.is_whole, pulled
            assert pulled.fetched.keys() >= {digest}
            assert all(one == f"sha256:{found}" for one, found in pulled.fetched.items())
        is_kept = [cluster.holds(at, one) for at in (0, 1) for one in pulled.fetched if one != digest]
        # All are one repository's, so what one policy has left here another finds.
        assert all(is_kept)


@with_a_registry
def test_skopeo_copies_an_index_whole(tmp_path: Path, needs: Callable[[str], None], cluster: Cluster) -> None:
    for need in ("registry", "skopeo"):
        needs(need)
    assert cluster.real is not None
    pushed = index(image("a"), image("b", architecture="arm64"))
    cluster.stand_in.tags["team/app"] = {"latest": pushed}
    plain, real = cluster.stand_in.url.removeprefix("http://"), f"{cluster.real.place}/library/tiny:many"
    assert Skopeo(tmp_path / "push").copy_all(f"{plain}/team/app:latest", real).is_whole
    for policy in POLICIES:
        name = policy.replace("_", "-")
        cluster.sync(name)
        cluster.until_tagged(name, "many", pushed.digest)
        for at in (0, 1):
            place = f"{cluster.members[at].https.address}:{cluster.ports['docker']}"
            client = Skopeo(tmp_path / f"{name}{at}", Identity(cluster.members[at].ca))
            pulled = client.pull_all(f"{place}/muster/library/{name}:many", "pulled")
            assert pulled.is_whole, pulled
            digests = {digest for one in pushed.below for digest in one.blobs}
            assert {one for one, found in pulled.fetched.items() if one == f"sha256:{found}"} >= digests
            written = (tmp_path / f"{name}{at}" / "pulled" / "manifest.json").read_bytes()
            assert written == pushed.body


@also_with_workers
@pytest.mark.parametrize("name", ["whole", "tools", "passing"])
def test_all_members_give_what_an_index_names(cluster: Cluster, name: str) -> None:
    large = hashlib.shake_128(b"large").digest(9 << 20)
    pushed = index(image("a", layer=large), image("b", architecture="arm64"))
    cluster.stand_in.tags["team/app"] = {"latest": pushed, "3.1": image("c")}
    assert cluster.of(0, name, "manifests/latest").status == 404
    cluster.sync(name)
    cluster.until_tagged(name, "latest", pushed.digest)
    for at in (0, 1):
        _all_of(cluster, name, "latest", pushed, at=at)
        _all_of(cluster, name, "3.1", image("c"), at=at)
        assert json.loads(cluster.of(at, name, "tags/list").body) == {
            "name": f"muster/library/{name}", "tags": ["3.1", "latest"],
        }  # fmt: skip
    (layer,) = (d for d, b in pushed.below[0].blobs.items() if b == large)
    head = cluster.of(1, name, f"blobs/{layer}", method="HEAD")
    assert (head.status, head.headers["content-length"]) == (200, str(len(large)))
    if name != "passing":
        until(lambda: cluster.holds(1, layer))
        part = cluster.of(1, name, f"blobs/{layer}", headers={"Range": "bytes=5-9"})
        assert (part.status, part.body) == (206, large[5:10])
    assert cluster.of(1, name, f"blobs/{layer}", headers={"If-None-Match": f'"{layer}"'}).status == 304
    # On the port of content, too.
    assert cluster.of(0, name, "manifests/3.1", service="https").status == 200


def test_a_tag_that_moves_is_followed_when_somebody_says_so_and_by_all_at_once(cluster: Cluster) -> None:
    one, two = image("one"), image("two")
    cluster.stand_in.tags["team/app"] = {"latest": one, "3.0": one, "4.0": one}
    first = cluster.sync("tools")["result"]["publication"]
    cluster.until_tagged("tools", "latest", one.digest)
    assert cluster.sync("tools")["result"]["is_new"] is False
    assert json.loads(cluster.of(0, "tools", "tags/list").body)["tags"] == ["3.0", "latest"]
    cluster.stand_in.tags["team/app"]["latest"] = two
    time.sleep(1)
    assert [cluster.digest(at, "tools", "latest") for at in (0, 1)] == [one.digest] * 2
    cluster.sync("tools")
    cluster.until_tagged("tools", "latest", two.digest)
    # Whoever began with the older one, ends with it; a registry may still have it.
    cluster.stand_in.tags["kept"] = {"one": one}
    cluster.stand_in.tags["team/app"]["3.0"] = two
    cluster.sync("tools")
    cluster.until_tagged("tools", "3.0", two.digest)
    for at in (0, 1):
        assert cluster.of(at, "tools", f"manifests/{one.digest}").body == one.body
        assert [cluster.of(at, "tools", f"blobs/{digest}").body for digest in one.blobs] == list(one.blobs.values())
    assert cluster.of(0, "tools", "manifests/latest", environment="test").status == 404
    cluster.command("promote", "tools", "--publication", first[:12], "--to", "test")
    cluster.until_tagged("tools", "latest", one.digest, environment="test")
    assert cluster.digest(1, "tools", "latest") == two.digest


def test_what_came_at_once_needs_no_registry_any_more(cluster: Cluster) -> None:
    pushed = index(image("a"), image("b"))
    cluster.stand_in.tags["team/app"] = {"latest": pushed}
    cluster.sync("whole")
    cluster.until_tagged("whole", "latest", pushed.digest)
    cluster.stand_in.status = 500
    for at in (0, 1):
        _all_of(cluster, "whole", "latest", pushed, at=at)
    assert "500" in cluster.sync("whole", code=1)["sentence"]
    for at in (0, 1):
        _all_of(cluster, "whole", "latest", pushed, at=at)


def test_a_registry_that_lies_changes_nothing(cluster: Cluster) -> None:
    one, two = image("one"), index(image("two"), image("three"))
    cluster.stand_in.tags["team/app"] = {"latest": one}
    for name in ("whole", "tools"):
        cluster.sync(name)
        cluster.until_tagged(name, "latest", one.digest)
    cluster.stand_in.tags["team/app"] = {"latest": two}
    child = two.below[1]
    (layer, body), *_ = ((d, b) for d, b in child.blobs.items() if b.startswith(b"layer"))
    for lies in (
        {two.digest: two.body[:-1] + b" }"},
        {two.digest: b"{}"},
        {child.digest: child.body.replace(b"amd64", b"arm64") + b" "},
        {child.digest: child.body[:-1]},
        {layer: body.upper()},
        {layer: body[:-1]},
    ):
        cluster.stand_in.gives = lies
        said = cluster.sync("whole", code=1)["sentence"]
        assert next(iter(lies)) in said, said
    assert [cluster.digest(at, "whole", "latest") for at in (0, 1)] == [one.digest] * 2
    # On demand a blob of other bytes is nobody's.
    cluster.stand_in.gives = {layer: body.upper()}
    cluster.sync("tools")
    cluster.until_tagged("tools", "latest", two.digest)
    for at in (0, 1):
        # The answer is cut before its last byte.
        with contextlib.suppress(ConnectionError):
            found = cluster.of(at, "tools", f"blobs/{layer}")
            assert found.status != 200 or found.body != body.upper(), found
    cluster.stand_in.gives = {}
    assert [cluster.of(at, "tools", f"blobs/{layer}").body for at in (0, 1)] == [body] * 2


@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["its own blobs", "blobs elsewhere"])
def test_a_registry_is_shown_a_token_and_what_gives_that_out_the_account(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], is_elsewhere: bool
) -> None:
    origin, pushed = cluster.stand_in, index(image("a"), image("b"))
    origin.tags["team/secret"] = {"latest": pushed}
    origin.wants_tokens, origin.account = True, ("mirror", SECRET)
    if is_elsewhere:
        other = registry_stand_in.Registry(origin.realm_address, free_port(origin.realm_address), tags=origin.tags)
        origin.moves = f"{other.url}/elsewhere"
    with other.running() if is_elsewhere else contextlib.nullcontext():
        cluster.sync("guarded")
        cluster.until_tagged("guarded", "latest", pushed.digest)
        for at in (0, 1):
            _all_of(cluster, "guarded", "latest", pushed, at=at)
        # One that counts no more is got anew.
        origin.tokens += 1
        origin.tags["team/secret"] = {"latest": image("c")}
        cluster.sync("guarded")
        cluster.until_tagged("guarded", "latest", image("c").digest)
        if is_elsewhere:
            assert {said for _, path, said in other.asked if "/elsewhere/" in path} == {""}
    told = [said for what, _, said in origin.asked if what == "TOKEN"]
    assert 2 <= len(told) <= 6, told
    assert all(said.startswith("Basic ") for said in told)
    assert not any(said.startswith("Basic ") for what, _, said in origin.asked if what != "TOKEN")
    scopes = {path.partition("scope=")[2] for what, path, _ in origin.asked if what == "TOKEN"}
    assert scopes == {"repository%3Ateam%2Fsecret%3Apull"}
    origin.account = ("mirror", "another")
    origin.tokens += 1
    said = cluster.sync("guarded", code=1)["sentence"]
    assert "refuses the account mirror" in said, said
    logged = "".join(capfd.readouterr())
    assert SECRET not in logged
    assert "token-" not in logged


def test_nothing_is_pushed_or_deleted_and_errors_are_said_as_clients_read_them(cluster: Cluster) -> None:
    pushed = image("a")
    cluster.stand_in.tags["team/app"] = {f"3.{n}": pushed for n in range(7)}
    cluster.stand_in.tags["team/app"]["latest"] = pushed
    cluster.stand_in.per_page = 3
    cluster.sync("tools")
    cluster.until_tagged("tools", "3.6", pushed.digest)
    digest = next(iter(pushed.blobs))
    for method, below in (
        ("POST", "blobs/uploads/"), ("PUT", "manifests/latest"), ("DELETE", f"manifests/{pushed.digest}"),
        ("DELETE", f"blobs/{digest}"), ("PATCH", "blobs/uploads/1"),
    ):  # fmt: skip
        found = cluster.of(0, "tools", below, method=method)
        assert (found.status, _code(found)) == (405, "UNSUPPORTED"), found
    none = "0" * 64
    for name, below, code in (
        ("tools", "manifests/none", "MANIFEST_UNKNOWN"), ("tools", f"manifests/sha256:{none}", "MANIFEST_UNKNOWN"),
        ("tools", f"manifests/{digest}", "MANIFEST_UNKNOWN"), ("tools", "manifests/sha512:1", "MANIFEST_UNKNOWN"),
        ("tools", f"blobs/sha256:{none}", "BLOB_UNKNOWN"), ("tools", f"blobs/{pushed.digest}", "BLOB_UNKNOWN"),
        ("tools", f"referrers/{pushed.digest}", "UNSUPPORTED"), ("none", "manifests/latest", "NAME_UNKNOWN"),
        ("whole", "manifests/latest", "NAME_UNKNOWN"), ("whole", "tags/list", "NAME_UNKNOWN"),
    ):  # fmt: skip
        for at in (0, 1):
            found = cluster.of(at, name, below)
            assert (found.status, _code(found)) == (404, code), (name, below, found)
    for path in ("/v2/", "/v2"):
        found = cluster.get(1, path)
        assert (found.status, found.body, found.headers["docker-distribution-api-version"]) == (
            200,
            b"{}",
            "registry/2.0",
        )
    assert _code(cluster.get(1, "/v2/_catalog")) == "NAME_UNKNOWN"
    assert cluster.get(1, "/v1/search").status == 404
    page, tags = "tags/list?n=3", []
    while page:
        found = cluster.of(1, "tools", page)
        tags.append(json.loads(found.body)["tags"])
        link = found.headers.get("link", "")
        page = link.partition("<")[2].partition(">")[0].removeprefix("/v2/muster/library/tools/")
    assert tags == [["3.0", "3.1", "3.2"], ["3.3", "3.4", "3.5"], ["3.6", "latest"]]
    assert json.loads(cluster.of(1, "tools", "tags/list?n=0").body)["tags"] == []
    assert cluster.of(1, "tools", "tags/list?n=-1").status == 400


def _code(answer: Answer) -> str:
    return str(json.loads(answer.body)["errors"][0]["code"])


def test_signatures_come_with_the_images_that_they_are_of(cluster: Cluster) -> None:
    one, lost = image("one"), index(image("gone"))
    signature, other = (f"{digest.replace(':', '-')}.sig" for digest in (one.digest, image("gone").digest))
    cluster.stand_in.tags["team/app"] = {
        "latest": one, "3.1": one, "3.9": Pushed(lost.body, lost.media),
        signature: image("signature"), other: image("another"),
    }  # fmt: skip
    # What was cleaned up at the registry fails all that is wanted with it, and can be left out.
    assert 'the tag 3.9 leads to: "!3.9" in' in cluster.sync("tools", code=1)["sentence"]
    cluster.sync("chosen")
    cluster.until_tagged("chosen", "3.1", one.digest)
    for at in (0, 1):
        assert json.loads(cluster.of(at, "chosen", "tags/list").body)["tags"] == ["3.1", signature]
        # So clients look for what refers to an image: as a list first, and then by its tag.
        assert cluster.of(at, "chosen", f"referrers/{one.digest}").status == 404
        _all_of(cluster, "chosen", signature, image("signature"), at=at)
    assert not [path for _, path, _ in cluster.stand_in.asked if other in path]


@pytest.mark.parametrize("cluster", [{"has_registry": True}], indirect=True)
def test_beside_a_registry_all_other_names_are_its(cluster: Cluster) -> None:
    one, two = image("one"), image("two")
    cluster.stand_in.tags |= {"team/app": {"latest": one}, "muster/other/tools": {"latest": two}}
    cluster.sync("tools")
    cluster.until_tagged("tools", "latest", one.digest)
    for at in (0, 1):
        assert cluster.get(at, "/v2/").body == b"{}"
        assert cluster.get(at, "/v2/team/app/manifests/latest").body == one.body
        assert cluster.of(at, "tools", "manifests/latest", environment="other").body == two.body
        assert cluster.of(at, "tools", "manifests/latest", method="DELETE").status == 405
        _all_of(cluster, "tools", "latest", one, at=at)
    assert not [path for _, path, _ in cluster.stand_in.asked if "/muster/library/" in path]
    # What members follow is a repository as others are.
    followed = f"/pulp/content/muster/library/container/tools/manifests/{one.digest}"
    assert cluster.get(0, followed, service="https").body == one.body


def test_an_index_and_what_it_names_have_their_types(cluster: Cluster) -> None:
    cluster.stand_in.tags["team/app"] = {"latest": index(image("a"))}
    cluster.stand_in.says_no_digest = True
    cluster.sync("tools")
    cluster.until_tagged("tools", "latest", index(image("a")).digest)
    assert cluster.of(0, "tools", "manifests/latest").headers["content-type"] == INDEX
    assert cluster.of(0, "tools", f"manifests/{image('a').digest}").headers["content-type"] == MANIFEST
