"""What answers on the ports of content: a place is found, its backend asked, and the answer passed on piece by piece."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prometheus_client import CollectorRegistry

from muster.cluster.file import ClusterFile, Member
from muster.cluster.sections import Content as Settings
from muster.content import backend as backends
from muster.content import conditions, fill, gateway, headers, paths, places, registry, validators
from muster.content.backend import Answer, Patience
from muster.content.call import Asked, Call, Program
from muster.content.fill import Behind, Fill, Sibling
from muster.content.images import Images
from muster.content.joining import Joining
from muster.content.led import Led
from muster.content.mirror.carried import Carried, Fronted
from muster.content.places import PROGRAMS, Place
from muster.content.pub import Pub
from muster.content.registry import Registry
from muster.content.repositories import Repositories
from muster.content.resume import resumed
from muster.content.retention import ring
from muster.content.uploads import Uploads
from muster.content.validators import Digest
from muster.edge.authorise import Gate
from muster.edge.replies import RETRY_AFTER, SERVER_HEADER, Header, Reply, Streamed, not_found, reply
from muster.edge.request import Request
from muster.edge.routes import Access
from muster.kernel import log
from muster.kernel.errors import Denied, Unavailable
from muster.kernel.names import in_url
from muster.pki.bundles import BundlePaths
from muster.pki.context import RenewedContext

_log = log.logger("content")

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_READING = frozenset({"GET", "HEAD"})
# Metadata without a digest in its name. It is small, and whole it tells its digest itself.
_SMALL = frozenset({
    "repomd.xml", "repomd.xml.asc", "repomd.xml.key", "treeinfo", ".treeinfo", "Release", "Release.gpg", "InRelease",
    "PULP_MANIFEST",
})  # fmt: skip
_SMALL_BYTES = 4 << 20


class _NoPulp:
    """What a member without a Pulp has: nothing, also of what was followed before it had none."""

    name, url = "a member without a Pulp", ""

    async def ask(self, _method: str, _path: str, _headers: Sequence[tuple[str, str]], /) -> Answer:
        return Answer.absent(self.name)


_NO_PULP = _NoPulp()


async def _nowhere(_: Mapping[str, str]) -> None:
    return


@dataclass
class Content:
    """One member's content. Concurrency: any number of calls.

    Attributes:
        member: its name.
        backends: by what places call them; one that is not there makes its places 404.
        gate: says who is a trusted host, and who a member.
        fill: asks the other members; None: there are none.
        members: the names of those of kind ``muster``, in lower case.
        address: where it asks from for itself.
        repositories: of which all members answer the same version; None: each answers as its Pulp does.
        registry: the backend of that name; None without.
        keepers: how many there are of each repository that is followed.
        lead: leads backends to other places, by what places call them, as long as it is not called without them.
        images: answers for those that are mirrored; None: none is.
    """

    member: str
    backends: Mapping[places.Backend, Program]
    pub: Pub
    gate: Gate
    fill: Fill | None
    members: frozenset[str]
    address: str
    registry: Registry | None = None
    repositories: Repositories | None = None
    keepers: int = 0
    lead: Callable[[Mapping[str, str]], Coroutine[Any, Any, None]] = _nowhere
    images: Images | None = None

    def mirror(self, carried: Carried, images: Images | None) -> None:
        """Answer what is mirrored with what is carried of it, and the rest with Pulp and the registry, if there are such."""
        self.images = images
        self.backends = {**self.backends, "content": Fronted(self.backends.get("content"), carried)}

    def know(self, siblings: Iterable[Sibling], members: Iterable[str]) -> None:
        """Ask these siblings, and no others, for what is not here; believe all of these members."""
        siblings, members = tuple(siblings), tuple(members)
        self.members = frozenset(m.lower() for m in members)
        if self.fill is not None:
            self.fill.siblings = siblings
        if self.registry is not None and self.registry.uploads is not None:
            self.registry.uploads.know(siblings, members)

    def call_as(self, certificate: bytes | None) -> Call:
        """Return how this member asks Pulp for itself, as a client with a certificate would, DER; None: without."""
        sent = headers.asked(
            (), backend="content", address=self.address, host="", scheme="https", certificate=certificate
        )  # fmt: skip
        own = self.backends.get("content", _NO_PULP)
        return Call(own, self.fill, sent, Behind(self.address, certificate))

    async def answer(self, place: Place, request: Request) -> Reply | Streamed:
        """Answer a call below a place.

        Raises:
            Denied: the caller may not come there.
            Rejected: the path might be taken for different ones.
            Unavailable, GatewayTimeout, BadGateway: as :meth:`muster.content.backend.Backend.ask`; for images, what passes
                is answered 429.
        """
        if not place.is_for_images:
            return await self._answer(place, request)
        try:
            found = await self._answer(place, request)
        except Unavailable as e:
            # Source: docs/facts/content-and-boot.md §1; the form is the distribution specification's.
            return registry.error(429, "TOOMANYREQUESTS", str(e), RETRY_AFTER)
        if found.status == 503 and isinstance(found, Streamed):
            return replace(found, status=429)
        return found

    async def _answer(self, place: Place, request: Request) -> Reply | Streamed:
        if request.method not in _METHODS:
            return reply(405, b"", b"text/plain", (b"allow", ", ".join(_METHODS).encode()))
        path = paths.forwarded(place, request.raw_path, request.raw_query)
        if place.backend == "members":
            return await self._to_member(path, request)
        if place.backend == "pub":
            return await self.pub.answer(path, request)
        to = self.backends.get(place.backend)
        if place.prefix == Images.PREFIX and self.images is not None and self.repositories is not None:
            call = replace(self.call_as(None), client=Behind(request.peer.address, None))
            image = await self.images.answer(self.repositories, call, path, request, is_alone=to is None)
            if image is not None:
                return image
        if to is None:
            return not_found()
        user = await self._user(place, request)
        # A member asks for somebody; who else says so is asking for himself.
        is_between_us = place.backend in ("content", "registry") and self.gate.is_ours(request, self.members)
        other = fill.behind(request.sent_headers) if is_between_us else None
        if other is not None:
            await self.gate.refuse_revoked(request)
        client = other or Behind(request.peer.address, request.peer.certificate)
        sent = headers.asked(
            request.sent_headers, backend=place.backend, address=client.address,
            host=headers.host(request.sent_headers), scheme=request.scheme, certificate=client.certificate,
        )  # fmt: skip
        if user:
            sent.append(("Remote-User", user))
        is_reading = request.method in _READING
        own = self.registry if registry.is_of(place) else None
        is_of_content = is_reading and (place.backend == "content" or (own is not None and registry.is_read(path)))
        # A change goes on when who asked for it has gone. Of content nobody takes what a client sends.
        is_waited_for = is_of_content or (is_reading and not request.unread)
        async with request.while_waited_for() if is_waited_for else contextlib.nullcontext():
            if is_of_content:
                if place.backend == "content" and ring.is_inside(path):
                    return not_found()
                call = Call(own or to, self.fill if other is None else None, sent, client, self._keepers)
                return await self._content(call, place, path, request, is_between_us=other is not None)
            if own is not None:
                found = await own.change(request, path, sent, client, is_handed_on=other is not None)
                if isinstance(found, Reply):
                    return found
                got = found
            else:
                length = request.headers.get(b"content-length")
                body = request.pieces() if request.unread else None
                got = await to.ask(request.method, path, sent, body, int(length) if body and length else None)
            return _passed(got, headers.answered(got.headers, keeps_validators=True, moved=_moved(to, place)))

    def _keepers(self, path: str) -> list[str]:
        """Return where the own Pulp may still have a package that a newer version dropped."""
        if not self.keepers or self.repositories is None:
            return []
        # A repository within another one is of the same distribution.
        around = self.repositories.known.around(path)
        return [one for found in around for one in ring.paths(*found, self.keepers)]

    async def _user(self, place: Place, request: Request) -> str:
        """Return as whom the backend shall take the caller, empty: as itself."""
        if place.who == "trusted":
            # Others may ask with a password: the backend's own matter.
            with contextlib.suppress(Denied):
                await self.gate.admit(Access.TRUSTED, request)
                return "admin"
        if place.who == "gateway":
            if request.peer.name != self.member.lower():
                raise Denied(f"{place.prefix} is for the container gateway of {self.member} itself")
            await self.gate.refuse_revoked(request)
            return "admin"
        return ""

    async def _to_member(self, path: str, request: Request) -> Reply | Streamed:
        """Answer another member, which asks for itself."""
        if not self.gate.is_ours(request, self.members):
            raise Denied("what members tell each other is for members")
        await self.gate.refuse_revoked(request)
        if self.repositories is None:
            return not_found()
        return await self.repositories.to_member(path, request)

    async def _content(
        self, call: Call, place: Place, path: str, request: Request, *, is_between_us: bool
    ) -> Reply | Streamed:
        """Answer a reading call whose validators are ours, whatever the backend has."""
        theirs = paths.as_sent(request.raw_path, request.raw_query)
        if self.repositories is not None and place.backend == "content":
            found = await self.repositories.answer(call, path, theirs, request, is_between_us=is_between_us)
            if found is not None:
                return found
        digest = validators.named(path)
        asks_range = conditions.asks_range(request, digest)
        sent = headers.unconditional(call.sent, keeps_range=asks_range)
        is_small = path.partition("?")[0].rpartition("/")[2] in _SMALL and not asks_range

        got = await call.ask("GET" if is_small else request.method, path, theirs=theirs, sent=sent)
        if digest is not None and request.method == "GET":
            got = resumed(got, call.rest(path, sent, theirs=theirs))
        if got.status == 200 and is_small:
            return await _small(got, request)
        passed = headers.answered(got.headers, keeps_validators=False, moved=_moved(call.own, place))
        if got.status == 416:
            # Some say of their sentence how long the whole is; nobody needs it.
            got.end()
            return reply(416, b"", b"text/plain", *(h for h in passed if h[0] == b"content-range"))
        if got.status in (200, 206):
            if digest is None and place.backend == "registry":
                digest = validators.said(got.headers)
            if digest is not None:
                passed.append((b"etag", digest.tag.encode()))
            if (instead := conditions.instead(request, digest, passed)) is not None:
                got.end()
                return instead
        return _passed(got, passed)


def _moved(to: Asked, place: Place) -> Callable[[str], str]:
    """Return what makes a path of a location at the backend itself, under the place's prefix."""
    home = to.url + place.to

    def moved(location: str) -> str:
        rest = location.removeprefix(home)
        is_there = rest != location and (not rest or rest[0] in "/?")
        return place.prefix + rest if is_there else location

    return moved


def _passed(got: Answer, passed: list[Header]) -> Streamed:
    if got.status in (204, 304):
        # Of the body that there is not; 304 may say what the whole would have (RFC 9110 §8.6), and need not.
        passed = [h for h in passed if h[0] != b"content-length"]
    if got.status == 503 and not any(n == b"retry-after" for n, _ in passed):
        passed = [*passed, RETRY_AFTER]
    return Streamed(got.status, [*passed, SERVER_HEADER], got.pieces, got.end)


async def _small(got: Answer, request: Request) -> Reply:
    """Read a small body whole, and answer with its digest for a validator.

    Raises:
        Unavailable: it is larger than such files are, or there is no room for it.
    """
    body = await got.whole(_SMALL_BYTES, hold=request.hold)
    if body is None:
        raise Unavailable(f"metadata larger than {_SMALL_BYTES >> 20} MiB is not passed on")
    digest = Digest("sha256", hashlib.sha256(body).hexdigest())
    passed = [h for h in headers.answered(got.headers, keeps_validators=False) if h[0] != b"content-length"]
    return conditions.answered(body, request, digest, passed)


@contextlib.asynccontextmanager
async def opened(
    cluster: ClusterFile,
    settings: Settings,
    member: Member,
    bundle: BundlePaths,
    gate: Gate,
    collected: CollectorRegistry,
    joining: Joining,
) -> AsyncIterator[Content]:
    """Yield a member's content; its backends are asked when somebody comes, not before.

    ``collected`` gets what it counts; ``joining`` is what hosts that join find.
    """
    also = [f for f in (settings.ca_file, cluster.foreman.ca_file) if f is not None]
    shown = settings.foreman_certificate or bundle.certificate
    key = settings.foreman_key if settings.foreman_certificate is not None else bundle.key
    context = RenewedContext(bundle.ca, shown, key, also=also)
    among_us = RenewedContext(bundle.ca, bundle.certificate, bundle.key)
    patience = Patience(settings.connect_timeout_s, settings.first_byte_timeout_s, settings.stall_timeout_s)
    urls: dict[places.Backend, str | None] = {
        "content": settings.pulp_content_url,
        "api": settings.pulp_api_url,
        "registry": settings.registry_url,
        "foreman": cluster.foreman.url,
    }
    async with contextlib.AsyncExitStack() as stack:
        found: dict[places.Backend, Program] = {}
        led: dict[places.Backend, tuple[Led, backends.Backend, str]] = {}
        for name, url in urls.items():
            if url is not None:
                url = url.replace("{address}", in_url(member.address)).rstrip("/")
                # Its own gateway believes of a client what this member's certificate says.
                is_ours = name == "registry" and gateway.is_of_members(cluster, url)
                shown_to = among_us if is_ours else context
                opening = backends.opened(PROGRAMS[name].name, url, patience, context=shown_to)
                one = await stack.enter_async_context(opening)
                found[name] = one.at(one.name, url, server_hostname=str(member.name)) if is_ours else one
                if name in ("content", "api"):
                    led[name] = Led(one, url), one, url
                    found[name] = led[name][0]

        async def lead(to: Mapping[str, str]) -> None:
            for name, (backend, own, place) in led.items():
                url = to.get(name, "").rstrip("/")
                if (url or place) == backend.place:
                    continue
                _log.info("A backend is elsewhere now", program=backend.name, was=backend.place, now=url or place)
                if not url:
                    backend.lead(own, place)
                    continue
                # What was asked before ends on connections of its own; they are closed with all others.
                opening = backends.opened(PROGRAMS[name].name, url, patience, context=context)
                backend.lead(await stack.enter_async_context(opening), url)

        others = None
        members = frozenset(str(m.name).lower() for m in cluster.members if m.kind == "muster")
        if ("content" in found or settings.mirror is not None) and fill.is_possible(cluster):
            filling = fill.opened(among_us, patience, collected, after_s=settings.fill_after_s, hold_s=settings.hold_s)
            others = await stack.enter_async_context(filling)
        pub = stack.enter_context(contextlib.closing(Pub(settings.pub, joining)))
        images = None
        if "registry" in found:
            uploads = Uploads(str(member.name), others.other) if others is not None else None
            images = Registry(found["registry"], found.get("content"), others, uploads)
        yield Content(
            str(member.name),
            found,
            pub,
            gate,
            others,
            members,
            member.address,
            images,
            keepers=settings.keepers,
            lead=lead,
        )
