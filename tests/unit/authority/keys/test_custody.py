from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from muster.authority.keys import custody
from muster.authority.keys.contract import Custody
from muster.cluster.file import AuthorityKey

SETTINGS = {
    "file": AuthorityKey(file=Path("/etc/key.pem"), passphrase_file=Path("/etc/secret")),
    "signer": AuthorityKey(kind="signer", socket=Path("/run/signer")),
    "pkcs11": AuthorityKey(
        kind="pkcs11",
        module=Path("/usr/lib/token.so"),
        token_label="muster",
        key_label="ca",
        pin_file=Path("/etc/pin"),
    ),
}


def test_every_word_of_the_settings_has_its_custody() -> None:
    words = get_args(AuthorityKey.model_fields["kind"].annotation)
    assert set(words) == set(custody.KINDS) == set(SETTINGS)


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("file", "/etc/key.pem, encrypted"),
        ("signer", "the signer at /run/signer"),
        ("pkcs11", "the token muster (key ca)"),
    ],
)
def test_a_custody_says_where_the_key_is(kind: str, where: str) -> None:
    found: Custody = custody.named(SETTINGS[kind], Path("/absent"))
    assert found.where == where


def test_a_key_is_in_the_default_file_when_the_settings_name_none() -> None:
    assert custody.named(AuthorityKey(), Path("/pki/ca_key.pem")).where == "/pki/ca_key.pem"
