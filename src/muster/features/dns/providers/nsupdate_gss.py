"""Dynamic updates under GSS-TSIG (RFC 3645): the key of each message is agreed on with the server, by Kerberos.

Tickets come straight from the keytab, into memory: no ``kinit`` is run and no cache is written, where the Ruby proxy does
both before each call. What the server is asked and told is as with ``nsupdate``; a key is agreed on once, and anew before it
ends, and when the server has forgotten it.

Source: RFC 3645; RFC 2930 for TKEY; docs/facts/libraries.md §5.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.tsig
from dns.rdtypes.ANY.TKEY import TKEY

from muster.features.dns.providers.nsupdate import Asked, NSUpdateDNS
from muster.features.dns.settings import NSUpdateGSSSettings
from muster.kernel.errors import Misconfigured, MusterError, Unavailable
from muster.kernel.names import shown
from muster.kernel.reasons import spoken

if TYPE_CHECKING:
    from gssapi import SecurityContext
    from gssapi.exceptions import GSSError

# A key that ends sooner is not used any more: a message may be under way for as long as a call may take.
_SOON_S = 30
_STEPS = 5
_KEYTAB = (b"\x05\x01", b"\x05\x02")
# RFC 3645 §3.1.1: which mechanism it is, is negotiated as well; Windows takes nothing else.
_SPNEGO = "1.3.6.1.5.5.2"


class NoKeytab(Misconfigured):
    """The keytab cannot be read, or is none."""


class NoTicket(Misconfigured):
    """Kerberos, or the server by Kerberos, says no to us."""


class ClockOff(NoTicket):
    """By our clock, or theirs, the tickets are of another time."""


class KDCAway(Unavailable):
    """No server of the realm answered."""


_BASE = -1765328384
# MIT's numbers for what RFC 4120 §7.5.9 names, and for what its library finds itself.
_SAID: Mapping[int, tuple[type[MusterError], str]] = {
    _BASE + 1: (NoTicket, "the account has expired: renew it in the realm"),
    _BASE + 6: (NoTicket, "the realm has no such principal: compare tsig_principal with the realm's"),
    _BASE + 7: (NoTicket, "the realm has no such server: compare service with the DNS server's principal"),
    _BASE + 18: (NoTicket, "the account is locked or disabled in the realm"),
    _BASE + 23: (NoTicket, "its password has expired: set it anew and make the keytab anew"),
    _BASE + 24: (NoTicket, "the keytab's key is not the realm's any more: make the keytab anew"),
    _BASE + 31: (NoTicket, "the keytab's key is not the realm's any more: make the keytab anew"),
    _BASE + 32: (ClockOff, "the ticket has expired: compare the clocks"),
    _BASE + 33: (ClockOff, "the ticket is not valid yet: compare the clocks"),
    _BASE + 37: (ClockOff, "our clock and the realm's differ by more than five minutes: set the clocks"),
    _BASE + 148: (ClockOff, "our clock and the realm's differ by more than five minutes: set the clocks"),
    _BASE + 154: (KDCAway, "no server of the realm is known: see /etc/krb5.conf and the realm's SRV records"),
    _BASE + 156: (KDCAway, "no server of the realm can be reached"),
    _BASE + 181: (NoKeytab, "the keytab has no key of that principal: compare tsig_principal with klist -k"),
    # It has nothing to fill its cache with.
    _BASE + 195: (NoKeytab, "the keytab has no key of that principal: compare tsig_principal with klist -k"),
    _BASE + 220: (KDCAway, "no server of the realm is known: see /etc/krb5.conf and the realm's SRV records"),
    _BASE + 224: (NoTicket, "no realm is the default one: see /etc/krb5.conf, or name it in both principals"),
}


class NegotiatedKey:
    """The key that this process and one server have agreed on. One event loop.

    What Kerberos' library does may wait for the KDC; it is done in one thread, by itself.
    """

    def __init__(self, settings: NSUpdateGSSSettings, thread: ThreadPoolExecutor) -> None:
        self._settings = settings
        self._thread = thread
        self._turn = asyncio.Lock()
        self._key: dns.tsig.Key | None = None
        self.place = f"{settings.server}#{settings.port}"
        self.shown = f"principal {settings.tsig_principal or f'of {settings.tsig_keytab}'}"

    async def key(self, ask: Asked) -> dns.tsig.Key:
        async with self._turn:
            if self._key is None or _ends_soon(self._key.secret):
                self._key = None
                self._key = await self._agreed(ask)
            return self._key

    def is_forgotten(self, key: dns.tsig.Key) -> bool:
        # Others may have agreed on another one meanwhile.
        if self._key is key:
            self._key = None
        return True

    async def _agreed(self, ask: Asked) -> dns.tsig.Key:
        name = dns.name.from_text(f"muster-{secrets.token_hex(12)}.")
        context, token = await self._begun()
        key = dns.tsig.Key(name, context, dns.tsig.GSS_TSIG)
        for _ in range(_STEPS):
            answer = await self._told(ask, key, token)
            token = self._step(context, _token_in(answer, name)) if not context.complete else None
            if context.complete:
                if not answer.had_tsig:
                    # RFC 3645 §4.1.3: the last answer is signed with the new key, or anybody could have sent it.
                    raise Misconfigured(f"The answer of {self.place} to TKEY is not signed as it must be")
                return key
        raise NoTicket(f"{self.place} and we agreed on no key within {_STEPS} messages")

    async def _told(self, ask: Asked, key: dns.tsig.Key, token: bytes | None) -> dns.message.Message:
        """Tell the server a token and return its answer, which says another one.

        Raises:
            NoTicket: the server says no.
        """
        now = int(time.time())
        message = dns.message.make_query(key.name, dns.rdatatype.TKEY, dns.rdataclass.ANY)
        wanted = TKEY(  # type: ignore[no-untyped-call]
            dns.rdataclass.ANY, dns.rdatatype.TKEY, dns.tsig.GSS_TSIG, now, now + 86400, TKEY.GSSAPI_NEGOTIATION, 0,
            token or b"",
        )  # fmt: skip
        section = message.find_rrset(
            message.additional, key.name, dns.rdataclass.ANY, dns.rdatatype.TKEY, create=True, force_unique=True
        )
        section.add(wanted, 0)

        context: Any = key.secret

        def taken(answer: dns.message.Message, _name: dns.name.Name) -> dns.tsig.Key:
            # The last answer is signed with the key that its own token completes.
            if not context.complete:
                self._step(context, _token_in(answer, key.name))
            return key

        message.keyring = taken
        answer = await ask(message, "agreeing on a key")
        if answer.rcode() != dns.rcode.NOERROR:
            raise NoTicket(
                f"{self.place} takes no keys by Kerberos ({dns.rcode.to_text(answer.rcode())}), or not our ticket: see "
                f"its tkey-gssapi-keytab, and whether that holds the key of {self._settings.server_principal}"
            )
        found = answer.get_rrset(answer.answer, key.name, dns.rdataclass.ANY, dns.rdatatype.TKEY)
        if found is not None and (error := found[0].error) != 0:
            said = dns.rcode.to_text(dns.rcode.Rcode(error), tsig=True)
            kind = ClockOff if error == dns.rcode.BADTIME else NoTicket
            raise kind(
                f"{self.place} refuses the ticket of our {self.shown} (TKEY {said}): its keytab is not of "
                f"{self._settings.server_principal} as the realm has it now, or the clocks differ. Its log says which"
            )
        return answer

    async def _begun(self) -> tuple[SecurityContext, bytes | None]:
        check_keytab(self._settings.tsig_keytab)
        loop, limit = asyncio.get_running_loop(), self._settings.timeout_s
        try:
            async with asyncio.timeout(limit):
                return await loop.run_in_executor(self._thread, self._first)
        except TimeoutError:
            raise KDCAway(f"Kerberos gave no ticket for our {self.shown} within {limit:g} s") from None

    def _first(self) -> tuple[SecurityContext, bytes | None]:
        """Return a context and its first token; asks the KDC."""
        import gssapi
        from gssapi.exceptions import GSSError

        settings = self._settings
        # Tickets of a cache that was there before may be for a key that the server has no more.
        store = {"client_keytab": f"FILE:{settings.tsig_keytab}", "ccache": f"MEMORY:{secrets.token_hex(12)}"}
        whole = gssapi.NameType.kerberos_principal
        try:
            name = gssapi.Name(settings.tsig_principal, whole) if settings.tsig_principal else None
            credentials = gssapi.Credentials(name=name, usage="initiate", store=store)
            flag = gssapi.RequirementFlag
            server = gssapi.Name(settings.server_principal, whole)
            # For the ticket alone: of a negotiation the library tells no number that says what went wrong.
            gssapi.SecurityContext(
                name=server, creds=credentials, usage="initiate", mech=gssapi.MechType.kerberos
            ).step()
            context = gssapi.SecurityContext(
                name=server, creds=credentials, usage="initiate", mech=gssapi.OID.from_int_seq(_SPNEGO),
                flags=flag.mutual_authentication | flag.integrity | flag.replay_detection,
            )  # fmt: skip
            return context, context.step()
        except GSSError as e:
            raise self._translated(e) from e

    def _step(self, context: SecurityContext, token: bytes) -> bytes | None:
        """Return what follows on a token of the server's; asks nobody."""
        from gssapi.exceptions import GSSError

        try:
            following: bytes | None = context.step(token)
        except GSSError as e:
            raise self._translated(e) from e
        return following

    def _translated(self, error: GSSError) -> MusterError:
        """Return what Kerberos' library says in our words; the one place where its errors become ours."""
        # The library gives it without its sign.
        code = (error.min_code ^ 1 << 31) - (1 << 31)
        kind, hint = _SAID.get(code, (NoTicket, "see the words of Kerberos"))
        words = shown(" ".join(str(error).split()), 300)
        return kind(
            f"Kerberos gave our {self.shown} no ticket for {self._settings.server_principal}: {hint}. It says: {words}"
        )


def _token_in(answer: dns.message.Message, name: dns.name.Name) -> bytes:
    found = answer.get_rrset(answer.answer, name, dns.rdataclass.ANY, dns.rdatatype.TKEY)
    return bytes(found[0].key) if found is not None else b""


def _ends_soon(context: Any) -> bool:
    from gssapi.exceptions import GSSError

    try:
        return bool(context.lifetime < _SOON_S)
    except GSSError:
        # Of one that has ended it cannot be asked.
        return True


def check_keytab(path: Path) -> None:
    """Return when the file looks like a keytab that may be read.

    Raises:
        NoKeytab: it does not.
    """
    try:
        with path.open("rb") as file:
            first = file.read(2)
    except OSError as e:
        raise NoKeytab(f"Reading the keytab {path} failed: {spoken(e)}") from e
    if first not in _KEYTAB:
        raise NoKeytab(f"{path} is no keytab")


@asynccontextmanager
async def opened(settings: NSUpdateGSSSettings, ttl_s: int) -> AsyncIterator[NSUpdateDNS]:
    """Yield the provider; a key is agreed on, and connections are made, when first needed.

    Raises:
        Misconfigured: the keytab cannot be read, or Kerberos' library is not installed.
    """
    try:
        import gssapi  # noqa: F401
    except ImportError as e:
        raise Misconfigured(
            f"DNS provider nsupdate_gss needs the Python package gssapi, with MIT's libgssapi-krb5: {e}. "
            "packaging/requirements-gss.txt has it (packaging/README.md)"
        ) from e
    check_keytab(settings.tsig_keytab)
    thread = ThreadPoolExecutor(1, "dns-kerberos")
    provider = NSUpdateDNS(
        settings.server, settings.port, ttl_s, NegotiatedKey(settings, thread), settings.timeout_s, settings.connections
    )
    try:
        yield provider
    finally:
        await provider.close()
        # A thread that waits for a KDC ends by the library's own limits.
        thread.shutdown(wait=False, cancel_futures=True)
