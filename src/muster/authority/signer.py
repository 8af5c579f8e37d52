"""The signer process: it alone reads the CA's key, and signs what its socket's owner asks for.

A member that is broken into can have things signed while it runs, but cannot take the key away. One message asks, one
answers, each with its length in four bytes in front; who may connect is the socket's owner and root, by the kernel's word.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from muster.authority import custody
from muster.authority.profile import CAKey, Issuer
from muster.authority.remote import held
from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.log import logger

_log = logger("authority")

_LENGTH = struct.Struct("!I")
# A revocation list of half a million entries.
_LIMIT_BYTES = 48 << 20
_TIMEOUT_S = 30.0
_PUBLIC, _SIGN = b"p", b"s"
_GOOD, _BAD = b"+", b"-"


@contextlib.contextmanager
def connected(path: Path, issuer: Issuer) -> Iterator[CAKey]:
    """Yield the key the signer at that socket holds.

    Raises:
        Misconfigured: nobody listens there, or it holds another key.
    """
    try:
        public = load_der_public_key(_asked(path, _PUBLIC))
    except Unavailable as e:
        raise Misconfigured(f"{e}; start it with: muster ca signer") from e
    yield custody.checked(held(public, lambda data: _asked(path, _SIGN + data)), issuer, f"of the signer at {path}")


def _asked(path: Path, message: bytes) -> bytes:
    """Ask once, on a connection of its own: a signer that was started again is simply asked again."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(_TIMEOUT_S)
            s.connect(str(path))
            s.sendall(_LENGTH.pack(len(message)) + message)
            answer = _whole(s, _LENGTH.unpack(_whole(s, _LENGTH.size))[0])
    except (OSError, EOFError) as e:
        raise Unavailable(f"The signer at {path} did not answer: {e}") from e
    if answer[:1] != _GOOD:
        raise Unavailable(f"The signer at {path} refused: {answer[1:200].decode('utf-8', 'replace')}")
    return answer[1:]


def _whole(s: socket.socket, size: int) -> bytes:
    if size > _LIMIT_BYTES:
        raise EOFError("an answer of no sensible size")
    out = b""
    while len(out) < size:
        chunk = s.recv(min(size - len(out), 1 << 16))
        if not chunk:
            raise EOFError("it closed the connection")
        out += chunk
    return out


@contextlib.asynccontextmanager
async def serving(path: Path, key: CAKey) -> AsyncIterator[None]:
    """Answer on a socket of mode 0600 for the length of the block.

    Raises:
        Misconfigured: the key is of no kind that can be used from elsewhere, or the socket cannot be made.
    """
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise Misconfigured("A signer holds RSA and EC keys only")
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(lambda r, w: _served(r, w, key), str(path))
    except OSError as e:
        raise Misconfigured(f"Listening on {path} failed: {e.strerror or e}") from e
    finally:
        os.umask(before)
    try:
        async with server:
            yield
    finally:
        path.unlink(missing_ok=True)


async def _served(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
) -> None:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            if not _may_ask(writer):
                _log.warning("Somebody who may not asked the signer")
                return
            (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            if not 1 <= size <= _LIMIT_BYTES:
                return
            message = await reader.readexactly(size)
            answer = await asyncio.to_thread(_answer, message, key)
            writer.write(_LENGTH.pack(len(answer)) + answer)
            await writer.drain()
    except (TimeoutError, asyncio.IncompleteReadError, OSError):
        return
    finally:
        writer.close()


def _answer(message: bytes, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    kind, data = message[:1], message[1:]
    if kind == _PUBLIC:
        return _GOOD + key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if kind != _SIGN:
        return _BAD + b"no such question"
    if isinstance(key, rsa.RSAPrivateKey):
        return _GOOD + key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return _GOOD + key.sign(data, ec.ECDSA(hashes.SHA256()))


def _may_ask(writer: asyncio.StreamWriter) -> bool:
    peer = writer.get_extra_info("socket")
    _pid, uid, _gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return uid in (0, os.geteuid())
