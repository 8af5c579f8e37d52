"""A puppetserver's CA directory on another host, from a copy that may be older than the last certificate.

What a copy cannot know is given a wide berth: the serial counter skips a gap, so that no number is given twice, and every
revocation list that is found goes into one list with a higher number. Source: docs/facts/puppet-ca.md §7.9.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from muster.authority.ledger.entries import Revoked
from muster.authority.moves.directory import (
    LARGEST_COUNTER,
    Found,
    Progress,
    read_directory,
)
from muster.authority.moves.lists import own_list
from muster.authority.x509 import profile
from muster.kernel.errors import Conflict, Misconfigured
from muster.kernel.files import write_atomically

SERIAL_GAP = 0x1000
"""How many serials are skipped: as many certificates the lost signer may have issued after the copy was made."""

_KEPT = ("ca_crt.pem", "ca_pub.pem", "ca_key.pem", "inventory.txt", "infra_inventory.txt", "infra_serials")
_DIRECTORIES = ("signed", "requests")


@dataclass(frozen=True)
class Restorable:
    """A copy that was read, and what will be made of it.

    Attributes:
        counter: the next serial, behind the gap.
        number: of the revocation list that is made.
        revoked: all that is revoked in any of the lists.
        added: how many of them the copy did not know.
    """

    directory: Path
    found: Found
    counter: int
    number: int
    revoked: tuple[Revoked, ...]
    added: int

    def summary(self) -> dict[str, object]:
        """Return what there is, for people and programs."""
        return {
            **self.found.summary(),
            "next_serial": self.counter,
            "crl_number": self.number,
            "revoked": len(self.revoked),
            "revoked_added": self.added,
        }


def prepared(
    copy: Path, lists: Sequence[Path], *, now: datetime, gap: int = SERIAL_GAP, progress: Progress = lambda *_: None
) -> Restorable:
    """Read a copy of a CA directory and revocation lists that others still have; changes nothing.

    ``lists`` are files: any member's or agent's ``crl.pem``; each must hold a list of this CA. ``gap`` is in serials.

    Raises:
        Misconfigured: the copy has no key or another CA's, a list is not this CA's, or no serial is left behind the gap.
    """
    found = read_directory(copy, now=now, progress=progress)
    if found.key is None:
        raise Misconfigured(f"{copy} has no ca_key.pem; nothing can be signed with it")
    revoked = dict(found.revoked)
    number = found.number
    for path in lists:
        own = own_list(path, found.issuer)
        number = max(number, profile.list_number(own) or 0)
        for entry in own:
            at = entry.revocation_date_utc
            revoked[entry.serial_number] = min(at, revoked.get(entry.serial_number, at))
    # Random serials are no counter's, and the inventory may be older than the counter, or newer.
    given = [s for s in (*found.live, *found.gone) if s < LARGEST_COUNTER]
    counter = max([found.counter, *(s + 1 for s in given)]) + gap
    if counter > LARGEST_COUNTER:
        raise Misconfigured(
            f"Serial {counter:X} is more than puppetserver can count to; take the CA into Muster instead"
        )
    entries = sorted((Revoked(s, at, None) for s, at in revoked.items()), key=lambda r: (r.at, r.serial))
    return Restorable(copy, found, counter, number + 1, tuple(entries), len(revoked) - len(found.revoked))


def restored(what: Restorable, into: Path, *, now: datetime, crl_ttl_days: int) -> Path | None:
    """Put the CA directory in place; one that is there is moved aside first, never changed.

    Every file is there under the final name or none is. Owner and mode are those of the directory that was there, else of
    the one above it.

    Returns:
        Where the former directory is now, None when there was none.

    Raises:
        Conflict: ``into`` is no directory, or is the copy itself.
    """
    if into.exists() and (into.is_symlink() or not into.is_dir() or into.samefile(what.directory)):
        raise Conflict(f"{into} is the copy itself, or no directory; nothing was changed")
    made = into.with_name(f".{into.name}.promoted")
    shutil.rmtree(made, ignore_errors=True)
    for directory in (made, *(made / d for d in _DIRECTORIES)):
        directory.mkdir(mode=0o750, parents=True)
    for relative in _relatives(what.directory):
        shutil.copyfile(what.directory / relative, made / relative)
        (made / relative).chmod(0o640)
    found = what.found
    assert found.key is not None  # noqa: S101 - prepared refuses a copy without
    pairs = [(r.serial, r.at) for r in what.revoked]
    own = profile.signed_list(
        found.issuer, found.key, pairs, number=what.number, now=now, ttl=timedelta(days=crl_ttl_days)
    )
    pem = profile.pem_of(own) + found.ancestors_pem
    write_atomically(made / "ca_crl.pem", pem, mode=0o644)
    # Its short list could lack what the copy did not know; agents that use it get the whole one until the next revocation.
    write_atomically(made / "infra_crl.pem", pem, mode=0o644)
    write_atomically(made / "serial", f"{what.counter:04X}", mode=0o644)
    _given_to(made, like=into if into.exists() else into.parent)
    aside = None
    if into.exists():
        aside = into.with_name(f"{into.name}.before-{now:%Y%m%dT%H%M%SZ}")
        into.rename(aside)
    made.rename(into)
    return aside


def _relatives(copy: Path) -> Iterator[Path]:
    """Yield the files that are taken, by name: a copy may hold anything, links to elsewhere included."""
    yield from (Path(n) for n in _KEPT if _is_plain(copy / n))
    for directory in _DIRECTORIES:
        yield from (Path(directory, p.name) for p in sorted((copy / directory).glob("*.pem")) if _is_plain(p))


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _given_to(made: Path, *, like: Path) -> None:
    if os.geteuid() != 0:
        return
    owner = like.stat()
    for path in (made, *made.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
