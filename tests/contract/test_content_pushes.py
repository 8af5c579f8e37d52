"""Images through a balancer without stickiness: two members, each before a registry of its own, and skopeo."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest

from tests.servers import member, origins, pulp_api, registry
from tests.servers.client import Answer, Connection, Place, ask, request
from tests.servers.clients import Identity, Skopeo
from tests.servers.member import CLUSTER_ADDRESS, Member
from tests.servers.packages import Image
from tests.servers.processes import balancing
from tests.servers.pulp import Pulp
from tests.servers.pulp_api import Api

BALANCER = "127.0.0.72"
LAYERS = tuple(f"layer {n}" for n in range(8))
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class Fronts:
    """Members, their registries, and where the balancer has them."""

    members: list[Member]
    places: list[Place]
    registries: list[Place]
    balanced: Place

    def ask(self, at: int, method: str, path: str, **more: Any) -> Answer:
        return ask(self.places[at], method, path, tls=self.members[at].tls(), **more)

    def own(self, at: int, method: str, path: str, **more: Any) -> Answer:
        """Ask a member's registry itself."""
        return ask(self.registries[at], method, path, **more)

    def skopeo(self, directory: Path) -> Skopeo:
        return Skopeo(directory, Identity(self.members[0].ca), hosts={CLUSTER_ADDRESS: BALANCER})

    def image(self, name: str) -> str:
        return f"{CLUSTER_ADDRESS}:{self.balanced.port}/{name}"

    def until_known(self) -> None:
        """Return when the members fill from each other."""
        digest = {}
        for at in (0, 1):
            digest[at] = pushed_blob(self.registries[at], f"known/{at}", b"known %d" % at)
        deadline = time.monotonic() + 30
        while not all(self.ask(1 - at, "GET", f"/v2/known/{at}/blobs/{digest[at]}").status == 200 for at in (0, 1)):
            assert time.monotonic() < deadline, "the members never asked each other"
            time.sleep(0.1)


def pushed_blob(place: Place, name: str, body: bytes) -> str:
    """Upload a blob to a registry itself; return its digest."""
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    begun = ask(place, "POST", f"/v2/{name}/blobs/uploads/")
    where = urlsplit(begun.headers["location"])
    done = ask(place, "PUT", f"{where.path}?{where.query}&digest={digest}", body=body)
    assert done.status == 201, done
    return digest


@pytest.fixture(scope="module")
def fronts(tmp_path_factory: pytest.TempPathFactory, needs: Callable[[str], None]) -> Iterator[Fronts]:
    for need in ("registry", "skopeo", "namespaces", "haproxy"):
        needs(need)
    home = tmp_path_factory.mktemp("pushes")
    with contextlib.ExitStack() as stack:
        behind = []
        for n in (1, 2):
            directory = home / f"registry{n}"
            directory.mkdir()
            behind.append(stack.enter_context(registry.running(directory, address=f"127.0.0.7{2 + n}")))
        # Members ask each other on the port whose turn comes when Pulp's content application answers; it has nothing.
        (home / "empty" / "pulp" / "content").mkdir(parents=True)
        pulp = stack.enter_context(origins.served(home / "empty"))
        contents = [
            lambda _, one=one: {
                "services": ["https", "docker"], "registry_url": f"http://{one.place}", "hold_s": 2,
                "pulp_content_url": pulp.url("").rstrip("/"),
            } for one in behind
        ]  # fmt: skip
        members, ports = member.together(home, contents, "https", "docker", balancer=BALANCER, balance="random")
        for one in members:
            one.start()
            stack.callback(one.stop)
        stack.enter_context(balancing(members[0]))
        places = [Place(m.https.address, ports["docker"]) for m in members]
        registries = [Place(one.address, one.port) for one in behind]
        found = Fronts(members, places, registries, Place(BALANCER, ports["docker"]))
        until_balanced(found)
        found.until_known()
        yield found


def until_balanced(fronts: Fronts) -> None:
    tls, deadline = fronts.members[0].tls(), time.monotonic() + 30
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError),
            Connection(fronts.balanced, tls=tls, server_name=CLUSTER_ADDRESS) as connection,
        ):
            connection.send(request("GET", "/v2/"))
            if connection.answer().status == 200:
                return
        time.sleep(0.2)
    raise AssertionError("the balancer leads nowhere")


def test_images_of_many_layers_are_pushed_and_pulled_wherever_the_balancer_sends_each_connection(
    fronts: Fronts, tmp_path: Path
) -> None:
    for n in range(4):
        image = Image(f"base {n}", padding=200_000, above=[f"{layer} of {n}" for layer in LAYERS])
        digest = image.write(tmp_path / f"image{n}")
        pushed = fronts.skopeo(tmp_path / f"push{n}").push(tmp_path / f"image{n}", fronts.image(f"many:{n}"))
        assert pushed.is_whole, pushed
        wanted = {f"sha256:{f.name}" for f in (tmp_path / f"image{n}" / "blobs" / "sha256").iterdir()}
        for again in range(3):
            pulled = fronts.skopeo(tmp_path / f"pull{n}-{again}").pull(fronts.image(f"many:{n}"), "pulled")
            assert pulled.is_whole, pulled
            assert set(pulled.fetched) == wanted
            assert digest in wanted


def located(answer: Answer, path: str) -> str:
    """Return where an answer leads, as a path at the member that gave it."""
    where = urlsplit(urljoin(f"https://member.invalid{path}", answer.headers["location"]))
    assert where.netloc == "member.invalid", "any member, by the name that the client has for it"
    return f"{where.path}?{where.query}"


def test_the_parts_of_an_upload_may_come_to_any_member(fronts: Fronts) -> None:
    body = b"in two parts" * 1000
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    for began in (0, 1):
        name = f"parts/{began}"
        answer = fronts.ask(began, "POST", f"/v2/{name}/blobs/uploads/")
        assert answer.status == 202
        for at, part in ((1, body[:7000]), (0, body[7000:])):
            where = located(answer, f"/v2/{name}/blobs/uploads/")
            answer = fronts.ask(at, "PATCH", where, body=part, headers={"Content-Type": "application/octet-stream"})
            assert answer.status == 202, answer
        where = located(answer, where)
        status = fronts.ask(1 - began, "GET", where)
        assert (status.status, status.headers["range"]) == (204, f"0-{len(body) - 1}")
        done = fronts.ask(1 - began, "PUT", f"{located(status, where)}&digest={digest}")
        assert (done.status, done.headers["docker-content-digest"]) == (201, digest)
        assert "_muster" not in done.headers["location"]
        assert fronts.own(began, "HEAD", f"/v2/{name}/blobs/{digest}").status == 200
        assert fronts.own(1 - began, "HEAD", f"/v2/{name}/blobs/{digest}").status == 404
        for at in (0, 1):
            got = fronts.ask(at, "GET", f"/v2/{name}/blobs/{digest}")
            assert (got.status, got.body, got.headers["docker-content-digest"]) == (200, body, digest)


def test_an_upload_that_is_given_up_is_given_up_where_it_began(fronts: Fronts) -> None:
    answer = fronts.ask(0, "POST", "/v2/given/up/blobs/uploads/")
    where = located(answer, "/v2/given/up/blobs/uploads/")
    assert fronts.ask(1, "DELETE", where).status == 204
    assert fronts.ask(0, "GET", where).status == 404


@pytest.mark.parametrize("method", ["PATCH", "PUT", "GET", "DELETE"])
@pytest.mark.parametrize("named", ["nobody.example.com", "127.0.0.1", "", "proxy%2f.."])
def test_an_upload_that_says_it_is_with_nobody_is_begun_anew(fronts: Fronts, method: str, named: str) -> None:
    answer = fronts.ask(0, "POST", "/v2/with/nobody/blobs/uploads/")
    where = re.sub("_muster=[^&]*", f"_muster={named}", located(answer, "/v2/with/nobody/blobs/uploads/"))
    got = fronts.ask(1, method, where, body=b"part" if method == "PATCH" else b"")
    assert (got.status, json.loads(got.body)["errors"][0]["code"]) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_an_upload_whose_member_is_gone_is_begun_anew(fronts: Fronts) -> None:
    answer = fronts.ask(0, "POST", "/v2/gone/blobs/uploads/")
    where = located(answer, "/v2/gone/blobs/uploads/")
    fronts.members[0].stop()
    try:
        got = fronts.ask(1, "PATCH", where, body=b"part")
        assert (got.status, json.loads(got.body)["errors"][0]["code"]) == (404, "BLOB_UPLOAD_UNKNOWN")
        assert fronts.members[0].name in got.text
    finally:
        fronts.members[0].start()
        fronts.until_known()


def test_a_tag_and_its_digest_are_the_same_wherever_they_lie(fronts: Fronts, tmp_path: Path) -> None:
    digest = Image("one backend").write(tmp_path / "image")
    manifest = (tmp_path / "image" / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()
    for file in (tmp_path / "image" / "blobs" / "sha256").iterdir():
        pushed_blob(fronts.registries[1], "lies", file.read_bytes())
    put = fronts.own(1, "PUT", "/v2/lies/manifests/1", body=manifest, headers={"Content-Type": MANIFEST})
    assert put.status == 201
    for at in (0, 1):
        for reference in ("1", digest):
            for method in ("GET", "HEAD"):
                got = fronts.ask(at, method, f"/v2/lies/manifests/{reference}", headers={"Accept": MANIFEST})
                assert (got.status, got.headers["docker-content-digest"]) == (200, digest)
                assert (got.headers["etag"], got.headers["content-type"]) == (f'"{digest}"', MANIFEST)
                assert got.headers["content-length"] == str(len(manifest))
                assert got.body == (manifest if method == "GET" else b"")
        unchanged = fronts.ask(
            at, "GET", "/v2/lies/manifests/1", headers={"Accept": MANIFEST, "If-None-Match": f'"{digest}"'}
        )
        assert unchanged.status == 304
        assert json.loads(fronts.ask(at, "GET", "/v2/lies/tags/list").body)["tags"] == ["1"]
        unknown = fronts.ask(at, "GET", "/v2/lies/manifests/2")
        assert (unknown.status, json.loads(unknown.body)["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")


def test_a_tag_that_moves_is_nowhere_the_older_one_again(fronts: Fronts, tmp_path: Path) -> None:
    digests = []
    for n in range(6):
        image = Image(f"moves {n}", padding=20_000, above=[f"moves {n} {layer}" for layer in LAYERS[:3]])
        digests.append(image.write(tmp_path / f"image{n}"))
        pushed = fronts.skopeo(tmp_path / f"push{n}").push(tmp_path / f"image{n}", fronts.image("moves:latest"))
        assert pushed.is_whole, pushed
        for at in (0, 1):
            got = fronts.ask(at, "HEAD", "/v2/moves/manifests/latest", headers={"Accept": MANIFEST})
            assert got.headers["docker-content-digest"] == digests[-1]
        pulled = fronts.skopeo(tmp_path / f"pull{n}").pull(fronts.image("moves:latest"), "pulled")
        assert pulled.is_whole, pulled
        assert digests[-1] in pulled.fetched
    # Where it was it was moved; what was there by its digest is there still.
    assert fronts.ask(0, "HEAD", f"/v2/moves/manifests/{digests[0]}", headers={"Accept": MANIFEST}).status == 200


def test_what_is_deleted_is_brought_back_from_nowhere(fronts: Fronts, tmp_path: Path) -> None:
    digest = Image("deleted").write(tmp_path / "image")
    manifest = (tmp_path / "image" / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()
    path, typed = f"/v2/deleted/manifests/{digest}", {"Content-Type": MANIFEST}
    for file in (tmp_path / "image" / "blobs" / "sha256").iterdir():
        for place in fronts.registries:
            pushed_blob(place, "deleted", file.read_bytes())
    for held in ((0, 1), (1,)):
        for at in held:
            assert fronts.own(at, "PUT", path, body=manifest, headers=typed).status == 201
        assert fronts.ask(0, "DELETE", path).status == 202
        for at in (0, 1):
            assert fronts.ask(at, "GET", path, headers={"Accept": MANIFEST}).status == 404
    nowhere = fronts.ask(0, "DELETE", path)
    assert (nowhere.status, json.loads(nowhere.body)["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")


def test_a_manifest_brings_what_its_registry_lacks_and_an_index_its_manifests(fronts: Fronts, tmp_path: Path) -> None:
    digest = Image("brought").write(tmp_path / "image")
    blobs = {f"sha256:{f.name}": f.read_bytes() for f in (tmp_path / "image" / "blobs" / "sha256").iterdir()}
    for content in blobs.values():
        pushed_blob(fronts.registries[1], "brings", content)
    typed = {"Content-Type": MANIFEST}
    assert fronts.own(1, "PUT", f"/v2/brings/manifests/{digest}", body=blobs[digest], headers=typed).status == 201
    kind = "application/vnd.oci.image.index.v1+json"
    named = {
        "mediaType": MANIFEST, "digest": digest, "size": len(blobs[digest]),
        "platform": {"architecture": "amd64", "os": "linux"},
    }  # fmt: skip
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [named]}).encode()
    lacking = fronts.own(0, "PUT", "/v2/brings/manifests/all", body=index, headers={"Content-Type": kind})
    assert lacking.status == 400
    put = fronts.ask(0, "PUT", "/v2/brings/manifests/all", body=index, headers={"Content-Type": kind})
    assert put.status == 201, put
    assert put.headers["docker-content-digest"] == f"sha256:{hashlib.sha256(index).hexdigest()}"
    assert fronts.own(0, "GET", f"/v2/brings/manifests/{digest}", headers={"Accept": MANIFEST}).body == blobs[digest]
    for blob in set(blobs) - {digest}:
        assert fronts.own(0, "GET", f"/v2/brings/blobs/{blob}").body == blobs[blob]


@pytest.mark.parametrize("manifest", [b"no JSON", b"[]", b'{"layers": 3}', b'{"config": {"digest": 3}}'])
def test_what_is_no_manifest_is_refused_as_the_registry_does(fronts: Fronts, manifest: bytes) -> None:
    answers = [
        asked(0, "PUT", "/v2/no/manifests/1", body=manifest, headers={"Content-Type": MANIFEST})
        for asked in (fronts.ask, fronts.own)
    ]
    assert (answers[0].status, answers[0].body) == (answers[1].status, answers[1].body)
    assert answers[0].status >= 400


def test_a_manifest_that_names_what_nobody_has_is_refused_as_the_registry_does(fronts: Fronts) -> None:
    absent = {"mediaType": "application/octet-stream", "digest": f"sha256:{'ab' * 32}", "size": 3}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": absent, "layers": [absent]}).encode()
    got = fronts.ask(0, "PUT", "/v2/absent/manifests/1", body=manifest, headers={"Content-Type": MANIFEST})
    assert (got.status, json.loads(got.body)["errors"][0]["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")


@dataclass
class Before:
    """Two members before a Pulp each, and where the balancer has them."""

    members: list[Member]
    pulps: tuple[Pulp, Pulp]
    places: list[Place]
    balanced: Place

    def skopeo(self, directory: Path, *, account: bool = False) -> Skopeo:
        hosts = {CLUSTER_ADDRESS: self.balanced.address}
        who = (Api.USER, Api.PASSWORD) if account else None
        return Skopeo(directory, Identity(self.members[0].ca), account=who, hosts=hosts)

    def image(self, name: str) -> str:
        return f"{CLUSTER_ADDRESS}:{self.balanced.port}/{name}"

    def ask(self, at: int, method: str, path: str, **more: Any) -> Answer:
        return ask(self.places[at], method, path, tls=self.members[at].tls(), **more)


@pytest.fixture(scope="module")
def before(
    pulps: tuple[Pulp, Pulp], tmp_path_factory: pytest.TempPathFactory, needs: Callable[[str], None]
) -> Iterator[Before]:
    for need in ("registry", "skopeo", "namespaces", "haproxy"):
        needs(need)
    contents = [
        lambda _, one=one: {
            "services": ["https", "docker"], "registry_url": f"http://{one.address}:{one.api_port}", "hold_s": 2,
            "pulp_content_url": f"http://{one.address}:{one.content_port}",
        } for one in pulps
    ]  # fmt: skip
    home = tmp_path_factory.mktemp("before")
    balancer = "127.0.0.75"
    members, ports = member.together(home, contents, "https", "docker", balancer=balancer, balance="random")
    with contextlib.ExitStack() as stack:
        for one in members:
            one.start()
            stack.callback(one.stop)
        stack.enter_context(balancing(members[0]))
        found = Before(
            members, pulps, [Place(m.https.address, ports["docker"]) for m in members], Place(balancer, ports["docker"])
        )
        upstream = stack.enter_context(registry.running(home))
        Image("known").write(home / "image")
        pushed = Skopeo(home / "skopeo").push(home / "image", f"{upstream.place}/known:1")
        assert pushed.is_whole, pushed
        for at, pulp in enumerate(pulps):
            made = pulp_api.repository(pulp.api, "container", f"known/{at}")
            made.sync_from(f"http://{upstream.place}", upstream_name="known")
        deadline = time.monotonic() + 30
        while not all(found.ask(1 - at, "GET", f"/v2/known/{at}/manifests/1").status == 200 for at in (0, 1)):
            assert time.monotonic() < deadline, "the members never asked each other"
            time.sleep(0.2)
        yield found


def test_an_image_that_one_pulp_has_is_pulled_from_both_and_no_client_sees_where_it_lies(
    before: Before, tmp_path: Path
) -> None:
    for at in (0, 1):
        manifest = before.ask(at, "GET", "/v2/known/0/manifests/1", headers={"Accept": MANIFEST})
        layer = json.loads(manifest.body)["layers"][0]
        whole = before.ask(at, "GET", f"/v2/known/0/blobs/{layer['digest']}")
        assert (whole.status, f"sha256:{hashlib.sha256(whole.body).hexdigest()}") == (200, layer["digest"])
        assert whole.headers["docker-content-digest"] == layer["digest"]
        assert whole.headers["etag"] == f'"{layer["digest"]}"'
        head = before.ask(at, "HEAD", f"/v2/known/0/blobs/{layer['digest']}")
        assert (head.status, head.headers["content-length"]) == (200, str(layer["size"]))
        part = before.ask(at, "GET", f"/v2/known/0/blobs/{layer['digest']}", headers={"Range": "bytes=3-9"})
        assert (part.status, part.body) == (206, whole.body[3:10])
    for n in range(6):
        pulled = before.skopeo(tmp_path / str(n)).pull(before.image(f"known/{n % 2}:1"), "pulled")
        assert pulled.is_whole, pulled


def test_images_are_pushed_to_pulps_and_pulled_wherever_each_connection_goes(before: Before, tmp_path: Path) -> None:
    for n in range(3):
        image = Image(f"pushed {n}", padding=50_000, above=[f"{layer} of {n} at Pulp" for layer in LAYERS[:4]])
        image.write(tmp_path / f"image{n}")
        client = before.skopeo(tmp_path / f"push{n}", account=True)
        pushed = client.push(tmp_path / f"image{n}", before.image(f"pushed/{n}:1"))
        assert pushed.is_whole, pushed
        wanted = {f"sha256:{f.name}" for f in (tmp_path / f"image{n}" / "blobs" / "sha256").iterdir()}
        for again in range(2):
            pulled = before.skopeo(tmp_path / f"pull{n}-{again}").pull(before.image(f"pushed/{n}:1"), "pulled")
            assert set(pulled.fetched) == wanted, pulled
