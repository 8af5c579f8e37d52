"""A new archive for one member, from the cluster's CA or with a server certificate of somebody else's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.files import read_bounded
from muster.kernel.secrets import Secret
from muster.pki import pem as pems
from muster.pki.archive.layout import Format, Pair, layout
from muster.pki.authority import ClusterCA
from muster.pki.bundles import Bundle, BundleRequest, KeyKind
from muster.pki.complaints import complaints
from muster.pki.facts import CertificateFacts, is_ca


@dataclass(frozen=True)
class Custom:
    """A server certificate that somebody else issued, for Apache and the Smart Proxy alike.

    Attributes:
        certificate: its intermediate CAs follow it.
        issuers: the CAs that hosts have to trust then.
    """

    certificate: tuple[x509.Certificate, ...]
    key: pems.PrivateKey
    issuers: tuple[x509.Certificate, ...]

    @classmethod
    def read(cls, certificate: Path, key: Path, ca: Path) -> Custom:
        """Read the three files.

        Raises:
            Misconfigured: one cannot be read, or the key, which must have no passphrase, is another's.
        """
        chain = pems.certificates(read_bounded(certificate, what="certificate"), str(certificate))
        secret = pems.private_key(read_bounded(key, what="private key"), str(key))
        if not pems.matches(chain[0], secret):
            raise Misconfigured(f"The key {key} does not belong to the certificate {certificate}")
        return cls(tuple(chain), secret, tuple(pems.certificates(read_bounded(ca, what="CA file"), str(ca))))

    def refuse_unfit(self, names: Sequence[str], *, where: str, now: datetime) -> None:
        """Refuse what would serve the member or the cluster badly.

        ``names`` are the member's, the cluster's address and its aliases: the installer's own check forgets all but the
        first (docs/facts/deployment.md §2.1).

        Raises:
            Rejected: with everything that is wrong.
        """
        leaf = self.certificate[0]
        found = complaints(self.certificate, where=where, names=names, trusted=self.issuers, now=now, serves=True)
        wrong = [c.sentence for c in found if c.severity == "error"]
        facts = CertificateFacts.of(leaf)
        if is_ca(leaf):
            wrong.append(f"{where} is a CA's own certificate")
        if facts.subject_cn is None or facts.subject_cn.lower() not in {n.lower() for n in facts.names}:
            wrong.append(
                f"the common name of {where} is not among its alternative names, and the installer wants it there"
            )
        if isinstance(self.key, rsa.RSAPrivateKey) and not _enciphers(leaf):
            wrong.append(f"{where} may not encipher keys (keyEncipherment), and the installer wants that")
        ends = [c for c in self.issuers if c.not_valid_after_utc <= now]
        wrong += [f"its CA {c.subject.rfc4514_string()} has expired" for c in ends]
        if wrong:
            raise Rejected(
                f"{where} is no server certificate for {', '.join(names)}: {'; '.join(dict.fromkeys(wrong))}"
            )


@dataclass(frozen=True)
class Wanted:
    """What an archive is made for.

    Attributes:
        names: the cluster's address and its aliases, which every certificate carries beside the member's.
        also_trusted: CAs beside the cluster's: Foreman's own.
        secrets: what the proxy registers with at Foreman, by meaning (``key``, ``secret``); only foremanctl's has them.
    """

    format: Format
    member: str
    names: tuple[str, ...]
    key_kind: KeyKind = "rsa-4096"
    custom: Custom | None = None
    also_trusted: tuple[x509.Certificate, ...] = ()
    secrets: Mapping[str, Secret] | None = None


def made(wanted: Wanted, ca: ClusterCA, *, now: datetime, valid_days: int) -> dict[str, bytes]:
    """Return the files of a new archive, all keys new but a custom certificate's.

    Raises:
        Rejected: the CA cannot issue now, or the custom certificate is unfit.
        Misconfigured: secrets are given to a format that has none.
    """
    of = layout(wanted.format, wanted.member)
    if wanted.custom is not None:
        carried = (wanted.member, *wanted.names)
        wanted.custom.refuse_unfit(carried, where="--server-cert", now=now)
    if wanted.secrets and not of.secrets:
        raise Misconfigured(
            "An archive of the installer holds no key or secret of Foreman's; the installer is told them"
        )
    own = [*ca.certificates, *wanted.also_trusted]
    servers = [*(wanted.custom.issuers if wanted.custom is not None else ()), *own]
    files = {
        of.default_ca: pems.text(dict.fromkeys(own)).encode(),
        of.server_ca: pems.text(dict.fromkeys(servers)).encode(),
        of.bundle: pems.text(dict.fromkeys([*servers, *own])).encode(),
    }
    for pair in of.pairs:
        certificate, key = _pair(pair, wanted, ca, now=now, valid_days=valid_days)
        files[pair.certificate], files[pair.key] = certificate.encode(), key.reveal().encode()
    for meaning, name in of.secrets.items():
        if wanted.secrets and meaning in wanted.secrets:
            files[name] = f"{wanted.secrets[meaning].reveal()}\n".encode()
    return files


def _pair(pair: Pair, wanted: Wanted, ca: ClusterCA, *, now: datetime, valid_days: int) -> tuple[str, Secret]:
    if pair.serves and wanted.custom is not None:
        return pems.text(wanted.custom.certificate), pems.key_text(wanted.custom.key)
    kind = "member" if pair.serves else "client"
    # Foreman finds the member by any of these names; Ruby members' have all of them (docs/facts/deployment.md §2.2).
    request = BundleRequest(kind, wanted.member, wanted.names, key_kind=wanted.key_kind)  # type: ignore[arg-type]
    bundle: Bundle = ca.issue(request, now=now, valid_days=valid_days)
    return bundle.certificate_pem, bundle.key_pem


def _enciphers(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_encipherment
    except x509.ExtensionNotFound:
        return True
