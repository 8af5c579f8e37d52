from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519

from muster.authority.keys import custody
from muster.authority.moves.founding import Founding, founded, refuse_unless_new
from muster.authority.x509 import profile
from muster.cluster.file import Authority, AuthorityKey
from muster.kernel.errors import Misconfigured, Unsupported
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from tests.servers import available, puppetca
from tests.unit.authority.keys.material import everything_signed, put

pytestmark = pytest.mark.anyio

PIN = "4711"


class HSM:
    """A SoftHSM with one token and two keys on it."""

    def __init__(self, directory: Path) -> None:
        library = available.softhsm()
        assert library is not None
        self.module = library
        self.directory = directory
        (directory / "tokens").mkdir()
        (directory / "conf").write_text(f"directories.tokendir = {directory}/tokens\nobjectstore.backend = file\n")
        put(directory / "pin", f"{PIN}\n".encode())
        put(directory / "wrong-pin", b"0815\n")

    def make(self) -> None:
        self._util("--init-token", "--free", "--label", "muster", "--so-pin", "1234", "--pin", PIN)
        for number, kind in enumerate(("rsa", "ec"), 1):
            pem = put(self.directory / f"{kind}.pem", puppetca.key_pem(puppetca.new_ca("Puppet CA: kinds", kind).key))
            self._util("--import", str(pem), "--token", "muster", "--label", kind, "--id", f"0{number}", "--pin", PIN)

    def _util(self, *arguments: str) -> None:
        subprocess.run(["softhsm2-util", *arguments], check=True, capture_output=True, timeout=30)

    def settings(
        self, key: str, *, label: str = "muster", pin: str = "pin", module: Path | None = None
    ) -> AuthorityKey:
        return AuthorityKey(
            kind="pkcs11",
            module=module or self.module,
            token_label=label,
            key_label=key,
            pin_file=self.directory / pin,
        )


@pytest.fixture(scope="module")
def hsm(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[HSM]:
    needs("softhsm")
    made = HSM(tmp_path_factory.mktemp("hsm"))
    # The library reads it when it is first loaded, once per process.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(made.directory / "conf"))
        made.make()
        yield made


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_a_key_on_a_token_signs_and_cannot_be_taken(hsm: HSM, kind: str) -> None:
    ca = puppetca.new_ca("Puppet CA: kinds", kind)
    with custody.named(hsm.settings(kind), Path("/absent")).opened(ca.issuer) as key:
        everything_signed(ca, key)
        assert not isinstance(key, ed25519.Ed25519PrivateKey)
        with pytest.raises(Unsupported):
            key.private_numbers()
    # Opened again after it was closed.
    with custody.named(hsm.settings(kind), Path("/absent")).opened(ca.issuer) as key:
        everything_signed(ca, key)


async def test_a_token_is_used_by_several_threads_one_after_another(hsm: HSM) -> None:
    ca = puppetca.new_ca("Puppet CA: kinds", "ec")
    with custody.named(hsm.settings("ec"), Path("/absent")).opened(ca.issuer) as key:
        await asyncio.gather(*(asyncio.to_thread(everything_signed, ca, key) for _ in range(8)))


def test_each_way_a_token_can_be_wrong_is_a_sentence(hsm: HSM, tmp_path: Path) -> None:
    ca = puppetca.new_ca("Puppet CA: kinds", "ec")
    for settings, said in (
        (hsm.settings("absent"), "did not sign"),
        (hsm.settings("ec", label="absent"), "did not sign"),
        (hsm.settings("ec", pin="wrong-pin"), "did not sign"),
        (hsm.settings("ec", pin="wrong-pin"), "is not tried again until it changes"),
        (hsm.settings("ec", pin="absent-pin"), "PIN file"),
        (hsm.settings("ec", module=tmp_path / "absent.so"), "did not sign"),
    ):
        with pytest.raises(Misconfigured, match=said), custody.named(settings, tmp_path).opened(ca.issuer):
            pass


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_a_new_ca_is_signed_by_the_key_on_a_token(hsm: HSM, tmp_path: Path, kind: str) -> None:
    async def run() -> None:
        settings = Authority(key=hsm.settings(kind), requests_per_minute=0)
        founding = Founding("Puppet CA: token", "rsa-4096", 30, tmp_path / "ca_key.pem")
        async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
            await founded(store, settings, founding, member="here")
            async with puppetca.member(store, tmp_path / "home", settings) as member:
                certificate = member.issuer.certificate
                certificate.verify_directly_issued_by(certificate)
                assert profile.belongs(puppetca.new_ca("Puppet CA: kinds", kind).key, certificate)
                await member.requests.submit("a.example.net", puppetca.agent("a.example.net").csr, source="192.0.2.1")
                await member.requests.sign("a.example.net", actor="test")
        assert not (tmp_path / "ca_key.pem").exists()

    asyncio.run(run())


def test_a_token_that_cannot_be_used_makes_no_ca(hsm: HSM, tmp_path: Path) -> None:
    async def run(settings: AuthorityKey, said: str) -> None:
        founding = Founding("Puppet CA: token", "rsa-4096", 30, tmp_path / "ca_key.pem")
        async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
            for make in (refuse_unless_new(store, Authority(key=settings), founding),
                         founded(store, Authority(key=settings), founding, member="here")):  # fmt: skip
                with pytest.raises(Misconfigured, match=said):
                    await make

    asyncio.run(run(hsm.settings("absent"), "There is no public key absent on the token muster"))
    asyncio.run(run(hsm.settings("ec", label="absent"), "cannot be read"))
    asyncio.run(run(hsm.settings("ec", module=tmp_path / "absent.so"), "cannot be read"))


def test_another_cas_key_on_a_token_is_refused(hsm: HSM) -> None:
    for kind in ("ec", "rsa"):
        other = puppetca.new_ca("Puppet CA: other", kind)
        with (
            pytest.raises(Misconfigured, match="is another CA's"),
            custody.named(hsm.settings(kind), Path("/absent")).opened(other.issuer),
        ):
            pass


def test_a_member_opens_with_its_key_on_a_token(hsm: HSM, tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
            ca = puppetca.new_ca("Puppet CA: kinds", "ec")
            await puppetca.begin(store, tmp_path / "made", ca)
            settings = Authority(key=hsm.settings("ec"), requests_per_minute=0)
            async with puppetca.member(store, tmp_path / "home", settings) as member:
                await member.requests.submit("a.example.net", puppetca.agent("a.example.net").csr, source="192.0.2.1")
                await member.requests.sign("a.example.net", actor="test")
                made = x509.load_pem_x509_certificate((await member.certificates.pem("a.example.net")).encode())
                made.verify_directly_issued_by(ca.issuer.certificate)
                await member.certificates.revoke("a.example.net", actor="test")
                assert puppetca.revoked_in((await member.lists.served()).pem) == {made.serial_number}
            assert not (tmp_path / "home" / "ca_key.pem").exists()

    asyncio.run(run())


def test_without_the_library_a_token_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    settings = AuthorityKey(
        kind="pkcs11",
        module=tmp_path / "token.so",
        token_label="muster",
        key_label="ca",
        pin_file=put(tmp_path / "pin", b"4711"),
    )
    token = custody.named(settings, tmp_path)
    with pytest.raises(Misconfigured, match="requirements-pkcs11"), token.opened(puppetca.new_ca().issuer):
        pass
    with pytest.raises(Misconfigured, match="requirements-pkcs11"):
        token.refuse_unless_new()
