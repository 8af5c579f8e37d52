"""Names that autosigning does not give away: who has a certificate of one of them rules the CA, or speaks as the cluster.

Puppet's own rules know no such names: there, an entry for a whole domain signs everybody in it, and power comes from an
extension that is never signed unasked (docs/facts/puppet-ca.md §7.6). Here a bare name may have power, so it is guarded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from muster.authority.x509.csr import CertificateRequest
from muster.cluster.file import OWN_CERTNAME_PREFIX, Authority, ClusterFile


@dataclass(frozen=True)
class Reserved:
    """A cluster's reserved names, in lower case.

    Attributes:
        never: an administrator signs them, or nobody does: the CA's administrators, the cluster's address and aliases.
            So is every name that begins as those of the members' own certificates do.
        named: signed at once only where exactly this name was let: members, infra hosts, trusted hosts.
    """

    never: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()

    @classmethod
    def of(cls, cluster: ClusterFile) -> Reserved:
        """Return those of a cluster file."""
        own = cls.of_settings(cluster.authority or Authority())
        members = (str(m.name) for m in cluster.members)
        # Where nobody wrote down whom the cluster trusts, that is Foreman's host, by the same rule as at the edge.
        trusted = (str(h) for h in cluster.trusted_names)
        return cls(
            own.never | _levelled(str(n) for n in cluster.names),
            own.named | _levelled((*members, *trusted)),
        )

    @classmethod
    def of_settings(cls, settings: Authority) -> Reserved:
        """Return those that the CA's settings alone name."""
        return cls(_levelled(settings.administrators), _levelled(settings.infra_hosts))

    def withheld(self, request: CertificateRequest, *, named: bool) -> str:
        """Return in words why a request waits for an administrator whatever lets it through; empty when nothing is reserved.

        ``named``: exactly the request's own name was let through, by an entry or a token. Its alternative names were not.
        """
        own = _level(request.name)
        for name in (own, *(_level(n) for n in request.alternatives.dns)):
            if name in self.never or name.startswith(OWN_CERTNAME_PREFIX):
                return f"{name} is a name of the cluster's own"
            if name in self.named and not (named and name == own):
                return f"{name} has to be let through by its own name"
        return ""

    def given_away(self, entry: str) -> str:
        """Return a reserved name that an entry of an autosign list would sign; empty when it signs none.

        For lists that somebody else reads: what signs a reserved name must not stand there.
        """
        entry = _level(entry)
        if entry != "*" and not entry.startswith("*."):
            return entry if entry in self.never or entry.startswith(OWN_CERTNAME_PREFIX) else ""
        domain = entry[1:]
        covered = (n for n in sorted(self.never | self.named) if f".{n}".endswith(domain))
        return next(covered, "")


def _level(name: str) -> str:
    # With a dot at the end it is another certname, and the same host.
    return name.lower().removesuffix(".")


def _levelled(names: Iterable[str]) -> frozenset[str]:
    return frozenset(_level(n) for n in names)
