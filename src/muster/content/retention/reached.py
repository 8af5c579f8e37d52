"""A member's Pulp, as commands reach it from whichever host they run on."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from muster.balancer.model import Balancing, Server
from muster.cluster.file import ClusterFile, Member
from muster.kernel.errors import Unavailable
from muster.kernel.names import in_url
from muster.pki.context import client_context

if TYPE_CHECKING:
    from muster.content.pulp import Pulp

_ANSWER_S = 15.0


@contextlib.asynccontextmanager
async def pulp_behind(
    cluster: ClusterFile, balancing: Balancing, member: Member, context: ssl.SSLContext
) -> AsyncIterator[Pulp]:
    """Yield a member's Pulp: itself where that member is this host's, else as what comes in at the member's port.

    ``context`` is what members are asked with.

    Raises:
        Unavailable: there is no way to it.
        Misconfigured: the password file of the cluster file is not here.
    """
    # They bring an HTTP client with them, which takes its time to load.
    from muster.content import backend
    from muster.content.places import PROGRAMS
    from muster.content.pulp import Pulp, password

    settings = cluster.content
    assert settings is not None  # noqa: S101 - asked before
    patience = backend.Patience(settings.connect_timeout_s, _ANSWER_S, _ANSWER_S)
    name = PROGRAMS["api"].name
    secret = password(settings.pulp_password_file)
    if settings.pulp_api_url is None:
        raise Unavailable("its member has no Pulp: pulp_api_url is null")
    if _is_here(member.address):
        url = settings.pulp_api_url.replace("{address}", in_url(member.address)).rstrip("/")
        trusting = client_context(settings.ca_file) if settings.ca_file is not None else context
        async with backend.opened(name, url, patience, context=lambda: trusting) as api:
            yield Pulp(api, secret)
        return
    server = _https(balancing, str(member.name))
    if server is None:
        raise Unavailable("its member is on another host, and has no port where it could be asked")
    async with backend.opened(name, "https://localhost", patience, context=lambda: context) as any_of_them:
        url = f"https://{in_url(server.address)}:{server.port}"
        yield Pulp(any_of_them.at(name, url, server_hostname=balancing.address), secret, is_direct=False)


def _https(balancing: Balancing, member: str) -> Server | None:
    service = balancing.service("https")
    return next((s for s in service.servers if s.name == member.lower()), None) if service is not None else None


def _is_here(address: str) -> bool:
    """Whether an address is this host's own."""
    try:
        kind, _, _, _, at = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as one:
            one.bind(at)
    except OSError:
        return False
    return True
