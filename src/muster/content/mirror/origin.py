"""An origin: where a repository is fetched from, asked within limits, wherever it leads.

What it sends is believed by nobody here; whoever reads it compares digests. What this file sees to is that an origin cannot
make a member ask what lies in the member's own networks, hold it up, or learn a certificate that was meant for another.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver

from muster.cluster.mirror import Mirror, Mirrored
from muster.content import backend
from muster.content.backend import Answer, Backend, BadGateway, GatewayTimeout, Patience, once
from muster.content.mirror import mirrors
from muster.content.mirror.addresses import Private, Public, refuse_private
from muster.content.mirror.pace import no_slower
from muster.content.mirror.targets import Target, plain, refuse_outside
from muster.content.resume import span_of
from muster.kernel import log
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Misconfigured, MusterError, Rejected, Unavailable
from muster.kernel.names import shown
from muster.kernel.pace import Pace
from muster.pki.context import RenewedContext
from muster.version import VERSION

_log = log.logger("content")

_METHODS = frozenset({"GET", "HEAD"})
_OURS = (("User-Agent", f"Muster/{VERSION}"), ("Accept-Encoding", "identity"))
_RANGE = re.compile(r"bytes=(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})\Z")
_VALIDATOR = re.compile(r"[ -~]{1,300}\Z")
_ACCEPT = re.compile(r"[a-z0-9.+*/, ;=-]{1,500}\Z")
_CREDENTIALS = re.compile(r"(?:Basic|Bearer) [!-~]{1,16384}\Z")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LIMIT_REDIRECTS = 5
# After these another mirror may have it. Of the second kind it is the mirror that is to blame, and not the file.
_ABSENT = frozenset({404, 410})
_ELSEWHERE = frozenset({401, 403, 408, 429, *_ABSENT})
_CONNECT_S = 10.0
# What of an answer that nobody wants is read, so that its connection can be kept.
_REST_BYTES, _REST_S = 16 << 10, 1.0
# How old a list gets; how soon after it was asked for it is asked for again, with mirrors and without.
_LIST_S, _LIST_AGAIN_S, _LIST_ANEW_S = 3600.0, 60.0, 5.0
# For so long a mirror that failed is asked after the others.
_LAST_S = 300.0
_SAID = 3


class Origin:
    """What a repository's origin has. Use :func:`opened`.

    Attributes:
        root: where it is, or where the list of its mirrors is.

    Concurrency: any number of tasks of one loop; ``connections`` of them are answered at once, the others wait.
    """

    def __init__(
        self,
        name: str,
        mirrored: Mirrored,
        mirror: Mirror,
        sessions: tuple[aiohttp.ClientSession, aiohttp.ClientSession],
        patience: Patience,
        pace: Pace | None,
        clock: Clock,
    ) -> None:
        self.name = f"origin {name}"
        self._setting = f"content.mirror.repositories.{name}.redirects_to"
        self._kind = mirrored.kind
        self._is_list = mirrored.url is None
        try:
            self.root = Target.of((mirrored.url or "").rstrip("/") or mirrored.mirror_list or "")
        except Rejected as e:
            raise Misconfigured(f"The address of {self.name} cannot be used: {e}") from None
        self.url = str(self.root)
        self._free = {self.root.key, *(plain(host) for host in mirrored.redirects_to)}
        self._near, self._far = sessions
        self._proxy = mirrored.proxy
        self._patience = patience
        self._pace = pace
        self._least_bytes_per_s = mirror.least_bytes_per_s
        self._clock = clock
        self._rooms = asyncio.Semaphore(mirror.connections)
        self._own_context, self._others_context = _contexts(mirrored)
        self._mirrors: tuple[Target, ...] = ()
        # When the list was read, and when that was tried, and what came of it where it never was.
        self._read_at = self._tried_at = -math.inf
        self._unread: MusterError | None = None
        self._reading = asyncio.Lock()
        self._failed_at: dict[Target, float] = {}

    async def ask(self, method: str, path: str, headers: Sequence[tuple[str, str]], /) -> Answer:
        """Return what the origin answers, or the first of its mirrors that has it, wherever that leads.

        ``path`` is quoted, and begins with a slash. Of the headers ``Range``, with one range, ``If-Range`` and ``Accept`` go
        on; ``Authorization`` to the origin's own server, but to no other that it leads to, and to no mirror. Whole bodies
        alone end well: pieces that are fewer than was said end with Unavailable, more with BadGateway. An answer that is
        neither 2xx nor 404 is one that the only place to ask gave.

        Raises:
            Rejected: another method than ``GET`` and ``HEAD``, or no such path.
            Unavailable: it cannot be reached, or no mirror gives it, and not most of them say that it is not there.
            GatewayTimeout: it did not begin to answer in time.
            BadGateway: what it answered is no HTTP, packed otherwise than asked for, or leads where nobody is led.
        """
        if method not in _METHODS:
            raise Rejected(f"{shown(method, 32)} is nothing that an origin is asked")
        refuse_outside(path)
        asked = [*_OURS, *_passed_on(headers)]
        return await self._in_a_room(method, path, partial(self._found, method, path, asked))

    async def ask_at(self, target: Target, headers: Sequence[tuple[str, str]], why: str, /) -> Answer:
        """Return what is answered to ``GET`` at an address that the origin has named; ``why`` says so where it is refused.

        Otherwise as :meth:`ask`: the address may be where a redirect may lead, and ``Authorization`` goes to it, and no
        further.
        """

        async def found() -> tuple[Answer, Target]:
            return await self._followed("GET", target, [*_OURS, *_passed_on(headers)], why), target

        return await self._in_a_room("GET", str(target), found)

    async def _in_a_room(
        self, method: str, path: str, find: Callable[[], Coroutine[Any, Any, tuple[Answer, Target]]]
    ) -> Answer:
        await self._rooms.acquire()
        try:
            answer, at = await find()
        except MusterError as e:
            self._rooms.release()
            raise self._about(path, e) from None
        except BaseException:
            self._rooms.release()
            raise
        return self._held(answer, at, path, is_bodiless=method == "HEAD")

    async def _found(self, method: str, path: str, asked: Sequence[tuple[str, str]]) -> tuple[Answer, Target]:
        """Return the first answer that is one, and the mirror that gave it."""
        if not self._is_list:
            return await self._followed(method, self.root.below(path), asked), self.root
        asked = _without_credentials(asked)
        tried: dict[Target, str] = {}
        while left := [m for m in await self._ordered(is_again=bool(tried)) if m not in tried]:
            for at in left:
                try:
                    why = f"the list {self.root} names {at}"
                    answer = await self._followed(method, at.below(path), asked, why)
                except MusterError as e:
                    tried[at] = str(e)
                    self._blame(at)
                    continue
                if answer.status < 500 and answer.status not in _ELSEWHERE:
                    self._failed_at.pop(at, None)
                    return answer, at
                tried[at] = "" if answer.status in _ABSENT else f"{at} answered {answer.status}"
                if answer.status >= 500 or answer.status == 429:
                    self._blame(at)
                await _emptied(answer)
            if sum(not why for why in tried.values()) > len(tried) / 2:
                # Of ten mirrors one is always away, which must not keep anybody from what has no signature.
                return Answer.absent(self.name), left[0]
        reasons = [why or f"{at} has it not" for at, why in tried.items()]
        more = f"; and {len(reasons) - _SAID} more" if len(reasons) > _SAID else ""
        raise Unavailable(f"no mirror gave it: {'; '.join(reasons[:_SAID])}{more}")

    async def _followed(self, method: str, target: Target, asked: Sequence[tuple[str, str]], why: str = "") -> Answer:
        """Return the answer at the end of all redirects; ``why``: who has named where they begin."""
        at = target
        for _ in range(_LIMIT_REDIRECTS + 1):
            answer = await self._at(method, at, asked, why)
            if answer.status not in _REDIRECTS:
                if at.base != target.base:
                    # Who asks is the origin's own matter: nobody that it leads to says where that is to be told.
                    kept = [(k, v) for k, v in answer.headers if k.lower() != "www-authenticate"]
                    answer = replace(answer, headers=kept)
                return _plain(answer, at, may_be_part=any(k == "Range" for k, _ in asked))
            location = next((v for k, v in answer.headers if k.lower() == "location"), None)
            await _emptied(answer)
            if location is None:
                raise BadGateway(f"{at} answered {answer.status} without saying where it leads")
            to = at.joined(location)
            if to.base != target.base:
                # Once away it is not sent any more, be it that this leads back.
                asked = _without_credentials(asked)
            at, why = to, f"{at} leads on to {to}"
        raise BadGateway(f"it leads on more than {_LIMIT_REDIRECTS} times, at last to {at}")

    async def _at(self, method: str, target: Target, asked: Sequence[tuple[str, str]], why: str) -> Answer:
        is_own, is_free = target.key == self.root.key, target.key in self._free
        # Whoever reaches all through a proxy looks up the proxy's name alone.
        session = self._near if is_free or self._proxy is not None else self._far
        context = self._own_context if is_own else self._others_context
        one = Backend(
            session, target.base, target.base, self._patience, context if target.scheme == "https" else None,
            proxy=self._proxy,
        )  # fmt: skip
        try:
            if not is_free:
                refuse_private(target.host)
            answer = await one.ask(method, target.path or "/", asked)
        except Private as e:
            raise BadGateway(
                f"{why}, and {e}; hosts with private addresses to which it may lead are named in {self._setting}"
            ) from None
        if not self._least_bytes_per_s:
            return answer
        pieces = no_slower(answer.pieces, self._least_bytes_per_s, str(target), clock=self._clock)
        return replace(answer, pieces=pieces)

    def _held(self, answer: Answer, at: Target, path: str, *, is_bodiless: bool) -> Answer:
        """Return an answer that has its room until it ends, and comes at a pace."""
        is_over = False

        def end() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                self._rooms.release()
            answer.end()

        async def pieces() -> AsyncGenerator[bytes, None]:
            length, came = None if is_bodiless else _length(answer), 0
            try:
                async with contextlib.aclosing(answer.pieces) as coming:
                    async for piece in coming:
                        came += len(piece)
                        if length is not None and came > length:
                            raise BadGateway(f"{at} gives more than the {length} bytes that it said")
                        if self._pace is not None:
                            await self._pace.take(len(piece))
                        yield piece
                if length is not None and came < length:
                    raise Unavailable(f"{at} ended its answer after {came} of {length} bytes")
            except MusterError as e:
                if self._is_list:
                    self._blame(at)
                    # Whoever is too slow is not gone on with, but another mirror may be.
                    e = Unavailable(str(e)) if isinstance(e, GatewayTimeout) else e
                raise self._about(path, e) from None
            finally:
                end()

        return replace(answer, of=self.name, pieces=pieces(), end=end)

    def _about(self, path: str, e: MusterError) -> MusterError:
        # Anew, and of nothing else: what lies below it has in its text where it was asked, with signatures.
        return type(e)(f"Fetching {shown(path, 300)} from {self.name} failed: {e}")

    def _blame(self, at: Target) -> None:
        self._failed_at[at] = self._clock.monotonic()

    async def _ordered(self, *, is_again: bool) -> list[Target]:
        """Return the mirrors in the order in which they are to be asked; ``is_again``: all that were known have failed.

        Raises:
            MusterError: the list cannot be read, and never was.
        """
        async with self._reading:
            now = self._clock.monotonic()
            is_due = is_again or now - self._read_at >= _LIST_S
            if is_due and now - self._tried_at >= (_LIST_AGAIN_S if self._mirrors else _LIST_ANEW_S):
                self._tried_at = now
                try:
                    self._mirrors = await self._listed()
                    self._read_at = now
                except MusterError as e:
                    self._unread = e
                    if self._mirrors:
                        _log.warning(f"Reading the mirrors of {self.name} failed, those of before go on", why=str(e))
        if not self._mirrors:
            raise self._unread or Unavailable(f"the list {self.root} was not read")
        self._failed_at = {m: at for m, at in self._failed_at.items() if now - at < _LAST_S}
        return sorted(self._mirrors, key=lambda m: self._failed_at.get(m, -1.0))

    async def _listed(self) -> tuple[Target, ...]:
        answer = await self._followed("GET", self.root, _OURS)
        if answer.status != 200:
            await _emptied(answer)
            raise Unavailable(f"the list {self.root} is not there: {answer.status} was answered")
        body = await answer.whole(mirrors.LIMIT_BYTES)
        if body is None:
            raise BadGateway(f"the list {self.root} is larger than {mirrors.LIMIT_BYTES} bytes")
        of = f"the list {self.root}"
        return mirrors.read(body, self._kind, of=of, only_tls=self.root.scheme == "https")


@contextlib.asynccontextmanager
async def opened(
    name: str,
    mirrored: Mirrored,
    mirror: Mirror,
    *,
    pace: Pace | None = None,
    resolver: AbstractResolver | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Origin]:
    """Yield what asks a repository's origin; nothing is asked yet.

    The host of ``url`` or ``mirror_list`` may have any address, and alone is shown the certificate. Any other, which a
    redirect leads to or a list names, has public addresses alone, unless it is one of ``redirects_to``: an address is
    looked at before it is connected to, and no other is. With a ``proxy`` it is the proxy that looks up names, so there
    only hosts that are addresses themselves are refused here; what lies behind names, the proxy's own rules have to say.

    ``ca_file`` alone vouches for the own host, and for the others beside whom the host trusts. ``pace`` is shared by all
    origins of a member; ``resolver`` is by default the host's, and is closed by whoever gave it.

    Raises:
        Misconfigured: a file of its certificates cannot be used.
    """
    patience = Patience(min(_CONNECT_S, mirror.timeout_s), mirror.timeout_s, mirror.timeout_s)
    inner = resolver or aiohttp.ThreadedResolver()
    async with (
        backend.session(backend.connecting(inner), patience) as near,
        backend.session(backend.connecting(Public(inner)), patience) as far,
    ):
        yield Origin(name, mirrored, mirror, (near, far), patience, pace, clock or SystemClock())


def _contexts(mirrored: Mirrored) -> tuple[Callable[[], ssl.SSLContext] | None, Callable[[], ssl.SSLContext] | None]:
    """Return what the own host is asked with over TLS, and what others are; None: as the host does it."""
    own = others = None
    if mirrored.ca_file is not None or mirrored.certificate is not None:
        own = RenewedContext(mirrored.ca_file, mirrored.certificate, mirrored.key)
    if mirrored.ca_file is not None:
        others = RenewedContext(None, also=(mirrored.ca_file,))
    return own, others


def _passed_on(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    more = [("Accept", v) for k, v in headers if k.lower() == "accept" and _ACCEPT.match(v)][:1]
    more += [("Authorization", v) for k, v in headers if k.lower() == "authorization" and _CREDENTIALS.match(v)][:1]
    return [*more, *_part(headers)]


def _without_credentials(asked: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(k, v) for k, v in asked if k != "Authorization"]


def _part(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    ranges = [("Range", v) for k, v in headers if k.lower() == "range" and _RANGE.match(v)]
    if len(ranges) != 1:
        return []
    return [*ranges, *(("If-Range", v) for k, v in headers if k.lower() == "if-range" and _VALIDATOR.match(v))][:2]


def _plain(answer: Answer, at: Target, *, may_be_part: bool) -> Answer:
    """Return an answer whose body is as it was asked for.

    Raises:
        BadGateway: it is packed, or a part that is none.
    """
    coding = ", ".join(v.strip().lower() for k, v in answer.headers if k.lower() == "content-encoding")
    if coding in ("", "identity"):
        if answer.status == 206 and not (may_be_part and span_of(answer)):
            answer.end()
            raise BadGateway(f"{at} answered with a part that was not asked for, or does not say which it is")
        return answer
    answer.end()
    if answer.status < 300:
        raise BadGateway(f"{at} answered in the content coding {shown(coding, 64)}, which was not asked for")
    # Nobody needs what it says about that.
    return replace(answer, headers=(("Content-Length", "0"),), pieces=once(b""), end=lambda: None)


def _length(answer: Answer) -> int | None:
    """Return how long a body is, as is said of it."""
    said = span_of(answer)
    if said is not None:
        return said.last - said.first + 1
    length = next((v for k, v in answer.headers if k.lower() == "content-length"), "")
    return int(length) if length.isdecimal() and len(length) < 20 else None


async def _emptied(answer: Answer) -> None:
    """End an answer that nobody wants; a short one is read first, so that its connection can be kept."""
    with contextlib.suppress(MusterError, TimeoutError):
        async with asyncio.timeout(_REST_S):
            await answer.whole(_REST_BYTES)
