"""Active Directory: accounts of computers with a password of their own, by which a host joins.

A new account has its password from the first moment, in one step. What Foreman calls user class has no place there.
Source: docs/facts/smart-proxy-protocol.md §14, docs/facts/realm.md §1.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from muster.features.realm import kerberos
from muster.features.realm.active_directory import ldif, names
from muster.features.realm.active_directory.directory import Directory, NotEmpty
from muster.features.realm.active_directory.ldif import Entry
from muster.features.realm.contract import Account, Wanted
from muster.features.realm.passwords import random_password
from muster.features.realm.settings import ADSettings
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected
from muster.kernel.names import FQDN, shown
from muster.kernel.secrets import Secret

_HELD = ("dNSHostName", "objectClass", "userAccountControl")
# userAccountControl (MS-ADTS 2.2.16). A domain controller that may only be read has that of a workstation as well.
_WORKSTATION, _DISABLED, _READ_ONLY_CONTROLLER = 0x1000, 0x2, 0x4000000
# Accounts of services, which are of class computer, too (MS-ADTS 2.3.10).
_OF_SERVICES = ("msds-managedserviceaccount", "msds-groupmanagedserviceaccount")
# Of AES with 128 and 256 bits, and RC4 for what knows no better (MS-KILE 2.2.7).
_ENCRYPTION_TYPES = 0x1C
# Where new computers go, also after an administrator had them go elsewhere (MS-ADTS 6.1.1.4).
_NEW_COMPUTERS = "AA312825768811D1ADED00C04FD8D5CD"


class ActiveDirectoryRealm:
    """Accounts of one domain."""

    def __init__(self, directory: Directory, settings: ADSettings) -> None:
        self._directory = directory
        self._settings = settings
        self._base = names.base(settings.realm)

    async def reached(self) -> None:
        try:
            await self._directory.search(self._base, "(objectClass=domain)", ("1.1",), scope="base")
        except NotFound as e:
            raise Misconfigured(str(e)) from e

    async def place(self) -> str:
        """Return the distinguished name below which accounts are made.

        Raises:
            Misconfigured: it is not there.
            As the contract's ``reached``.
        """
        wanted = self._settings.ou or f"<WKGUID={_NEW_COMPUTERS},{self._base}>"
        try:
            found = await self._directory.search(wanted, "(objectClass=*)", ("1.1",), scope="base")
        except NotFound as e:
            raise Misconfigured(str(e)) from e
        if not found:
            raise Misconfigured(f"There is nothing by the name {wanted} that {self._settings.principal} may see")
        return found[0].dn

    async def lookup(self, host: FQDN) -> bool:
        return await self._held(host) is not None

    async def enrol(self, wanted: Wanted) -> Account:
        held = await self._held(wanted.host)
        if held is None:
            return await self._added(wanted.host)
        if not wanted.is_rebuilt:
            return Account()
        if _control(held) & _DISABLED:
            raise Rejected(
                f"{shown(held.dn)} is disabled, so {wanted.host} could not join by it; enable it, or delete it"
            )
        password = random_password()
        values: list[tuple[str, str | bytes]] = [
            ("unicodePwd", ldif.password(password)),
            ("dNSHostName", wanted.host.lower()),
        ]
        # Where two hosts would have an account that is nobody's yet, the directory lets one of them.
        is_nobodys = held.first("dNSHostName") is None
        try:
            await self._directory.change(
                ldif.replaced(held.dn, values, new=("dNSHostName",) if is_nobodys else ()),
                f"giving {wanted.host} a new password",
            )
        except NotFound as e:
            raise Conflict(f"The account of {wanted.host} went while it was to get a new password: {e}") from e
        return Account(password)

    async def remove(self, realm: str, host: FQDN) -> Mapping[str, Any] | None:  # noqa: ARG002
        held = await self._held(host)
        if held is None:
            raise NotFound(f"{self._settings.realm} has no account {names.account(host, self._settings)}")
        what = f"deleting the account of {host}"
        try:
            await self._directory.change(ldif.deleted(held.dn, with_all_below=False), what)
        except NotEmpty:
            # A computer may have entries of its own, as recovery keys. Not at once: that takes a further right.
            await self._directory.change(ldif.deleted(held.dn, with_all_below=True), what)
        return None

    async def _added(self, host: FQDN) -> Account:
        name, fqdn, password = names.account(host, self._settings), host.lower(), random_password()
        change = ldif.added(f"CN={name},{await self.place()}", _account(name, fqdn, password))
        try:
            await self._directory.change(change, f"making an account for {host}")
        except NotFound as e:
            raise Misconfigured(str(e)) from e
        return Account(password)

    async def _held(self, host: FQDN) -> Entry | None:
        """Return the host's account, wherever in the domain an administrator has put it.

        Raises:
            Conflict: it is another host's.
            Rejected: it is no workstation's, but a domain controller's, a service's or a person's.
            Misconfigured: the domain controller has no such domain.
        """
        name = names.account(host, self._settings)
        try:
            found = await self._directory.search(self._base, f"(sAMAccountName={name}$)", _HELD)
        except NotFound as e:
            # Of the domain, not of the host: Foreman would take that for done.
            raise Misconfigured(str(e)) from e
        if not found:
            return None
        held = found[0]
        control, classes = _control(held), {c.lower() for c in held.values.get("objectclass", ())}
        if not control & _WORKSTATION or control & _READ_ONLY_CONTROLLER or classes & set(_OF_SERVICES):
            raise Rejected(f"{shown(held.dn)} is no workstation's account; it is left alone")
        theirs = held.first("dNSHostName")
        if theirs is not None and theirs.lower() != host.lower():
            raise Conflict(
                f"The account {name}, which {host} would have, is {shown(theirs)}'s; names are cut to "
                f"{names.LONGEST} characters, which computername_hash and computername_use_fqdn keep apart"
            )
        return held


def _control(held: Entry) -> int:
    said = held.first("userAccountControl") or ""
    return int(said) if said.isdigit() else 0


def _account(name: str, fqdn: str, password: Secret) -> list[tuple[str, str | bytes]]:
    return [
        ("objectClass", "computer"),
        ("sAMAccountName", f"{name}$"),
        ("userAccountControl", str(_WORKSTATION)),
        ("dNSHostName", fqdn),
        ("servicePrincipalName", f"HOST/{name}"),
        ("servicePrincipalName", f"HOST/{fqdn}"),
        ("msDS-SupportedEncryptionTypes", str(_ENCRYPTION_TYPES)),
        ("unicodePwd", ldif.password(password)),
    ]


@asynccontextmanager
async def opened(settings: ADSettings) -> AsyncIterator[tuple[ActiveDirectoryRealm, str]]:
    """Yield the provider and its realm. Nothing is asked before the first call: a keytab may come later."""
    with kerberos.opened(settings, settings.realm.upper()) as tickets:
        yield ActiveDirectoryRealm(Directory(settings, tickets), settings), str(settings.realm)
