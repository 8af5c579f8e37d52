"""Does a program answer that serves another port on this host?"""

from __future__ import annotations

from muster.app.duties.duty import Duty, Found
from muster.balancer.model import Balancing, Question
from muster.observed.programs import Asker


class Program(Duty):
    """Takes out the service of one program that gives no proof. One a program: one that hangs holds no other up."""

    def __init__(self, asker: Asker, host: str, service: str, question: Question) -> None:
        self.name = f"program of {service}"
        self._asker = asker
        self._host = host
        self._service = service
        self._question = question
        # Nobody gets clients of a program that has not answered yet.
        self._why = f"the program on port {question.port} was not asked yet"

    async def beat(self) -> None:
        self._why = await self._asker.unproven(self._host, self._question)

    def found(self) -> Found:
        return Found({self._service: self._why} if self._why else {})


def beside(balancing: Balancing, member: str) -> dict[str, Question]:
    """Return what the programs on a member's host that serve ports of their own are asked, by service."""
    servers = ((s.name, v) for s in balancing.services for v in s.servers if v.name == member.lower())
    return {service: server.beside for service, server in servers if server.beside is not None}
