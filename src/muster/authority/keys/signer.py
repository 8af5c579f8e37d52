"""The signer process: it alone reads the CA's key, and signs what those ask for whom it was told to let.

A member that is broken into can have hosts' certificates and lists signed while it runs, but neither takes the key away
nor gets another CA (:mod:`muster.authority.keys.signable`); each signature is a line of the log. One message asks, one
answers, each with its length in four bytes in front. Who asks is what the kernel says: root, the signer's own account, and
the accounts and the group it was told.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import grp
import os
import pwd
import socket
import stat
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from muster.authority.keys.contract import checked, proven
from muster.authority.keys.remote import HeldElsewhere, held
from muster.authority.keys.signable import Rules, judged
from muster.authority.x509.profile import CAKey, Issuer, PublicKey
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Conflict, Misconfigured, Rejected, Unavailable
from muster.kernel.log import logger
from muster.kernel.names import shown
from muster.kernel.reasons import spoken

_log = logger("authority")

_LENGTH = struct.Struct("!I")
# A revocation list of half a million entries.
_LIMIT_BYTES = 48 << 20
_TIMEOUT_S = 30.0
_PUBLIC, _SIGN = b"p", b"s"
# Members of 0.1.0's first builds take whatever is not good for a signer that did not answer.
_GOOD, _BAD, _REFUSED = b"+", b"-", b"!"
_PROBE_S = 2.0
_CREDENTIALS = struct.Struct("iII")
# Linux 4.13; Python does not name it, and gives it room for 256 groups at most.
_SO_PEERGROUPS = 59
_GROUPS_BYTES = 1024


@dataclass(frozen=True)
class Askers:
    """Who may ask beside root and the signer's own account.

    Attributes:
        users: account numbers.
        group: whose members may ask, too; None: none.
        socket_group: the group that reaches the socket; None: only its owner does.
    """

    users: frozenset[int] = frozenset()
    group: int | None = None
    socket_group: int | None = None

    @classmethod
    def named(cls, users: Sequence[str], group: str | None) -> Askers:
        """Return those accounts and that group of this host.

        Raises:
            Misconfigured: there is no such account or group, or no one group through which all of them reach the socket.
        """
        accounts = [_account(u) for u in users]
        if group is None:
            primary = {a.pw_gid for a in accounts}
            if len(primary) > 1:
                raise Misconfigured(f"{', '.join(users)} have no group in common; name one of theirs: --allow-group")
            return cls(frozenset(a.pw_uid for a in accounts), None, next(iter(primary), None))
        try:
            number = grp.getgrnam(group).gr_gid
        except (KeyError, ValueError):
            raise Misconfigured(f"There is no group {shown(group)} on this host") from None
        for account in accounts:
            if account.pw_uid and number not in os.getgrouplist(account.pw_name, account.pw_gid):
                raise Misconfigured(f"{account.pw_name} is not in the group {group}, so it could not reach the socket")
        return cls(frozenset(a.pw_uid for a in accounts), number, number)

    def include(self, peer: socket.socket) -> bool:
        """Whether the process at the other end of a connection may ask, by the kernel's word."""
        _pid, uid, gid = _credentials(peer)
        if uid in (0, os.geteuid()) or uid in self.users:
            return True
        return self.group is not None and (gid == self.group or self.group in _further_groups(peer))


def _credentials(peer: socket.socket) -> tuple[int, int, int]:
    """Return process, account and group of the process at the other end, by the kernel's word."""
    pid, uid, gid = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid, gid


def _account(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except (KeyError, ValueError):
        raise Misconfigured(f"There is no account {shown(name)} on this host") from None


def _further_groups(peer: socket.socket) -> frozenset[int]:
    """Return the groups a peer has beside its own; none when the kernel does not say, or they are too many."""
    try:
        raw = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:
        return frozenset()
    return frozenset(struct.unpack(f"{len(raw) // 4}I", raw))


@dataclass(frozen=True)
class BySigner(HeldElsewhere):
    """The key of whoever answers at a socket."""

    socket: Path

    @property
    def where(self) -> str:
        return f"the signer at {self.socket}"

    def opened(self, issuer: Issuer) -> AbstractContextManager[CAKey]:
        return connected(self.socket, issuer)

    def public_key(self) -> PublicKey:
        return public_key(self.socket)


def public_key(path: Path) -> PublicKey:
    """Return the public half of the key the signer at that socket holds.

    Raises:
        Misconfigured: nobody answers there, or not to us, or what answers is no signer.
    """
    try:
        public = load_der_public_key(_asked(path, _PUBLIC))
    except Unavailable as e:
        raise Misconfigured(str(e)) from e
    except (ValueError, UnsupportedAlgorithm) as e:
        raise Misconfigured(f"What answers at {path} is no signer") from e
    if not isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise Misconfigured(f"The signer at {path} holds a key that is neither RSA nor EC")
    return public


@contextlib.contextmanager
def connected(path: Path, issuer: Issuer) -> Iterator[CAKey]:
    """Yield the key the signer at that socket holds.

    Raises:
        Misconfigured: nobody listens there, or it holds another key.
    """
    key = held(public_key(path), lambda data: _asked(path, _SIGN + data))
    where = f"of the signer at {path}"
    # What it says it holds and what it signs with: whoever listens there could say anything.
    yield proven(checked(key, issuer, where), issuer, where)


def _asked(path: Path, message: bytes) -> bytes:
    """Ask once, on a connection of its own: a signer that was started again is simply asked again."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(_TIMEOUT_S)
            s.connect(str(path))
            s.sendall(_LENGTH.pack(len(message)) + message)
            answer = _whole(s, _LENGTH.unpack(_whole(s, _LENGTH.size))[0])
    except (FileNotFoundError, ConnectionRefusedError) as e:
        raise Unavailable(f"The signer at {path} did not answer: {spoken(e)}; start it with: muster ca signer") from e
    except (PermissionError, ConnectionError, EOFError) as e:
        raise Unavailable(
            f"The signer at {path} did not answer: {spoken(e)}; whom it lets ask, its --allow-user and --allow-group say"
        ) from e
    except OSError as e:
        raise Unavailable(f"The signer at {path} did not answer: {spoken(e)}") from e
    if answer[:1] == _REFUSED:
        raise Misconfigured(f"The signer at {path} does not sign this: {answer[1:1000].decode('utf-8', 'replace')}")
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
async def serving(
    path: Path, key: CAKey, askers: Askers = Askers(), rules: Rules | None = None, clock: Clock | None = None
) -> AsyncIterator[None]:
    """Answer on a socket for the length of the block; its mode is 0660 for the askers' group, else 0600.

    Raises:
        Conflict: something else is there, or another process answers on it; nothing was changed.
        Misconfigured: the key is of no kind that can be used from elsewhere, or the socket cannot be made.
    """
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise Misconfigured("A signer holds RSA and EC keys only")
    with _listening(path, askers.socket_group) as listener:
        # Not by its path: asyncio removes whatever socket stands there, also one that another signer answers on.
        signing = _Signing(key, rules or Rules(), clock or SystemClock())
        server = await asyncio.start_unix_server(lambda r, w: _served(r, w, signing, askers), sock=listener)
        async with server:
            yield


@contextlib.contextmanager
def _listening(path: Path, group: int | None) -> Iterator[socket.socket]:
    """Listen at the path, which is removed afterwards unless somebody else's stands there by then."""
    with contextlib.ExitStack() as stack:
        try:
            with _alone_in(path.parent):
                _refuse_unless_free(path)
                listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                before = os.umask(0o177)
                try:
                    listener.bind(str(path))
                finally:
                    os.umask(before)
                made = path.lstat()
                stack.callback(_removed, path, made)
                if group is not None:
                    _opened_to(group, path)
                listener.listen()
        except OSError as e:
            raise Misconfigured(f"Listening on {path} failed: {e.strerror or e}") from e
        yield listener


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Keep other signers from looking at the directory: of two that start at once, each would find the socket free."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _refuse_unless_free(path: Path) -> None:
    """Remove a socket that nobody answers on any more; refuse to touch anything else."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise Conflict(f"{path} is there and is no socket; nothing was changed")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(_PROBE_S)
        try:
            s.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as e:
            raise Conflict(
                f"{path} is there, and whether a process answers on it is unknown: {e.strerror or e}; nothing was changed"
            ) from e
    raise Conflict(f"Another process answers on {path}; stop it first; nothing was changed")


def _opened_to(group: int, path: Path) -> None:
    try:
        os.chown(path, -1, group)
        path.chmod(0o660)
    except OSError as e:
        raise Misconfigured(
            f"The signer's account cannot give {path} to group {group}, in which it must be itself: {e.strerror or e}"
        ) from e


def _removed(path: Path, made: os.stat_result) -> None:
    with contextlib.suppress(OSError):
        found = path.lstat()
        if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
            path.unlink()


async def _served(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    signing: _Signing,
    askers: Askers,
) -> None:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            peer = writer.get_extra_info("socket")
            if not askers.include(peer):
                _log.warning("Somebody who may not asked the signer")
                return
            (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            if not 1 <= size <= _LIMIT_BYTES:
                return
            message = await reader.readexactly(size)
            answer = await asyncio.to_thread(signing.answer, message, account=_credentials(peer)[1])
            writer.write(_LENGTH.pack(len(answer)) + answer)
            await writer.drain()
    except (TimeoutError, asyncio.IncompleteReadError, OSError):
        return
    finally:
        writer.close()


@dataclass(frozen=True)
class _Signing:
    """The key, and what it is used for."""

    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    rules: Rules
    clock: Clock

    def answer(self, message: bytes, *, account: int) -> bytes:
        kind, data = message[:1], message[1:]
        public = self.key.public_key()
        if kind == _PUBLIC:
            return _GOOD + public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if kind != _SIGN:
            return _BAD + b"no such question"
        try:
            what = judged(data, public, self.rules, self.clock.now())
        except Rejected as e:
            _log.warning("Not signed", why=str(e), account=account)
            return _REFUSED + str(e).encode("utf-8", "replace")
        if isinstance(self.key, rsa.RSAPrivateKey):
            signature = self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        else:
            signature = self.key.sign(data, ec.ECDSA(hashes.SHA256()))
        if what is not None:
            _log.info("Signed", what=what, account=account)
        return _GOOD + signature
