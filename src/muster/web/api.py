"""The page over HTTP: for operators, to read, and to nobody else's pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from muster.edge import traffic
from muster.edge.replies import HTML, SERVER_HEADER, Header, Reply, Streamed, not_found, reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.edge.traffic import Traffic
from muster.kernel.errors import Denied, Rejected, Unavailable
from muster.kernel.rings import RANKS
from muster.web.assets import ASSETS, PREFIX
from muster.web.live import Looked, looks
from muster.web.model.log import LONGEST_TEXT, Filter

if TYPE_CHECKING:
    from muster.web.render import Rendered

VIEWERS = 50
"""Who may follow at a time, each with a connection of his own."""

_POLICY = b"; ".join(
    (
        b"default-src 'none'", b"style-src 'self'", b"script-src 'self'", b"connect-src 'self'", b"img-src 'self'",
        b"base-uri 'none'", b"form-action 'self'", b"frame-ancestors 'none'",
    )
)  # fmt: skip
_GUARDED: tuple[Header, ...] = (
    (b"content-security-policy", _POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_NOT_KEPT: Header = (b"cache-control", b"no-store")
_KEPT: Header = (b"cache-control", b"private, max-age=31536000, immutable")
_STREAMED: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-content-type-options", b"nosniff"),
    SERVER_HEADER,
    _NOT_KEPT,
    *_GUARDED,
)
_HAVE_LIMIT = 400


@dataclass
class Viewing:
    """What the page's routes need.

    Attributes:
        traffic: this member's own rings; None: it is no member.
        closing: whether this process asks its clients to leave.
    """

    watch: Looked
    traffic: Traffic | None = None
    closing: Callable[[], bool] = lambda: False
    _rendered: list[Rendered] = field(default_factory=list)

    @property
    def rendered(self) -> Rendered:
        # Members at which nobody looks do not load what renders.
        if not self._rendered:
            from muster.web.render import Rendered

            self._rendered.append(Rendered())
        return self._rendered[0]


async def page(viewing: Viewing, request: Request) -> Reply:
    _refuse_other_sites(request)
    wanted = _filter(request)
    body = viewing.rendered.page(await viewing.watch.page(), wanted).encode("utf-8", "replace")
    return reply(200, body, HTML, _NOT_KEPT, *_GUARDED)


async def static(_: Viewing, request: Request) -> Reply:
    _refuse_other_sites(request)
    asset = ASSETS.get(request.arguments["name"])
    if asset is None or asset.digest != request.arguments["digest"]:
        return not_found()
    return reply(200, asset.body, asset.content_type, _KEPT, *_GUARDED)


async def announced(_: Viewing, request: Request) -> Reply:
    """Answer HEAD as :func:`live` would begin."""
    _refuse_other_sites(request)
    return Reply(200, b"", [*_STREAMED])


async def live(viewing: Viewing, request: Request) -> Streamed:
    """Answer with what changes, as it changes."""
    _refuse_other_sites(request)
    if viewing.closing():
        raise Unavailable("This member takes no new viewers: it drains or stops; others show the same page")
    if viewing.watch.viewers >= VIEWERS:
        raise Unavailable(
            f"{VIEWERS} follow the page of this member already, which is all it takes; other members show the same page"
        )
    have = request.query().get("have", "")
    if not isinstance(have, str) or len(have) > _HAVE_LIMIT:
        raise Rejected("have is no list of digests")
    wanted = _filter(request)
    pieces = looks(viewing.watch, viewing.rendered, wanted, have.split("."), viewing.closing)
    return Streamed(200, [*_STREAMED], pieces)


async def rings(viewing: Viewing, request: Request) -> Reply:
    if viewing.traffic is None:
        return not_found()
    answer = await traffic.rings(viewing.traffic, request)
    return answer._replace(headers=[*answer.headers, _NOT_KEPT])


def _filter(request: Request) -> Filter:
    query = request.query()
    member, level, text = (query.get(k, d) for k, d in (("member", ""), ("level", "INFO"), ("text", "")))
    if not (isinstance(member, str) and isinstance(level, str) and isinstance(text, str)):
        raise Rejected("member, level and text are texts")
    if level not in RANKS:
        raise Rejected(f"level is one of {', '.join(RANKS)}")
    if max(len(member), len(text)) > LONGEST_TEXT:
        raise Rejected(f"member and text have at most {LONGEST_TEXT} characters")
    return Filter(member, level, text)


def _refuse_other_sites(request: Request) -> None:
    """Refuse what a page of another site makes a browser ask; following a link from there is a person's doing.

    Raises:
        Denied: it is such a call.
    """
    site = request.header(b"sec-fetch-site")
    if site in (None, "same-origin", "none"):
        return
    if request.header(b"sec-fetch-mode") == "navigate" and request.header(b"sec-fetch-dest") == "document":
        return
    raise Denied("A page of another site may not ask this")


MOUNT = Mount(
    PREFIX,
    (
        Route("GET", "/", Access.OPERATORS, page),
        Route("GET", "/static/{digest}/{name}", Access.OPERATORS, static),
        Route("GET", "/live", Access.OPERATORS, announced, streamed=live),
        Route("GET", "/rings.json", Access.CLUSTER, rings),
    ),
)
