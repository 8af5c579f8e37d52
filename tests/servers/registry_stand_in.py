"""A registry without a program behind it: images in memory, with tokens from another address, pages, redirects, and lies."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from muster.cli.demo.bind import free_port

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def sha256(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


@dataclass(frozen=True, eq=False)
class Pushed:
    """A manifest with what it names.

    Attributes:
        below: the manifests that it names itself.
    """

    body: bytes
    media: str
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    below: tuple[Pushed, ...] = ()

    @property
    def digest(self) -> str:
        return sha256(self.body)

    @property
    def described(self) -> dict[str, Any]:
        return {"mediaType": self.media, "digest": self.digest, "size": len(self.body)}


def image(content: str, *, media: str = MANIFEST, architecture: str = "amd64", layer: bytes | None = None) -> Pushed:
    """Return an image of one layer, and of one that lies elsewhere."""
    body = layer if layer is not None else f"layer {content}".encode() * 100
    config = json.dumps({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
    blobs = {sha256(one): one for one in (config.encode(), body)}
    kind = "application/vnd.oci.image.{}" if media == MANIFEST else "application/vnd.docker.{}"
    of_config, of_layer = ("config.v1+json", "layer.v1.tar") if media == MANIFEST else (
        "container.image.v1+json", "image.rootfs.diff.tar.gzip"
    )  # fmt: skip
    said = {
        "schemaVersion": 2,
        "mediaType": media,
        "config": {"mediaType": kind.format(of_config), "digest": sha256(config.encode()), "size": len(config)},
        "layers": [{"mediaType": kind.format(of_layer), "digest": sha256(body), "size": len(body)}],
    }
    return Pushed(json.dumps(said).encode(), media, blobs)


def index(*images: Pushed, media: str = INDEX) -> Pushed:
    """Return an index of images, each for an architecture of its own."""
    architectures = ("amd64", "arm64", "s390x")
    named = [
        {**one.described, "platform": {"architecture": a, "os": "linux"}}
        for one, a in zip(images, architectures, strict=False)
    ]
    said = {"schemaVersion": 2, "mediaType": media, "manifests": named}
    return Pushed(json.dumps(said).encode(), media, below=images)


@dataclass
class Registry:
    """One, at an address; what it has may be changed at any moment.

    Attributes:
        tags: by repository and tag.
        account: whom it lets in, None: everybody, without a token even.
        wants_tokens: it wants one, which is had at ``realm``, for the account if there is one.
        gives: other bytes than there are, by digest or tag.
        moves: blobs are elsewhere, as what this says.
        status: of everything, instead.
        per_page: how many tags it lists at once.
        says_no_digest: it does not say ``Docker-Content-Digest``.
        asked: method, path and ``Authorization`` of what it was asked.
    """

    address: str
    port: int
    realm_address: str = "127.0.0.69"
    realm_port: int = 0
    tags: dict[str, dict[str, Pushed]] = field(default_factory=dict)
    account: tuple[str, str] | None = None
    wants_tokens: bool = False
    gives: dict[str, bytes] = field(default_factory=dict)
    moves: str = ""
    status: int = 0
    per_page: int = 1000
    says_no_digest: bool = False
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    tokens: int = 0
    lasts_s: int = 300

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    @property
    def realm(self) -> str:
        return f"http://{self.realm_address}:{self.realm_port}/token"

    def token(self) -> str:
        """Return the one that counts now."""
        return f"token-{self.tokens}"

    def manifests(self, repository: str) -> dict[str, Pushed]:
        """Return all manifests, by digest and by tag."""
        found: dict[str, Pushed] = {}
        for tag, one in self.tags.get(repository, {}).items():
            found |= {tag: one, one.digest: one, **{b.digest: b for b in one.below}}
        return found

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Hold it, and what gives out tokens, running."""
        self.realm_port = self.realm_port or free_port(self.realm_address)
        places = [(self.address, self.port, _OfRegistry), (self.realm_address, self.realm_port, _OfRealm)]
        with contextlib.ExitStack() as stack:
            for address, port, kind in places:
                server = ThreadingHTTPServer((address, port), type("Of", (kind,), {"it": self}))
                server.daemon_threads = True
                thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
                thread.start()
                stack.callback(thread.join)
                stack.callback(server.server_close)
                stack.callback(server.shutdown)
            yield


class _Handler(BaseHTTPRequestHandler):
    it: ClassVar[Registry]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        raise NotImplementedError

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _OfRealm(_Handler):
    def do_GET(self) -> None:
        said = self.headers.get("Authorization", "")
        self.it.asked.append(("TOKEN", self.path, said))
        query = parse_qs(urlsplit(self.path).query)
        wanted = self.it.account
        if wanted is not None and said != f"Basic {base64.b64encode(':'.join(wanted).encode()).decode()}":
            return self.answer(401)
        if query.get("service") != ["stand-in"] or not query.get("scope", [""])[0].endswith(":pull"):
            return self.answer(400)
        self.it.tokens += 1
        said_of_it = {"token": self.it.token(), "expires_in": self.it.lasts_s}
        return self.answer(200, json.dumps(said_of_it).encode(), Content_Type="application/json")


class _OfRegistry(_Handler):
    def do_GET(self) -> None:
        it = self.it
        said = self.headers.get("Authorization", "")
        it.asked.append((self.command, self.path, said))
        if it.status:
            return self.answer(it.status)
        parts = urlsplit(self.path)
        if parts.path.startswith("/elsewhere/"):
            return self.blob(parts.path.rpartition("/")[2])
        if it.wants_tokens and said != f"Bearer {it.token()}":
            return self.answer(401, WWW_Authenticate=f'Bearer realm="{it.realm}",service="stand-in",scope="all:all"')
        repository, _, rest = parts.path.removeprefix("/v2/").partition("/manifests/")
        if rest:
            return self.manifest(repository, rest)
        repository, _, rest = parts.path.removeprefix("/v2/").partition("/blobs/")
        if rest:
            return self.answer(307, Location=f"{it.moves}/{rest}") if it.moves else self.blob(rest)
        if parts.path == "/v2/":
            return self.answer(200, b"{}")
        repository = parts.path.removeprefix("/v2/").removesuffix("/tags/list")
        if repository not in it.tags:
            return self.answer(404)
        query = parse_qs(parts.query)
        left = sorted(tag for tag in it.tags[repository] if tag > query.get("last", [""])[0])
        page = left[: it.per_page]
        following = f'</v2/{repository}/tags/list?n=1&last={page[-1]}>; rel="next"' if len(page) < len(left) else ""
        body = json.dumps({"name": repository, "tags": page}).encode()
        return self.answer(200, body, **({"Link": following} if following else {}))

    def manifest(self, repository: str, reference: str) -> None:
        found = self.it.manifests(repository).get(reference)
        if found is None:
            return self.answer(404)
        said = {} if self.it.says_no_digest else {"Docker_Content_Digest": found.digest}
        body = self.it.gives.get(reference, found.body)
        return self.answer(200, body, Content_Type=found.media, **said)

    def blob(self, digest: str) -> None:
        for tags in self.it.tags.values():
            for one in tags.values():
                for image_ in (one, *one.below):
                    if digest in image_.blobs:
                        return self.answer(200, self.it.gives.get(digest, image_.blobs[digest]))
        return self.answer(404)
