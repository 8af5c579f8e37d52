"""What each server answers to the question the balancer asks it, in words.

HAProxy's own verdict on a failed check is one code (``L6RSP``); here the same question is asked the same way and the answer
says why. Members are asked side by side, a member's services one after another on one connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from muster.balancer.generations import CONNECTION, Over
from muster.balancer.model import Balancing, Question, Server, Service
from muster.foreman import questions
from muster.foreman.questions import Questions
from muster.kernel.errors import Misconfigured, MusterError, Unavailable
from muster.kernel.names import in_url
from muster.kernel.reasons import spoken
from muster.kernel.tasks import each
from muster.observed.programs import Asker, believing
from muster.pki.context import Credentials

Standing = Literal["ready", "draining", "unready", "unreachable"]
ONLY_THE_PORT = "only the port was tried"


@dataclass(frozen=True)
class Answer:
    """One member's answer for one service.

    Attributes:
        reason: one sentence; empty when ready.
        notes: what is wrong but does not take the service out.
    """

    service: str
    member: str
    standing: Standing
    reason: str = ""
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "service": self.service,
            "member": self.member,
            "state": self.standing,
            "reason": self.reason,
            "notes": list(self.notes),
        }


def short_of(answers: Sequence[Answer], without: str, min_ready: int = 1) -> list[str]:
    """Return the services that would have fewer than ``min_ready`` ready members without one that is ready for them."""
    name = without.lower()
    mine = [a.service for a in answers if a.member == name and a.standing == "ready"]
    others = [a.service for a in answers if a.member != name and a.standing == "ready"]
    return [s for s in dict.fromkeys(mine) if others.count(s) < min_ready]


async def surveyed(balancing: Balancing, credentials: Credentials, *, timeout_s: float = 3.0) -> list[Answer]:
    """Ask every server of every service; never raises for a member that does not answer.

    Returns:
        Answers in the order of services, then servers.

    Raises:
        Misconfigured: one of our own files cannot be used.
    """
    asking = _Asking.of(balancing, credentials, timeout_s)
    asked = (_of_member(asking, pairs) for pairs in _by_member(balancing).values())
    return _in_order(balancing, await asyncio.gather(*asked))


def _by_member(balancing: Balancing) -> dict[str, list[tuple[Service, Server]]]:
    by_member: dict[str, list[tuple[Service, Server]]] = {}
    for service in balancing.services:
        for server in service.servers:
            by_member.setdefault(server.name, []).append((service, server))
    return by_member


def _in_order(balancing: Balancing, of_members: Iterable[Sequence[Answer]]) -> list[Answer]:
    found = {(a.service, a.member): a for answers in of_members for a in answers}
    return [found[s.name, v.name] for s in balancing.services for v in s.servers]


class Survey:
    """Surveys again and again, as :func:`surveyed`, and keeps the connections; use as a context.

    A member is asked once a round for all services that it answers for by itself. So a round of fifty members costs fifty
    short answers and no handshake.

    Attributes:
        at_once: how many members are asked side by side.

    Concurrency: one round at a time.

    Raises:
        Misconfigured: one of our own files cannot be used.
    """

    def __init__(
        self, balancing: Balancing, credentials: Credentials, *, timeout_s: float = 3.0, at_once: int = 16
    ) -> None:
        self.at_once = at_once
        self._balancing = balancing
        self._asking = _Asking.of(balancing, credentials, timeout_s)
        self._stack = contextlib.AsyncExitStack()
        self._proxies: dict[tuple[str, str], Questions] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def round(self) -> list[Answer]:
        """Ask every server of every service; never raises for a member that does not answer."""
        found: list[Sequence[Answer]] = []

        async def ask(pairs: Sequence[tuple[Service, Server]]) -> None:
            found.append(await self._of_member(pairs))

        await each(_by_member(self._balancing).values(), ask, at_once=self.at_once)
        return _in_order(self._balancing, found)

    async def told(self, member: str, path: str) -> dict[str, Any]:
        """Return the JSON object that a member of kind muster answers to Foreman's port; raises as :meth:`Questions.call`.

        ``member`` in lower case.
        """
        service = self._balancing.service("smartproxy")
        server = next((s for s in service.servers if s.name == member), None) if service is not None else None
        if server is None:
            raise Unavailable(f"No service smartproxy leads to {member}, so there is nothing it could be asked")
        proxy = await self._proxy(server, self._asking)
        said = (await proxy.call(path)).json()
        if not isinstance(said, dict):
            raise Unavailable(f"{proxy.url} answers {path} with no mapping")
        return said

    async def _of_member(self, pairs: Sequence[tuple[Service, Server]]) -> list[Answer]:
        together: dict[str, Mapping[str, Any]] = {}
        silent: dict[str, str] = {}
        for _, server in pairs:
            url = _url_of(server)
            if server.question.kind != "ready" or url in together or url in silent:
                continue
            proxy = await self._proxy(server, self._asking)
            try:
                said = (await proxy.ask(_ALL)).json()
            except (Unavailable, Misconfigured) as e:
                silent[url] = str(e)
                continue
            by_service = said.get("services") if isinstance(said, dict) else None
            # Whoever is older than that question is asked for each service.
            together[url] = by_service if isinstance(by_service, dict) else {}
        found: dict[str, Answer] = {}
        for service, server in pairs:
            url = _url_of(server)
            if server.question.kind != "ready":
                continue
            if url in silent:
                reason = silent[url].replace(_ALL, server.question.uri)
                found[service.name] = Answer(service.name, server.name, "unreachable", reason)
            elif isinstance(said := together[url].get(service.name), dict):
                found[service.name] = _verdict(service, server, said)
        left = [(s, v) for s, v in pairs if s.name not in found]
        if left:
            found |= {a.service: a for a in await _of_member(self._asking, left, self._proxy)}
        return [found[s.name] for s, _ in pairs]

    async def _proxy(self, server: Server, asking: _Asking) -> Questions:
        # A member each, whatever its address: of one connection nobody else may ask meanwhile.
        at = (server.name, _url_of(server))
        if at not in self._proxies:
            self._proxies[at] = await self._stack.enter_async_context(asking.opened(server))
        return self._proxies[at]


_ALL = "/health/ready?services=all"


def _url_of(server: Server) -> str:
    return f"https://{in_url(server.address)}:{server.question.port}"


def _verdict(service: Service, server: Server, said: Mapping[str, Any]) -> Answer:
    """Return what a member said of one service among all."""
    state = str(said.get("state", ""))
    standing: Standing = state if state in ("ready", "draining") else "unready"  # type: ignore[assignment]
    return Answer(service.name, server.name, standing, str(said.get("reason", "")), _notes(said))


def _notes(said: Mapping[str, Any]) -> tuple[str, ...]:
    found = said.get("notes")
    return tuple(str(n) for n in found) if isinstance(found, list) else ()


@dataclass(frozen=True)
class _Asking:
    """How members are asked.

    Attributes:
        contexts: by the kind of question that is put to a Smart Proxy.
        programs: asks what a Ruby member's balancer checks are about, where that is no Smart Proxy.
    """

    address: str
    contexts: dict[str, ssl.SSLContext]
    credentials: Credentials
    timeout_s: float

    @classmethod
    def of(cls, balancing: Balancing, credentials: Credentials, timeout_s: float) -> _Asking:
        ruby = credentials.rubys() if credentials.site_ca_file is not None else credentials.ours()
        contexts = {"ready": credentials.ours(), "alive": ruby}
        return cls(balancing.address, contexts, credentials, timeout_s)

    def opened(self, server: Server) -> AbstractAsyncContextManager[Questions]:
        """Return what asks the Smart Proxy behind a server's question."""
        context = self.contexts[server.question.kind]
        return questions.opened(_url_of(server), context=context, server_name=self.address, timeout_s=self.timeout_s)

    async def unproven(self, server: Server) -> str:
        """Return why the program gives no proof, as the balancer's check would find it; empty when it gives it."""
        other = server.question.proof.ca_file

        def context(over: Over) -> ssl.SSLContext:
            if over == "tls":
                return believing()(over)
            return self.credentials.rubys(Path(other)) if other is not None else self.contexts["alive"]

        return await Asker(self.address, context).unproven(server.address, server.question)


_Connected = Callable[[Server, _Asking], Awaitable[Questions]]


async def _of_member(
    asking: _Asking, pairs: Sequence[tuple[Service, Server]], kept: _Connected | None = None
) -> list[Answer]:
    """Ask a member for its services; ``kept`` connects where connections outlive the round."""
    answers = []
    async with contextlib.AsyncExitStack() as stack:
        proxies: dict[str, Questions] = {}
        silent: dict[str, tuple[Question, Answer]] = {}
        for service, server in pairs:
            if server.question.kind == "connect":
                answers.append(await _connects(service, server, asking))
                continue
            url = _url_of(server)
            if url not in proxies:
                proxies[url] = await (
                    kept(server, asking) if kept is not None else stack.enter_async_context(asking.opened(server))
                )
            # A port that did not answer one question is not waited for with each of the others.
            if url in silent:
                asked, before = silent[url]
                reason = before.reason.replace(asked.uri, server.question.uri)
                answer = replace(before, service=service.name, reason=reason)
            else:
                answer = await _asked(service, server, proxies[url])
            if answer.standing == "unreachable":
                silent.setdefault(url, (server.question, answer))
            answers.append(answer)
    return answers


async def _asked(service: Service, server: Server, proxy: Questions) -> Answer:
    try:
        answer = await proxy.ask(server.question.uri)
        if server.question.kind == "alive":
            good = answer.status == 200
            reason = "" if good else f"answered {answer.status}"
            return Answer(service.name, server.name, "ready" if good else "unready", reason)
        said = answer.json()
        if not isinstance(said, dict):
            raise Unavailable(f"the answer is no readiness: {answer.text[:80]}")
        standing: Standing = {200: "ready", 404: "draining"}.get(answer.status, "unready")  # type: ignore[assignment]
        return Answer(service.name, server.name, standing, str(said.get("reason", "")), _notes(said))
    except (Unavailable, Misconfigured) as e:
        return Answer(service.name, server.name, "unreachable", str(e))
    except MusterError as e:
        return Answer(service.name, server.name, "unready", str(e))


async def _connects(service: Service, server: Server, asking: _Asking) -> Answer:
    where = f"{server.address} port {server.question.port}"
    try:
        async with asyncio.timeout(asking.timeout_s):
            _, writer = await asyncio.open_connection(server.address, server.question.port)
    except (OSError, TimeoutError) as e:
        return Answer(service.name, server.name, "unreachable", f"{where}: {spoken(e)}")
    writer.close()
    if server.question.proof == CONNECTION:
        return Answer(service.name, server.name, "ready", notes=(ONLY_THE_PORT,))
    try:
        why = await asking.unproven(server)
    except Misconfigured as e:
        # What a check names lies on the balancers' hosts; this may be another one.
        return Answer(service.name, server.name, "ready", notes=(f"{ONLY_THE_PORT}: {e}",))
    return Answer(service.name, server.name, "unready" if why else "ready", why)
