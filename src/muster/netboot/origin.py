"""A boot file's origin: a web server that is asked for one file, within limits, and gone on with after whatever broke.

What curl does for the Ruby proxy (docs/facts/smart-proxy-protocol.md §9.3) is the least: redirects, three more tries, the
origin's time for the file's. Source: RFC 9110 §8.8, §13, §14, §15.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path

import aiohttp

from muster.kernel import log
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import MusterError, NotFound, Rejected, Unavailable
from muster.kernel.names import shown
from muster.netboot import answers
from muster.netboot import partial as partials
from muster.netboot.address import Address
from muster.netboot.answers import Asking, Limits, Told, length_of, refuse_size, span_of
from muster.netboot.partial import Note, Partial, forget
from muster.pki.context import client_context
from muster.version import VERSION

_log = log.logger("netboot")

_LIMIT_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# As curl's --retry has them, and 425, which says so itself.
_MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504})
_GONE = frozenset({404, 410})
_ETAG = re.compile(r'(?:W/)?"[!#-~]{0,300}"\Z')
# RFC 9110 §8.8.2.2: a date tells versions apart when it is so much older than the answer.
_STRONG_DATE_S = 60.0
# Files that are packed themselves, of which some servers say that as a coding of the answer: Apache with AddEncoding.
_PACKED = {".gz": "gzip", ".tgz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
# Who brought so much more may break off again: every try that gets on is followed by as many as the first.
_PROGRESS_BYTES = 1 << 20


@dataclass(frozen=True)
class Vouching:
    """Whose certificates are believed.

    Attributes:
        is_verified: false: anybody's (``verify_server_cert``).
        ca_file: counts beside whom the host trusts.
    """

    is_verified: bool = True
    ca_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Return what origins are asked with.

        Raises:
            Misconfigured: the file cannot be used.
        """
        if self.is_verified:
            return client_context(None, also=() if self.ca_file is None else (self.ca_file,))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True)
class Known:
    """What stands already where a file is to come.

    Attributes:
        origin: :attr:`~muster.netboot.address.Address.plain` of where it came from; empty: nobody knows, and then it is what
            the origin has when time and size are the same. Its time alone, which curl asks by, is also newer of what
            somebody wrote himself.
        modified_at: seconds since the epoch, as its origin said; 0: it did not.
        etag: as its origin said; empty: it did not.
    """

    origin: str
    size: int
    modified_at: float = 0.0
    etag: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came.

    Attributes:
        file: where it lies; None: what stands already is what the origin has, and of the rest ``size`` alone is said.
        digest: SHA-256, hexadecimal.
        modified_at: as in :class:`Known`.
        origin: where it was asked for, without a password.
    """

    origin: str
    size: int
    file: Path | None = None
    digest: str = ""
    modified_at: float = 0.0
    etag: str = ""


async def fetched(
    url: str,
    into: Path,
    *,
    known: Known | None,
    limits: Limits,
    vouching: Vouching,
    told: Told,
    proxy: str | None = None,
    clock: Clock | None = None,
) -> Outcome:
    """Bring a file to ``into``, unless what is known is it; what came of it earlier is gone on with.

    The rest of a file is taken only when the origin says that it is still the same one, by a strong validator; else it
    begins anew. The file lies there whole and safe from a power cut when this returns, and is the caller's to rename; until
    :func:`muster.netboot.partial.forget` is called its note lies beside it.

    The directory of ``into`` may be absent; ``told`` is called often. ``proxy`` is the URL of an HTTP proxy through which
    all is asked; the environment names none.

    Raises:
        Rejected: no such URL, or an answer that no other try makes better: a refusal, too large, no room on the disk
            (:class:`~muster.netboot.partial.Full`). Nothing is left of it.
        NotFound: the origin has no such file; nor is anything left of it.
        Misconfigured: the CA file cannot be used.
        Unavailable: all tries failed; what has come stays for the next call.

    Concurrency: one call for a path at a time in all processes; another is Unavailable.
    """
    at, clock = Address.parse(url), clock or SystemClock()
    if known is not None and known.origin not in ("", at.plain):
        # Another server's tags and dates say nothing here.
        known = None
    context = await asyncio.to_thread(vouching.context)
    try:
        async with (
            asyncio.timeout(limits.whole_s),
            partials.opened(into, at.plain) as partial,
            answers.opened(limits, clock, proxy=proxy) as asking,
        ):
            one = _Fetching(at, partial, known, limits, asking, context, told, clock)
            return await one.tried()
    except TimeoutError:
        raise Unavailable(f"Fetching {at} failed: it was not there within {limits.whole_s:g} s") from None
    except MusterError as e:
        if not e.retryable:
            # Not here: a large file takes a file system some time.
            await asyncio.to_thread(forget, into)
        raise type(e)(f"Fetching {at} failed: {e}") from e


class _Fetching:
    def __init__(
        self,
        at: Address,
        partial: Partial,
        known: Known | None,
        limits: Limits,
        asking: Asking,
        context: ssl.SSLContext,
        told: Told,
        clock: Clock,
    ) -> None:
        self._at, self._partial, self._known, self._limits = at, partial, known, limits
        self._asking, self._context, self._told, self._clock = asking, context, told, clock

    async def tried(self) -> Outcome:
        left, before = self._limits.again, self._partial.size
        while True:
            try:
                return await self._once()
            except Unavailable as e:
                if self._partial.size - before >= _PROGRESS_BYTES:
                    left = self._limits.again
                if not left:
                    raise
                left, before = left - 1, self._partial.size
                _log.info("A boot file is asked for once more", origin=str(self._at), why=str(e), at_byte=before)
            await self._clock.sleep(self._limits.pause_s)

    async def _once(self) -> Outcome:
        partial, known = self._partial, self._known
        asked = {"User-Agent": f"Muster/{VERSION}", "Accept": "*/*", "Accept-Encoding": "identity"}
        first = None
        if partial.size and partial.note.if_range:
            # Of one that is whole its last byte: the answer says whether it still is the same.
            first = partial.size if partial.note.total is None else min(partial.size, partial.note.total - 1)
            asked |= {"Range": f"bytes={first}-", "If-Range": partial.note.if_range}
        elif known is not None and known.origin:
            asked |= conditions(known)
        async with self._answer(asked) as (answer, at):
            tag = _tag(answer)
            if known is not None and first is None and _is_known(answer, known):
                self._told(known.size, known.size)
                return Outcome(self._at.plain, known.size)
            skipped, total = 0, length_of(answer)
            if first is not None and answer.status in (206, 416):
                span = span_of(answer)
                if span is None or span.first != first or not _is_of(answer, partial.note):
                    await partial.anew(Note(self._at.plain))
                    raise Unavailable(f"{self._called(at)} has not the rest of what it gave before")
                _refuse(answer, self._called(at), 206, at.path)
                skipped, total = partial.size - first, span.total
            else:
                _refuse(answer, self._called(at), 200, at.path)
                refuse_size(total or 0, self._limits)
                await partial.anew(Note(self._at.plain, validator(answer), total, tag, _modified_at(answer)))
            await self._asking.taken(self._called(at), answer, partial, self._told, skipped=skipped, total=total)
            digest, note = await partial.whole(), partial.note
            return Outcome(self._at.plain, partial.size, partial.path, digest, note.modified_at, note.etag)

    def _called(self, at: Address) -> str:
        return "it" if at == self._at else f"{at}, where it leads,"

    @contextlib.asynccontextmanager
    async def _answer(self, asked: dict[str, str]) -> AsyncIterator[tuple[aiohttp.ClientResponse, Address]]:
        """Hold the answer at the end of all redirects, and where it was given."""
        at = self._at
        for _ in range(_LIMIT_REDIRECTS + 1):
            headers = {**asked, "Authorization": at.authorization.reveal()} if at.authorization is not None else asked
            context = self._context if at.is_tls else None
            async with self._asking.answer(self._called(at), at.plain, headers, context) as answer:
                location = answer.headers.get("Location")
                if answer.status not in _REDIRECTS or location is None:
                    yield answer, at
                    return
            at = at.joined(location)
        raise Rejected(f"it leads on more than {_LIMIT_REDIRECTS} times, at last to {at}")


def conditions(known: Known) -> dict[str, str]:
    """Return what makes an origin say that nothing has changed."""
    asked = {}
    if _ETAG.match(known.etag):
        asked["If-None-Match"] = known.etag
    if known.modified_at > 0:
        asked["If-Modified-Since"] = formatdate(math.floor(known.modified_at), usegmt=True)
    return asked


def validator(answer: aiohttp.ClientResponse) -> str:
    """Return what the rest of a file may be asked for with; empty: nothing that tells its versions apart.

    A tag that is weak says nothing about bytes, and where there is one a date may not stand in for it (RFC 9110 §13.1.5).
    """
    if tag := _tag(answer):
        return tag if is_strong(tag) else ""
    modified_at, said_at = _modified_at(answer), _date(answer.headers.get("Date", ""))
    return answer.headers["Last-Modified"] if modified_at and said_at - modified_at >= _STRONG_DATE_S else ""


def is_strong(tag: str) -> bool:
    return tag.startswith('"')


def _is_known(answer: aiohttp.ClientResponse, known: Known) -> bool:
    """Whether an answer says that what is known is what there is; some give the whole, whatever the condition."""
    if answer.status == 304:
        return bool(known.origin)
    tag, modified_at = _tag(answer), _modified_at(answer)
    is_same_tag = is_strong(tag) and tag == known.etag
    is_same_time = not known.origin and 0 < modified_at == math.floor(known.modified_at)
    return answer.status == 200 and (is_same_tag or (is_same_time and length_of(answer) == known.size))


def _is_of(answer: aiohttp.ClientResponse, note: Note) -> bool:
    """Whether a rest is of what came before, by all that is said of it: some answer in parts, whatever the condition."""
    span = span_of(answer)
    is_tagged_otherwise = "ETag" in answer.headers and _tag(answer) != note.etag
    is_of_another_time = "Last-Modified" in answer.headers and _modified_at(answer) != note.modified_at
    return span is not None and note.total in (None, span.total) and not is_tagged_otherwise and not is_of_another_time


def _refuse(answer: aiohttp.ClientResponse, called: str, wanted: int, path: str) -> None:
    """Refuse what is neither a file nor, as it was wanted, the rest of one."""
    status = answer.status
    if status in _MAY_PASS:
        raise Unavailable(f"{called} answered {status}")
    if status in _GONE:
        raise NotFound(f"{called} answered {status}")
    if status != wanted:
        raise Rejected(f"{called} answered {status}")
    coding = answer.headers.get("Content-Encoding", "identity").strip().lower().removeprefix("x-")
    packed = next((c for end, c in _PACKED.items() if path.lower().endswith(end)), None)
    if coding not in ("identity", packed):
        raise Rejected(f"{called} answered in the content coding {shown(coding, 32)}, which was not asked for")


def _tag(answer: aiohttp.ClientResponse) -> str:
    tag: str = answer.headers.get("ETag", "")
    return tag if _ETAG.match(tag) else ""


def _modified_at(answer: aiohttp.ClientResponse) -> float:
    return _date(answer.headers.get("Last-Modified", ""))


def _date(text: str) -> float:
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp())
    except (ValueError, OverflowError):
        return 0.0
