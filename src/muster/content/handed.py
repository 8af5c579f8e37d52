"""A host's request handed to Foreman: over TLS, with a Smart Proxy's certificate, and a whole answer or none.

Foreman takes a Smart Proxy's word for where a host asks from (docs/facts/smart-proxy-protocol.md §15). Of what a host sends
only what is named here goes on, and nothing by which it would be somebody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from muster.cluster.foreman import trust_of
from muster.content import backend as backends
from muster.content.backend import Answer, BadGateway, GatewayTimeout, Patience
from muster.content.places import PROGRAMS
from muster.edge.feature import Surroundings
from muster.edge.params import Params
from muster.edge.replies import HTML, SERVER_HEADER, Reply, reply
from muster.edge.request import Request, TooLarge
from muster.kernel.errors import Misconfigured, Rejected, Unavailable
from muster.kernel.names import unmapped
from muster.pki.context import RenewedContext

LARGEST_ANSWER_BYTES = 1 << 20
"""The longest script or template that is passed on; they are some ten kB long."""

# As the Ruby proxy sends it, by which Foreman finds its API's version and does not look for a format.
ACCEPTED = "*/*, application/json,version=2"

ENDED_WITHIN_S = 10.0
"""How long an answer that has begun may take to end."""

_CONNECT_S = 5.0
# What Anaconda tells of a machine (docs/facts/smart-proxy-protocol.md §15); a boot loader's or installer's name.
_TOLD = re.compile(
    rb"(?:user-agent|x-rhn-provisioning-mac-[0-9]{1,3}|x-anaconda-(?:architecture|system-release)|x-system-serial-number)\Z"
)
_MOST_TOLD = 64
_VALUE = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e\t]{0,4094}[\x21-\x7e])?\Z")
_WITHOUT_BODY = frozenset({204, 205, 304})
_FRAMED = frozenset({"content-length", "transfer-encoding"})
# What a name is below for Rack 2.2, which Foreman has, whichever brackets stand around it.
_KEY = re.compile(r"[\[\]]*([^\[\]]+)")


class Asked(Protocol):
    """What can be asked, as :meth:`muster.content.backend.Backend.ask`."""

    async def ask(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: AsyncIterator[bytes] | None = None,
        length: int | None = None,
    ) -> Answer: ...


UNANSWERED = (Unavailable, GatewayTimeout, BadGateway)
"""Failures of asking Foreman that say nothing of what was asked for."""


@dataclass(frozen=True)
class Said:
    """What Foreman answered."""

    status: int
    content_type: str
    body: bytes


class Foreman:
    """The cluster's Foreman, as hosts reach it through members. Use :func:`opened`."""

    def __init__(self, backend: Asked, anew: Asked | None = None, *, ended_within_s: float = ENDED_WITHIN_S) -> None:
        self._backend = backend
        self._anew = anew or backend
        self._ended_within_s = ended_within_s

    async def ask(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        *,
        body: AsyncIterator[bytes] | None = None,
        length: int | None = None,
        hold: Callable[[int], None] = lambda _: None,
        limit_bytes: int = LARGEST_ANSWER_BYTES,
    ) -> Said:
        """Ask and return the whole answer, whatever its status. ``path`` goes with its query; ``hold`` counts the body.

        Raises:
            Unavailable: Foreman cannot be reached, or broke off its answer.
            GatewayTimeout: it did not answer in time.
            BadGateway: what it answered cannot be passed on.
        """
        # What a host says is said once: on a kept connection that Foreman is about to close nobody would hear it.
        backend = self._backend if method == "GET" else self._anew
        got = await backend.ask(method, path, [*headers, ("Accept-Encoding", "identity")], body, length)
        try:
            async with asyncio.timeout(self._ended_within_s):
                whole = await got.whole(limit_bytes, hold=hold)
        except TimeoutError:
            raise GatewayTimeout(f"{got.of} did not end its answer within {self._ended_within_s:g} s") from None
        if whole is None:
            raise BadGateway(f"{got.of} answered more than {limit_bytes >> 20} MiB, which is not passed on")
        if got.status == 206:
            raise BadGateway(f"{got.of} answered with a part, which was not asked for")
        told = {name.lower(): value for name, value in got.headers}
        if whole and told.keys().isdisjoint(_FRAMED):
            # TLS ends unheard on a cut line, and half a script is one that a shell runs.
            raise BadGateway(f"{got.of} did not say where its answer ends")
        if told.get("content-encoding", "identity").strip().lower() != "identity":
            raise BadGateway(f"{got.of} answered in a coding that was not asked for")
        return Said(got.status, told.get("content-type", ""), whole)


def told(request: Request) -> list[tuple[str, str]]:
    """Return what a host says of itself that Foreman reads: its network cards, its installer, its language of answers."""
    found = [
        (k.decode("ascii"), v.decode("ascii")) for k, v in request.headers.items() if _TOLD.match(k) and _VALUE.match(v)
    ]
    accept = request.headers.get(b"accept", b"")
    accepted = f"{ACCEPTED}, {accept.decode('ascii')}" if _VALUE.match(accept) else ACCEPTED
    return [("Accept", accepted), *found[:_MOST_TOLD]]


def authorization(request: Request) -> list[tuple[str, str]]:
    """Return how a host proves itself to Foreman; nothing where it does not.

    Raises:
        Rejected: it does so twice, or in what is no header.
    """
    sent = [v for k, v in request.sent_headers if k == b"authorization"]
    if not sent:
        return []
    if len(sent) > 1 or not _VALUE.match(sent[0]):
        raise Rejected("An Authorization header is one line of visible ASCII, up to 4096 characters, and stands once")
    return [("Authorization", sent[0].decode("ascii"))]


def without_url(given: Params, *, but: str = "") -> Params:
    """Return parameters less all that say where hosts are led, by whichever spelling Foreman takes for that."""
    kept = {}
    for name, value in given.items():
        key = _KEY.match(name)
        if name == but or key is None or key[1] != "url":
            kept[name] = value
    return kept


def is_value(text: str) -> bool:
    """Whether a text can be a header's value on its way to Foreman: one line of visible ASCII, up to 4096 characters."""
    return text.isascii() and _VALUE.match(text.encode()) is not None


def forwarded_for(request: Request) -> tuple[str, str]:
    """Return the header that says where a host asks from, by the PROXY header or the socket, whatever it says itself."""
    address = unmapped(request.peer.address).partition("%")[0]
    return "X-Forwarded-For", str(ipaddress.ip_address(address))


async def limited(request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
    """Yield a request's body as it arrives.

    Raises:
        TooLarge: it is longer.
        TooSlow, ClientGone: as :meth:`muster.edge.request.Request.pieces`.
    """
    size = 0
    async with contextlib.aclosing(request.pieces()) as pieces:
        async for piece in pieces:
            size += len(piece)
            if size > limit_bytes:
                raise TooLarge(f"the body is larger than {limit_bytes >> 20} MiB")
            yield piece


def passed(status: int, body: bytes) -> Reply:
    """Return a reply with an answer of Foreman's, whatever kind of text it called it: as the Ruby proxy's."""
    if status in _WITHOUT_BODY:
        return Reply(status, b"", [SERVER_HEADER])
    return reply(status, body, HTML)


@contextlib.asynccontextmanager
async def opened(
    around: Surroundings, *, timeout_s: float, needed_by: str, ended_within_s: float = ENDED_WITHIN_S
) -> AsyncIterator[Foreman]:
    """Yield the cluster's Foreman, whose certificate must be of a CA that the cluster file names.

    It is shown what it is shown for ``/rhsm``: ``content.foreman_certificate``, else the member's own. ``timeout_s`` counts
    until an answer begins, ``ended_within_s`` from there on.

    Raises:
        Misconfigured: the cluster file does not say where it is, or not over TLS; a file cannot be used.
    """
    cluster = around.cluster
    if cluster is None or cluster.foreman.url is None:
        raise Misconfigured(f"{needed_by} hands what hosts ask on to Foreman, and foreman.url is absent: set it")
    if not cluster.foreman.url.startswith("https://"):
        raise Misconfigured(
            f"{needed_by} hands what hosts ask on to Foreman with a Smart Proxy's certificate, which needs https, and "
            f"foreman.url is {cluster.foreman.url}"
        )
    content = cluster.content
    shown: Path = around.certificate
    key: Path | None = around.key
    if content is not None and content.foreman_certificate is not None:
        shown, key = content.foreman_certificate, content.foreman_key
    context = RenewedContext(around.ca, shown, key, also=trust_of(cluster))
    patience = Patience(_CONNECT_S, timeout_s, ended_within_s)
    url = cluster.foreman.url.rstrip("/")
    # By the name in its URL and no other: a Foreman in containers answers 403 to names that are not its own.
    # uvloop drops what a reader that pauses has not read yet, where the other side ends without TLS' own goodbye.
    asking = partial(
        backends.opened, PROGRAMS["foreman"].name, url, patience, context=context, buffer_bytes=LARGEST_ANSWER_BYTES
    )
    async with asking() as backend, asking(kept=False) as anew:
        yield Foreman(backend, anew, ended_within_s=ended_within_s)
