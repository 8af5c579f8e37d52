"""What a host asks while it is installed, as Foreman is asked for it. Source: docs/facts/smart-proxy-protocol.md §15."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from muster.balancer.model import modelled
from muster.content import handed
from muster.content.backend import once
from muster.content.handed import UNANSWERED, Foreman, Said, forwarded_for, limited, passed, told, without_url
from muster.derived.ruby_members import registration_url, template_url
from muster.edge import params
from muster.edge.feature import Surroundings, Told
from muster.edge.params import Params
from muster.edge.replies import Reply, text_reply
from muster.edge.request import Request, TooLarge
from muster.features.templates.settings import TemplatesSettings
from muster.kernel import log
from muster.kernel.errors import Misconfigured, MusterError, Rejected, begun_with
from muster.kernel.happenings import FAILED, Detail, Happening, Tell, untold
from muster.kernel.names import MACAddress, shown, source_of

_log = log.logger("features")

# Of its network cards a machine that Anaconda installs names the first one first: "eth0 52:54:00:12:34:56".
_FIRST_CARD = b"x-rhn-provisioning-mac-0"
_BUILT = "built"
_SHOWN_KIND = 64
# What the Ruby module takes for its own, wherever it stands.
_OURS = frozenset({"path", "template", "kind", "hostgroup", "splat", "captures"})
# The Ruby module sends it with each report; Foreman reads it nowhere.
_LEAKED: Params = {"Content-Type": "text/plain"}
_FORM = "application/x-www-form-urlencoded"
# A longer one is an installer's log, which curl calls a form as it does everything, and would not fit in a query.
_FORM_BYTES = 2048
_REPORT_BYTES = 16 << 20


class Templates:
    """The feature's service.

    Attributes:
        url: where Foreman tells hosts to fetch templates.

    Args:
        tell: hears who asked for what, and what Foreman answered.
    """

    def __init__(self, foreman: Foreman, url: str, *, tell: Tell = untold) -> None:
        self.url = url
        self._foreman = foreman
        self._tell = tell
        self._refusals = log.Seldom()

    def told(self) -> Told:
        return Told({"template_url": self.url})

    async def fetched(self, request: Request, path: str, what: str) -> Reply:
        """Return what Foreman has for a host at a path; ``what`` begins the sentence where that is nothing.

        Raises:
            Rejected: the parameters are malformed.
            Unavailable, GatewayTimeout, BadGateway: Foreman did not answer.
            ClientGone: the host has left.
        """
        query = self._query(request.query())
        there = contextlib.nullcontext() if request.unread else request.while_waited_for()
        with self._told(request), begun_with(what, *UNANSWERED):
            async with there:
                said = await self._foreman.ask("GET", f"{path}?{query}", self._headers(request), hold=request.hold)
        return self._answered(said, request, path, what)

    async def reported(self, request: Request, path: str, what: str) -> Reply:
        """Hand on what a host says of its installation, as it comes, and return what Foreman says to that.

        Raises:
            As :meth:`fetched`; TooLarge, TooSlow: what it says is too long, or comes too slowly.
        """
        given = request.query()
        body: AsyncIterator[bytes] | None = None
        length = _length(request)
        if length is not None and length > _REPORT_BYTES:
            raise TooLarge(f"{what}: the body is larger than {_REPORT_BYTES >> 20} MiB")
        if request.unread and length is not None and length <= _FORM_BYTES:
            whole = await request.body()
            given = params.merged(given, _form(request, whole))
            body = once(whole)
        elif request.unread:
            body = limited(request, _REPORT_BYTES)
        query = self._query({**given, **_LEAKED})
        headers = [*self._headers(request), ("Content-Type", "text/plain")]
        with self._told(request), begun_with(what, *UNANSWERED):
            said = await self._foreman.ask(
                "POST", f"{path}?{query}", headers, body=body, length=length if body else None, hold=request.hold
            )
        return self._answered(said, request, path, what)

    @contextlib.contextmanager
    def _told(self, request: Request) -> Iterator[None]:
        """Tell of the call when Foreman did not answer it; what it answered, :meth:`_answered` tells."""
        try:
            yield
        except MusterError as e:
            # In words of ours alone: the path that was asked for has a token behind it.
            self._say(request, e.status, {FAILED: str(e)})
            raise

    def _say(self, request: Request, status: int, more: dict[str, Detail]) -> None:
        kind = shown(request.arguments.get("kind", ""), _SHOWN_KIND)
        said: dict[str, Detail] = {"method": request.method, "template": kind, "status": status, **more}
        mac = _machine(request)
        self._tell(Happening("built" if kind == _BUILT else "template", mac, request.peer.address, said))

    def _headers(self, request: Request) -> list[tuple[str, str]]:
        return [*told(request), forwarded_for(request)]

    def _query(self, given: Params) -> str:
        kept = {name: value for name, value in given.items() if name not in _OURS}
        # Whoever asked for another one gets this in its place.
        kept["url"] = self.url
        return params.written(without_url(kept, but="url"))

    def _answered(self, said: Said, request: Request, path: str, what: str) -> Reply:
        self._say(request, said.status, {})
        if said.status in (200, 201):
            return passed(200, said.body)
        if said.status in (204, 304):
            return passed(said.status, b"")
        sentence = f"{what}: Foreman answers {said.status} to {request.method.replace('HEAD', 'GET')} {shown(path)}"
        held = self._refusals.held_back((source_of(request.peer.address), said.status))
        if held is not None:
            _log.warning(f"{sentence}{log.and_more(held)}", status=said.status)
        return text_reply(said.status, sentence, accept=request.accept)


def _machine(request: Request) -> MACAddress | None:
    """Return the hardware address that a machine says of itself: in a header, or in the path; None: it says none."""
    card = (request.header(_FIRST_CARD) or "").split()
    said = request.arguments.get("mac") or (card[-1] if card else "")
    try:
        return MACAddress.parse(said)
    except Rejected:
        return None


def _form(request: Request, body: bytes) -> Params:
    """Return what a short form says; nothing where it is none, whatever it is called."""
    kind = (request.header(b"content-type") or _FORM).partition(";")[0].strip().lower()
    if kind != _FORM:
        return {}
    try:
        return params.from_form(body)
    except Rejected:
        return {}


def _length(request: Request) -> int | None:
    said = request.headers.get(b"content-length", b"")
    return int(said) if said.isdigit() else None


def _url(settings: TemplatesSettings, around: Surroundings) -> str:
    if settings.template_url is not None:
        return settings.template_url
    if around.cluster is None:
        raise Misconfigured("template_url is absent, and there is no cluster file that says the address")
    balancing = modelled(around.cluster, frozenset())
    return template_url(balancing) if settings.on("http") else registration_url(balancing)


@asynccontextmanager
async def opened(settings: TemplatesSettings, around: Surroundings) -> AsyncIterator[Templates]:
    """Yield the service.

    Raises:
        Misconfigured: the cluster file does not say where Foreman is, or where hosts come in.
    """
    url = _url(settings, around)
    opening = handed.opened(around, timeout_s=settings.foreman_timeout_s, needed_by="templates")
    async with opening as foreman:
        yield Templates(foreman, url, tell=around.tell)
