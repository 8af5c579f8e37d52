"""What a member keeps on its own disk for times without the store: the CA's bundle, and the revocation lists it saw last.

Nothing here raises for a disk that refuses: a CA that signs does not stop for want of a copy.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from cryptography import x509

from muster.authority.ledger.lookup import Published
from muster.authority.x509 import profile
from muster.authority.x509.profile import Issuer
from muster.kernel.errors import MusterError
from muster.kernel.files import make_directory, write_atomically
from muster.kernel.log import logger

_log = logger("authority")


class Copies:
    """One member's copies, all of them public."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._complaint = ""

    def bundle(self) -> str | None:
        """Return the bundle byte for byte, None without one."""
        content = _content(self._bundle)
        return None if content is None else content.decode("utf-8", "replace")

    def keep_bundle(self, pem: str) -> None:
        """Keep the bundle, unless it is kept already; a disk that refuses is logged, once."""
        # As bytes: text would lose the carriage returns of a bundle that came with some, and so change its fingerprint.
        if _content(self._bundle) != pem.encode():
            self._attempted(lambda: write_atomically(self._bundle, pem))

    def lists(self, issuer: Issuer) -> Published | None:
        """Return the lists kept last, None without any of that CA."""
        content = _content(self._lists)
        if content is None:
            return None
        try:
            found = Published(**json.loads(content))
            own = x509.load_pem_x509_crl(found.own_pem.encode())
            if profile.list_number(own) != found.number:
                raise ValueError("its number is another one")
            if not own.is_signature_valid(issuer.certificate.public_key()):  # type: ignore[arg-type]
                raise ValueError("another CA signed it")
        except (ValueError, TypeError, AttributeError) as e:
            _log.warning("The kept revocation list cannot be used", file=str(self._lists), why=str(e))
            return None
        return found

    def keep_lists(self, lists: Published) -> bool:
        """Keep the lists in place of earlier ones; whether it was done. A disk that refuses is logged, once."""
        return self._attempted(lambda: write_atomically(self._lists, json.dumps(asdict(lists))))

    def _attempted(self, write: Callable[[], None]) -> bool:
        try:
            make_directory(self._directory)
            write()
        except MusterError as e:
            if self._complaint != str(e):
                _log.error("The copy for times without the store is stale", why=str(e))
            self._complaint = str(e)
            return False
        self._complaint = ""
        return True

    @property
    def _bundle(self) -> Path:
        return self._directory / "ca_crt.pem"

    @property
    def _lists(self) -> Path:
        return self._directory / "lists.json"


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
