"""Facts of machines on their way to Foreman, and Foreman's calls on their way to machines.

Source: docs/facts/smart-proxy-protocol.md §18.3. Nothing is kept: any member answers any of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from muster.content import handed
from muster.content.backend import BadGateway, once
from muster.content.handed import ACCEPTED, UNANSWERED, Foreman, Said
from muster.edge.feature import Surroundings
from muster.edge.replies import JSON, RETRY_AFTER, SERVER_HEADER, TEXT, Reply, reply, text_reply
from muster.edge.request import Request, TooLarge, TooSlow
from muster.features.discovery import facts
from muster.features.discovery.checks import UNPROVEN
from muster.features.discovery.nodes import Nodes, context_of
from muster.features.discovery.settings import DiscoverySettings
from muster.kernel import log
from muster.kernel.errors import Unavailable, begun_with
from muster.kernel.names import shown, source_of
from muster.netboot.buckets import Buckets

_log = log.logger("features")

_PATH = "/api/v2/discovered_hosts/facts"
# The image takes these two for success and every other one for failure.
_SUCCESS = frozenset({200, 201})
_WAITING_FOR_EACH = 8
_ENDLESS = float("inf")


class Discovery:
    """The feature's service. Use :func:`opened`.

    Concurrency: any number of tasks of one loop; at most ``facts_at_once`` hand facts on.
    """

    def __init__(
        self,
        foreman: Foreman,
        nodes: Nodes,
        settings: DiscoverySettings,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._foreman = foreman
        self._nodes = nodes
        self._monotonic = monotonic
        per_minute = settings.facts_per_minute
        # All together have no measure of their own but how many are with Foreman at once.
        self._buckets = Buckets((per_minute / 60, per_minute), (_ENDLESS, _ENDLESS), monotonic())
        self._slots = asyncio.Semaphore(settings.facts_at_once)
        self._most_waiting = settings.facts_at_once * _WAITING_FOR_EACH
        self._waiting = 0
        self._waited_s = settings.foreman_timeout_s
        self._refusals = log.Seldom()

    async def created(self, request: Request) -> Reply:
        """Hand a machine's facts to Foreman, and return what Foreman says to them.

        Raises:
            Rejected: they are none; nothing was sent.
            TooLarge, TooSlow, ClientGone: they are too long, or did not arrive.
            Unavailable: too many machines wait, or Foreman cannot be reached.
            GatewayTimeout, BadGateway: Foreman did not answer, or what cannot be passed on.
        """
        source = source_of(request.peer.address)
        if self._buckets.full(source, self._monotonic()) is not None:
            return self._too_often(request, source)
        body = await _whole(request)
        machine = facts.mac_of(facts.sent(body))
        async with self._slot():
            headers = [("Accept", ACCEPTED), ("Content-Type", "application/json")]
            said = await self._foreman.ask("POST", _PATH, headers, body=once(body), length=len(body), hold=request.hold)
        return self._answered(said, machine, source)

    async def inventory(self, request: Request) -> Reply:
        return await self._asked(request, "GET", "/inventory/facter", "Failed to read the inventory")

    async def facts(self, request: Request) -> Reply:
        return await self._asked(request, "GET", "/facts", "Failed to read the facts")

    async def reboot(self, request: Request) -> Reply:
        return await self._asked(request, "PUT", "/power/reboot", "Failed to reboot")

    async def cycle(self, request: Request) -> Reply:
        """Reboot as images did before they had ``/power``: by the Smart Proxy in them, and its feature BMC."""
        address = self._nodes.address(request.arguments["ip"])
        return await self._asked(request, "PUT", f"/bmc/{address}/chassis/power/cycle", "Failed to reboot")

    async def kexec(self, request: Request) -> Reply:
        what = "Failed to boot by kexec"
        # Where the address is none, nobody need send the rest.
        self._nodes.address(request.arguments["ip"])
        body = await request.body()
        facts.checked(body, what)
        return await self._asked(request, "PUT", "/power/kexec", what, body=body)

    async def _asked(self, request: Request, method: str, path: str, what: str, *, body: bytes = b"") -> Reply:
        at = self._nodes.address(request.arguments["ip"])
        with begun_with(what, *UNANSWERED):
            said = await self._nodes.ask(method, at, path, body=body, hold=request.hold)
        if said.status >= 400:
            told = shown(said.body[:400].decode("utf-8", "replace"), 200)
            sentence = f"{what}: the machine at {at} answers {said.status}: {told}"
            _log.warning(sentence, status=said.status)
            return text_reply(said.status, sentence, accept=request.accept)
        if method == "PUT":
            _log.info("A discovered machine was told to boot", address=str(at), by=path)
        return reply(200, said.body, JSON)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._waiting >= self._most_waiting:
            raise Unavailable(
                "Failed to hand facts to Foreman: too many machines wait for it (facts_at_once); try again"
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(self._waited_s):
                await self._slots.acquire()
        except TimeoutError:
            sentence = f"Failed to hand facts to Foreman: it was busy with other machines' for {self._waited_s:g} s"
            raise Unavailable(sentence) from None
        finally:
            self._waiting -= 1
        try:
            with begun_with("Failed to hand facts to Foreman", *UNANSWERED):
                yield
        finally:
            self._slots.release()

    def _answered(self, said: Said, machine: str | None, source: str) -> Reply:
        if 300 <= said.status < 400:
            raise BadGateway(f"Failed to hand facts to Foreman: it answers {said.status}, which is not followed")
        if said.status >= 400:
            held = self._refusals.held_back((source, said.status))
            if held is not None:
                sentence = f"Foreman answers {said.status} to a machine's facts{log.and_more(held)}"
                _log.warning(sentence, status=said.status, **_about(machine))
        else:
            _log.info("A machine was discovered", status=said.status, **_about(machine))
        status = said.status if said.status in _SUCCESS or said.status >= 400 else 200
        if not said.body:
            return Reply(status, b"", [(b"content-length", b"0"), SERVER_HEADER])
        return reply(status, said.body, JSON if said.content_type.startswith("application/json") else TEXT)

    def _too_often(self, request: Request, source: str) -> Reply:
        held = self._refusals.held_back((source, 429))
        if held is not None:
            _log.warning(f"Facts come too often from {source} (facts_per_minute){log.and_more(held)}", status=429)
        sentence = "Failed to hand facts to Foreman: they come too often from this address; try again"
        said = text_reply(429, sentence, accept=request.accept)
        said.headers.append(RETRY_AFTER)
        return said


def _about(machine: str | None) -> dict[str, str]:
    return {"about": machine} if machine is not None else {}


async def _whole(request: Request) -> bytes:
    """Return the body, of the length that facts may have, whatever ``edge.body_limit_bytes`` says."""
    length = request.headers.get(b"content-length", b"")
    what = "Failed to hand facts to Foreman"
    if length.isdigit() and int(length) > facts.LARGEST_BYTES:
        raise TooLarge(f"{what}: the body is larger than {facts.LARGEST_BYTES >> 20} MiB")
    body = bytearray()
    try:
        async with asyncio.timeout(request.body_timeout_s), contextlib.aclosing(request.pieces()) as pieces:
            async for piece in pieces:
                if len(body) + len(piece) > facts.LARGEST_BYTES:
                    raise TooLarge(f"{what}: the body is larger than {facts.LARGEST_BYTES >> 20} MiB")
                request.hold(len(piece))
                body += piece
    except TimeoutError:
        raise TooSlow(f"{what}: the body did not arrive within {request.body_timeout_s:g} s") from None
    return bytes(body)


@asynccontextmanager
async def opened(settings: DiscoverySettings, around: Surroundings) -> AsyncIterator[Discovery]:
    """Yield the service.

    Raises:
        Misconfigured: the cluster file does not say where Foreman is; ``node_ca_file`` cannot be used.
    """
    nodes = Nodes(settings, context_of(settings))
    opening = handed.opened(around, timeout_s=settings.foreman_timeout_s, needed_by="discovery")
    async with opening as foreman:
        _log.warning(f"Feature discovery is unproven: {UNPROVEN}")
        yield Discovery(foreman, nodes, settings)
