"""The listeners of one member: what rooms offer, opened on the ports that the balancer's model gives them."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from muster.balancer.model import Balancing
from muster.cluster.file import Member
from muster.edge.application import Application, Mounted
from muster.edge.authorise import Gate
from muster.edge.listener import bound
from muster.edge.ports import Port
from muster.edge.routes import Mount
from muster.edge.server import Server
from muster.kernel import log
from muster.kernel.errors import Misconfigured

_log = log.logger("app")


class Listeners:
    """Opens ports on a server.

    Args:
        main: answers the ports without mounts of their own; the others have applications beside it.
        bind: address to listen on; None: the member's own when it is a loopback address, else every address.
    """

    def __init__(
        self,
        server: Server,
        main: Application,
        balancing: Balancing,
        gate: Gate,
        *,
        bind: str | None,
        member: Member,
    ) -> None:
        self._address = own_address(member, bind)
        self._name = str(member.name)
        self._server = server
        self._main = main
        self._balancing = balancing
        self._gate = gate
        self._with_members: list[Port] = []

    def open(
        self,
        port: Port,
        context: ssl.SSLContext | None = None,
        service: Any = None,
        mounts: Sequence[Mount] | None = None,
    ) -> bool:
        """Listen, and return whether the cluster has the service at all.

        ``context`` is for ports that show a certificate; ``service`` is what the endpoints of a port's own mounts get, and
        ``mounts`` are those where the port does not bring them itself.

        Raises:
            Misconfigured: the address or port cannot be had, or the service is disabled and the port is needed.
        """
        number = self._number(port)
        if number is None:
            return False
        application = None
        if (own := port.mounts() if port.mounts is not None else mounts) is not None:
            # Whoever is verified on a room's own port shows a certificate of that room's CA, which is asked for its
            # revocation there.
            gate = Gate(self._gate.callers) if port.shows == "room" else self._gate
            application = self._main.beside([Mounted(m, service) for m in own], gate, port.service)
        trust = self._gate.trust if port.shows == "member" else None
        self._server.listen(port.listener, self._address, number, context, application, trust)
        if port.shows == "member":
            self._with_members.append(port)
        return True

    def held(self, port: Port) -> socket.socket | None:
        """Listen for others who accept, and return the socket; None when the cluster does not have the service.

        Raises:
            Misconfigured: as :meth:`open`.
        """
        number = self._number(port)
        if number is None:
            return None
        sock = bound(self._address, number)
        _log.info("Listening for workers", listener=port.listener, address=self._address, port=number)
        return sock

    def _number(self, port: Port) -> int | None:
        offered = self._balancing.service(port.service)
        if offered is not None:
            return offered.port_on(self._name)
        if port.needed:
            raise Misconfigured(f"Service {port.service} is disabled; a member of kind muster cannot serve without it")
        return None

    def present(self, port: Port, context: ssl.SSLContext) -> None:
        """Show new clients of an open port another certificate of its room."""
        self._server.present(port.listener, context)

    def present_members(self, context: ssl.SSLContext) -> None:
        """Show new clients another bundle of the member, wherever that is what they are shown."""
        for port in self._with_members:
            self._server.present(port.listener, context, self._gate.trust)


def own_address(member: Member, bind: str | None) -> str:
    """Return where a member listens: ``bind``, else its own address when that is a loopback one, else ``*``."""
    if bind:
        return bind
    try:
        return member.address if ipaddress.ip_address(member.address).is_loopback else "*"
    except ValueError:
        return "*"
