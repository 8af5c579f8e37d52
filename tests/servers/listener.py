"""What stand-ins listen with: a thread for each client, over TLS where they have a certificate."""

from __future__ import annotations

import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Listener(ThreadingHTTPServer):
    """Listens; clients that only look at the certificate, or go away in the handshake, are no news."""

    request_queue_size = 512

    def __init__(
        self, place: tuple[str, int], talk: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(place, talk)
        if context is not None:
            # In the handshake's own thread: one client must not hold up the others.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: object, client_address: object) -> None:
        pass
