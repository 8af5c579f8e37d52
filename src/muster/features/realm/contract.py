"""What a realm provider promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from muster.kernel.errors import Unavailable
from muster.kernel.names import FQDN
from muster.kernel.secrets import Secret
from muster.policy.marks import change, query


class Untouched(Unavailable):
    """Nobody answered, and nothing was changed."""


@dataclass(frozen=True)
class Wanted:
    """What Foreman asks for a host.

    Attributes:
        realm: as it was asked for.
        userclass: what the realm groups hosts by, in FreeIPA an automember rule's word; None: nothing is said of it.
        is_rebuilt: the host is installed anew and needs a new password.
        is_update: something of the host has changed, and no password is needed.
    """

    realm: str
    host: FQDN
    userclass: str | None = None
    is_rebuilt: bool = False
    is_update: bool = False


@dataclass(frozen=True)
class Account:
    """What the realm says of a host after a change.

    Attributes:
        password: what the host may join with, once; None: none was set, and what it has counts.
        told: what else is said, fit for JSON; empty where the realm says nothing.
    """

    password: Secret | None = None
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_as_it_was(self) -> bool:
        return self.password is None and not self.told


class RealmProvider(Protocol):
    """Accounts of hosts in one realm.

    Concurrency: any number of calls for different hosts. For one host the service sees to it that there is one at a time.
    """

    @query
    async def reached(self) -> None:
        """Return when the realm's server has let us in; cheap, and asked every few seconds.

        Raises:
            Unavailable: it did not answer.
            Misconfigured: keytab, principal, clock or a certificate is wrong, or a program is not installed.
        """

    @query
    async def lookup(self, host: FQDN) -> bool:
        """Return whether the realm has the host.

        Raises:
            Unsupported: the provider cannot look (``smart_proxy``: the protocol has no such call).
        """

    # Whoever tried again after no answer would make a second password, while the first may count yet.
    @change(repeatable=False)
    async def enrol(self, wanted: Wanted) -> Account:
        """Make the host one of the realm's.

        A host that is not there gets an account and a password; one that is rebuilt gets a new password, and what it had
        joined with counts no more; of another one the user class is set, where the realm has such a thing.

        Raises:
            Conflict: the account of that name is another host's; nothing was changed.
            Rejected: the realm refuses; nothing was changed.
            Misconfigured: as for :meth:`reached`, or the principal lacks the right; nothing was changed.
            Unavailable: no answer; whether something was changed is unknown, but for :class:`Untouched`.
        """

    @change(repeatable=True)
    async def remove(self, realm: str, host: FQDN) -> Mapping[str, Any] | None:
        """Take the host from the realm and return what the realm says to that, None where it says nothing.

        Raises:
            NotFound: it was not there.
            Conflict, Rejected, Misconfigured, Unavailable: as for :meth:`enrol`.
        """
