"""Whether the program behind a port gives its proof, in words: a member's question to what runs beside it on its host.

An answer is what counts, because a program that hangs still takes connections. Whose certificate it shows does not: that is
looked at with the cluster's name, from outside (:mod:`muster.pki.verify`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from muster.balancer.generations import Over, Proof
from muster.balancer.model import Question
from muster.kernel.names import in_url, shown
from muster.kernel.reasons import spoken

_HEAD_LIMIT_BYTES = 16 << 10
_ANSWER_LIMIT_BYTES = 256 << 10
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks.

    Attributes:
        name: the cluster's, as SNI and Host: the program may serve several names.
        context: returns how TLS begins, asked anew each time, so that it can follow files.
    """

    name: str
    context: Callable[[Over], ssl.SSLContext]

    async def unproven(self, host: str, question: Question) -> str:
        """Return why the program on the port gave no proof, empty when it gave it; never raises for the program's sake."""
        proof = question.proof
        what = _named(host, question)
        try:
            async with asyncio.timeout(proof.timeout_s):
                return await self._asked(host, question, what)
        except TimeoutError:
            return f"{what} got no answer within {proof.timeout_s:g} s"
        except ssl.SSLError as e:
            return f"{what} failed in TLS: {spoken(e)}"
        except OSError as e:
            return f"{what} failed: {spoken(e)}"

    async def _asked(self, host: str, question: Question, what: str) -> str:
        over = question.over
        context = None if over == "plain" else self.context(over)
        name = self.name if context is not None else None
        reader, writer = await asyncio.open_connection(
            host, question.port, ssl=context, server_hostname=name, limit=_HEAD_LIMIT_BYTES
        )
        try:
            why = await self._answered(reader, writer, question.proof) if question.proof.uri else ""
        except BaseException:
            # A program that hangs would not take part in a farewell either.
            writer.transport.abort()
            raise
        writer.close()
        return f"{what} {why}" if why else ""

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, proof: Proof) -> str:
        writer.write(
            f"GET {proof.uri} HTTP/1.1\r\nHost: {self.name}\r\nAccept: */*\r\nConnection: close\r\n\r\n".encode()
        )
        try:
            head = await reader.readuntil(_END_OF_HEAD)
        except asyncio.LimitOverrunError:
            return "was answered with too long a head"
        except asyncio.IncompleteReadError as e:
            return f"was answered with no HTTP: {shown(e.partial[:80])}" if e.partial else "got no answer: it hung up"
        status = _status(head)
        if status != proof.status:
            said = f"with {status}" if status is not None else f"with no HTTP: {shown(head[:80])}"
            return f"was answered {said}, and {proof.status} is good"
        if not (proof.holds or proof.lacks):
            return ""
        body = await _body(reader, head)
        if proof.holds.encode() not in body:
            return f"was answered {status} without {shown(proof.holds)}"
        if proof.lacks and proof.lacks.encode() in body:
            return f"was answered {status} with {shown(proof.lacks)}"
        return ""


def believing(certificate: Path | None = None, key: Path | None = None) -> Callable[[Over], ssl.SSLContext]:
    """Return a beginning of TLS that believes whoever answers, and shows the certificate where one is wanted."""

    def context(over: Over) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
        if over == "mutual" and certificate is not None:
            made.load_cert_chain(certificate, key)
        return made

    return context


def _named(host: str, question: Question) -> str:
    proof = question.proof
    where = f"{in_url(host)}:{question.port}"
    if proof.uri:
        return f"GET {'http' if proof.over == 'plain' else 'https'}://{where}{proof.uri}"
    return f"Connecting to {where}" if proof.over == "plain" else f"A TLS handshake with {where}"


def _status(head: bytes) -> int | None:
    words = head.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        return None
    return int(words[1])


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """Return the answer's body as it was sent, as far as anybody would look for words in it."""
    length = next((_length(line) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), None)
    wanted = _ANSWER_LIMIT_BYTES if length is None else min(length, _ANSWER_LIMIT_BYTES)
    body = bytearray()
    while len(body) < wanted and (chunk := await reader.read(wanted - len(body))):
        body += chunk
    return bytes(body)


def _length(line: bytes) -> int | None:
    digits = line.partition(b":")[2].strip()
    return int(digits) if digits.isdigit() and len(digits) < 16 else None
