"""Who may call what: the packaged ``auth.conf``, as data.

puppetserver authorises by prefixes before it routes (docs/facts/puppet-ca.md §1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

V1 = "/puppet-ca/v1/"
Who = Literal["anyone", "bearer", "administrator"]


@dataclass(frozen=True)
class Rule:
    """Who may call what: the first rule whose method and path fit decides; none fits: nobody.

    Attributes:
        exact: the whole path, not only its beginning.
    """

    path: str
    methods: frozenset[str]
    who: Who
    exact: bool = False

    def fits(self, method: str, path: str) -> bool:
        return method in self.methods and (path == self.path if self.exact else path.startswith(self.path))


def _rule(path: str, methods: str, who: Who, *, exact: bool = False) -> Rule:
    return Rule(path, frozenset(methods.split()), who, exact)


# The packaged auth.conf, its prefix semantics included.
RULES: Sequence[Rule] = (
    _rule(f"{V1}certificate_revocation_list/ca", "GET", "anyone"),
    _rule(f"{V1}certificate_revocation_list", "PUT", "administrator", exact=True),
    _rule(f"{V1}certificate/", "GET", "anyone"),
    _rule(f"{V1}certificate_request", "GET PUT", "anyone"),
    _rule(f"{V1}certificate_status", "GET PUT DELETE", "administrator"),
    _rule(f"{V1}certificate_renewal", "POST", "bearer"),
    _rule(f"{V1}expirations", "GET", "bearer"),
    _rule(f"{V1}clean", "PUT", "administrator"),
    _rule(f"{V1}sign", "POST", "administrator"),
    _rule("/status/v1/simple", "GET", "anyone"),
    _rule("/status/v1/services", "GET", "anyone"),
)


def ruling(method: str, path: str) -> Rule | None:
    """Return the rule that decides; None: nobody may."""
    return next((r for r in RULES if r.fits(method, path)), None)
