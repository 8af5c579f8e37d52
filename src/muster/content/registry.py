"""The registry behind ``/v2/``: what it redirects to is fetched here, and what a push lacks is brought from other members.

Sources: the OCI distribution specification 1.1; docs/facts/content-and-boot.md §4, §9.3.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin, urlsplit

from muster.content import headers, paths
from muster.content.backend import Answer, Backend, BadGateway, once
from muster.content.call import Program
from muster.content.fill import Behind, Fill, Sibling, told
from muster.content.places import PLACES, Place
from muster.content.uploads import Uploads
from muster.content.validators import Digest, named
from muster.edge.replies import Header, Reply, reply
from muster.edge.request import Request
from muster.kernel import log
from muster.kernel.errors import MusterError, Rejected, Unavailable

_log = log.logger("content")
_V2 = next(p for p in PLACES if p.prefix == "/v2")
_SIGNED = next(p for p in PLACES if p.prefix == "/pulp/container")
_READ = re.compile(
    r"(?:/v2/.+/(?:blobs/[a-z0-9]+:[0-9a-f]+|manifests/[^/]+|tags/list|referrers/[^/]+)|/extensions/v2/.+/signatures/[^/]+)\Z"
)
_MANIFEST = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)\Z")
_UPLOAD = re.compile(r"/v2/.+/blobs/uploads/[^/]+\Z")
_LINK = re.compile(r"<(?P<to>[^<>]{1,4096})>(?P<rest>;[^<>]*)?\Z")
_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HOPS = 3
# Source: the specification asks registries to take as much.
_LARGEST_MANIFEST = 4 << 20
_ERROR_BYTES = 64 << 10
# docker-registry, and Pulp (BLOB_UNKNOWN of the configuration, MANIFEST_INVALID of layers).
_LACKS = frozenset({"MANIFEST_BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_INVALID"})
_MOST_NAMED = 1000
# Whoever pushes or deletes waits for another member no longer: it is asked while its content is to be had, whatever its
# registry does.
_EACH_S = 20.0
_DEEPEST = 3
# Who asks, in a question of the member's own; all else that a client sent belongs to its own.
_WHO = frozenset({"authorization", "user-agent", "x_rhsm_ssl_client_cert", "x-forwarded-for", "x-forwarded-proto"})
# The same to another member, which says itself whom it asks for.
_TO_OTHERS = _WHO | {"x-forwarded-host"}
_ANY_MANIFEST = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"
)


def is_of(place: Place) -> bool:
    """Whether a place leads to what is asked in the registry's own way."""
    return place.prefix in ("/v2", "/extensions/v2")


def is_read(path: str) -> bool:
    """Whether a path names what any member may have: blobs, manifests, their signatures, and lists of tags and referrers."""
    return _READ.match(path.partition("?")[0]) is not None


def error(status: int, code: str, message: str, *extra: Header) -> Reply:
    """Return an error in the form that container clients read."""
    said = {"errors": [{"code": code, "message": message}]}
    return reply(status, json.dumps(said).encode(), b"application/json", *extra)


def linked(got: Answer, here: Callable[[str], str | None]) -> Answer:
    """Return an answer whose link to the next page of a list is a path that leads here.

    ``here`` returns path and query of a location at whoever gave the answer, None when it is elsewhere. Pulp says the whole
    URL that it was asked at, which no client knows (docs/facts/content-and-boot.md §9.3).
    """

    def told(name: str, value: str) -> str:
        found = _LINK.match(value) if name.lower() == "link" else None
        there = here(found["to"]) if found is not None else None
        return value if found is None or there is None else f"<{there}>{found['rest'] or ''}"

    if _field(got, "link") is None:
        return got
    return replace(got, headers=[(name, told(name, value)) for name, value in got.headers])


@dataclass
class Registry:
    """One member's registry. Concurrency: any number of calls.

    Attributes:
        own: the registry itself.
        content: Pulp's content application, which keeps what Pulp's registry redirects to; None: there is none.
        fill: asks the other members; None: there are none.
        uploads: knows which member an upload is with; None as there.
    """

    own: Program
    content: Program | None
    fill: Fill | None = None
    uploads: Uploads | None = None

    @property
    def name(self) -> str:
        return self.own.name

    @property
    def url(self) -> str:
        return self.own.url

    async def ask(self, method: str, path: str, sent: Sequence[tuple[str, str]]) -> Answer:
        """Return what the registry has, from where it says that it is.

        A redirect is followed to the registry itself, and to the own Pulp's content application, by whichever name: it is
        signed by the Pulp that gave it, and good for no other. Any other is the client's to follow.

        Raises:
            Unavailable, GatewayTimeout, BadGateway: as :meth:`muster.content.backend.Backend.ask`; BadGateway also when it
                says of what is named by its digest that it has another.
        """
        digest = named(path)
        # What a digest names are the bytes as they are kept.
        sent = [(k, v) for k, v in sent if k.lower() != "accept-encoding"] + [("Accept-Encoding", "identity")]
        at, to = self.own, path
        got = await at.ask(method, to, sent)
        for _ in range(_HOPS):
            found = self._leads_to(at, to, got)
            if found is None:
                break
            got.end()
            at, to = found
            got = await at.ask(method, to, _for_content(sent) if at is self.content else sent)
        if at is self.own:
            host = next((v for k, v in sent if k.lower() == "x-forwarded-host"), "")
            got = linked(got, lambda location: self.here(location, to, host))
        return _of(digest, got) if digest is not None else got

    def _leads_to(self, at: Program, path: str, got: Answer) -> tuple[Program, str] | None:
        """Return whom to ask for what instead, None: nobody, or nobody here."""
        location = _field(got, "location")
        if got.status not in _REDIRECTS or location is None:
            return None
        if at is self.own and (there := self.here(location, path)) is not None:
            return self.own, there
        try:
            split = urlsplit(urljoin(at.url + path, location))
            if self.content is not None and split.scheme in ("http", "https"):
                return self.content, _below(_SIGNED, split.path, split.query)
        except (ValueError, Rejected):
            pass
        return None

    def here(self, location: str, path: str, host: str = "") -> str | None:
        """Return path and query of a location at the registry itself, None when it is elsewhere.

        ``path`` is what was asked for; ``host`` is what the registry was told of itself.
        """
        home = urlsplit(self.own.url)
        try:
            split = urlsplit(urljoin(self.own.url + path, location))
            if split.netloc not in {home.netloc, host} or split.scheme not in ("http", "https"):
                return None
            return _below(_V2, split.path.removeprefix(home.path), split.query)
        except (ValueError, Rejected):
            return None

    async def change(
        self, request: Request, path: str, sent: Sequence[tuple[str, str]], behind: Behind, *, is_handed_on: bool
    ) -> Answer | Reply:
        """Ask for what is no reading: uploads of blobs, manifests that are put, and the rest.

        Uploads stay with the member they began at. A manifest that the registry refuses for what it lacks is put again
        when that was at other members. ``is_handed_on``: another member asks, and it is the last.

        Raises:
            Unavailable, GatewayTimeout, BadGateway: as :meth:`muster.content.backend.Backend.ask`.
            MusterError: what the request's body raises.
        """
        length = request.headers.get(b"content-length")
        body = request.pieces() if request.unread else None
        size = int(length) if body is not None and length else None
        if self.uploads is not None and _UPLOAD.match(path.partition("?")[0]):
            at, path = self.uploads.begun_at(path)
            if at is not None and at != self.uploads.member:
                if is_handed_on or (other := self.uploads.other(at)) is None:
                    return _begun_elsewhere(at)
                return await self._handed_on(other, at, request, sent, behind, body, size)
        put = _MANIFEST.match(path) if request.method == "PUT" else None
        if put is not None and body is not None and self.fill is not None and self.fill.siblings:
            whole = await _whole(body, request)
            if whole is None:
                return error(413, "SIZE_INVALID", f"a manifest larger than {_LARGEST_MANIFEST >> 20} MiB is not taken")
            got = await self._kept(put["name"], put["reference"], whole, sent, behind)
            if got.status == 201 and not is_handed_on and not _DIGEST.match(put["reference"]):
                await self._tag_moved(path, whole, sent, behind)
            return got
        got = await self.own.ask(request.method, path, sent, body, size)
        if request.method == "DELETE" and not is_handed_on and _READ.match(path):
            return await self._deleted(path, got, sent, behind)
        host = headers.host(request.sent_headers)
        return self._marked(linked(got, lambda location: self.here(location, path, host)), path, host)

    async def _tag_moved(self, path: str, manifest: bytes, sent: Sequence[tuple[str, str]], behind: Behind) -> None:
        """Move a tag at the other members that have it, too; where there is none, none is made."""
        asking = [*((k, v) for k, v in sent if k.lower() in _TO_OTHERS), ("Accept", _ANY_MANIFEST)]
        wanted = f"sha256:{hashlib.sha256(manifest).hexdigest()}"

        async def moved(sibling: Sibling, other: Backend) -> None:
            had = await other.ask("HEAD", path, told(asking, behind))
            had.end()
            # Whatever else it says, that is of a tag which it does not give to anybody now.
            if had.status != 200 or _field(had, "docker-content-digest") == wanted:
                return
            got = await other.ask("PUT", path, told(sent, behind), once(manifest), len(manifest))
            got.end()
            if got.status != 201:
                _log.warning("A tag was not moved at another member", member=sibling.name, tag=path, status=got.status)

        await self._each("A tag may not have been moved at another member", moved)

    async def _deleted(self, path: str, got: Answer, sent: Sequence[tuple[str, str]], behind: Behind) -> Answer:
        """Delete what was deleted here at the other members, too: or it would be brought back from there."""
        answers = [got]

        async def deleted(_: Sibling, other: Backend) -> None:
            answers.append(await other.ask("DELETE", path, told(sent, behind)))

        if got.status < 300 or got.status == 404:
            await self._each("What was deleted may still be at another member", deleted)
        kept = next((one for one in answers if one.status < 300), got)
        for one in answers:
            if one is not kept:
                one.end()
        return kept

    async def _each(self, doubt: str, asked: Callable[[Sibling, Backend], Awaitable[None]]) -> None:
        """Ask every other member that is ready; of one that does not answer the log says what that leaves open."""
        fill = self.fill
        if fill is None:
            return

        async def one(sibling: Sibling) -> None:
            try:
                async with asyncio.timeout(_EACH_S):
                    await asked(sibling, fill.other(sibling))
            except TimeoutError:
                _log.warning(doubt, member=sibling.name, why=f"it did not answer within {_EACH_S:g} s")
            except MusterError as e:
                _log.warning(doubt, member=sibling.name, why=str(e))

        await asyncio.gather(*(one(sibling) for sibling in fill.siblings))

    async def _handed_on(
        self,
        other: Backend,
        at: str,
        request: Request,
        sent: Sequence[tuple[str, str]],
        behind: Behind,
        body: AsyncIterator[bytes] | None,
        length: int | None,
    ) -> Answer | Reply:
        theirs = paths.as_sent(request.raw_path, request.raw_query)
        try:
            return await other.ask(request.method, theirs, told(sent, behind), body, length)
        except Unavailable as e:
            _log.warning("An upload was not handed on to the member that it began at", member=at, why=str(e))
            return _begun_elsewhere(at)

    def _marked(self, got: Answer, path: str, host: str) -> Answer:
        """Return an answer whose location of an upload leads back to this member from any other."""
        location = _field(got, "location")
        there = self.here(location, path, host) if location is not None else None
        if self.uploads is None or there is None or not _UPLOAD.match(there.partition("?")[0]):
            return got
        kept = [(k, v) for k, v in got.headers if k.lower() != "location"]
        return replace(got, headers=[*kept, ("Location", self.uploads.marked(there))])

    async def _kept(
        self,
        name: str,
        reference: str,
        manifest: bytes,
        sent: Sequence[tuple[str, str]],
        behind: Behind,
        depth: int = 1,
    ) -> Answer:
        """Put a manifest; when the registry lacks what it names, bring that here and put it again."""
        path = f"/v2/{name}/manifests/{reference}"
        got = await self.own.ask("PUT", path, sent, once(manifest), len(manifest))
        if got.status not in (400, 404):
            return got
        try:
            said, got = await _begun(got)
            if not _LACKS & _codes(said):
                return got
            brought = 0
            for kind, digest, media in _named_in(manifest):
                brought += await self._brought(f"/v2/{name}", kind, digest, media, sent, behind, depth)
        except BaseException:
            got.end()
            raise
        if not brought:
            return got
        got.end()
        _log.info("What a manifest names was brought from other members", image=f"{name}:{reference}", brought=brought)
        return await self.own.ask("PUT", path, sent, once(manifest), len(manifest))

    async def _brought(
        self,
        base: str,
        kind: str,
        digest: str,
        media: str,
        sent: Sequence[tuple[str, str]],
        behind: Behind,
        depth: int,
    ) -> bool:
        """Bring a blob or a manifest that is not here; return whether that was done."""
        assert self.fill is not None  # noqa: S101 - who brings has others
        who = [(k, v) for k, v in sent if k.lower() in _WHO] + [("Accept-Encoding", "identity")]
        asking = [*who, ("Accept", media)] if media else who
        path = f"{base}/{kind}/{digest}"
        here = await self.own.ask("HEAD", path, asking)
        here.end()
        if here.status != 404:
            return False
        try:
            got = await self.fill.elsewhere("GET", path, asking, behind)
        except MusterError as e:
            _log.warning("What a manifest names was not found at other members", digest=digest, why=str(e))
            return False
        try:
            if got.status != 200:
                return False
            if kind == "blobs":
                return await self._uploaded(base, digest, got, who)
            whole = await got.whole(_LARGEST_MANIFEST)
            if whole is None or depth == _DEEPEST:
                return False
            said = _field(got, "content-type") or media
            name = base.removeprefix("/v2/")
            put = await self._kept(name, digest, whole, [*who, ("Content-Type", said)], behind, depth + 1)
            put.end()
            return put.status == 201
        except MusterError as e:
            _log.warning("What a manifest names was not brought here", digest=digest, why=str(e))
            return False
        finally:
            got.end()

    async def _uploaded(self, base: str, digest: str, got: Answer, who: Sequence[tuple[str, str]]) -> bool:
        """Upload a blob to the own registry, as clients do; it compares the digest."""
        path = f"{base}/blobs/uploads/"
        length = _field(got, "content-length")
        size = int(length) if length is not None and length.isdecimal() else None
        answer = await self.own.ask("POST", path, who, None, 0)
        for method, wanted in (("PATCH", 202), ("PUT", 201)):
            answer.end()
            location = _field(answer, "location")
            where = self.here(location, path) if answer.status == 202 and location is not None else None
            if where is None:
                return False
            if method == "PATCH":
                typed = [*who, ("Content-Type", "application/octet-stream")]
                answer = await self.own.ask(method, where, typed, got.pieces, size)
            else:
                finished = f"{where}{'&' if '?' in where else '?'}digest={digest}"
                answer = await self.own.ask(method, finished, who, None, 0)
            if answer.status != wanted:
                break
        answer.end()
        return answer.status == 201


def _below(place: Place, path: str, query: str) -> str:
    """Return a path below a place as a client's would go on.

    Raises:
        Rejected: it is not below it, or such a path of a client's is refused, too.
    """
    if not path.startswith(f"{place.prefix}/"):
        raise Rejected(f"{path} is not below {place.prefix}")
    return paths.forwarded(place, path.encode(), query.encode())


def _of(digest: Digest, got: Answer) -> Answer:
    """Return what is named by a digest as of that digest.

    Raises:
        BadGateway: whoever gave it says that it has another.
    """
    if got.status not in (200, 206):
        return got
    wanted = f"{digest.algorithm}:{digest.value}"
    said = _field(got, "docker-content-digest")
    if said is None:
        # Pulp says it with the redirect, its content application says nothing.
        return replace(got, headers=[*got.headers, ("Docker-Content-Digest", wanted)])
    if said.strip() != wanted:
        got.end()
        raise BadGateway(f"{got.of} says that what it gives for {wanted} is {said.strip()[:200]}")
    return got


def _for_content(sent: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return a registry's headers for Pulp's content application, which judges certificates and takes no account."""
    # In one line Pulp's guard takes it, too (docs/facts/content-and-boot.md §9.2).
    meant = {"x_rhsm_ssl_client_cert": "X-CLIENT-CERT"}
    return [(meant.get(k.lower(), k), v) for k, v in sent if k.lower() not in ("authorization", "cookie")]


def _begun_elsewhere(at: str) -> Reply:
    return error(
        404, "BLOB_UPLOAD_UNKNOWN", f"the upload began at member {at}, which does not answer for it: begin it anew"
    )


def _field(got: Answer, name: str) -> str | None:
    return next((v for k, v in got.headers if k.lower() == name), None)


def _named_in(manifest: bytes) -> list[tuple[str, str, str]]:
    """Return what a manifest or an index names, without repetition: blobs or manifests, digest, media type."""
    content = _json(manifest)
    if not isinstance(content, dict):
        return []
    groups: Iterable[tuple[str, Any]] = (
        ("blobs", [content.get("config")]), ("blobs", content.get("layers")), ("manifests", content.get("manifests")),
    )  # fmt: skip
    found: dict[tuple[str, str], str] = {}
    for kind, group in groups:
        for one in group if isinstance(group, list) else ():
            digest = one.get("digest") if isinstance(one, dict) else None
            if isinstance(digest, str) and _DIGEST.match(digest):
                media = one.get("mediaType")
                is_fit = isinstance(media, str) and media.isascii() and media.isprintable()
                found[kind, digest] = media if is_fit else ""
    return [(kind, digest, media) for (kind, digest), media in found.items()][:_MOST_NAMED]


def _codes(said: bytes) -> set[str]:
    content = _json(said)
    errors = content.get("errors") if isinstance(content, dict) else None
    return {str(e.get("code")) for e in errors if isinstance(e, dict)} if isinstance(errors, list) else set()


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


async def _whole(pieces: AsyncIterator[bytes], holder: Request) -> bytes | None:
    """Read a manifest that somebody sends; None: it is larger than manifests are. ``holder`` counts it."""
    whole = bytearray()
    async for piece in pieces:
        whole += piece
        if len(whole) > _LARGEST_MANIFEST:
            return None
        holder.hold(len(piece))
    return bytes(whole)


async def _begun(got: Answer) -> tuple[bytes, Answer]:
    """Return the beginning of an answer's body, and the answer with all of it."""
    read = bytearray()
    async for piece in got.pieces:
        read += piece
        if len(read) > _ERROR_BYTES:
            break

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield bytes(read)
        async for piece in got.pieces:
            yield piece

    return bytes(read), replace(got, pieces=pieces())
