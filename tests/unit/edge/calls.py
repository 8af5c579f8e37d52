"""Calls without a socket: what a server would hand to the application, and what came back."""

from __future__ import annotations

import json
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from muster.edge.budget import Budget
from muster.edge.request import Peer, Receive, Request

FOREMAN = "foreman.example.com"
CLIENT = "192.0.2.9"


@lru_cache
def certificate(common_name: str | None) -> bytes:
    """Return a client certificate, DER, whose subject has this common name, or none at all."""
    key = ec.generate_private_key(ec.SECP256R1())
    parts = [(NameOID.ORGANIZATION_NAME, "CN=foreman.example.com")]
    parts += [(NameOID.COMMON_NAME, common_name)] if common_name is not None else []
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(FOREMAN)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.DER)


def peer(common_name: str | None = FOREMAN, address: str = CLIENT) -> Peer:
    return Peer(address, certificate(common_name))


@dataclass
class FakeNames:
    """A resolver that knows what it was given; anything else is an error in the resolver's words."""

    reverses: dict[str, str] = field(default_factory=dict)
    forwards: dict[str, Sequence[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def reverse(self, address: str) -> str:
        self.asked.append(address)
        if address not in self.reverses:
            raise OSError(1, "Unknown host")
        return self.reverses[address]

    async def forward(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        if name not in self.forwards:
            raise OSError(-2, "Name or service not known")
        return self.forwards[name]


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def content_type(self) -> str:
        return self.headers["content-type"]


def scope(
    method: str,
    target: str | bytes,
    *,
    scheme: str = "https",
    by: Peer | None = None,
    headers: dict[str, str] | None = None,
) -> MutableMapping[str, Any]:
    """Return the scope a server makes of a request line."""
    raw = target if isinstance(target, bytes) else target.encode("latin-1")
    path, _, query = raw.partition(b"?")
    return {
        "type": "http",
        "method": method,
        "scheme": scheme,
        "path": unquote(path.decode("latin-1"), "utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in (headers or {}).items()],
        "state": {"peer": by if by is not None else Peer(CLIENT)},
    }


def receiving(*chunks: bytes, gone: bool = False) -> Receive:
    """Return a ``receive`` that gives the chunks, then, if the client is gone, its disconnection."""
    messages: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": c, "more_body": True} for c in chunks]
    if gone:
        messages.append({"type": "http.disconnect"})
    elif messages:
        messages[-1]["more_body"] = False
    else:
        messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop(0)

    return receive


def request(
    method: str = "GET",
    target: str | bytes = "/",
    *,
    scheme: str = "https",
    by: Peer | None = None,
    headers: dict[str, str] | None = None,
    body: Sequence[bytes] = (),
    gone: bool = False,
    body_limit_bytes: int = 1 << 20,
    body_timeout_s: float = 30.0,
    budget: Budget | None = None,
) -> Request:
    given = scope(method, target, scheme=scheme, by=by, headers=headers)
    return Request(
        given,
        receiving(*body, gone=gone),
        peer=given["state"]["peer"],
        request_id="0badcafe",
        headers=dict(given["headers"]),
        body_limit_bytes=body_limit_bytes,
        body_timeout_s=body_timeout_s,
        budget=budget,
    )
