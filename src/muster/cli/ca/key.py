"""What has to be said of the key: after it was made or taken over, and in a directory that is given back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muster.cluster.file import AuthorityKey


def copied(key: AuthorityKey) -> str:
    also = f" and {key.passphrase_file}" if key.passphrase_file else ""
    return f"Copy the key{also} to every member, mode 0600."


def about_key(key: AuthorityKey, default: Path, *, without_key: bool) -> str:
    """Return what has to be known of the key in an exported directory; empty when it is simply there."""
    from muster.authority.keys import custody

    if without_key:
        return "Its key was left out: puppetserver does not start without ca_key.pem."
    if key.kind != "file":
        return (
            f"Its key is missing: {custody.named(key, default).where} gives it to nobody. Put it there in PEM as "
            "ca_key.pem, mode 0600, from where it was made; puppetserver starts with nothing else."
        )
    return "Its ca_key.pem is not encrypted, because puppetserver knows no passphrase." if key.passphrase_file else ""
