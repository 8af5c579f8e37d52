"""Hosts in a dictionary: the contract without a server. It can be told to fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muster.features.realm.contract import Account, Wanted
from muster.features.realm.passwords import random_password
from muster.kernel.errors import MusterError, NotFound
from muster.kernel.names import FQDN


class MemoryRealm:
    """Keeps hosts, with their user classes, until the process ends. One event loop.

    Attributes:
        failure: raised by every operation while set.
    """

    def __init__(self) -> None:
        self.failure: MusterError | None = None
        self._hosts: dict[FQDN, str | None] = {}

    async def reached(self) -> None:
        self._may_fail()

    async def lookup(self, host: FQDN) -> bool:
        self._may_fail()
        return host in self._hosts

    async def enrol(self, wanted: Wanted) -> Account:
        self._may_fail()
        is_new = wanted.host not in self._hosts
        before = self._hosts.get(wanted.host)
        self._hosts[wanted.host] = now = before if wanted.userclass is None else wanted.userclass
        told = {"fqdn": str(wanted.host), **({"userclass": now} if now is not None else {})}
        if is_new or wanted.is_rebuilt:
            return Account(random_password(), told)
        return Account() if now == before else Account(None, told)

    async def remove(self, realm: str, host: FQDN) -> Mapping[str, Any] | None:  # noqa: ARG002
        self._may_fail()
        if host not in self._hosts:
            raise NotFound(f"{host} is not there")
        del self._hosts[host]
        return None

    def _may_fail(self) -> None:
        if self.failure is not None:
            raise self.failure
