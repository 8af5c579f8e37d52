"""What a host's account is called, and where it stands. Pure.

Source: docs/facts/smart-proxy-protocol.md §14 (realm_ad), docs/facts/realm.md §1.
"""

from __future__ import annotations

import hashlib

from muster.features.realm.settings import ADSettings
from muster.kernel.names import FQDN

LONGEST = 15
"""Characters of a computer's name; NetBIOS has no room for more."""


def account(host: FQDN, settings: ADSettings) -> str:
    """Return the name of a host's account, in capitals: of letters, digits, hyphens, and dots of a full name."""
    given = host.lower() if settings.computername_use_fqdn else host.lower().partition(".")[0]
    prefix = settings.computername_prefix
    if settings.computername_hash:
        given = hashlib.sha256(given.encode()).hexdigest()
    elif given.startswith(prefix.lower()):
        prefix = ""
    return f"{prefix}{given}"[:LONGEST].upper()


def base(realm: FQDN) -> str:
    """Return the distinguished name of a domain."""
    return ",".join(f"DC={label}" for label in realm.lower().split("."))
