"""What this member's backend does not have, or not now, is asked of the other members.

One hop: a member that is asked by another asks only what it has itself. Source: docs/facts/content-and-boot.md §8.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import ipaddress
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter

from muster.cluster.file import ClusterFile
from muster.content import backend as backends
from muster.content.backend import Answer, Backend, Patience
from muster.edge.replies import Header
from muster.kernel.errors import MusterError, Rejected, Unavailable
from muster.kernel.names import in_url
from muster.pki.context import RenewedContext

MARK, _CERTIFICATE, _ADDRESS = "X-Muster-Fill", "X-Muster-Client-Certificate", "X-Muster-Client-Address"
# Said to backends of who asks; to another member it is said under the names above.
_SAID = frozenset({
    "x-client-cert", "x_rhsm_ssl_client_cert", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "host",
})  # fmt: skip
_BETWEEN_MEMBERS = tuple(name.lower().encode() for name in (MARK, _CERTIFICATE, _ADDRESS))
_LARGEST_CERTIFICATE = 16 << 10
# Of each of the others: one that hangs must not keep the rest from being asked.
_AT_ONCE = 64
_PAUSE_S = 0.5
# As long as that another member has to begin its answer, however short a call is held.
_LEAST_S = 3.0
# After so many calls in a row that it began to answer too late, the others are asked first.
_SLOW = 2
# And it itself again after so long: that one call tells whether it is well.
_OWN_AGAIN_S = 2.0


class Sibling(NamedTuple):
    """Another member that is ready for content.

    Attributes:
        port: where it answers content over TLS.
    """

    name: str
    address: str
    port: int


@dataclass(frozen=True)
class Behind:
    """Who another member asks for.

    Attributes:
        certificate: what the client showed it, DER; None: nothing.
    """

    address: str
    certificate: bytes | None


class Small(NamedTuple):
    """An answer that was read whole."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class _Said:
    """What one of those that were asked said: an answer, or that it has none, or why that is not known."""

    answer: Answer | None = None
    why: str = ""

    def is_found(self, *, here: bool) -> bool:
        """Whether nobody else need be asked: what another member refuses, a third may give."""
        return self.answer is not None and self.answer.status not in ((404,) if here else (401, 403, 404))


Ask = Callable[[], Awaitable[Answer]]


class Fill:
    """Asks the own backend, then the others. Use :func:`opened`.

    Attributes:
        siblings: who is ready now; set by whoever knows.

    Concurrency: any number of calls on one loop; of each other member ``_AT_ONCE`` answers are awaited at a time.
    """

    def __init__(
        self, others: Callable[[Sibling], Backend], registry: CollectorRegistry, *, after_s: float, hold_s: float
    ) -> None:
        self.siblings: tuple[Sibling, ...] = ()
        self._others = others
        self._after_s = after_s
        self._hold_s = hold_s
        self._rooms: dict[str, asyncio.Semaphore] = {}
        self._late = 0
        self._own_again_at = 0.0
        self._filled = Counter(
            "muster_content_fills",
            "Calls for which the own backend was not enough, by what came of them",
            ("outcome",),
            registry=registry,
        )

    def other(self, sibling: Sibling) -> Backend:
        """Return another member."""
        return self._others(sibling)

    async def asked(
        self,
        own: Ask,
        method: str,
        path: str,
        sent: Sequence[tuple[str, str]],
        behind: Behind,
        *,
        own_last: bool = False,
        judged: Callable[[Answer], Awaitable[Answer]] | None = None,
    ) -> Answer:
        """Return the answer of the first who has one.

        ``own`` asks the own backend, ``own_last``: after all others; ``path`` is the client's; ``sent`` are the headers that
        the backend gets. ``judged`` makes another of each answer: who has not what is asked for has answered 404.

        It is 404 when all said so. While somebody who might have it could not be asked, the call is held; so long another
        member may be silent, too, where the own backend has said that it is not enough.

        Raises:
            Unavailable: it was held for ``hold_s``.
            GatewayTimeout, BadGateway: the own backend's, where there is nobody else.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._hold_s
        while siblings := self.siblings:
            # The same path leads to the same one first: it may have had to fetch it itself.
            first = zlib.crc32(path.encode()) % len(siblings)
            order = (*siblings[first:], *siblings[:first])
            others = {self._ask(s, method, path, sent, behind): s.name for s in order}
            if judged is not None:
                others = {_judged(ask, judged): name for ask, name in others.items()}
            latest = max(until, loop.time() + _LEAST_S)
            found, said = await self._round(own, others, latest, own_last=own_last)
            if found is not None:
                return found
            why = "; ".join(one.why for one in said if one.why)
            answers = [one.answer for one in said if one.answer is not None]
            if not why:
                # Who may not have it there hears that, and not that it is nowhere.
                kept = next((a for a in answers if a.status != 404), answers[0])
                _end([a for a in answers if a is not kept])
                self._filled.labels("nobody").inc()
                return kept
            _end(answers)
            if loop.time() + _PAUSE_S > until:
                self._filled.labels("held").inc()
                raise Unavailable(f"Who may have it could not be asked: {why}")
            await asyncio.sleep(_PAUSE_S)
        return await own()

    async def elsewhere(self, method: str, path: str, sent: Sequence[tuple[str, str]], behind: Behind) -> Answer:
        """As :meth:`asked`, of the others alone."""

        async def nothing_here() -> Answer:
            return Answer.absent("this member")

        return await self.asked(nothing_here, method, path, sent, behind)

    async def each(
        self, path: str, sent: Sequence[tuple[str, str]], behind: Behind, *, limit_bytes: int, within_s: float
    ) -> list[Small | None]:
        """Return what each of the others answers for itself to ``GET``, None for who does not in time; all at once."""

        async def one(sibling: Sibling) -> Small | None:
            try:
                async with asyncio.timeout(within_s):
                    said = await _heard(self._ask(sibling, "GET", path, sent, behind))
                    if said.answer is None:
                        return None
                    body = await said.answer.whole(limit_bytes)
            except (TimeoutError, MusterError):
                return None
            return Small(said.answer.status, body) if body is not None else None

        return await asyncio.gather(*(one(s) for s in self.siblings))

    def _ask(self, sibling: Sibling, method: str, path: str, sent: Sequence[tuple[str, str]], behind: Behind) -> Ask:
        headers = told(sent, behind)

        room = self._rooms.setdefault(sibling.name, asyncio.Semaphore(_AT_ONCE))

        async def ask() -> Answer:
            async with room:
                return await self._others(sibling).ask(method, path, headers)

        return ask

    async def _round(
        self, own: Ask, others: Mapping[Ask, str], latest: float, *, own_last: bool
    ) -> tuple[Answer | None, list[_Said]]:
        """Ask one after the other; whoever does not begin to answer soon is awaited beside the next.

        ``others`` are asked by name; when only they are silent still, they are awaited until ``latest``.
        """
        loop = asyncio.get_running_loop()
        waiting = deque((*others, own) if own_last else (own, *others))
        if not own_last and self._late >= _SLOW and loop.time() < self._own_again_at:
            first = next(iter(others))
            waiting = deque((first, own, *(ask for ask in others if ask is not first)))
        found: Answer | None = None
        said: list[_Said] = []
        running: dict[asyncio.Task[_Said], Ask] = {}
        own_is_due = float("inf")
        try:
            while waiting or running:
                if waiting:
                    ask = waiting.popleft()
                    running[asyncio.create_task(_heard(ask), name="fill")] = ask
                    if ask is own:
                        own_is_due = loop.time() + self._after_s
                patience_s: float | None = self._after_s
                if not waiting:
                    patience_s = None if own in running.values() else max(0.0, latest - loop.time())
                done, _ = await asyncio.wait(running, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
                if loop.time() >= own_is_due and own in running.values():
                    self._late, self._own_again_at = self._late + 1, loop.time() + _OWN_AGAIN_S
                    own_is_due = float("inf")
                for task in done:
                    by, one = running.pop(task), task.result()
                    if by is own and loop.time() < own_is_due < float("inf"):
                        self._late = 0
                    if found is None and one.is_found(here=by is own):
                        found = one.answer
                        if by is not own:
                            self._filled.labels("sibling").inc()
                    else:
                        said.append(one)
                if found is not None:
                    _end([one.answer for one in said])
                    return found, []
                if not done and not waiting:
                    said += [_Said(why=f"member {others[by]} does not begin to answer") for by in running.values()]
                    break
        except BaseException:
            # Whoever asked has gone.
            _end([found, *(one.answer for one in said)])
            raise
        finally:
            await _given_up(running)
        return None, said


def _judged(ask: Ask, judged: Callable[[Answer], Awaitable[Answer]]) -> Ask:
    async def asked() -> Answer:
        return await judged(await ask())

    return asked


def told(sent: Sequence[tuple[str, str]], behind: Behind) -> list[tuple[str, str]]:
    """Return a backend's headers for another member, which hears who asks as :func:`behind` reads it."""
    headers = [h for h in sent if h[0].lower() not in _SAID]
    # Programs build addresses for clients from it.
    headers += [("Host", value) for name, value in sent if name.lower() == "x-forwarded-host"]
    headers += [(MARK, "1"), (_ADDRESS, behind.address)]
    if behind.certificate is not None:
        headers.append((_CERTIFICATE, base64.b64encode(behind.certificate).decode()))
    return headers


async def _heard(ask: Ask) -> _Said:
    try:
        answer = await ask()
    except MusterError as e:
        return _Said(why=str(e))
    # 429 is another member's 503 for images.
    if answer.status >= 500 or answer.status == 429:
        answer.end()
        return _Said(why=f"{answer.of} answers {answer.status}")
    return _Said(answer)


async def _given_up(running: Iterable[asyncio.Task[_Said]]) -> None:
    tasks = list(running)
    for task in tasks:
        task.cancel()
    for said in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(said, _Said):
            _end([said.answer])


def _end(answers: Iterable[Answer | None]) -> None:
    for answer in answers:
        if answer is not None:
            answer.end()


def behind(sent: Iterable[Header]) -> Behind | None:
    """Return who another member asks for, None when this is no such question; only from a member may it be believed.

    Raises:
        Rejected: it does not say so as members do.
    """
    said = {name: value for name, value in sent if name in _BETWEEN_MEMBERS}
    if _BETWEEN_MEMBERS[0] not in said:
        return None
    _, certificate, address = (said.get(name, b"") for name in _BETWEEN_MEMBERS)
    try:
        ipaddress.ip_address(address.decode("ascii"))
        shown = base64.b64decode(certificate, validate=True)
    except (ValueError, binascii.Error):
        raise Rejected("a member's question that says no member's words") from None
    if len(shown) > _LARGEST_CERTIFICATE:
        raise Rejected("a client certificate that is too large")
    return Behind(address.decode("ascii"), shown or None)


def is_possible(cluster: ClusterFile) -> bool:
    """Whether other members can be asked: who is must be able to hear who asks, so over TLS.

    There need be none yet: one may be added while this one runs.
    """
    return cluster.content is not None and "https" in cluster.content.services


@contextlib.asynccontextmanager
async def opened(
    context: RenewedContext, patience: Patience, registry: CollectorRegistry, *, after_s: float, hold_s: float
) -> AsyncIterator[Fill]:
    """Yield what asks the other members, showing them and believing only what the cluster's CA issued."""
    async with backends.opened("another member", "https://localhost", patience, context=context) as any_of_them:

        def other(sibling: Sibling) -> Backend:
            url = f"https://{in_url(sibling.address)}:{sibling.port}"
            return any_of_them.at(f"member {sibling.name}", url, server_hostname=sibling.name)

        yield Fill(other, registry, after_s=after_s, hold_s=hold_s)
