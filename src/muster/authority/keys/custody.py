"""The kinds of custody, by their word in the settings. A kind's file is imported when it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from muster.authority.keys.contract import Custody
from muster.cluster.file import AuthorityKey


def named(settings: AuthorityKey, default: Path) -> Custody:
    """Return the custody the settings name; ``default`` is the key's file when they name none."""
    return KINDS[settings.kind](settings, default)


def _file(settings: AuthorityKey, default: Path) -> Custody:
    from muster.authority.keys.file import KeyFile

    return KeyFile(settings.file or default, settings.passphrase_file)


def _signer(settings: AuthorityKey, _default: Path) -> Custody:
    from muster.authority.keys.signer import BySigner

    assert settings.socket is not None  # noqa: S101 - the settings' own validator
    return BySigner(settings.socket)


def _pkcs11(settings: AuthorityKey, _default: Path) -> Custody:
    from muster.authority.keys.token import OnToken

    return OnToken(settings)


KINDS: Mapping[str, Callable[[AuthorityKey, Path], Custody]] = {
    "file": _file,
    "signer": _signer,
    "pkcs11": _pkcs11,
}
