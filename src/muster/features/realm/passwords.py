"""Passwords that hosts join with, once."""

from __future__ import annotations

import secrets
import string

from muster.kernel.secrets import Secret

LENGTH = 20
_ALPHABET = string.ascii_letters + string.digits
_KINDS = (string.ascii_lowercase, string.ascii_uppercase, string.digits)


def random_password() -> Secret:
    """Return 20 letters and digits, of each kind some: what a domain's rule for passwords asks, and no shell mistakes."""
    while True:
        made = "".join(secrets.choice(_ALPHABET) for _ in range(LENGTH))
        if all(any(c in kind for c in made) for kind in _KINDS):
            return Secret(made)
