"""What a Puppet CA provider and an autosigner promise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from muster.policy.marks import change, query


@dataclass(frozen=True)
class Certificate:
    """A certificate or a request, as Foreman sees it.

    Attributes:
        state: ``valid``, ``revoked`` or ``pending``; a certificate that has ended counts as revoked.
        serial: None for a request, and from a CA that does not say.
        not_before: as the CA writes it, such as ``2026-11-21T07:06:18UTC``; ``not_after`` likewise.
    """

    name: str
    state: str
    fingerprint: str | None
    serial: int | None
    not_before: str | None
    not_after: str | None

    def as_json(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "fingerprint": self.fingerprint,
            "serial": self.serial,
            "not_before": self.not_before,
            "not_after": self.not_after,
        }


class CAProvider(Protocol):
    """A Puppet CA.

    Concurrency: any number of calls, of any number of members, at once.
    """

    @query
    async def list(self) -> list[Certificate]:
        """Return certificates and requests.

        Raises:
            Unavailable: the CA did not answer.
            Misconfigured: it does not let us.
        """

    @query
    async def reached(self) -> None:
        """Return when the CA has answered any question."""

    @change(repeatable=False)
    async def sign(self, certname: str) -> None:
        """Sign the pending request of a name.

        Raises:
            NotFound: the CA knows nothing of the name.
            Conflict: there is no request, or it asks for what the CA does not sign; nothing was changed.
            Unavailable: the CA did not answer; whether the certificate exists is unknown.
        """

    @change(repeatable=True)
    async def clean(self, certname: str) -> None:
        """Revoke and remove whatever there is under a name; nothing there is success.

        Raises:
            Unavailable: the CA did not answer.
        """


class Autosigner(Protocol):
    """Who says which requests are signed without an administrator."""

    @query
    async def reached(self) -> None:
        """Return when whoever signs on this host hears of it.

        Raises:
            Misconfigured: its file cannot be written; the sentence says why.
        """

    @query
    async def entries(self) -> list[str]:
        """Return the names that may be signed."""

    @change(repeatable=True)
    async def allow(self, certname: str, ttl_min: int | None) -> str | None:
        """Let a name be signed; return the token its host has to show, None when its name is enough.

        Raises:
            Rejected: it is no certname; nothing was changed.
        """

    @change(repeatable=True)
    async def forbid(self, certname: str) -> None:
        """Let a name be signed no more.

        Raises:
            NotFound: it was not let, where that matters to Foreman (``hostnames``).
        """

    @change(repeatable=False)
    async def permits(self, csr_pem: bytes) -> bool:
        """Whether a request may be signed now; a token that it brings is used up by the yes.

        Raises:
            Unavailable: the store did not answer; whether the token is used up is unknown, so it is not asked again: the
                second answer would be no.
        """
