"""A domain's directory, asked by OpenLDAP's ``ldapsearch`` and ``ldapmodify``.

They log in by Kerberos and have every message signed and sealed; what is changed, a password with it, is written into their
input and stands in no argument. Of several domain controllers the next one is asked where one takes no connection.
Source: docs/facts/realm.md §1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

from muster.features.realm.active_directory import ldif
from muster.features.realm.active_directory.ldif import Entry
from muster.features.realm.contract import Untouched
from muster.features.realm.kerberos import ClockWrong, TicketEnded, Tickets, refusal
from muster.features.realm.programs import ran
from muster.features.realm.settings import ADSettings
from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.names import in_url, shown
from muster.kernel.process import Finished

# No reverse lookups, no questions, no configuration of somebody's home; nothing goes unsealed.
_HOW = ("-N", "-Q", "-Y", "GSSAPI", "-O", "minssf=56")
# Results of LDAP (RFC 4511, appendix A.2), which are the programs' exit status.
_REFERRAL, _NO_SUCH_OBJECT, _WRONG_CREDENTIALS, _NO_RIGHT, _BUSY, _AWAY = 10, 32, 49, 50, 51, 52
_HAS_VALUE, _NOT_EMPTY, _THERE = 20, 66, 68
# What the library itself finds, as a negative number (ldap.h).
_DOWN, _LOCAL, _TIMEOUT, _NO_MECHANISM, _CONNECT = 255, 254, 251, 250, 245

_ASKED_LAST_S = 60.0
"""How long a domain controller that took no connection is asked after the others: each try of a dead one takes seconds."""

Scope = Literal["base", "sub"]


class NotConnected(Untouched):
    """No connection; nothing was asked and nothing changed."""


class NotEmpty(Rejected):
    """Other entries are below it; nothing was deleted."""


class Directory:
    """The directory of one domain. Any number of tasks of one loop."""

    def __init__(
        self, settings: ADSettings, tickets: Tickets, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._tickets = tickets
        self._monotonic = monotonic
        self._away_until: dict[str, float] = {}

    async def search(self, base: str, filter: str, attributes: Sequence[str], *, scope: Scope = "sub") -> list[Entry]:
        """Return what matches; ``filter`` must be made of checked words.

        Raises:
            NotFound: there is no ``base``.
            As :meth:`change`.
        """
        command = [
            "ldapsearch",
            "-LLL",
            "-o",
            "ldif-wrap=no",
            "-z",
            "100",
            "-s",
            scope,
            "-b",
            base,
            filter,
            *attributes,
        ]
        done = await self._asked(command, None, f"looking for {filter} below {base}")
        return ldif.entries(done.stdout)

    async def change(self, change: bytes, what: str) -> None:
        """Make a change that :mod:`ldif` wrote; ``what`` says it for people.

        Raises:
            Conflict: it is there already, or an attribute that is to be new is.
            NotFound: it is not there.
            Rejected: the directory refuses.
            Misconfigured: Kerberos refuses, the principal lacks the right, or a program is not installed.
            Unavailable: no answer; whether it was changed is unknown.
        """
        await self._asked(["ldapmodify"], change, what)

    async def _asked(self, command: Sequence[str], given: bytes | None, what: str) -> Finished:
        """Run a program against the first domain controller that takes a connection; a refused ticket is got anew once."""
        try:
            return await self._of_any(command, given, what)
        except (TicketEnded, ClockWrong):
            # The clock may have been set since the ticket was got.
            return await self._of_any(command, given, what)

    async def _of_any(self, command: Sequence[str], given: bytes | None, what: str) -> Finished:
        silent = NotConnected("There is no domain controller")
        now = self._monotonic()
        for host in sorted(self._settings.domain_controller, key=lambda h: self._away_until.get(h, now) > now):
            try:
                return await self._of(host, command, given, what)
            except NotConnected as e:
                self._away_until[host] = self._monotonic() + _ASKED_LAST_S
                silent = e
        raise silent

    async def _of(self, host: str, command: Sequence[str], given: bytes | None, what: str) -> Finished:
        url = f"ldap://{in_url(host)}:{self._settings.port}"
        environment = {**await self._tickets.environment(), "LDAPNOINIT": "1"}
        timeout_s = self._settings.timeout_s
        limit = ("-o", f"nettimeout={max(1, round(timeout_s / 2))}")
        try:
            done = await ran(
                [command[0], *_HOW, *limit, "-H", url, *command[1:]],
                timeout_s=timeout_s,
                environment=environment,
                stdin=given,
            )
        except Unavailable as e:
            kind = Untouched if given is None else Unavailable
            raise kind(f"{url} gave no answer within {timeout_s:g} s, {what}") from e
        if done.status == 0:
            return done
        refused = _refused(done, f"{url} refused, {what}", url)
        if isinstance(refused, (TicketEnded, ClockWrong)):
            self._tickets.forget(environment)
        raise refused


def _refused(done: Finished, sentence: str, url: str) -> MusterError:
    """Return the error that stands for a program's exit status; the one place for that."""
    words = shown(" ".join(done.stderr.split()), 300)
    said = f"{sentence}: {words}"
    match done.status:
        case code if code == _DOWN and "ldap_sasl" in done.stderr:
            return NotConnected(f"{url} takes no connection: {words}")
        case code if code in (_DOWN, _TIMEOUT, _CONNECT, _BUSY, _AWAY):
            return Unavailable(said)
        case code if code == _LOCAL:
            return (refusal(done.stderr) or Misconfigured)(said)
        case code if code == _NO_MECHANISM:
            packages = "libsasl2-modules-gssapi-mit (EL: cyrus-sasl-gssapi)"
            return Misconfigured(
                f"{said}. What speaks Kerberos for it is not on this host: it is in the package {packages}"
            )
        case code if code in (_WRONG_CREDENTIALS, _NO_RIGHT, _REFERRAL, 127):
            return (refusal(done.stderr) or Misconfigured)(said)
        case code if code == _NO_SUCH_OBJECT:
            return NotFound(said)
        case code if code == _NOT_EMPTY:
            return NotEmpty(said)
        case code if code in (_THERE, _HAS_VALUE):
            return Conflict(said)
        case _:
            return Rejected(said)
