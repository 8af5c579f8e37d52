"""Looks at a directory of certificates and does there what :mod:`muster.pki.rotation` decided.

What is under way lies in ``DIR/rotation`` until the last step is complete::

    old.pem    the CA that is replaced    new/ca.pem new/ca.key    the CA that replaces it    done.json    when a step ended
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from cryptography import x509

from muster.kernel.clock import Clock
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected, Unavailable
from muster.kernel.files import make_directory, read_bounded, write_atomically
from muster.pki import pem as pems
from muster.pki.authority import (
    ClusterCA,
    ca_key,
    ca_paths,
    issuers,
    link_passphrase,
    passphrase_link,
    pem_text,
    set_aside,
)
from muster.pki.bundles import BundlePaths, BundleRequest, certificate_facts, present, refuse_unless_ours, write
from muster.pki.facts import CertificateFacts
from muster.pki.rotation import (
    STEPS,
    Begin,
    Chain,
    Command,
    Finish,
    Held,
    Issuer,
    MakeCA,
    Note,
    Promote,
    Reissue,
    Step,
    Trust,
    View,
)

# What a reissue of the bundle must carry; the facts are those of its certificate, None when it cannot be read.
Requested = Callable[[BundlePaths, CertificateFacts | None], BundleRequest]


class Maker(Protocol):
    """How the new CA comes into being."""

    def __call__(self, directory: Path, common_name: str, *, dry: bool) -> ClusterCA:
        """Write the new CA into a directory; ``dry`` refuses the same and writes nothing."""


@dataclass(frozen=True)
class Workshop:
    """What carrying out needs beside the directory."""

    directory: Path
    clock: Clock
    valid_days: int
    make: Maker


def viewed(directory: Path, now: datetime, requested: Requested) -> View:
    """Read the directory.

    Raises:
        NotFound: there is no CA.
        Misconfigured: a file of the CA cannot be read.
        Conflict: what is under way does not belong to the CA that is there.
    """
    certificate = ca_paths(directory)[0]
    if not certificate.exists():
        raise NotFound(f"There is no CA in {directory}; make one with: muster certs init")
    top = _certificates(certificate)
    old_file, new_directory = _old(directory), _new(directory)
    begun = old_file.exists()
    old = _certificates(old_file) if begun else top
    new = _certificates(ca_paths(new_directory)[0]) if ca_paths(new_directory)[0].exists() else ()
    if begun and top[0] not in (old[0], *new[:1]):
        raise Conflict(
            f"{old_file.parent} speaks of another CA than {certificate}, which was replaced meanwhile; remove that "
            "directory to begin again"
        )
    return View(
        now=now,
        ca_file=certificate,
        begun=begun,
        # Somebody's additions to ca.pem are no part of the CA and stay when it goes.
        old=issuers(old),
        new=issuers(new) if new else (),
        top=top,
        signing=_signing(top, directory, old, new),
        bundles=tuple(_held(at, old, new, requested) for at in present(directory)),
        done=_done(directory),
    )


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keep others from carrying out anything in the directory meanwhile.

    Raises:
        Conflict: another one does.
        NotFound: there is no such directory.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise NotFound(f"There is no CA in {directory}; make one with: muster certs init") from e
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise Conflict(f"Another muster certs rotate is at work in {directory}; wait for its end") from e
        yield
    finally:
        os.close(fd)


def refuse_unless_able(commands: Sequence[Command], workshop: Workshop) -> None:
    """Refuse what one of these commands would be refused with, while none is carried out.

    Raises:
        MusterError: as :func:`carry_out`; nothing was changed.
    """
    directory = workshop.directory
    promoted = any(isinstance(c, Promote) for c in commands)
    issuing: ClusterCA | None = None
    for command in commands:
        match command:
            case Begin():
                ClusterCA.open(directory)
            case MakeCA():
                workshop.make(_new(directory), command.common_name, dry=True)
            case Reissue():
                issuing = issuing or ClusterCA.open(_new(directory) if promoted else directory)
                issuing.refuse_unless_able(now=workshop.clock.now(), valid_days=workshop.valid_days)
                refuse_unless_ours(command.held.at)


def carry_out(command: Command, workshop: Workshop) -> None:
    """Do one command.

    Raises:
        MusterError: it could not be done; what was there still stands and the same decision can be made again.
    """
    directory = workshop.directory
    match command:
        case Begin():
            # Opened first: a CA that cannot issue here must not be found out half-way.
            ClusterCA.open(directory)
            set_aside(directory)
            # A CA's key that is root's alone stays so; its successor is made in there.
            make_directory(_old(directory).parent, mode=0o700, like=ca_paths(directory)[1])
            write_atomically(_old(directory), read_bounded(ca_paths(directory)[0], what="CA certificate"))
        case MakeCA():
            # A key without its certificate is what an interruption leaves; nobody has seen that CA yet.
            shutil.rmtree(_new(directory), ignore_errors=True)
            workshop.make(_new(directory), command.common_name, dry=False)
        case Trust():
            trusted = command.certificates or _both(directory, command.file)
            write_atomically(command.file.parent.resolve() / command.file.name, pem_text(trusted))
        case Promote():
            certificate, key = ca_paths(directory)
            write_atomically(key, read_bounded(ca_paths(_new(directory))[1], what="CA key"), mode=0o600)
            if passphrase_link(_new(directory)).is_symlink():
                link_passphrase(directory, passphrase_link(_new(directory)).readlink())
            else:
                passphrase_link(directory).unlink(missing_ok=True)
            write_atomically(certificate, pem_text(command.certificates))
        case Reissue():
            ca = ClusterCA.open(directory)
            write(ca.issue(command.held.request, now=workshop.clock.now(), valid_days=workshop.valid_days), directory)
        case Note():
            done = {**_done(directory), command.step: workshop.clock.now()}
            text = json.dumps({step: at.isoformat() for step, at in done.items()}, indent=2)
            write_atomically(_old(directory).with_name("done.json"), text + "\n")
        case Finish():
            _forget(_old(directory).parent)


def _forget(rotation: Path) -> None:
    # Renamed first: a directory half removed would look like a replacement half done.
    aside = rotation.with_name(f".{rotation.name}.done")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        rotation.rename(aside)
        shutil.rmtree(aside)
    except OSError as e:
        raise Unavailable(f"Removing {rotation} failed: {e.strerror or e}") from e


def _old(directory: Path) -> Path:
    return directory / "rotation" / "old.pem"


def _new(directory: Path) -> Path:
    return directory / "rotation" / "new"


def successor(directory: Path) -> ClusterCA:
    """Return the CA that replaces the present one.

    Raises:
        NotFound: it is not made yet.
    """
    return ClusterCA.open(_new(directory))


def _both(directory: Path, file: Path) -> Chain:
    new = issuers(_certificates(ca_paths(_new(directory))[0]))
    old = issuers(_certificates(_old(directory)))
    return tuple(dict.fromkeys((*old, *new, *_readable(file))))


def _certificates(path: Path) -> Chain:
    return tuple(pems.certificates(read_bounded(path, what="CA certificate"), str(path)))


def _readable(path: Path) -> Chain:
    try:
        return _certificates(path)
    except Misconfigured:
        return ()


def _signing(top: Chain, directory: Path, old: Chain, new: Chain) -> Literal["old", "new"] | None:
    key = ca_key(directory)
    if not pems.matches(top[0], key):
        return None
    return "new" if new and top[0] == new[0] and top[0] != old[0] else "old"


def _held(at: BundlePaths, old: Chain, new: Chain, requested: Requested) -> Held:
    try:
        facts = certificate_facts(at)
        leaf = pems.certificates(read_bounded(at.certificate, what="certificate"), str(at.certificate))[0]
    except (Misconfigured, Rejected):
        return Held(at, "unreadable", _readable(at.ca), None, requested(at, None))
    issuer = _issuer(leaf, old, new)
    # What another CA issued may carry names we would not issue; it is left alone.
    request = requested(at, None if issuer == "other" else facts)
    return Held(at, issuer, _readable(at.ca), facts.not_after, request)


def _issuer(leaf: x509.Certificate, old: Chain, new: Chain) -> Issuer:
    if new and pems.signed_by(leaf, new[0]):
        return "new"
    return "old" if pems.signed_by(leaf, old[0]) else "other"


def _done(directory: Path) -> Mapping[Step, datetime]:
    path = _old(directory).with_name("done.json")
    if not path.exists():
        return {}
    try:
        found = json.loads(read_bounded(path, what="record of steps"))
        return {step: datetime.fromisoformat(found[step]) for step in STEPS if step in found}
    except (ValueError, TypeError) as e:
        raise Misconfigured(f"{path} is damaged ({e}); remove it: what is done will be found out again") from e
