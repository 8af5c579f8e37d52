"""What a member signs with and writes to, handed to every part of the CA."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from muster.authority.ledger.ledger import Ledger
from muster.authority.x509.profile import CAKey, Issuer
from muster.cluster.file import Authority as Settings
from muster.kernel.clock import Clock


@dataclass(frozen=True)
class Hand:
    """One member's hand on the cluster's CA."""

    ledger: Ledger
    settings: Settings
    issuer: Issuer
    key: CAKey
    clock: Clock

    def now(self) -> datetime:
        return self.clock.now().astimezone(UTC)
