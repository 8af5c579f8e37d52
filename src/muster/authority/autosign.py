"""Who is signed without an administrator: everybody, names on a list, bearers of a token, or whom a program lets through.

The cluster's reserved names are not given away by any of them (:mod:`muster.authority.reserved`).

Source: docs/facts/puppet-ca.md §4. Lists and tokens are in the store, so that what Foreman told one member holds on all.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from sqlalchemy import delete, select, update

from muster.authority.ledger.lookup import refuse_unwritable
from muster.authority.reserved import Reserved
from muster.authority.x509.certnames import refuse_unless_hostname
from muster.authority.x509.csr import CertificateRequest
from muster.cluster.file import Authority as Settings
from muster.kernel.errors import Conflict, MusterError, NotFound, Rejected
from muster.kernel.files import read_bounded
from muster.kernel.log import Seldom, and_more, logger
from muster.kernel.names import shown
from muster.kernel.process import run
from muster.store.core import insert_of
from muster.store.documents import Documents
from muster.store.engine import Store
from muster.store.tables import autosign_hosts, autosign_tokens, store_now

_log = logger("authority")

_ALGORITHM = "RS512"
_ID_BYTES = 24
_KEY_DOCUMENT = "autosign/key"
_LIST_LIMIT_BYTES = 4 << 20
_BY_NAME = "autosign hostnames"


@dataclass(frozen=True)
class Leave:
    """A request may be signed at once.

    Attributes:
        why: who lets it through.
        token: the token it brought, to be used up with the certificate.
        named: exactly its name was let through, by an entry or a token: whoever asked for that name before it must give way.
    """

    why: str
    token: str | None = None
    named: bool = False


class Autosign:
    """The cluster's rules of autosigning."""

    def __init__(self, store: Store, settings: Settings, reserved: Reserved | None = None) -> None:
        """``reserved`` are the cluster's names; without them those that the settings alone name."""
        self._store = store
        self._settings = settings
        self._reserved = reserved if reserved is not None else Reserved.of_settings(settings)
        self._key: rsa.RSAPrivateKey | None = None
        # Anybody may send requests; each must not bring a process of its own into the member's memory.
        self._asking = asyncio.Semaphore(settings.policy_at_once)
        self._untold = Seldom()

    async def leave(self, request: CertificateRequest) -> Leave | None:
        """Return who lets a request through, None when an administrator has to look.

        Raises:
            Unavailable: the store did not answer.
        """
        return await self.leave_given(request) or await self.leave_asked(request)

    async def leave_given(self, request: CertificateRequest) -> Leave | None:
        """As :meth:`leave`, by what is known here; no program is asked. An entry or a token of its own name comes first.

        Raises:
            Unavailable: the store did not answer.
        """
        found: Leave | None = None
        for way in self._settings.autosign:
            leave = await self._given(way, request)
            if leave is not None and leave.named:
                found = leave
                break
            found = found or leave
        return None if found is None or self._withholds(request, found) else found

    async def leave_asked(self, request: CertificateRequest) -> Leave | None:
        """As :meth:`leave`, by what the program says; it is not asked about reserved names."""
        leave = Leave("autosign policy")
        if "policy" not in self._settings.autosign or self._withholds(request, leave):
            return None
        return leave if await self._is_let_through(request) else None

    async def lists(self, request: CertificateRequest) -> bool:
        """Whether Foreman's list lets a request through, for a puppetserver that asks.

        Raises:
            Unavailable: the store did not answer.
        """
        leave = await self._listed(request.name)
        return leave is not None and not self._withholds(request, leave)

    def given_away(self, entry: str) -> str:
        """Return a reserved name that an entry would sign where somebody else reads it; empty when it signs none."""
        return self._reserved.given_away(entry)

    async def _given(self, way: str, request: CertificateRequest) -> Leave | None:
        if way == "all":
            return Leave("autosign all")
        if way == "hostnames":
            listed = await self._listed(request.name)
            if listed is not None and listed.named:
                return listed
            return await self._listed_in_file(request.name) or listed
        if way == "tokens" and (token := await self._token(request)) is not None:
            return Leave("autosign token", token, named=True)
        return None

    def _withholds(self, request: CertificateRequest, leave: Leave) -> bool:
        why = self._reserved.withheld(request, named=leave.named)
        if why:
            _log.info("A request waits although it was let through", name=shown(request.name), by=leave.why, why=why)
        return bool(why)

    async def hosts(self) -> list[str]:
        """Return the names on Foreman's list, in the order in which they came to it."""
        query = select(autosign_hosts.c.certname).order_by(autosign_hosts.c.added_at, autosign_hosts.c.certname)
        async with self._store.read() as uow:
            return list((await uow.connection.execute(query)).scalars())

    async def add_host(self, certname: str, *, by: str) -> None:
        """Put a name, ``*`` or ``*.example.net`` on the list; it may be there already.

        Raises:
            Rejected: it is none of them.
        """
        refuse_unless_entry(certname)
        statement = insert_of(self._store.dialect)(autosign_hosts).values(
            certname=certname, added_at=store_now(), by=by
        )
        async with self._store.write("autosign-entry") as uow:
            await uow.connection.execute(statement.on_conflict_do_nothing(index_elements=["certname"]))

    async def remove_host(self, certname: str) -> None:
        """Take a name off the list.

        Raises:
            NotFound: it is not on it.
            Rejected: no list could hold it.
        """
        refuse_unwritable(certname)
        async with self._store.write("autosign-entry-gone") as uow:
            gone = delete(autosign_hosts).where(autosign_hosts.c.certname == certname)
            if (await uow.connection.execute(gone)).rowcount == 0:
                raise NotFound(f"{certname} is not on the autosign list")

    async def give_token(self, certname: str, *, ttl_s: float) -> str:
        """Return a new token for a name, a JWT under the cluster's key; an earlier one of that name is void from now on.

        Raises:
            Rejected: the name is no certname.
        """
        refuse_unless_hostname(certname)
        key = await self._token_key()
        async with self._store.write("token") as uow:
            expires_at = await uow.now() + ttl_s
            claims = {"certname": certname, "exp": int(expires_at), "jti": secrets.token_urlsafe(_ID_BYTES)}
            token = jwt.encode(claims, key, algorithm=_ALGORITHM)
            await uow.connection.execute(
                delete(autosign_tokens).where(
                    (autosign_tokens.c.certname == certname) | (autosign_tokens.c.expires_at < store_now())
                )
            )
            row = {"id": _digest(token), "certname": certname, "expires_at": expires_at}
            await uow.connection.execute(autosign_tokens.insert().values(**row))
        return token

    async def withdraw_token(self, certname: str) -> None:
        """Make a name's token void.

        Raises:
            NotFound: it has none that could still be used.
            Rejected: none could be for such a name.
        """
        refuse_unwritable(certname)
        async with self._store.write("token-gone") as uow:
            gone = delete(autosign_tokens).where(
                autosign_tokens.c.certname == certname, autosign_tokens.c.used_at.is_(None)
            )
            if (await uow.connection.execute(gone)).rowcount == 0:
                raise NotFound(f"{certname} has no token")

    async def tokens(self) -> list[str]:
        """Return the names that have a token which can still be used."""
        async with self._store.read() as uow:
            query = select(autosign_tokens.c.certname).where(
                autosign_tokens.c.used_at.is_(None), autosign_tokens.c.expires_at > store_now()
            )
            return list((await uow.connection.execute(query.order_by(autosign_tokens.c.certname))).scalars())

    async def takes_token(self, request: CertificateRequest) -> bool:
        """Use up the token a request brings; whether there was one of its own name that could still be used.

        For a puppetserver that asks: whoever asks signs, so of two who ask at once one hears no.
        """
        identity = await self._token(request)
        if identity is None or self._withholds(request, Leave("autosign token", identity, named=True)):
            return False
        used = (
            update(autosign_tokens)
            .where(autosign_tokens.c.id == identity, autosign_tokens.c.used_at.is_(None))
            .values(used_at=store_now())
        )
        async with self._store.write("token-use") as uow:
            return (await uow.connection.execute(used)).rowcount == 1

    async def _token(self, request: CertificateRequest) -> str | None:
        given = request.challenge
        if not given or len(given) > 4096:
            return None
        identity = _digest(given)
        async with self._store.read() as uow:
            query = select(autosign_tokens.c.certname).where(
                autosign_tokens.c.id == identity,
                autosign_tokens.c.used_at.is_(None),
                autosign_tokens.c.expires_at > store_now(),
            )
            owner = (await uow.connection.execute(query)).scalar_one_or_none()
        # A token is its host's alone: stricter than the Ruby proxy (docs/facts/puppet-ca.md §4).
        if owner is None or not hmac.compare_digest(owner, request.name):
            return None
        try:
            key = (await self._token_key()).public_key()
            claims = jwt.decode(given, key, algorithms=[_ALGORITHM], options={"verify_exp": False})
        except jwt.InvalidTokenError:
            return None
        return identity if claims.get("certname") == request.name else None

    async def _token_key(self) -> rsa.RSAPrivateKey:
        """Return the cluster's key for tokens, making it once.

        It may lie in the store: a token counts only with its own row, so the key alone gives nobody a certificate.
        """
        if self._key is None:
            documents = Documents(self._store)
            found = await documents.read(_KEY_DOCUMENT)
            if found.version == 0:
                made = await asyncio.to_thread(rsa.generate_private_key, 65537, 2048)
                pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
                try:
                    found = await documents.replace(found, {"pem": pem}, by="autosign")
                except Conflict:
                    found = await documents.read(_KEY_DOCUMENT)
            key = load_pem_private_key(str(found.content["pem"]).encode(), None)
            assert isinstance(key, rsa.RSAPrivateKey)  # noqa: S101 - made above and nowhere else
            self._key = key
        return self._key

    async def _listed(self, certname: str) -> Leave | None:
        async with self._store.read() as uow:
            query = select(autosign_hosts.c.certname).where(autosign_hosts.c.certname.in_(_entries(certname)))
            found = set((await uow.connection.execute(query)).scalars())
        return Leave(_BY_NAME, named=certname in found) if found else None

    async def _listed_in_file(self, certname: str) -> Leave | None:
        path = self._settings.hostnames_file
        if path is None:
            return None
        lines = await asyncio.to_thread(_lines, path)
        return Leave(_BY_NAME, named=certname in map(str.strip, lines)) if matches(certname, lines) else None

    async def _is_let_through(self, request: CertificateRequest) -> bool:
        program = self._settings.policy_executable
        if program is None:
            return False
        limit_s = self._settings.policy_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self._asking.acquire()
        except TimeoutError:
            held = self._untold.held_back("no turn")
            if held is not None:
                _log.warning(
                    f"The autosign policy had no turn for a request, which waits{and_more(held)}",
                    name=shown(request.name),
                    at_once=self._settings.policy_at_once,
                    waited_s=limit_s,
                )
            return False
        try:
            said = await run([str(program), request.name], timeout_s=limit_s, stdin=request.pem.encode())
        except MusterError as e:
            _log.error("The autosign policy could not be asked; the request waits", program=str(program), why=str(e))
            return False
        finally:
            self._asking.release()
        if said.status not in (0, 1):
            _log.warning("The autosign policy failed", program=str(program), status=said.status, said=said.stderr[:200])
        return said.status == 0


def refuse_unless_entry(entry: str) -> None:
    """Refuse what is no entry of an autosign list.

    Raises:
        Rejected: it is neither a certname nor ``*`` nor ``*.`` and a name.
    """
    if entry == "*":
        return
    try:
        refuse_unless_hostname(entry.removeprefix("*."))
    except Rejected as e:
        raise Rejected(f"{shown(entry)} is no certname, nor * or *.DOMAIN") from e


def _entries(certname: str) -> list[str]:
    """Return every list entry that lets a name through."""
    labels = certname.split(".")
    return [certname, "*", *(f"*.{'.'.join(labels[n:])}" for n in range(len(labels)))]


def matches(certname: str, lines: list[str]) -> bool:
    """Whether a name stands on a list in the form of ``autosign.conf``: names, ``*``, and ``*.example.net``."""
    for line in lines:
        entry = line.strip()
        if not entry or entry.startswith("#") or " " in entry or "#" in entry:
            continue
        if entry in ("*", certname):
            return True
        if entry.startswith("*.") and (certname == entry[2:] or certname.endswith(entry[1:])):
            return True
    return False


def _lines(path: Path) -> list[str]:
    try:
        content = read_bounded(path, what="autosign list", limit_bytes=_LIST_LIMIT_BYTES)
        return content.decode("utf-8", "replace").splitlines()
    except MusterError as e:
        _log.error("The autosign list cannot be read; it counts as empty", why=str(e))
        return []


def _digest(secret: str) -> str:
    # What lies in the store is no token: a copy of the database signs nobody.
    return hashlib.sha256(secret.encode()).hexdigest()
