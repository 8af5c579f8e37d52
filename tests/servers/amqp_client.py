"""A client of AMQP 1.0 on Qpid Proton, run by the Python whose package Proton is (Debian: python3-qpid-proton).

Nothing here is imported by tests: ``tests.servers.subscribers`` runs it. It prints a line of JSON about everything that
happens to it, and ends with 0 when a message that it was to send has been taken.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from proton import Event, Message, SSLDomain  # type: ignore[import-not-found]
from proton.handlers import MessagingHandler  # type: ignore[import-not-found]
from proton.reactor import Container  # type: ignore[import-not-found]

_TOPIC = "/topic/word"


class Client(MessagingHandler):  # type: ignore[misc]
    """Subscribes and listens for ever, connecting again when it is cut off; or sends one message."""

    def __init__(self, given: argparse.Namespace) -> None:
        super().__init__()
        self.given = given
        self.connected = False
        self.sent = False

    def on_start(self, event: Event) -> None:
        domain = SSLDomain(SSLDomain.MODE_CLIENT)
        domain.set_trusted_ca_db(self.given.ca)
        domain.set_credentials(self.given.certificate, self.given.key, None)
        domain.set_peer_authentication(SSLDomain.VERIFY_PEER_NAME if self.given.name else SSLDomain.VERIFY_PEER)
        # A virtual host is the name that the certificate must carry; RabbitMQ takes "vhost:" as its own.
        connection = event.container.connect(
            f"amqps://{self.given.place}",
            ssl_domain=domain,
            virtual_host=self.given.name or None,
            allowed_mechs="ANONYMOUS",
            heartbeat=self.given.heartbeat or None,
            reconnect=None if self.given.send is None else False,
        )
        if self.given.send is None:
            event.container.create_receiver(connection, _TOPIC)
        else:
            event.container.create_sender(connection, _TOPIC)

    def on_connection_opened(self, event: Event) -> None:
        self.connected = True
        said("connected", silence_s=event.transport.remote_idle_timeout)

    def on_link_opened(self, event: Event) -> None:
        said("subscribed")

    def on_sendable(self, event: Event) -> None:
        if not self.sent:
            event.sender.send(Message(body=self.given.send))
            self.sent = True

    def on_accepted(self, event: Event) -> None:
        said("accepted")
        event.connection.close()

    def on_message(self, event: Event) -> None:
        said("message", text=text_of(event.message.body))

    def on_transport_closed(self, event: Event) -> None:
        said("lost" if self.connected else "refused", why=reason(event.transport))
        self.connected = False

    def on_connection_error(self, event: Event) -> None:
        said("closed", why=str(event.connection.remote_condition))
        super().on_connection_error(event)


def text_of(body: Any) -> str:
    # RabbitMQ hands on bytes.
    return bytes(body).decode() if isinstance(body, bytes | memoryview) else str(body)


def reason(transport: Any) -> str:
    condition = transport.condition if transport is not None else None
    return f"{condition.name}: {condition.description}" if condition is not None else ""


def said(event: str, **more: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("--place", "--ca", "--certificate", "--key"):
        parser.add_argument(name, required=True)
    parser.add_argument("--name", default="")
    parser.add_argument("--heartbeat", type=float, default=0.0)
    parser.add_argument("--send", default=None)
    client = Client(parser.parse_args())
    try:
        Container(client).run()
    except OSError as e:
        said("failed", why=str(e))
        return 1
    return 0 if client.sent or client.given.send is None else 1


if __name__ == "__main__":
    sys.exit(main())
