"""What a client gets below a repository that is followed: all of one version, and packages that are what that version names.

Source: docs/facts/content-and-boot.md §8.6.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import mimetypes
import re
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar
from urllib.parse import unquote

from prometheus_client import CollectorRegistry

from muster.content import conditions, given, headers, kinds, validators
from muster.content.backend import Answer, once
from muster.content.call import Call
from muster.content.given import Clients, Given
from muster.content.index import Expected, Index
from muster.content.kept import Kept
from muster.content.known import Known
from muster.content.manifest import Manifest
from muster.content.metadata.malformed import Malformed
from muster.content.metrics import AnswerMetrics
from muster.content.mirror import paths, tree
from muster.content.mirror.answers import Answers
from muster.content.resume import resumed
from muster.content.staging import KEPT_PATH, SHOWN_PATH
from muster.content.validators import Digest
from muster.content.views import Shown
from muster.edge.replies import SERVER_HEADER, Header, Reply, Streamed, not_found, reply
from muster.edge.request import Request
from muster.kernel import log
from muster.kernel.errors import MusterError, NotFound, Unavailable
from muster.kernel.names import shown

_log = log.logger("content")

_MANIFESTS = 512
_INDEXES = 128
# Of a repository so many versions are looked through for a package, what is shown first, then from the newest.
_VERSIONS = 32
# What is read whole before it is judged, so that somebody else can be asked when it is something else.
_JUDGED_WHOLE_BYTES = 1 << 20
_VERIFIED = 20_000
# What is gone, was not asked for under a condition, or is shorter than the part that was asked for.
_NOT_IT = frozenset({304, 410, 416})
_TAG_CHARACTERS = 256
# Without a validator what differed may be another one the next time.
_DIFFERS_S = 60.0
# Of what is larger a part is given as it comes: who asks for the end of it would wait too long for what is before.
_CHECKED_FOR_A_PART_BYTES = 64 << 20
_PAUSE_S = 0.25
# Another member that takes longer is not waited for: it may remember nothing.
_GIVEN_S = 1.0
_GIVEN_BYTES = 4096
# As they come here, without what the place of members is called.
_KEPT = re.compile(KEPT_PATH.removeprefix("/.muster") + r"/([0-9a-f]{64})\Z")
_GIVEN = re.compile(given.PATH.removeprefix("/.muster") + r"/([0-9a-f]{32})\Z")
_SHOWN = SHOWN_PATH.removeprefix("/.muster")
# 16 MiB at most.
_HELD_EACH_BYTES = 64 << 10
_HELD = 256
# Of what has no digest in its name.
_SMALL_BYTES = 4 << 20
_TYPES = {
    ".gz": b"application/gzip",
    ".bz2": b"application/x-bzip2",
    ".xz": b"application/x-xz",
    ".rpm": b"application/x-rpm",
}

Key = TypeVar("Key")
Value = TypeVar("Value")


class _Elsewhere(Exception):
    """It is its Pulp's to answer."""


class Current(Protocol):
    """Says which version of a repository clients get now (:meth:`muster.content.following.Following.current`)."""

    async def __call__(self, path: str, certificate: bytes | None, *, alone: bool = False) -> Shown | None: ...


class Repositories:
    """Answers in one process.

    Args:
        known: what is followed; changed by whoever follows.
        clients: remembers which they were given.
        hold_s: how long a call waits for what is on its way to this disk.
        mirror: answers packages of what is mirrored; None: nothing is.
        counted: gets where answers came from.
    """

    def __init__(
        self,
        kept: Kept,
        known: Known,
        current: Current,
        clients: Clients,
        *,
        hold_s: float,
        mirror: Answers | None = None,
        counted: AnswerMetrics | None = None,
    ) -> None:
        self.known = known
        self._mirror = mirror
        self._counted = counted if counted is not None else AnswerMetrics(CollectorRegistry())
        self._hold_s = hold_s
        self._kept, self._current, self._clients = kept, current, clients
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._manifests: OrderedDict[str, Manifest] = OrderedDict()
        self._indexes: OrderedDict[str, Index] = OrderedDict()
        # What was found to be what it should be: whose it was, its validators there, and what it should be.
        self._verified: OrderedDict[tuple[str, ...], None] = OrderedDict()
        # And what was not, with when that was.
        self._differing: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._refusals = log.Seldom(most=1)

    def close(self) -> None:
        """Close what is open of the disk."""
        for index in self._indexes.values():
            index.close()
        self._indexes.clear()

    async def answer(
        self, call: Call, path: str, theirs: str, request: Request, *, is_between_us: bool
    ) -> Reply | Streamed | None:
        """Answer a reading call for a path at Pulp, ``theirs`` as the client sent it; None: it is Pulp's to answer.

        Raises:
            Unavailable: who has it, or says who may have it, could not be asked.
        """
        try:
            return await self._answer(call, path, theirs, request, is_between_us=is_between_us)
        except _Elsewhere:
            return None

    async def _answer(
        self, call: Call, path: str, theirs: str, request: Request, *, is_between_us: bool
    ) -> Reply | Streamed | None:
        if "?" in path or "//" in path:
            return None
        # Of what is mirrored also what nobody has asked for yet is known.
        mirrored = self._mirror.known if self._mirror is not None and paths.is_mirrored(path) else self.known
        found = mirrored.of(path) or self.known.of(path)
        if is_between_us:
            return await self._named(call, path, request, *found) if found is not None else None
        found = await self._nearest(path, found)
        if found is None:
            beside, below = mirrored.archive(path)
            if not beside:
                beside, below = self.known.archive(path)
            return await self._package(call, path, theirs, request, beside, below) if beside else None
        at, below = found
        kind = kinds.of(at)
        if below in kind.plain or (paths.is_mirrored(at) and kind.plain_at(unquote(below))):
            return await self._of_the_version(call, path, theirs, request, at, below)
        if validators.named(path) is not None:
            return await self._named(call, path, request, at, below)
        if kind.names_alone:
            return await self._of_the_version(call, path, theirs, request, at, below)
        return await self._package(call, path, theirs, request, (at,), below)

    async def version(self, at: str, call: Call) -> Manifest | None:
        """Return what clients get now of what is mirrored; None: nothing.

        Raises:
            Unavailable: it is neither here, nor does another member give it.
        """
        shown = await self._current(at, None)
        return await self._manifest(shown.manifest, call) if shown is not None else None

    async def versions_here(self, at: str) -> list[Manifest]:
        """Return the versions of a repository that lie on this disk."""
        found = [await self._manifest_here(one) for one in self._manifests_of(at)]
        return [one for one in found if one is not None]

    async def package(self, at: str, below: str, call: Call, request: Request) -> Reply | Streamed | None:
        """Answer a package of what is mirrored; None: no version that is here, or is shown, names it.

        Raises:
            Unavailable: it cannot be had now, or what names it is not here yet.
        """
        path = f"{at}/{below}"
        found = await self._package(call, path, path, request, (at,), below)
        shown = await self._current(at, None) if found is None else None
        if shown is not None and shown.manifest not in self._manifests_of(at):
            raise Unavailable("The version that is shown is not on this disk yet")
        return found

    async def _nearest(self, path: str, found: tuple[str, str] | None) -> tuple[str, str] | None:
        """Return the repository that a path lies in: what is followed, or what this is the entry of, be it inside that."""
        begun = kinds.begun(path)
        if found is None or begun is None or len(begun[0]) <= len(found[0]):
            return found or begun
        at, below = found
        for one in self._manifests_of(at):
            manifest = await self._manifest_here(one)
            if manifest is not None and unquote(below) in manifest.files:
                return found
        return begun

    async def to_member(self, path: str, request: Request) -> Reply | Streamed:
        """Answer another member: what lies on this disk, what a client was given here, or what the store says is shown."""
        if (digest := _KEPT.match(path)) is not None:
            for kept in (self._kept, *([self._mirror.packages.kept] if self._mirror is not None else [])):
                found = await kept.answer(digest[1], request, content_type=b"application/octet-stream")
                if found is not None:
                    return found
            return not_found()
        if (key := _GIVEN.match(path)) is not None:
            noted = await self._clients.noted(key[1])
            return reply(200, noted.written(), b"text/plain") if noted is not None else not_found()
        if path.startswith(_SHOWN):
            shown = await self._current(path.removeprefix(_SHOWN), None, alone=True)
            return reply(200, shown.written(), b"text/plain") if shown is not None else not_found()
        return not_found()

    async def _of_the_version(
        self, call: Call, path: str, theirs: str, request: Request, at: str, below: str
    ) -> Reply | Streamed | None:
        """Answer what belongs to the version that a client has, or is shown now, and has no digest in its name."""
        # A repository has one name here.
        if "%" in at:
            return None
        refused, is_open = await self._refused(call, at)
        if refused is not None:
            return refused
        shown = await self._current(at, None if is_open else call.client.certificate)
        if shown is None:
            # What not all members have yet is nowhere.
            return not_found() if self._mirror is not None and paths.is_mirrored(at) else None
        kind = kinds.of(at)
        # Of a repository in a tree the entry is one, too, as far as there is one.
        name = kind.plain_at(unquote(below)) or below
        is_told_apart = name in kind.entries or not (kind.names_alone or name in kind.beside)
        version = shown.manifest if is_told_apart else await self._given(call, at, shown)
        manifest = await self._manifest(version, call)
        digest = manifest.files.get(unquote(below))
        if digest is not None:
            # Installers ask for what their tree consists of before they ask for an entry, if they ever do.
            if (name in kind.entries or name in tree.FILES) and request.method == "GET":
                await self._clients.note(given.key(at, call.client), version)
            return await self._of_members(digest, below, call, request)
        if below in kind.plain:
            return not_found()
        home = kind.home(at)
        at_home = f"{at}/{below}"[len(home) + 1 :]
        return await self._package(call, path, theirs, request, (at,), at_home, version=version)

    async def _given(self, call: Call, at: str, shown: Shown) -> str:
        """Return the manifest of the version that a client was given last, while what is shown is new; else of that."""
        if not shown.is_new:
            return shown.manifest
        key = given.key(at, call.client)
        here = await self._clients.noted(key)
        if here is not None and here.manifest == shown.manifest:
            # Nobody is given an older one after it.
            return shown.manifest
        told = [here]
        if call.fill is not None:
            answers = await call.fill.each(
                f"{given.PATH}/{key}", (), call.client, limit_bytes=_GIVEN_BYTES, within_s=_GIVEN_S
            )
            told += [Given.read(one.body) for one in answers if one is not None and one.status == 200]
        found = [one for one in told if one is not None]
        return min(found, key=lambda one: one.age_s).manifest if found else shown.manifest

    async def _named(self, call: Call, path: str, request: Request, at: str, below: str) -> Reply | Streamed | None:
        """Answer what is named by its digest and lies on this disk."""
        named = validators.named(path)
        if named is None:
            return None
        if named.algorithm == "sha256" and not await self._is_here(named.value):
            return None
        key = await self._key(at, below, named)
        if key is None or not await self._is_here(key):
            return None
        refused, _ = await self._refused(call, at)
        return refused if refused is not None else await self._of_disk(key, named, below, request)

    async def _is_here(self, key: str) -> bool:
        return key in self._held or await self._here(self._kept.has(key), False)

    async def _here(self, looking: Awaitable[Value], otherwise: Value) -> Value:
        """Return what was looked for on this disk. One that refuses has nothing for clients: somebody else may have it."""
        try:
            return await looking
        except (Unavailable, NotFound, Malformed) as e:
            self._say_refused(e)
            return otherwise

    async def _read(self, digest: str) -> bytes | None:
        found = await self._here(self._kept.open(digest, removes_damaged=True), None)
        return await self._here(self._kept.taken(found), None) if found is not None else None

    def _say_refused(self, e: MusterError) -> None:
        if (held := self._refusals.held_back("disk")) is not None:
            _log.warning(f"What lies on this disk is not given from it{log.and_more(held)}", why=str(e))

    async def _key(self, at: str, below: str, named: Digest) -> str | None:
        """Return the SHA-256 of what versions of a repository have under a name with a digest; None: none of them has it.

        What another repository has is for whom that one's guard lets in.
        """
        manifests = self._manifests_of(at)
        for one in manifests:
            manifest = await self._manifest_here(one)
            if manifest is not None and (key := _named_in(manifest, below, named)) is not None:
                return key
        # What came is shown a moment before this process hears of it.
        shown = None
        with contextlib.suppress(Unavailable):
            shown = await self._current(at, None, alone=True)
        if shown is None or shown.manifest in manifests:
            return None
        manifest = await self._manifest_here(shown.manifest)
        return _named_in(manifest, below, named) if manifest is not None else None

    async def _package(
        self,
        call: Call,
        path: str,
        theirs: str,
        request: Request,
        repositories: Sequence[str],
        below: str,
        *,
        version: str = "",
    ) -> Reply | Streamed | None:
        """Answer a package, whose size and digest a version of one of these names; Pulp has its bytes, or another Pulp.

        ``version`` is the manifest that counts, empty: the one that is shown.
        """
        found = await self._expected(call, repositories, below, version)
        if found is None:
            return None
        at, expected = found
        digest = Digest(expected.algorithm, expected.digest)
        said: list[Header] = [(b"etag", digest.tag.encode()), (b"accept-ranges", b"bytes")]
        part: tuple[int, int] | Reply | None = None
        if (instead := conditions.instead(request, digest, said)) is None and request.method != "HEAD":
            part = conditions.part(request, digest, expected.size)
            instead = part if isinstance(part, Reply) else None
        if isinstance(part, Reply) or instead is not None or request.method == "HEAD":
            refused, _ = await self._refused(call, at)
            if refused is not None:
                return refused
            if instead is not None:
                return instead
            length = (b"content-length", b"%d" % expected.size)
            return Reply(200, b"", [*said, length, (b"content-type", _type(below)), SERVER_HEADER])
        if self._mirror is not None and paths.is_mirrored(at):
            return await self._mirrored(self._mirror, at, below, expected, request)
        sent = headers.unconditional(call.sent)
        is_of_several = False

        async def ask(part: tuple[int, int] | None, *, own_last: bool = False) -> Answer:
            async def judged(answer: Answer) -> Answer:
                return await self._judged(answer, expected, request, part)

            these = sent if part is None else [*sent, ("Range", f"bytes={part[0]}-{part[1]}")]
            return await call.ask("GET", path, theirs=theirs, sent=these, own_last=own_last, judged=judged)

        async def rest(first: int, last: int) -> Answer:
            nonlocal is_of_several
            is_of_several = True
            # The own backend's may be what broke.
            return await ask((first, last), own_last=True)

        got = await ask(part)
        is_checked = expected.size <= _CHECKED_FOR_A_PART_BYTES
        if got.status == 206 and is_checked and not self._is_verified(got, expected):
            # A part proves nothing: the whole is read, once.
            got.end()
            got = await ask(None)
        if got.status in (200, 206):
            self._counted.answered("pulp" if got.of == call.own.name else "sibling")
        if got.status == 200:
            got = self._verifying(resumed(got, rest), expected, lambda: is_of_several)
            if part is not None and is_checked:
                got = _part_of(got, *part, expected.size)
        elif got.status == 206:
            got = resumed(got, rest)
        passed = headers.answered(got.headers, keeps_validators=False)
        if got.status in (200, 206):
            passed.append(said[0])
        return Streamed(got.status, [*passed, SERVER_HEADER], got.pieces, got.end)

    async def _mirrored(
        self, mirror: Answers, at: str, below: str, expected: Expected, request: Request
    ) -> Reply | Streamed:
        try:
            got = await mirror.package(at, below, expected, request, content_type=_type(below))
        except MusterError as e:
            # Where origins are, and with which accounts and files they are asked, is for who runs this to know, and not for
            # whoever reaches the port.
            if (held := self._refusals.held_back(at)) is not None:
                _log.warning(f"A package was not given{log.and_more(held)}", repository=at, path=below, why=str(e))
            raise type(e)(f"{shown(unquote(below), 200)} is not to be had now; the member's log says why") from None
        if not isinstance(got, Answer):
            self._counted.answered("disk")
            return got
        if got.status != 200:
            got.end()
            return not_found()
        self._counted.answered("origin")
        got = self._verifying(got, expected)
        digest = Digest(expected.algorithm, expected.digest)
        passed = [(b"content-type", _type(below)), (b"etag", digest.tag.encode()), (b"accept-ranges", b"bytes")]
        passed += headers.answered(got.headers, keeps_validators=False)
        return Streamed(200, [*passed, SERVER_HEADER], got.pieces, got.end)

    def _manifests_of(self, at: str) -> tuple[str, ...]:
        """Return the versions of a repository that are here: the one that is shown first."""
        found = [k.repositories.get(at) for k in (self.known, *([self._mirror.known] if self._mirror else []))]
        return tuple(dict.fromkeys(m for one in found if one is not None for m in one.manifests))

    async def _expected(
        self, call: Call, repositories: Sequence[str], below: str, version: str
    ) -> tuple[str, Expected] | None:
        """Return what a path below repositories has to be, and which of them says so; None: no version here names it."""
        # By repository and manifest; many versions have the same packages.
        named: dict[tuple[str, str], Expected] = {}
        seen: dict[str, Expected | None] = {}
        for at in repositories:
            for one in (version,) if version else self._manifests_of(at)[:_VERSIONS]:
                manifest = await self._manifest_here(one)
                if manifest is None or not manifest.packages:
                    continue
                if manifest.packages not in seen:
                    # dnf writes a plus sign as %2b.
                    seen[manifest.packages] = await self._found(manifest.packages, unquote(below))
                if (found := seen[manifest.packages]) is not None:
                    named[at, one] = found
        if not named:
            return None
        if len({e.digest for e in named.values()}) > 1:
            # Which of them depends on the moment.
            for at in dict.fromkeys(at for at, _ in named):
                shown = await self._current(at, None)
                if shown is None:
                    continue
                # What is mirrored is found by its bytes, so each client gets those that its own metadata names.
                is_mirrored = self._mirror is not None and paths.is_mirrored(at)
                given_last = await self._given(call, at, shown) if is_mirrored else shown.manifest
                for one in (given_last, shown.manifest):
                    if (at, one) in named:
                        return at, named[at, one]
        (at, _), expected = next(iter(named.items()))
        return at, expected

    async def _refused(self, call: Call, at: str) -> tuple[Reply | None, bool]:
        """Return what whoever may not read a repository hears, and whether anybody may.

        What lies here says nothing of who may have it: the repository's guard does, at Pulp, each time. Only who is let in
        there is: a Pulp that does not have the repository has no guard of it either. What was open when it was asked last
        stays so while no Pulp can be asked.

        Raises:
            _Elsewhere: its Pulp sends clients somewhere else, an object store for one, where others are let in or not.
        """
        followed = self.known.repositories.get(at)
        is_mirrored = self._mirror is not None and at in self._mirror.known.repositories
        if is_mirrored or (followed is not None and followed.is_open):
            return None, True
        was_open = followed is not None and followed.is_open is None
        sent = headers.unconditional(call.sent)
        status = 404
        for entry in kinds.of(at).entries:
            try:
                answer = await call.ask("HEAD", f"{at}/{entry}", sent=sent)
            except MusterError:
                if was_open:
                    return None, True
                raise
            answer.end()
            status = answer.status
            if status == 200:
                return None, False
            if status >= 500 and was_open:
                return None, True
            if status < 400:
                raise _Elsewhere
            if status != 404:
                break
        return (not_found() if status == 404 else reply(status, b"", b"text/plain")), False

    async def _judged(
        self, answer: Answer, expected: Expected, request: Request, part: tuple[int, int] | None
    ) -> Answer:
        """Return an answer that may be what is expected, or 404 in its place; ``part`` of it was asked for, None: all."""
        if answer.status not in (200, 206):
            return _absent(answer) if answer.status in _NOT_IT or answer.status < 300 else answer
        said = {name.lower(): value for name, value in answer.headers}
        whole = (0, expected.size - 1)
        first, last = part if part is not None and answer.status == 206 else whole
        span = f"bytes {first}-{last}/{expected.size}"
        is_it = answer.status == 200 or (part is not None and said.get("content-range", "") == span)
        length = said.get("content-length")
        if not is_it or length not in (None, str(last - first + 1)) or self._differs(answer, expected):
            return _absent(answer)
        if length is None:
            # Pulp fetches it on demand; what it will be is known.
            answer = replace(answer, headers=[*answer.headers, ("Content-Length", str(last - first + 1))])
        if answer.status == 206 or expected.size > _JUDGED_WHOLE_BYTES or self._is_verified(answer, expected):
            return answer
        body = await answer.whole(expected.size, hold=request.hold)
        if body is None or len(body) != expected.size or not _is_of(body, expected):
            self._note_differs(answer, expected)
            return Answer.absent(answer.of)
        self._note_verified(answer, expected)
        return replace(answer, pieces=once(body), end=lambda: None)

    def _verifying(
        self, answer: Answer, expected: Expected, is_of_several: Callable[[], bool] = lambda: False
    ) -> Answer:
        """Return an answer that ends well only when it was what is expected: its last piece is held back until then.

        ``is_of_several``: not all of it came from whose answer it is, so it says nothing of him.
        """
        if self._is_verified(answer, expected):
            return answer

        async def pieces() -> AsyncGenerator[bytes, None]:
            hashed, held = hashlib.new(expected.algorithm), b""
            async with contextlib.aclosing(answer.pieces) as coming:
                async for piece in coming:
                    if held:
                        yield held
                    hashed.update(piece)
                    held = piece
            if hashed.hexdigest() != expected.digest:
                if not is_of_several():
                    self._note_differs(answer, expected)
                raise Unavailable(f"{answer.of} has other bytes than the repository names")
            if not is_of_several():
                self._note_verified(answer, expected)
            yield held

        return replace(answer, pieces=pieces())

    def _is_verified(self, answer: Answer, expected: Expected) -> bool:
        key = _key(answer, expected)
        return bool(key[1]) and key in self._verified

    def _note_verified(self, answer: Answer, expected: Expected) -> None:
        # Without a validator nothing says that it is the same the next time.
        if (key := _key(answer, expected))[1]:
            _remember(self._verified, key, None, _VERIFIED)

    def _differs(self, answer: Answer, expected: Expected) -> bool:
        """Whether it was other bytes a moment ago: who got these asks again, and gets those of somebody else."""
        key = _key(answer, expected)
        noted_at = self._differing.get(key)
        return noted_at is not None and (bool(key[1]) or time.monotonic() - noted_at < _DIFFERS_S)

    def _note_differs(self, answer: Answer, expected: Expected) -> None:
        _remember(self._differing, _key(answer, expected), time.monotonic(), _VERIFIED)

    async def _of_disk(
        self, key: str, named: Digest, below: str, request: Request, also: Sequence[Header] = ()
    ) -> Reply | Streamed | None:
        """Answer with a file on this disk, by its SHA-256; a small one that was asked for lately is held in memory."""
        asks_range = b"range" in request.headers
        body = self._held.get(key)
        if body is None or asks_range:
            if (found := await self._here(self._kept.open(key, removes_damaged=True), None)) is None:
                return None
            if asks_range or found.size > _HELD_EACH_BYTES:
                self._counted.answered("disk")
                return self._kept.answered(found, key, request, content_type=_type(below), digest=named, also=also)
            if (body := await self._here(self._kept.taken(found), None)) is None:
                return None
            _remember(self._held, key, body, _HELD)
        self._counted.answered("disk")
        return _answered(body, named, below, request, also)

    async def _of_members(self, digest: str, below: str, call: Call, request: Request) -> Reply | Streamed:
        """Answer with a file of a version, whose name says nothing of it: from this disk, or as another member has it."""
        also: Sequence[Header] = ((b"cache-control", b"no-cache"),)
        named = Digest("sha256", digest)
        if (found := await self._of_disk(digest, named, below, request, also)) is not None:
            return found
        if below in kinds.plain():
            body = await self.small(digest, call)
            self._counted.answered("sibling")
            return _answered(body, named, below, request, also)
        passed = [(b"content-type", _type(below)), *also, (b"etag", named.tag.encode())]
        if (instead := conditions.instead(request, named, passed)) is not None:
            return instead
        answer = await self._through(digest, passed, call, request)
        self._counted.answered("sibling")
        return answer

    async def small(self, digest: str, call: Call) -> bytes:
        """Return a small file of a version. Where this member does not have it yet, another has.

        Raises:
            Unavailable: none gives it.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._hold_s
        while True:
            if (body := await self._read(digest)) is not None:
                return body
            if call.fill is not None and (body := await self._of_others(digest, call)) is not None:
                return body
            if loop.time() + _PAUSE_S > until:
                raise Unavailable("The version that is shown is not on this disk yet, and no other member gives it")
            await asyncio.sleep(_PAUSE_S)

    async def _through(self, digest: str, passed: list[Header], call: Call, request: Request) -> Streamed:
        """Answer with a file of any size as another member has it, while it comes."""
        if call.fill is None:
            raise Unavailable("The version that is shown is not on this disk")
        answer = await call.fill.elsewhere(request.method, f"{KEPT_PATH}/{digest}", [], call.client)
        if answer.status != 200:
            answer.end()
            raise Unavailable("The version that is shown is not on this disk, and no other member gives it")
        length = [(k.lower().encode(), v.encode()) for k, v in answer.headers if k.lower() == "content-length"]
        if request.method != "HEAD":
            answer = self._verifying(answer, Expected(0, "sha256", digest))
        return Streamed(200, [*passed, *length, SERVER_HEADER], answer.pieces, answer.end)

    async def _of_others(self, digest: str, call: Call) -> bytes | None:
        assert call.fill is not None  # noqa: S101 - asked before
        answer = await call.fill.elsewhere("GET", f"{KEPT_PATH}/{digest}", [], call.client)
        body = await answer.whole(_SMALL_BYTES)
        is_it = answer.status == 200 and body is not None and hashlib.sha256(body).hexdigest() == digest
        return body if is_it else None

    async def _manifest(self, digest: str, call: Call) -> Manifest:
        if (found := await self._manifest_here(digest)) is not None:
            return found
        return _remember(self._manifests, digest, Manifest.read(await self.small(digest, call)), _MANIFESTS)

    async def _manifest_here(self, digest: str) -> Manifest | None:
        found = self._manifests.get(digest)
        if found is None and (body := await self._read(digest)) is not None:
            found = Manifest.read(body)
        return _remember(self._manifests, digest, found, _MANIFESTS) if found is not None else None

    async def _found(self, packages: str, href: str) -> Expected | None:
        """Return what an index, by its digest, says of a path; None: nothing, or the disk refused."""
        index = self._indexes.get(packages)
        if index is None:
            if (file := await self._here(self._kept.open(packages, removes_damaged=True), None)) is not None:
                file.close()
            path = await self._here(self._kept.path(packages), None)
            opened = await self._here(asyncio.to_thread(Index.opened, path), None) if path is not None else None
            if opened is None:
                return None
            if (index := self._indexes.get(packages)) is not None:
                # Somebody else was quicker.
                opened.close()
            else:
                index = opened
                if len(self._indexes) >= _INDEXES:
                    self._indexes.popitem(last=False)[1].close()
        _remember(self._indexes, packages, index, _INDEXES)
        try:
            return index.find(href)
        except MusterError as e:
            self._say_refused(e)
            self._indexes.pop(packages).close()
            return None


def _answered(body: bytes, named: Digest, below: str, request: Request, also: Sequence[Header]) -> Reply:
    """Answer with a small file as a whole."""
    return conditions.answered(body, request, named, [(b"content-type", _type(below)), *also])


def _named_in(manifest: Manifest, below: str, named: Digest) -> str | None:
    if named.algorithm != "sha256":
        return manifest.files.get(below)
    return named.value if named.value in manifest.files.values() else None


def _remember(kept: OrderedDict[Key, Value], key: Key, value: Value, most: int) -> Value:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)
    return value


def _key(answer: Answer, expected: Expected) -> tuple[str, str, str, str]:
    said = {name.lower(): value for name, value in answer.headers}
    tag, date = said.get("etag", ""), said.get("last-modified", "")
    # Thousands of them are remembered.
    return (
        (answer.of, tag, date, expected.digest)
        if len(tag + date) <= _TAG_CHARACTERS
        else (answer.of, "", "", expected.digest)
    )


def _part_of(whole: Answer, first: int, last: int, size: int) -> Answer:
    """Return a part of an answer, both ends included; its last piece is held back until the whole has ended well."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        at, held = 0, b""
        async with contextlib.aclosing(whole.pieces) as coming:
            async for piece in coming:
                some = piece[max(0, first - at) : max(0, last + 1 - at)]
                at += len(piece)
                if some:
                    if held:
                        yield held
                    held = some
        if held:
            yield held

    kept = [(k, v) for k, v in whole.headers if k.lower() not in ("content-length", "content-range")]
    said = [("Content-Length", str(last - first + 1)), ("Content-Range", f"bytes {first}-{last}/{size}")]
    return replace(whole, status=206, headers=[*kept, *said], pieces=pieces())


def _is_of(body: bytes, expected: Expected) -> bool:
    return hashlib.new(expected.algorithm, body).hexdigest() == expected.digest


def _absent(instead_of: Answer) -> Answer:
    instead_of.end()
    return Answer.absent(instead_of.of)


def _type(below: str) -> bytes:
    known = next((kind for end, kind in _TYPES.items() if below.endswith(end)), None)
    return known or (mimetypes.guess_type(below)[0] or "application/octet-stream").encode()
