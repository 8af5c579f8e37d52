"""What each server answers to the question the balancer asks it, in words.

HAProxy's own verdict on a failed check is one code (``L6RSP``); here the same question is asked the same way and the answer
says why. Members are asked side by side, a member's services one after another on one connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from muster.balancer.generations import CONNECTION, Over
from muster.balancer.model import Balancing, Question, Server, Service
from muster.foreman import questions
from muster.foreman.questions import Questions
from muster.kernel.errors import Misconfigured, MusterError, Unavailable
from muster.kernel.names import in_url
from muster.kernel.reasons import spoken
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
    by_member: dict[str, list[tuple[Service, Server]]] = {}
    for service in balancing.services:
        for server in service.servers:
            by_member.setdefault(server.name, []).append((service, server))
    asked = (_of_member(asking, pairs) for pairs in by_member.values())
    found = {(a.service, a.member): a for answers in await asyncio.gather(*asked) for a in answers}
    return [found[s.name, v.name] for s in balancing.services for v in s.servers]


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

    async def unproven(self, server: Server) -> str:
        """Return why the program gives no proof, as the balancer's check would find it; empty when it gives it."""
        other = server.question.proof.ca_file

        def context(over: Over) -> ssl.SSLContext:
            if over == "tls":
                return believing()(over)
            return self.credentials.rubys(Path(other)) if other is not None else self.contexts["alive"]

        return await Asker(self.address, context).unproven(server.address, server.question)


async def _of_member(asking: _Asking, pairs: list[tuple[Service, Server]]) -> list[Answer]:
    answers = []
    async with contextlib.AsyncExitStack() as stack:
        proxies: dict[str, Questions] = {}
        silent: dict[str, tuple[Question, Answer]] = {}
        for service, server in pairs:
            if server.question.kind == "connect":
                answers.append(await _connects(service, server, asking))
                continue
            url = f"https://{in_url(server.address)}:{server.question.port}"
            if url not in proxies:
                context = asking.contexts[server.question.kind]
                opened = questions.opened(url, context=context, server_name=asking.address, timeout_s=asking.timeout_s)
                proxies[url] = await stack.enter_async_context(opened)
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
        notes = tuple(str(n) for n in said.get("notes", ()))
        return Answer(service.name, server.name, standing, str(said.get("reason", "")), notes)
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
