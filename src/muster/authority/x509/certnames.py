"""Certnames, extensions and object identifiers in Puppet's words (docs/facts/puppet-ca.md §2.3, §2.4)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cryptography.x509 import ObjectIdentifier

from muster.kernel.errors import Rejected

# What the CA's routes take as a name; anything else is no route (docs/facts/puppet-ca.md §1.2).
ROUTABLE = re.compile(r"[A-Za-z0-9_.-]{1,255}\Z")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\Z")
# GET certificate/ca is the bundle, so nobody could ever fetch a certificate of that name.
_RESERVED = frozenset({"ca"})

CHALLENGE_PASSWORD = ObjectIdentifier("1.2.840.113549.1.9.7")
NETSCAPE_COMMENT = ObjectIdentifier("2.16.840.1.113730.1.13")
COMMENT = b"Puppet Server Internal Certificate"

ARC = "1.3.6.1.4.1.34380.1"
REGISTERED, PRIVATE, AUTHORISATION = f"{ARC}.1.", f"{ARC}.2.", f"{ARC}.3."
PP_CLI_AUTH = ObjectIdentifier(f"{AUTHORISATION}39")
AUTO_RENEW = ObjectIdentifier(f"{AUTHORISATION}2")

AUTHORISATION_NAMES: Mapping[str, str] = {
    f"{AUTHORISATION}1": "pp_authorization",
    f"{AUTHORISATION}13": "pp_auth_role",
    f"{AUTHORISATION}39": "pp_cli_auth",
}


def refuse_unless_hostname(name: str) -> None:
    """Refuse what Puppet refuses as the subject of a certificate.

    Raises:
        Rejected: upper case, a wildcard, or a form no host name has; in puppetserver's words.
    """
    if name != name.lower():
        raise Rejected("Certificate names must be lower case.")
    if "*" in name:
        raise Rejected(f"Subject contains a wildcard, which is not allowed: {name}")
    if len(name) > 253 or not all(_LABEL.match(label) for label in name.removesuffix(".").split(".")):
        raise Rejected("Subject hostname format is invalid")
    if name in _RESERVED:
        raise Rejected(f"The certname {name} is reserved: its certificate could not be fetched")
