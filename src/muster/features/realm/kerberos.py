"""Tickets from a keytab, got by MIT Kerberos' ``kinit``, for the programs that log in with them.

Tickets lie in a directory for this account alone, in memory where the system has such a place, and go with the provider.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from muster.features.realm.contract import Untouched
from muster.features.realm.programs import ran
from muster.features.realm.settings import KerberosSettings
from muster.kernel.errors import Misconfigured, MusterError
from muster.kernel.names import shown
from muster.kernel.process import Finished

_RENEWED_AFTER_S = 1800.0
_PREFIX = "muster-realm-"
_TRIES = 10
_REFUSED_FOR_S = 60.0
"""How long a KDC that refused a key is not asked again with it: many tries would have the account locked."""
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it


class ClockWrong(Misconfigured):
    """This host's clock and the realm's differ by more than Kerberos bears."""


class KeytabUnusable(Misconfigured):
    """The keytab is not there, cannot be read, or has no key of the principal."""


class KeyRefused(Misconfigured):
    """The KDC does not take the principal or its key."""


class ServerUnknown(Misconfigured):
    """The KDC knows no server by the name that it is asked by."""


class KDCSilent(Untouched):
    """No KDC answers."""


class TicketEnded(Untouched):
    """The ticket counts no more; a new one is got at the next try."""


# In the words of MIT Kerberos, whose programs have no other way to say why.
_SAID: Sequence[tuple[str, type[MusterError]]] = (
    ("Server ldap/", ServerUnknown),
    ("Server not found in Kerberos database", ServerUnknown),
    ("Clock skew too great", ClockWrong),
    ("Ticket expired", TicketEnded),
    ("Ticket not yet valid", ClockWrong),
    ("Keytab contains no suitable keys", KeytabUnusable),
    ("Key table file", KeytabUnusable),
    ("Key table name malformed", KeytabUnusable),
    ("Unsupported key table format", KeytabUnusable),
    ("Permission denied", KeytabUnusable),
    ("Cannot contact any KDC", KDCSilent),
    ("Cannot find KDC", KDCSilent),
    ("Cannot resolve network address for KDC", KDCSilent),
    ("reauthentication failed", KeyRefused),
    ("not found in Kerberos database", KeyRefused),
    ("credentials have been revoked", KeyRefused),
    ("assword has expired", KeyRefused),
    ("Client's entry in database has expired", KeyRefused),
)


def refusal(text: str) -> type[MusterError] | None:
    """Return the error that stands for what Kerberos said, None where it is none that is known."""
    return next((kind for words, kind in _SAID if words in text), None)


class Tickets:
    """The ticket of one principal. Use :func:`opened`.

    Concurrency: any number of tasks of one loop; one at a time gets a new ticket. A file of tickets is written once, and
    stays while a program may read it.
    """

    def __init__(
        self,
        settings: KerberosSettings,
        realm: str,
        directory: Path,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        principal = settings.principal
        self._principal = principal if "@" in principal else f"{principal}@{realm}"
        self._directory = directory
        self._monotonic = monotonic
        self._getting = asyncio.Lock()
        self._files: list[Path] = []
        self._number = 0
        self._got_at = float("-inf")
        self._refused_key: tuple[KeyRefused, object, float] | None = None

    async def environment(self) -> Mapping[str, str]:
        """Return the variables by which a program finds a ticket that counts.

        Raises:
            KeytabUnusable, KeyRefused, ClockWrong, Misconfigured: there is none to be had.
            KDCSilent, Unavailable: no KDC answered in time.
        """
        async with self._getting:
            if not self._files or self._monotonic() - self._got_at > _RENEWED_AFTER_S:
                await self._get()
            return {**self._variables(), "KRB5CCNAME": f"FILE:{self._files[-1]}"}

    def forget(self, environment: Mapping[str, str]) -> None:
        """Have a new ticket got before the next question: the one that these variables name was refused.

        Of many that were refused the same ticket, the first has a new one got.
        """
        if self._files and environment["KRB5CCNAME"] == f"FILE:{self._files[-1]}":
            self._got_at = float("-inf")

    def _variables(self) -> dict[str, str]:
        config = self._settings.krb5_config
        return {"KRB5_CONFIG": str(config)} if config is not None else {}

    async def _get(self) -> None:
        key = _state(self._settings.keytab_path)
        if self._refused_key is not None:
            refused, its_key, until = self._refused_key
            if key == its_key and self._monotonic() < until:
                raise KeyRefused(str(refused))
        self._refused_key = None
        self._number += 1
        file = self._directory / f"tickets-{self._number}"
        keytab = self._settings.keytab_path
        try:
            done = await ran(
                ["kinit", "-k", "-t", f"FILE:{keytab}", "-c", f"FILE:{file}", self._principal],
                timeout_s=self._settings.timeout_s,
                environment=self._variables(),
            )
            if done.status != 0:
                raise self._refused(done)
        except KeyRefused as e:
            file.unlink(missing_ok=True)
            self._refused_key = e, key, self._monotonic() + _REFUSED_FOR_S
            raise
        except BaseException:
            # Also of a kinit that was killed.
            file.unlink(missing_ok=True)
            raise
        self._files.append(file)
        # The one before may be read by a program that runs.
        while len(self._files) > 2:
            self._files.pop(0).unlink(missing_ok=True)
        self._got_at = self._monotonic()

    def _refused(self, done: Finished) -> MusterError:
        """Return the error that stands for what kinit said."""
        words = done.stderr.strip().removeprefix("kinit: ").removesuffix(" while getting initial credentials")
        said = shown(words, 200) or "kinit does not say why"
        kind = refusal(done.stderr) or Misconfigured
        if kind is KeytabUnusable:
            # Of a file that this account may not read kinit speaks as if the realm had refused it.
            try:
                _read(self._settings.keytab_path)
            except OSError as e:
                said = f"reading it failed: {e.strerror or e}"
        return kind(f"Logging in as {self._principal} with {self._settings.keytab_path} failed: {said}")


def _read(keytab: Path) -> None:
    with keytab.open("rb") as file:
        file.read(1)


def _state(keytab: Path) -> object:
    """Return what is another when the file is."""
    try:
        found = keytab.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def opened(settings: KerberosSettings, realm: str) -> Iterator[Tickets]:
    """Yield the tickets of a principal, which go with the block; none is got before somebody asks.

    What processes of this account have left that were killed goes as well.
    """
    place = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    _swept(place)
    directory, held = _made(place)
    try:
        yield Tickets(settings, realm, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(held)


def _made(place: Path) -> tuple[Path, int]:
    """Return a new directory for this account alone, and what holds it for as long as this process lives."""
    for _ in range(_TRIES):
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        # Another process may sweep it before it is held.
        if (held := _held(directory)) is not None:
            if directory.exists():
                return directory, held
            os.close(held)
        shutil.rmtree(directory, ignore_errors=True)
    raise Misconfigured(f"No directory in {place} can be locked, so none is for Kerberos' tickets")


def _swept(place: Path) -> None:
    """Remove the directories that no process holds: nobody removes anything for who was killed."""
    for directory in place.glob(f"{_PREFIX}*"):
        if (held := _held(directory)) is not None:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(held)


def _held(directory: Path) -> int | None:
    """Hold a directory of this account's; None: it is somebody else's, held, or gone."""
    try:
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if os.fstat(held).st_uid == os.geteuid():
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return held
    except OSError:
        pass
    os.close(held)
    return None
