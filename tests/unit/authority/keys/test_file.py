from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from muster.authority.keys import custody
from muster.authority.keys.file import encoded, in_file
from muster.authority.x509.profile import CAKey
from muster.cluster.file import AuthorityKey
from muster.kernel.errors import Misconfigured
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from tests.servers import puppetca
from tests.unit.authority.keys.material import everything_signed, put

pytestmark = pytest.mark.anyio


def encrypted(key: CAKey, passphrase: bytes) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
def test_a_key_in_a_file_signs(tmp_path: Path, kind: str) -> None:
    ca = puppetca.new_ca("Puppet CA: kinds", kind)
    path = put(tmp_path / "key.pem", puppetca.key_pem(ca.key))
    with custody.named(AuthorityKey(file=path), tmp_path / "absent").opened(ca.issuer) as key:
        everything_signed(ca, key)
    with custody.named(AuthorityKey(), path).opened(ca.issuer) as key:
        everything_signed(ca, key)


@pytest.mark.parametrize("parts", [("d", "p"), ("d", "dmp1"), ("d", "iqmp")], ids="+".join)
@pytest.mark.parametrize("change", [-1, 1, 2])
def test_an_rsa_key_whose_parts_do_not_fit_is_refused_where_it_is_ours(
    tmp_path: Path, parts: tuple[str, ...], change: int
) -> None:
    ca = puppetca.new_ca("Puppet CA: damaged", "rsa")
    assert isinstance(ca.key, rsa.RSAPrivateKey)
    whole, der = ca.key.private_numbers(), ca.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    for name in parts:
        value = getattr(whole, name)
        size = (value.bit_length() + 7) // 8
        assert der.count(value.to_bytes(size, "big")) == 1
        der = der.replace(value.to_bytes(size, "big"), (value + change).to_bytes(size, "big"))
    text = base64.encodebytes(der).decode()
    pem = f"-----BEGIN PRIVATE KEY-----\n{text}-----END PRIVATE KEY-----\n".encode()
    path = put(tmp_path / "key.pem", pem)
    refusal = "does not sign as Puppet CA: damaged does|no PEM"
    with pytest.raises(Misconfigured, match=refusal), custody.named(AuthorityKey(), path).opened(ca.issuer):
        pass
    # What comes from elsewhere is examined whole.
    with pytest.raises(Misconfigured, match="no PEM"):
        in_file(path)


def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path) -> None:
    ca = puppetca.new_ca()
    path = put(tmp_path / "key.pem", encrypted(ca.key, b"open sesame"))
    right = put(tmp_path / "right", b"open sesame\nanother line\n")
    wrong = put(tmp_path / "wrong", b"open barley\n")
    empty = put(tmp_path / "empty", b"\n")
    with custody.named(AuthorityKey(file=path, passphrase_file=right), path).opened(ca.issuer) as key:
        everything_signed(ca, key)
    for file, said in (
        (wrong, "the passphrase is wrong"),
        (None, "needs a passphrase"),
        (empty, "is empty"),
        (tmp_path / "absent", "passphrase file"),
    ):
        with pytest.raises(Misconfigured, match=said):
            in_file(path, file)
    plain = put(tmp_path / "plain.pem", puppetca.key_pem(ca.key))
    with pytest.raises(Misconfigured, match="has no passphrase"):
        in_file(plain, right)


def test_another_cas_key_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "key.pem", puppetca.key_pem(puppetca.new_ca("Puppet CA: other").key))
    with (
        pytest.raises(Misconfigured, match="does not belong to Puppet CA: test"),
        custody.named(AuthorityKey(file=path), path).opened(puppetca.new_ca().issuer),
    ):
        pass


@pytest.mark.parametrize(
    ("mode", "fine"), [(0o600, True), (0o640, True), (0o644, False), (0o604, False), (0o606, False)]
)
def test_a_key_everybody_may_read_is_refused_where_it_is_ours(tmp_path: Path, mode: int, fine: bool) -> None:
    path = put(tmp_path / "key.pem", puppetca.key_pem(puppetca.new_ca().key), mode)
    # A puppetserver's own file is read as it is.
    assert in_file(path, guarded=False)
    if fine:
        assert in_file(path)
        return
    with pytest.raises(Misconfigured, match="may be used by everybody on this host; chmod o="):
        in_file(path)


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    odd = dsa.generate_private_key(2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content, said in ((b"", "no PEM"), (b"junk", "no PEM"), (odd, "of no kind that signs")):
        with pytest.raises(Misconfigured, match=said):
            in_file(put(tmp_path / "key.pem", content))
    with pytest.raises(Misconfigured, match="CA's key"):
        in_file(tmp_path / "absent")


async def test_a_member_with_another_key_does_not_open(tmp_path: Path) -> None:
    async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        await puppetca.begin(store, tmp_path / "first")
        puppetca.put_key(tmp_path / "second", puppetca.key_pem(puppetca.new_ca("Puppet CA: other").key))
        with pytest.raises(Misconfigured, match="does not belong to"):
            async with puppetca.member(store, tmp_path / "second"):
                pass
        with pytest.raises(Misconfigured, match="CA's key"):
            async with puppetca.member(store, tmp_path / "third"):
                pass


def test_a_key_is_written_under_its_passphrase_and_exported_without(tmp_path: Path) -> None:
    ca = puppetca.new_ca()
    given = put(tmp_path / "given.pem", puppetca.key_pem(ca.key), 0o640)
    secret = put(tmp_path / "secret", b"open sesame\n")
    settings = AuthorityKey(file=tmp_path / "keys" / "key.pem", passphrase_file=secret)
    with custody.named(settings, tmp_path / "absent").adopted(ca.issuer, given) as adopted, adopted.in_place():
        pass
    assert settings.file is not None
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in settings.file.read_bytes()
    assert settings.file.stat().st_mode & 0o777 == 0o600
    with custody.named(settings, tmp_path / "absent").opened(ca.issuer) as key:
        everything_signed(ca, key)
    plain = custody.named(settings, tmp_path / "absent").exported(ca.issuer)
    assert plain is not None
    assert in_file(put(tmp_path / "plain.pem", plain))
    for content, said in ((b"\n", "is empty"), (b"x" * 1500, "cannot be used")):
        with pytest.raises(Misconfigured, match=said):
            encoded(ca.key, put(secret, content))
