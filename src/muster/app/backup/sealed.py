"""age: what is written is encrypted for recipients, what is read was encrypted for an identity; as a stream, of any size.

The format is age's own (age-encryption.org/v1), so that whoever has the identity opens it with the program ``age`` alone.
Who only writes backups holds no secret that opens them. There are no passphrases: one would have to stand where the command
finds it when nobody is there to type it, and then it opens every backup there is.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

import pyrage

from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.files import read_bounded
from muster.kernel.names import shown

_LARGEST = 1 << 20
_PIECE = 64 << 10
_AGE, _SSH = "age1", ("ssh-ed25519 ", "ssh-rsa ")
_IDENTITY = "AGE-SECRET-KEY-1"


def recipients(given: Iterable[str], files: Iterable[Path]) -> tuple[Any, ...]:
    """Return whom it is for: ``age1…`` and public SSH keys, given and one a line of files.

    Raises:
        Misconfigured: one is none, or there is none at all.
    """
    found = [_recipient(one.strip(), "") for one in given]
    for file in files:
        lines = read_bounded(file, what="recipients file", limit_bytes=_LARGEST).decode("utf-8", "replace").splitlines()
        for number, said in enumerate(lines, 1):
            if said.strip() and not said.strip().startswith("#"):
                found.append(_recipient(said.strip(), f"{file}, line {number}: "))
    if not found:
        raise Misconfigured("Nobody could open it: name a recipient (--recipient, --recipients-file)")
    return tuple(found)


def _recipient(text: str, where: str) -> Any:
    try:
        if text.startswith(_AGE):
            return pyrage.x25519.Recipient.from_str(text)
        if text.startswith(_SSH):
            return pyrage.ssh.Recipient.from_str(text)
    except pyrage.RecipientError as e:
        raise Misconfigured(f"{where}{shown(text)} is no recipient: {e}") from e
    if text.startswith(_IDENTITY):
        # Never repeated: it opens backups.
        raise Misconfigured(
            f"{where}that is an identity, which opens; a recipient (age-keygen -y FILE) begins with age1"
        )
    raise Misconfigured(f"{where}{shown(text)} is no recipient: age1…, ssh-ed25519 … or ssh-rsa …")


def identities(file: Path) -> tuple[Any, ...]:
    """Return what opens it: age's identities, one a line, or a private SSH key without a passphrase.

    Raises:
        Misconfigured: there is none.
    """
    content = read_bounded(file, what="identity file", limit_bytes=_LARGEST)
    if content.startswith((b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE")):
        raise Misconfigured(f"The identity file {file} is encrypted itself; open it first: age -d -o IDENTITY {file}")
    try:
        if content.lstrip().startswith(b"-----BEGIN"):
            return (pyrage.ssh.Identity.from_buffer(content),)
        found = tuple(_identities(content.decode("utf-8", "replace"), file))
    except pyrage.IdentityError as e:
        locked = "; ssh-keygen -p takes the passphrase off a copy" if "decrypted" in str(e) else ""
        raise Misconfigured(f"The identity file {file} cannot be used: {e}{locked}") from e
    if not found:
        raise Misconfigured(f"The identity file {file} holds no identity")
    return found


def _identities(text: str, file: Path) -> Iterator[Any]:
    for number, line in enumerate(text.splitlines(), 1):
        said = line.strip()
        if not said or said.startswith("#"):
            continue
        if said.startswith((_AGE, *_SSH)):
            raise Misconfigured(
                f"The identity file {file} holds a public key, which encrypts; what opens is the file that age-keygen "
                "wrote, or the private SSH key"
            )
        if not said.startswith(_IDENTITY):
            # Never repeated: it may be a secret that was put into the wrong file.
            raise Misconfigured(
                f"The identity file {file} cannot be used: line {number} is none: AGE-SECRET-KEY-…, or a private SSH key"
            )
        yield pyrage.x25519.Identity.from_str(said)


class _Aborted(Exception):
    """What was to be encrypted did not come to its end."""


class _Source:
    """What a thread encrypts: all that comes through a pipe, unless that was aborted."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.aborted = False

    def read(self, size: int = _PIECE) -> bytes:
        piece = os.read(self.fd, size)
        if not piece and self.aborted:
            raise _Aborted
        return piece


class _Target:
    """What a thread writes to, which remembers what was wrong with it: the library only repeats its words."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.error: OSError | None = None

    def write(self, piece: bytes) -> int:
        try:
            self._out.write(piece)
        except OSError as e:
            self.error = e
            raise
        return len(piece)

    def flush(self) -> None:
        pass


class _Worker(threading.Thread):
    """A thread that remembers how it failed."""

    def __init__(self, work: Callable[[], None], end: Callable[[], None]) -> None:
        super().__init__(name="age", daemon=True)
        self._work, self._end = work, end
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as e:  # noqa: BLE001 - boundary: whoever waits for the thread raises it
            self.failure = e
        finally:
            self._end()


@contextlib.contextmanager
def sealed(out: BinaryIO, to: Sequence[Any]) -> Iterator[BinaryIO]:
    """Yield what is to be written to; at the block's end all of it stands in ``out``, encrypted.

    When an exception leaves the block what stands there is cut off, and nobody can take it for whole.

    Raises:
        OSError: ``out`` refused.
    """
    from_pipe, into_pipe = os.pipe()
    source, target = _Source(from_pipe), _Target(out)
    worker = _Worker(lambda: pyrage.encrypt_io(source, target, list(to)), lambda: os.close(from_pipe))
    worker.start()
    plain = os.fdopen(into_pipe, "wb", buffering=_PIECE)
    source.aborted = True
    try:
        try:
            yield plain
            plain.flush()
            source.aborted = False
        finally:
            with contextlib.suppress(OSError):
                plain.close()
            worker.join()
    except BrokenPipeError as e:
        # The thread ended before the block did, and knows why.
        raise target.error or Unavailable(f"Encrypting failed: {worker.failure or e}") from e
    if worker.failure is not None:
        raise target.error or Unavailable(f"Encrypting failed: {worker.failure}") from worker.failure


class Opened:
    """What was encrypted, as it comes out; the end of it is only said when all of it was genuine."""

    def __init__(self, plain: BinaryIO, worker: _Worker, name: str) -> None:
        self._plain, self._worker, self._name = plain, worker, name

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer at the end.

        Raises:
            Misconfigured: it is not for this identity, no age file, damaged, or cut off.
        """
        found = self._plain.read(size)
        if len(found) < size:
            self._worker.join()
            if self._worker.failure is not None:
                raise _failure(self._name, self._worker.failure) from self._worker.failure
        return found


@contextlib.contextmanager
def opened(file: BinaryIO, by: Sequence[Any], name: str) -> Iterator[Opened]:
    """Yield what stands in a file, decrypted; ``name`` is the file's for messages."""
    from_pipe, into_pipe = os.pipe()
    into = os.fdopen(into_pipe, "wb", buffering=0)
    target = _Target(into)
    worker = _Worker(lambda: pyrage.decrypt_io(file, target, list(by)), into.close)
    worker.start()
    plain = os.fdopen(from_pipe, "rb", buffering=_PIECE)
    try:
        yield Opened(plain, worker, name)
    finally:
        # Whoever has read enough lets the thread's next write fail, and it ends.
        plain.close()
        worker.join()


def _failure(name: str, error: BaseException) -> Misconfigured:
    said = str(error)
    if "No matching keys" in said:
        return Misconfigured(f"{name} cannot be opened with this identity: it was encrypted for others")
    if isinstance(error, pyrage.DecryptError):
        return Misconfigured(f"{name} is no age file that can be opened: {said}")
    return Misconfigured(f"{name} is damaged, or was copied in part: {said}")
