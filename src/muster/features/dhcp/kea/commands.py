"""Kea's control channel: one command, one answer, as JSON over a socket of the host or over HTTP.

kea-dhcp4 takes commands on a unix socket, and since 2.7.2 over HTTP as well; before, the Control Agent took them there and
passed them on. On the socket the answer is an object, over HTTP a list of one. Every connection is bounded in bytes and in
time.

Source: Kea Administrator Reference Manual, "Management API"; docs/facts/kea.md.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from muster.features.dhcp.contract import Unreached
from muster.foreman import smart_proxy
from muster.foreman.smart_proxy import SmartProxy
from muster.kernel.errors import Misconfigured, MusterError, Rejected, Unavailable, Unsupported
from muster.kernel.names import shown
from muster.kernel.reasons import spoken
from muster.kernel.secrets import Secret

ANSWER_LIMIT_BYTES = 64 << 20
"""The largest answer: a configuration with 100,000 reservations has 30 MB."""
_AT_ONCE = 16
_PIECE = 1 << 18
# Longer ones are read in a thread: others would have no turn meanwhile.
_LARGE = 1 << 18
# What the Control Agent says where it is there and kea-dhcp4 is not.
_NOT_PASSED_ON = "unable to forward command"
_DONE, _NONE, _UNKNOWN = 0, 3, 2


@dataclass(frozen=True)
class Credentials:
    """Whom Kea takes us for over HTTP."""

    user: str
    password: Secret

    def header(self) -> dict[str, str]:
        """Return the header of basic authentication (RFC 7617)."""
        word = base64.b64encode(f"{self.user}:{self.password.reveal()}".encode()).decode("ascii")
        return {"Authorization": f"Basic {word}"}


@dataclass(frozen=True)
class Answer:
    """What Kea answered.

    Attributes:
        found: False: there is nothing of what was asked for, or removed.
        content: an object or a list; None where it has none.
    """

    found: bool
    text: str
    content: Any = None

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The content where it is an object; empty where it is none."""
        return self.content if isinstance(self.content, dict) else {}


class Kea:
    """One kea-dhcp4. Use :func:`opened`. Safe for many tasks of one loop."""

    def __init__(self, url: str, send: Callable[[bytes, str], Awaitable[bytes]]) -> None:
        self.url = url
        self._send = send
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> Answer:
        """Send one command and return its answer.

        Raises:
            Unsupported: Kea has no such command.
            Rejected: Kea refuses it, in its own words.
            Unreached: Kea could not be asked.
            Unavailable: it did not answer, or said what is no answer; whether it did what it was told is unknown.
            Misconfigured: it does not take our credentials, or its socket may not be opened.
        """
        asked: dict[str, Any] = {"command": command, "service": ["dhcp4"]}
        if arguments is not None:
            asked["arguments"] = arguments
        async with self._turns:
            raw = await self._send(await _encoded(asked), command)
        answer = await self._read(raw, command)
        result, text = answer.get("result"), str(answer.get("text", ""))
        if result in (_DONE, _NONE):
            return Answer(result == _DONE, text, answer.get("arguments"))
        said = f"{self.url} answered {shown(result)} to {command}: {shown(text, 300)}"
        if result == _UNKNOWN:
            raise Unsupported(said)
        if result in (401, 403):
            raise Misconfigured(said)
        if _NOT_PASSED_ON in text:
            raise Unavailable(said)
        raise Rejected(said)

    async def _read(self, raw: bytes, command: str) -> Mapping[str, Any]:
        try:
            found = await asyncio.to_thread(json.loads, raw) if len(raw) > _LARGE else json.loads(raw)
        except (ValueError, RecursionError):
            raise Unavailable(
                f"{self.url} answered {command} with what is no whole JSON: {shown(raw[:100].decode('utf-8', 'replace'))}"
            ) from None
        if isinstance(found, list) and len(found) == 1:
            found = found[0]
        if not isinstance(found, dict) or "result" not in found:
            raise Unavailable(f"{self.url} answered {command} with what is no answer of Kea's: {shown(found)}")
        return found


async def _encoded(asked: Mapping[str, Any]) -> bytes:
    def encoded() -> bytes:
        return json.dumps(asked, separators=(",", ":")).encode()

    # Only configurations are large.
    return await asyncio.to_thread(encoded) if asked["command"].startswith("config-") else encoded()


@asynccontextmanager
async def opened(
    url: str,
    *,
    credentials: Credentials | None = None,
    context: Callable[[], ssl.SSLContext] | None = None,
    timeout_s: float = 5.0,
    answer_limit_bytes: int = ANSWER_LIMIT_BYTES,
) -> AsyncIterator[Kea]:
    """Yield a Kea; it is asked nothing yet.

    Args:
        url: ``unix:/PATH``, ``http://HOST:PORT`` or ``https://HOST:PORT``.
        credentials: for HTTP alone.
        context: for HTTPS alone.
        timeout_s: how long each command may take.
        answer_limit_bytes: how long an answer may be.
    """
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")

        async def send(content: bytes, command: str) -> bytes:
            return await _over_socket(path, content, command, timeout_s, answer_limit_bytes)

        yield Kea(url, send)
        return
    headers = {"Content-Type": "application/json", **({} if credentials is None else credentials.header())}
    async with smart_proxy.opened(
        url, context=context, timeout_s=timeout_s, answer_limit_bytes=answer_limit_bytes
    ) as server:

        async def post(content: bytes, command: str) -> bytes:
            return await _over_http(server, content, headers, command)

        yield Kea(url, post)


async def _over_socket(path: str, content: bytes, command: str, timeout_s: float, limit_bytes: int) -> bytes:
    """Return what is answered on a socket, where each connection has one command."""
    told = f"{command} to unix:{path}"
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await _connected(path)
            try:
                writer.write(content)
                await writer.drain()
                answer = bytearray()
                while piece := await reader.read(_PIECE):
                    answer += piece
                    if len(answer) > limit_bytes:
                        raise Unavailable(f"{told} was answered with more than {limit_bytes} bytes")
            finally:
                writer.close()
    except TimeoutError:
        raise Unavailable(f"{told} was not answered within {timeout_s:g} s") from None
    except OSError as e:
        raise Unavailable(f"{told} failed: {spoken(e)}") from e
    if not answer:
        raise Unavailable(f"{told} was not answered: the connection ended")
    return bytes(answer)


async def _connected(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_unix_connection(path)
    except PermissionError as e:
        raise Misconfigured(
            f"The control socket {path} may not be opened by the account of this member: {spoken(e)}. Let it into the "
            "group that the socket and its directory belong to, and let that group write to the socket"
        ) from e
    except OSError as e:
        raise Unreached(f"The control socket {path} cannot be reached, is kea-dhcp4 running? {spoken(e)}") from e


async def _over_http(server: SmartProxy, content: bytes, headers: Mapping[str, str], command: str) -> bytes:
    try:
        answer = await server.ask("POST", "/", content=content, headers=headers)
    except Unavailable as e:
        raise _of_connecting(e) from e.__cause__
    if answer.status in (401, 403):
        raise Misconfigured(
            f"{server.url} answered {answer.status} to {command}: compare user and password_file with Kea's own"
        )
    if answer.status != 200:
        raise Unavailable(f"{server.url} answered {answer.status} to {command}: {shown(answer.text.strip(), 200)}")
    return answer.text.encode()


def _of_connecting(error: Unavailable) -> MusterError:
    from aiohttp import ClientConnectorError

    return Unreached(str(error)) if isinstance(error.__cause__, ClientConnectorError) else error
