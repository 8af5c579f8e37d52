"""A refused client learns why: asyncio and uvloop drop the TLS alert that OpenSSL writes when a handshake fails.

They close the connection as soon as ``do_handshake`` raises, with the alert still in the outgoing buffer, and the client
sees a bare end of file. Here the buffer's last bytes are sent first, as the Ruby proxy's server does.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from contextvars import ContextVar
from typing import Any, Self

# The socket whose handshake the current task accepts. The loops create the SSL object in a callback of that task, so it
# sees the value; there is no other way from an SSL object to its socket.
accepted: ContextVar[socket.socket | None] = ContextVar("accepted", default=None)


class TellingSSLObject(ssl.SSLObject):
    """An SSL object that sends its alert before the failure is raised."""

    _outgoing: ssl.MemoryBIO

    @classmethod
    def _create(cls, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *arguments: Any, **named: Any) -> Self:
        made: Self = super()._create(incoming, outgoing, *arguments, **named)  # type: ignore[misc]
        made._outgoing = outgoing
        return made

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            connection = accepted.get()
            if connection is not None and self._outgoing.pending:
                with contextlib.suppress(OSError):
                    connection.send(self._outgoing.read())
            raise
