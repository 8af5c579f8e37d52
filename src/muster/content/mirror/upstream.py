"""A repository of a registry, asked as any origin is: what names its state is made here, of what its tags name.

Source: the OCI distribution specification 1.1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Container, Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote

from muster.cluster.mirror import Mirrored
from muster.content.backend import Answer, once
from muster.content.kept import Differs, Oversized
from muster.content.manifest import TAGS
from muster.content.metadata import image
from muster.content.metadata.image import DIGEST, INDEXES, LIMIT_MANIFESTS, LIMIT_TAGS, TAG, Described, Tags
from muster.content.metadata.malformed import Malformed
from muster.content.mirror.links import following
from muster.content.mirror.origin import Origin
from muster.content.mirror.targets import Target
from muster.content.mirror.tokens import Tokens
from muster.kernel import log
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import NotFound, Rejected, Unavailable
from muster.kernel.names import shown
from muster.kernel.tasks import each

_log = log.logger("content")

_BELOW = re.compile(r"/(?P<what>manifests|blobs)/(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")
_ACCEPT = ("Accept", ", ".join(sorted(image.IMAGES | INDEXES)))
# What clients look for beside an image: its signatures, and what refers to it where a registry does not tell that.
_BESIDE = re.compile(r"sha256-(?P<hex>[0-9a-f]{64})(?:\.[A-Za-z0-9._-]+)?\Z")
_MANY = "?n=1000"
_LIMIT_PAGES = 200
_LIMIT_LISTED = 100_000
_PAGE_BYTES = 4 << 20
_DEEPEST = 3
_AT_ONCE = 8
_ABSENT = (404, 410)
# A registry that has enough of it is asked again when it says, so often, and where that is not for longer.
_LIMIT_WAITS, _LONGEST_WAIT_S = 4, 60
# So many manifests that indexes name are remembered, with those.
_LIMIT_REMEMBERED = 2 * LIMIT_MANIFESTS
_LIMIT_CAME_BYTES = 4 << 20
_NAMED = 5
_LONGEST_NUMBER = 10


class _Page(NamedTuple):
    names: list[str]
    following: Target | None


async def _nothing(_: str) -> bytes | None:
    return None


class Upstream:
    """One. Concurrency: any number of tasks of one loop.

    Registries count how many manifests they are asked for, so none is asked for twice.

    Args:
        kept: returns what lies on this disk, by its SHA-256; None: it does not.
    """

    def __init__(
        self,
        name: str,
        mirrored: Mirrored,
        origin: Origin,
        *,
        kept: Callable[[str], Awaitable[bytes | None]] = _nothing,
        clock: Clock | None = None,
    ) -> None:
        assert mirrored.upstream is not None  # noqa: S101 - it is of the kind container
        self.name = origin.name
        self._setting = f"content.mirror.repositories.{name}"
        self._origin, self._kept = origin, kept
        self._left_out = tuple(one[1:] for one in mirrored.tags or () if one.startswith("!"))
        self._patterns = mirrored.tags
        if mirrored.tags is not None:
            self._patterns = tuple(one for one in mirrored.tags if not one.startswith("!")) or ("*",)
        self._base = f"/v2/{mirrored.upstream}"
        self.url = str(origin.root.below(self._base))
        self._clock = clock or SystemClock()
        self._tokens = Tokens(name, mirrored, origin, clock=self._clock)
        # What an index names, by its digest, which says that it stays so.
        self._named: dict[str, tuple[Described, ...]] = {}
        self._room = _LIMIT_REMEMBERED
        # A tag that leads to a manifest, by its digest.
        self._led: dict[str, str] = {}
        # Indexes that came to be read, until they are fetched, and how many bytes of more there may be.
        self._came: dict[str, bytes] = {}
        self._room_bytes = _LIMIT_CAME_BYTES

    async def ask(self, method: str, path: str, headers: Sequence[tuple[str, str]], /) -> Answer:
        """Return ``TAGS`` as it is now, a manifest, or a blob; as :meth:`muster.content.mirror.origin.Origin.ask`.

        Raises:
            NotFound: there is no such repository, or not the tags that are wanted.
            Rejected: it has more than is mirrored, or nothing that is.
            Malformed: what it answers is not what a registry does.
            Differs, Oversized: a manifest is not what it is called, or larger than they are.
            Unavailable: it refuses, or wants an account.
        """
        if path == f"/{TAGS}":
            body = (await self._now()).written()
            return Answer(self.name, 200, (("Content-Length", str(len(body))),), once(body), lambda: None)
        below = unquote(path)
        found = _BELOW.match(below)
        if found is None:
            raise Rejected(f"{shown(path)!r} is nothing that a registry is asked")
        came = self._came.pop(below.rpartition(":")[2], None) if method == "GET" and not headers else None
        if came is not None:
            return Answer(self.name, 200, (("Content-Length", str(len(came))),), once(came), lambda: None)
        answer = await self._asked(method, below, headers)
        if answer.status in _ABSENT and found["what"] == "manifests":
            answer.end()
            raise self._lacking(below.rpartition(":")[2])
        return answer

    def _lacking(self, hex_digest: str) -> Unavailable:
        said = f"{self.name} has no {self.url}/manifests/sha256:{hex_digest}"
        tag = self._led.get(hex_digest)
        if not tag:
            return Unavailable(f"{said}, which a tag or an index names")
        return Unavailable(f'{said}, which the tag {tag} leads to: "!{tag}" in {self._setting}.tags leaves that out')

    async def _asked(self, method: str, below: str, headers: Sequence[tuple[str, str]] = ()) -> Answer:
        path = f"{self._base}{quote(below, safe='/:')}"
        sent = [(k, v) for k, v in headers if k.lower() in ("range", "if-range")]
        if below.startswith("/manifests/"):
            sent.append(_ACCEPT)
        return await self._admitted(below, sent, lambda one: self._origin.ask(method, path, one))

    async def _admitted(
        self,
        what: str,
        sent: Sequence[tuple[str, str]],
        asked: Callable[[Sequence[tuple[str, str]]], Awaitable[Answer]],
    ) -> Answer:
        """Return an answer, once the registry has been shown what it wants, and has been left alone for as long as it wants.

        Whoever waits for a blob may be a client, who is told so and asks again itself.

        Raises:
            Unavailable: it refuses nevertheless.
        """
        for _ in range(_LIMIT_WAITS):
            answer = await self._shown_what_is_wanted(what, sent, asked)
            again_s = _again_s(answer) if not what.startswith("/blobs/") else None
            if again_s is None:
                return answer
            answer.end()
            await self._clock.sleep(again_s)
        return await self._shown_what_is_wanted(what, sent, asked)

    async def _shown_what_is_wanted(
        self,
        what: str,
        sent: Sequence[tuple[str, str]],
        asked: Callable[[Sequence[tuple[str, str]]], Awaitable[Answer]],
    ) -> Answer:
        had = self._tokens.shown
        answer = await asked([*sent, *_authorization(had)])
        if answer.status == 401:
            said = [v for k, v in answer.headers if k.lower() == "www-authenticate"]
            answer.end()
            answer = await asked([*sent, *_authorization(await self._tokens.renew(said, had))])
        if answer.status in (401, 403):
            answer.end()
            raise Unavailable(
                f"{self.name} refuses {self.url}{shown(what, 200)}: {answer.status} ({self._setting}.user and "
                "password_file say who asks; many registries answer so for what is not there, too)"
            )
        return answer

    async def _now(self) -> Tags:
        """Return what the registry has now of what is wanted."""
        self._came, self._room_bytes, self._led = {}, _LIMIT_CAME_BYTES, {}
        names, is_said = await self._wanted()
        # Of what lies beside images under their digests registries have that of all there ever was, too.
        is_chosen = self._patterns is not None
        beside = {
            n: of["hex"] for n in names if is_chosen and n not in is_said and (of := _BESIDE.match(n)) is not None
        }
        tags: dict[str, str] = {}
        manifests: dict[str, Described] = {}
        left = [name for name in names if name not in beside]
        while left:
            if len(tags) + len(left) > LIMIT_TAGS:
                raise Rejected(
                    f"{len(tags) + len(left)} tags of {self.url} are wanted, and {LIMIT_TAGS} are mirrored: say fewer in "
                    f"{self._setting}.tags"
                )
            found = await self._tagged_by(left, is_said)
            for tag, one in sorted(found.items()):
                self._led.setdefault(one.hex, tag)
            await self._put_down(found.values(), manifests)
            tags |= {tag: one.hex for tag, one in found.items()}
            left = [tag for tag, of in beside.items() if of in manifests]
            beside = {tag: of for tag, of in beside.items() if of not in manifests}
        if not tags:
            raise Rejected(f"{self.url} has no tag of an image ({self._setting}.tags)")
        self._forget(manifests)
        return Tags(tags, {one.hex: (one.media, one.size) for one in manifests.values()})

    async def _tagged_by(self, names: Iterable[str], is_said: Container[str]) -> dict[str, Described]:
        """Return what tags name; which are not there, or no images, the log says.

        Raises:
            NotFound: one that the settings name is none.
        """
        found: dict[str, Described] = {}
        unknown: list[str] = []

        async def look(tag: str) -> None:
            one = await self._tagged(tag)
            if one is not None:
                found[tag] = one
            elif tag in is_said:
                raise NotFound(f"{self.url} has no tag {tag} of an image ({self._setting}.tags)")
            else:
                unknown.append(tag)

        await each(names, look, at_once=_AT_ONCE)
        if unknown:
            _log.warning(
                "Tags are not mirrored: they are gone, or of no image or index of today's types",
                repository=self.url, count=len(unknown), tags=sorted(unknown)[:_NAMED],
            )  # fmt: skip
        return found

    async def _put_down(self, named: Iterable[Described], manifests: dict[str, Described]) -> None:
        """Put down what is named, and all that indexes among that name."""
        layer = self._new(named, manifests)
        for _ in range(_DEEPEST):
            layer = await self._below(layer, manifests)
        if layer:
            raise Rejected(f"{self.url} has indexes of indexes, {_DEEPEST} and more deep, which are not mirrored")

    async def _below(self, layer: Iterable[Described], manifests: dict[str, Described]) -> list[Described]:
        """Return what the indexes among these name that is new, put down there."""
        found: list[Described] = []

        async def look(one: Described) -> None:
            new = self._new(await self._in_index(one), manifests)
            self._led |= dict.fromkeys((child.hex for child in new), self._led.get(one.hex, ""))
            found.extend(new)

        await each([one for one in layer if one.media in INDEXES], look, at_once=_AT_ONCE)
        return found

    def _new(self, named: Iterable[Described], manifests: dict[str, Described]) -> list[Described]:
        """Put down what is named, and return what of it is new.

        Raises:
            Malformed: it was named before, as something else: which of both counted would be chance.
            Rejected: it is too much.
        """
        found = []
        for one in named:
            before = manifests.setdefault(one.hex, one)
            if before is one:
                found.append(one)
            elif before != one:
                raise Malformed.reading(
                    f"{self.url}/manifests/sha256:{one.hex}",
                    f"it is described as {before.media} of {before.size} bytes, and as {one.media} of {one.size}",
                )
        if len(manifests) > LIMIT_MANIFESTS:
            raise Rejected(
                f"The tags of {self.url} name more than {LIMIT_MANIFESTS} manifests: say fewer in {self._setting}.tags"
            )
        return found

    async def _wanted(self) -> tuple[list[str], frozenset[str]]:
        """Return the tags to look at, and which of them the settings name themselves.

        Raises:
            NotFound: none is wanted, or one that the settings name is not there.
            Rejected: one that they name can be none.
        """
        patterns = self._patterns
        said = frozenset(p for p in patterns or () if not set(p) & {"*", "?"} and not self._is_left_out(p))
        if odd := sorted(one for one in said if not TAG.match(one)):
            raise Rejected(f"{odd[0]} is no tag ({self._setting}.tags)")
        if patterns is not None and all(not set(one) & {"*", "?"} for one in patterns):
            # Whoever says each of them needs no list, which may be long.
            return sorted(said), said
        listed = await self._listed()
        if missing := sorted(said - listed):
            raise NotFound(f"{self.url} has no tag {missing[0]} ({self._setting}.tags)")
        wanted = sorted(
            t for t in listed
            if (patterns is None or any(is_like(t, p) for p in patterns)) and not self._is_left_out(t)
        )  # fmt: skip
        if not wanted:
            raise NotFound(f"None of the {len(listed)} tags of {self.url} is wanted ({self._setting}.tags)")
        return wanted, said

    def _is_left_out(self, tag: str) -> bool:
        return any(is_like(tag, pattern) for pattern in self._left_out)

    async def _listed(self) -> frozenset[str]:
        """Return all tags; what is none is left out."""
        found: set[str] = set()
        at: Target | None = self._origin.root.below(f"{self._base}/tags/list{_MANY}")
        seen: set[str] = set()
        while at is not None:
            if at.path in seen or len(seen) >= _LIMIT_PAGES or len(found) > _LIMIT_LISTED:
                raise Malformed.reading(f"the tags of {self.url}", "they are too many, or their list has no end")
            seen.add(at.path)
            page = await self._page(at)
            found |= {name for name in page.names if TAG.match(name)}
            at = page.following
        return frozenset(found)

    async def _page(self, at: Target) -> _Page:
        answer = await self._admitted(
            "/tags/list", (), lambda sent: self._origin.ask_at(at, sent, f"{self.name} lists its tags at {at}")
        )
        if answer.status == 400 and at.path.endswith(_MANY):
            # It gives fewer at once, and some refuse whoever wants more.
            answer.end()
            return _Page([], at._replace(path=at.path.removesuffix(_MANY)))
        if answer.status in _ABSENT:
            answer.end()
            raise NotFound(f"There is no repository {self.url}: {self.name} answers {answer.status} for its tags")
        if answer.status != 200:
            answer.end()
            raise Unavailable(f"{self.name} answers {answer.status} for the tags of {self.url}")
        body = await answer.whole(_PAGE_BYTES)
        if body is None:
            raise Oversized(f"The list of the tags of {self.url} is larger than {_PAGE_BYTES >> 20} MiB")
        names = image.tags(body, of=f"the tags of {self.url}")
        return _Page(names, following(at, (v for k, v in answer.headers if k.lower() == "link")))

    async def _tagged(self, tag: str) -> Described | None:
        """Return what a tag names; None: it is not there, or no image."""
        answer = await self._asked("HEAD", f"/manifests/{tag}")
        answer.end()
        if answer.status in _ABSENT:
            return None
        if answer.status == 429 or answer.status >= 500:
            raise Unavailable(f"{self.name} answers {answer.status} for {self.url}/manifests/{tag}")
        said = {k.lower(): v.strip() for k, v in answer.headers}
        media = said.get("content-type", "").partition(";")[0].strip().lower()
        digest, length = said.get("docker-content-digest", ""), said.get("content-length", "")
        is_said = answer.status == 200 and DIGEST.match(digest) and media in image.IMAGES | INDEXES
        if is_said and length.isdecimal() and 0 < len(length) <= _LONGEST_NUMBER and int(length) > 0:
            return self._sized(Described(digest.removeprefix("sha256:"), media, int(length)), tag)
        # Who does not say it, shows it.
        body, headers = await self._manifest(tag)
        if body is None:
            return None
        media = headers.get("content-type", "").partition(";")[0].strip().lower() or media
        if media not in image.IMAGES | INDEXES:
            media = image.media(body, of=f"{self.url}:{tag}")
        if media not in image.IMAGES | INDEXES:
            return None
        found = Described(hashlib.sha256(body).hexdigest(), media, len(body))
        for one in (digest, headers.get("docker-content-digest", "")):
            if DIGEST.match(one) and one != f"sha256:{found.hex}":
                raise Differs(f"{self.name} says that {self.url}:{tag} is {one}, and gives sha256:{found.hex}")
        return self._sized(found, tag)

    def _sized(self, one: Described, tag: str) -> Described:
        if one.size > image.LIMIT_BYTES:
            raise Oversized(f"The manifest of {self.url}:{tag} is larger than {image.LIMIT_BYTES >> 20} MiB")
        return one

    async def _in_index(self, one: Described) -> tuple[Described, ...]:
        """Return what an index names."""
        known = self._named.get(one.hex)
        if known is not None:
            return known
        body = await self._kept(one.hex)
        if body is None:
            body, _ = await self._manifest(f"sha256:{one.hex}")
            if body is None:
                raise self._lacking(one.hex)
            if hashlib.sha256(body).hexdigest() != one.hex:
                raise Differs(f"{self.name} gives another {self.url}/manifests/sha256:{one.hex}")
            if len(body) <= self._room_bytes:
                self._came[one.hex] = body
                self._room_bytes -= len(body)
        found = image.manifests(body, of=f"{self.url}/manifests/sha256:{one.hex}")
        if len(found) < self._room:
            self._named[one.hex] = found
            self._room -= len(found) + 1
        return found

    def _forget(self, manifests: Container[str]) -> None:
        """Forget what indexes name that are nobody's any more."""
        self._named = {hex_digest: one for hex_digest, one in self._named.items() if hex_digest in manifests}
        self._room = _LIMIT_REMEMBERED - sum(len(one) + 1 for one in self._named.values())

    async def _manifest(self, reference: str) -> tuple[bytes | None, dict[str, str]]:
        answer = await self._asked("GET", f"/manifests/{reference}")
        headers = {k.lower(): v.strip() for k, v in answer.headers}
        if answer.status != 200:
            answer.end()
            if answer.status in _ABSENT:
                return None, headers
            raise Unavailable(f"{self.name} answers {answer.status} for {self.url}/manifests/{reference}")
        body = await answer.whole(image.LIMIT_BYTES)
        if body is None:
            raise Oversized(f"{self.url}/manifests/{reference} is larger than {image.LIMIT_BYTES >> 20} MiB")
        return body, headers


def is_like(name: str, pattern: str) -> bool:
    """Whether a name is as a pattern says: ``*`` is any characters, ``?`` one. In time of one length by the other."""
    at = in_pattern = 0
    star, after = -1, 0
    while at < len(name):
        if in_pattern < len(pattern) and pattern[in_pattern] == "*":
            star, after = in_pattern, at
            in_pattern += 1
        elif in_pattern < len(pattern) and pattern[in_pattern] in ("?", name[at]):
            at, in_pattern = at + 1, in_pattern + 1
        elif star >= 0:
            after += 1
            at, in_pattern = after, star + 1
        else:
            return False
    return not pattern[in_pattern:].strip("*")


def _again_s(answer: Answer) -> float | None:
    """Return in how many seconds a registry is to be asked again; None: this is its answer, or that would be too long."""
    said = next((v.strip() for k, v in answer.headers if k.lower() == "retry-after"), "")
    if answer.status != 429 or not said.isdecimal() or len(said) > _LONGEST_NUMBER or int(said) > _LONGEST_WAIT_S:
        return None
    return max(1.0, float(said))


def _authorization(value: str) -> list[tuple[str, str]]:
    return [("Authorization", value)] if value else []
