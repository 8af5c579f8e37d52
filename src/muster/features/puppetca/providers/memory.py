"""Certificates in a dictionary: the contract without a CA. For trying out and for tests."""

from __future__ import annotations

from muster.features.puppetca.contract import Certificate
from muster.kernel.errors import Conflict, MusterError, NotFound


class MemoryCA:
    """Keeps names and states until the process ends. One event loop.

    Attributes:
        failure: raised by every operation while set.
    """

    def __init__(self) -> None:
        self._found: dict[str, Certificate] = {}
        self._serial = 0
        self.failure: MusterError | None = None

    def request(self, certname: str) -> None:
        """Let a host ask."""
        self._found[certname] = Certificate(certname, "pending", "AB:CD", None, None, None)

    async def list(self) -> list[Certificate]:
        self._may_fail()
        return list(self._found.values())

    async def reached(self) -> None:
        self._may_fail()

    async def sign(self, certname: str) -> None:
        self._may_fail()
        found = self._found.get(certname)
        if found is None:
            raise NotFound("Invalid certificate subject.")
        if found.state != "pending":
            raise Conflict(f"Cannot sign certificate for host {certname} without a certificate request")
        self._serial += 1
        self._found[certname] = Certificate(
            certname, "valid", "AB:CD", self._serial, "2026-01-01T00:00:00UTC", "2031-01-01T00:00:00UTC"
        )

    async def clean(self, certname: str) -> None:
        self._may_fail()
        self._found.pop(certname, None)

    def _may_fail(self) -> None:
        if self.failure is not None:
            raise self.failure
