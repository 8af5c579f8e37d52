from __future__ import annotations

import asyncio
import copy
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from muster.authority.keys import custody, signer
from muster.authority.keys.remote import held
from muster.authority.keys.signable import Rules
from muster.authority.keys.signer import Askers
from muster.authority.moves.founding import Founding, founded, refuse_unless_new
from muster.authority.x509 import csr, profile
from muster.authority.x509.profile import CAKey
from muster.cluster.file import Authority, AuthorityKey
from muster.kernel import log
from muster.kernel.errors import Conflict, Misconfigured, Unavailable, Unsupported
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from tests.servers import available, puppetca
from tests.servers.puppetca import NewCA

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)


def put(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def encrypted(key: CAKey, passphrase: bytes) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))


def everything_signed(ca: NewCA, key: CAKey) -> None:
    """Sign all that a CA signs with this key, and verify it with the CA's certificate."""
    request = csr.read(puppetca.agent("a.example.net").csr)
    leaf = profile.signed_leaf(request, ca.issuer, key, serial=7, now=NOW, ttl=timedelta(days=1))
    leaf.verify_directly_issued_by(ca.issuer.certificate)
    again = profile.renewed_leaf(leaf, ca.issuer, key, serial=8, now=NOW, ttl=timedelta(days=1))
    again.verify_directly_issued_by(ca.issuer.certificate)
    listed = profile.signed_list(ca.issuer, key, [(7, NOW)], number=1, now=NOW, ttl=timedelta(days=1))
    assert listed.is_signature_valid(ca.issuer.certificate.public_key())  # type: ignore[arg-type]


# ------------------------------------------------------------------ files


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
def test_a_key_in_a_file_signs(tmp_path: Path, kind: str) -> None:
    ca = puppetca.new_ca("Puppet CA: kinds", kind)
    path = put(tmp_path / "key.pem", puppetca.key_pem(ca.key))
    with custody.opened(AuthorityKey(file=path), ca.issuer, tmp_path / "absent") as key:
        everything_signed(ca, key)
    with custody.opened(AuthorityKey(), ca.issuer, path) as key:
        everything_signed(ca, key)


def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path) -> None:
    ca = puppetca.new_ca()
    path = put(tmp_path / "key.pem", encrypted(ca.key, b"open sesame"))
    right = put(tmp_path / "right", b"open sesame\nanother line\n")
    wrong = put(tmp_path / "wrong", b"open barley\n")
    empty = put(tmp_path / "empty", b"\n")
    with custody.opened(AuthorityKey(file=path, passphrase_file=right), ca.issuer, path) as key:
        everything_signed(ca, key)
    for file, said in (
        (wrong, "the passphrase is wrong"),
        (None, "needs a passphrase"),
        (empty, "is empty"),
        (tmp_path / "absent", "passphrase file"),
    ):
        with pytest.raises(Misconfigured, match=said):
            custody.in_file(path, file)
    plain = put(tmp_path / "plain.pem", puppetca.key_pem(ca.key))
    with pytest.raises(Misconfigured, match="has no passphrase"):
        custody.in_file(plain, right)


def test_another_cas_key_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "key.pem", puppetca.key_pem(puppetca.new_ca("Puppet CA: other").key))
    with (
        pytest.raises(Misconfigured, match="does not belong to Puppet CA: test"),
        custody.opened(AuthorityKey(file=path), puppetca.new_ca().issuer, path),
    ):
        pass


@pytest.mark.parametrize(
    ("mode", "fine"), [(0o600, True), (0o640, True), (0o644, False), (0o604, False), (0o606, False)]
)
def test_a_key_everybody_may_read_is_refused_where_it_is_ours(tmp_path: Path, mode: int, fine: bool) -> None:
    path = put(tmp_path / "key.pem", puppetca.key_pem(puppetca.new_ca().key), mode)
    # A puppetserver's own file is read as it is.
    assert custody.in_file(path, guarded=False)
    if fine:
        assert custody.in_file(path)
        return
    with pytest.raises(Misconfigured, match="may be used by everybody on this host; chmod o="):
        custody.in_file(path)


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    odd = dsa.generate_private_key(2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content, said in ((b"", "no PEM"), (b"junk", "no PEM"), (odd, "of no kind that signs")):
        with pytest.raises(Misconfigured, match=said):
            custody.in_file(put(tmp_path / "key.pem", content))
    with pytest.raises(Misconfigured, match="CA's key"):
        custody.in_file(tmp_path / "absent")


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
    with custody.adopted(settings, ca.issuer, tmp_path / "absent", given) as adopted, adopted.in_place():
        pass
    assert settings.file is not None
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in settings.file.read_bytes()
    assert settings.file.stat().st_mode & 0o777 == 0o600
    with custody.opened(settings, ca.issuer, tmp_path / "absent") as key:
        everything_signed(ca, key)
    plain = custody.exported(settings, ca.issuer, tmp_path / "absent")
    assert plain is not None
    assert custody.in_file(put(tmp_path / "plain.pem", plain))
    for content, said in ((b"\n", "is empty"), (b"x" * 1500, "cannot be used")):
        with pytest.raises(Misconfigured, match=said):
            custody.encoded(ca.key, put(secret, content))


def test_a_key_that_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    ca = puppetca.new_ca()
    given = put(tmp_path / "given.pem", puppetca.key_pem(ca.key))
    file = tmp_path / "key.pem"
    with custody.adopted(AuthorityKey(file=file), ca.issuer, file, given) as adopted:
        put(file, b"another one's")
        with pytest.raises(Conflict, match="exists by now"), adopted.in_place():
            pytest.fail("the ledger was written")
    assert file.read_bytes() == b"another one's"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["given.pem", "key.pem"]


def test_a_key_goes_again_when_another_ca_was_first(tmp_path: Path) -> None:
    ca = puppetca.new_ca()
    given = put(tmp_path / "given.pem", puppetca.key_pem(ca.key))
    file = tmp_path / "key.pem"

    def race(lost: Exception) -> None:
        with custody.adopted(AuthorityKey(file=file), ca.issuer, file, given) as adopted, adopted.in_place():
            assert file.exists()
            raise lost

    with pytest.raises(Conflict):
        race(Conflict("another one was first"))
    assert not file.exists()
    # What a silent store did is unknown: the CA may be there, and this its only key.
    with pytest.raises(Unavailable):
        race(Unavailable("no answer"))
    assert file.exists()


# ------------------------------------------------------------------ the signer


@pytest.fixture
def place() -> Iterator[Path]:
    """Yield a directory whose path is short enough for a socket, whatever pytest's is."""
    with tempfile.TemporaryDirectory(prefix="muster-signer-") as directory:
        yield Path(directory)


def sign_over(path: Path, ca: NewCA) -> None:
    with custody.opened(AuthorityKey(kind="signer", socket=path), ca.issuer, path) as key:
        everything_signed(ca, key)


def other_digest(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(b"x", padding.PKCS1v15(), hashes.SHA384())
    return key.sign(b"x", ec.ECDSA(hashes.SHA384()))


@pytest.mark.parametrize("kind", ["rsa", "ec"])
async def test_a_signer_signs_and_keeps_the_key(place: Path, kind: str) -> None:
    ca = puppetca.new_ca("Puppet CA: kinds", kind)
    path = place / "socket"
    async with signer.serving(path, ca.key):
        assert path.stat().st_mode & 0o777 == 0o600
        await asyncio.to_thread(sign_over, path, ca)
        # Threads of their own: the signer, in this process, needs the loop's.
        with ThreadPoolExecutor(4) as askers:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(askers, sign_over, path, ca) for _ in range(8)))

        def take() -> None:
            with signer.connected(path, ca.issuer) as key:
                assert copy.deepcopy(key) is key
                assert not isinstance(key, ed25519.Ed25519PrivateKey)
                for way in (
                    lambda: key.private_numbers(),
                    lambda: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
                ):
                    with pytest.raises(Unsupported, match="held elsewhere"):
                        way()
                with pytest.raises(Unsupported):
                    other_digest(key)

        await asyncio.to_thread(take)
    assert not path.exists()


async def test_a_signer_refuses_with_a_sentence_and_says_in_its_log_what_it_signed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ca, path = puppetca.new_ca(), place / "socket"
    log.configure()
    request = csr.read(puppetca.agent("a.example.net").csr)
    administrator = x509.load_der_x509_certificate(
        puppetca.certificate_of(ca, "admin.example.net", cli_auth=puppetca.ADMINISTRATOR)
    )

    def ask() -> None:
        with custody.opened(AuthorityKey(kind="signer", socket=path), ca.issuer, path) as key:

            def leaf(days: int) -> None:
                profile.signed_leaf(request, ca.issuer, key, serial=7, now=NOW, ttl=timedelta(days=days))

            leaf(90)
            with pytest.raises(Misconfigured, match=r"does not sign this: .* more than 90 days \(--longest-days\)"):
                leaf(365)
            # An import may have brought it; issued anew it would be an administrator's for years.
            with pytest.raises(Misconfigured, match="pp_cli_auth"):
                profile.renewed_leaf(administrator, ca.issuer, key, serial=8, now=NOW, ttl=timedelta(days=9))
            profile.signed_list(ca.issuer, key, [], number=3, now=NOW, ttl=timedelta(days=9))

    try:
        async with signer.serving(path, ca.key, rules=Rules(ca.issuer.certificate, timedelta(days=90))):
            await asyncio.to_thread(ask)
    finally:
        structlog.reset_defaults()
    lines = [line for line in capsys.readouterr().err.splitlines() if "igned" in line]
    assert [("Not signed" in line, f"account={os.geteuid()}" in line) for line in lines] == [
        (False, True), (True, True), (True, True), (False, True)
    ]  # fmt: skip
    assert "certificate of a.example.net, serial 7, until" in lines[0]
    assert "revocation list 3" in lines[3]


async def test_a_signer_of_another_ca_is_refused(place: Path) -> None:
    async with signer.serving(place / "socket", puppetca.new_ca("Puppet CA: other").key):
        with pytest.raises(Misconfigured, match=r"of the signer at .* does not belong to Puppet CA: test"):
            await asyncio.to_thread(sign_over, place / "socket", puppetca.new_ca())


async def test_a_signer_that_is_away_is_said_and_asked_again_when_it_is_back(place: Path) -> None:
    ca, path = puppetca.new_ca(), place / "socket"
    with pytest.raises(Misconfigured, match="start it with: muster ca signer"):
        await asyncio.to_thread(sign_over, path, ca)
    async with signer.serving(path, ca.key):
        held = signer.connected(path, ca.issuer)
        key = await asyncio.to_thread(held.__enter__)
    with pytest.raises(Unavailable, match=r"did not answer: (?!\[Errno)\w"):
        await asyncio.to_thread(everything_signed, ca, key)
    async with signer.serving(path, ca.key):
        await asyncio.to_thread(everything_signed, ca, key)
    held.__exit__(None, None, None)


def test_a_signer_holds_no_ed25519_key(place: Path) -> None:
    async def serve() -> None:
        async with signer.serving(place / "socket", puppetca.new_ca("Puppet CA: kinds", "ed25519").key):
            pass

    with pytest.raises(Misconfigured, match="RSA and EC keys only"):
        asyncio.run(serve())


@pytest.mark.parametrize(
    "message",
    [b"", b"\0\0\0\0", b"\xff\xff\xff\xffjunk", struct.pack("!I", 5) + b"s", struct.pack("!I", 3) + b"xyz", b"GET / "],
)
async def test_junk_does_not_disturb_a_signer(place: Path, message: bytes) -> None:
    ca, path = puppetca.new_ca(), place / "socket"

    def send() -> bytes:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(str(path))
            s.sendall(message)
            s.shutdown(socket.SHUT_WR)
            return s.recv(1000)

    async with signer.serving(path, ca.key):
        answer = await asyncio.to_thread(send)
        assert answer[4:5] in (b"", b"-")
        await asyncio.to_thread(sign_over, path, ca)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_who_is_neither_its_owner_nor_root_gets_nothing_from_a_signer() -> None:
    directory = Path(tempfile.mkdtemp(prefix="muster-signer-"))
    directory.chmod(0o755)
    path = directory / "socket"
    asks = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1]);"
        "s.sendall(b'\\0\\0\\0\\1p'); sys.stdout.buffer.write(s.recv(99))"
    )

    def ask() -> subprocess.CompletedProcess[bytes]:
        command = ["/usr/bin/env", "python3", "-c", asks, str(path)]
        return subprocess.run(command, user=65534, group=65534, cwd="/", capture_output=True, timeout=20, check=False)

    try:
        async with signer.serving(path, puppetca.new_ca().key):
            assert b"PermissionError" in (await asyncio.to_thread(ask)).stderr
            # Even where the file's mode lets everybody in, the kernel says who asks.
            path.chmod(0o666)
            said = await asyncio.to_thread(ask)
            assert said.stdout == b""
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def reachable() -> Iterator[Path]:
    """Yield a directory that every account may enter."""
    with tempfile.TemporaryDirectory(prefix="muster-signer-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


async def asked_as(path: Path, user: int, group: int, *further: int) -> subprocess.CompletedProcess[bytes]:
    """Ask for the public key as another account; the first byte of an answer is behind its length."""
    code = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1]);"
        "s.sendall(b'\\0\\0\\0\\1p'); sys.stdout.buffer.write(s.recv(99)[4:5])"
    )
    command = ["/usr/bin/env", "python3", "-c", code, str(path)]
    return await asyncio.to_thread(
        subprocess.run, command, user=user, group=group, extra_groups=further, cwd="/", capture_output=True, timeout=20,
        check=False,
    )  # fmt: skip


NOBODY, DAEMON, THIRD = 65534, 1, 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_an_account_that_is_let_asks_and_its_neighbours_do_not(reachable: Path) -> None:
    path = reachable / "socket"
    async with signer.serving(path, puppetca.new_ca().key, Askers(frozenset({NOBODY}), None, NOBODY)):
        found = path.stat()
        assert (found.st_mode & 0o777, found.st_gid) == (0o660, NOBODY)
        assert (await asked_as(path, NOBODY, NOBODY)).stdout == b"+"
        # In the socket's group, so it connects; but it is not the account.
        neighbour = await asked_as(path, DAEMON, NOBODY)
        assert (neighbour.stdout, b"PermissionError" in neighbour.stderr) == (b"", False)
        assert b"PermissionError" in (await asked_as(path, DAEMON, DAEMON)).stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_a_groups_members_ask_whichever_of_their_groups_it_is(reachable: Path) -> None:
    path = reachable / "socket"
    async with signer.serving(path, puppetca.new_ca().key, Askers(frozenset(), DAEMON, DAEMON)):
        assert (await asked_as(path, NOBODY, DAEMON)).stdout == b"+"
        assert (await asked_as(path, NOBODY, NOBODY, THIRD, DAEMON)).stdout == b"+"
        assert b"PermissionError" in (await asked_as(path, NOBODY, NOBODY, THIRD)).stderr
        # Even where the file's mode lets everybody in, the kernel says who asks.
        path.chmod(0o666)
        assert (await asked_as(path, NOBODY, NOBODY, THIRD)).stdout == b""


@pytest.mark.parametrize(
    ("users", "group", "said"),
    [
        (["no-such-account"], None, "There is no account no-such-account on this host"),
        (["\udcff"], None, r"There is no account \\udcff"),
        ([], "no-such-group", "There is no group no-such-group"),
        (["daemon"], "nogroup", "daemon is not in the group nogroup, so it could not reach the socket"),
        (["daemon", "nobody"], None, "daemon, nobody have no group in common"),
    ],
)
def test_accounts_that_could_not_ask_are_named_at_the_start(users: Sequence[str], group: str | None, said: str) -> None:
    with pytest.raises(Misconfigured, match=said):
        Askers.named(users, group)


def test_an_accounts_own_group_gets_the_socket() -> None:
    assert Askers.named(["nobody"], None) == Askers(frozenset({NOBODY}), None, NOBODY)
    assert Askers.named([], "daemon") == Askers(frozenset(), DAEMON, DAEMON)
    assert Askers.named([], None) == Askers()


@pytest.mark.parametrize("what", ["file", "directory", "link"])
async def test_what_is_no_socket_is_left_alone(place: Path, what: str) -> None:
    path, precious = place / "socket", place / "precious"
    precious.write_text("mine")
    if what == "file":
        path.write_text("mine")
    elif what == "directory":
        path.mkdir()
    else:
        path.symlink_to(precious)
    before = path.lstat()
    with pytest.raises(Conflict, match="is there and is no socket; nothing was changed"):
        async with signer.serving(path, puppetca.new_ca().key):
            pass
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert precious.read_text() == "mine"


async def test_a_second_signer_does_not_take_the_firsts_socket(place: Path) -> None:
    ca, path = puppetca.new_ca(), place / "socket"
    async with signer.serving(path, ca.key):
        with pytest.raises(Conflict, match="Another process answers on"):
            async with signer.serving(path, puppetca.new_ca("Puppet CA: other").key):
                pass
        await asyncio.to_thread(sign_over, path, ca)
    assert not path.exists()


async def test_a_socket_nobody_answers_on_any_more_is_used_again(place: Path) -> None:
    ca, path = puppetca.new_ca(), place / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.is_socket()
    async with signer.serving(path, ca.key):
        await asyncio.to_thread(sign_over, path, ca)
    assert not path.exists()


async def test_a_signer_removes_no_socket_but_its_own(place: Path) -> None:
    path = place / "socket"
    async with signer.serving(path, puppetca.new_ca().key):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.is_socket()


def test_of_signers_that_start_at_once_over_a_dead_socket_one_serves(place: Path) -> None:
    key_file = put(place / "key.pem", puppetca.key_pem(puppetca.new_ca().key))
    path = place / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    command = [sys.executable, "-m", "muster", "ca", "signer", "--socket", str(path), "--key", str(key_file)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    try:
        said = []
        for process in started:
            assert process.stdout is not None
            said.append(process.stdout.readline())
        assert sorted(line[:11] for line in said) == [b"", b"", b"Signing for"]
        sign_over(path, puppetca.new_ca())
    finally:
        for process in started:
            process.terminate()
        errors = [process.communicate(timeout=20)[1] for process in started]
    assert sorted(p.returncode for p in started) == [0, 4, 4]
    assert sum(b"Another process answers on" in e for e in errors) == 2


async def test_whoever_says_our_public_key_and_signs_with_another_is_no_signer(place: Path) -> None:
    ca, other, path = puppetca.new_ca(), puppetca.new_ca("Puppet CA: other").key, place / "socket"
    assert isinstance(other, ec.EllipticCurvePrivateKey)
    liar = held(ca.key.public_key(), lambda data: other.sign(data, ec.ECDSA(hashes.SHA256())))
    async with signer.serving(path, liar):
        with pytest.raises(Misconfigured, match=r"does not sign as Puppet CA: test does"):
            await asyncio.to_thread(sign_over, path, ca)


class _Nobody(Askers):
    def include(self, peer: socket.socket) -> bool:
        return False


async def test_a_signer_that_does_not_let_us_ask_says_what_to_change(place: Path) -> None:
    path = place / "socket"
    async with signer.serving(path, puppetca.new_ca().key, _Nobody()):
        with pytest.raises(Misconfigured, match=r"did not answer.*--allow-user and --allow-group say"):
            await asyncio.to_thread(sign_over, path, puppetca.new_ca())


def test_the_signer_of_the_command_line_is_a_process_of_its_own(place: Path) -> None:
    ca = puppetca.new_ca()
    key_file = put(place / "key.pem", puppetca.key_pem(ca.key))
    path = place / "socket"
    command = [sys.executable, "-m", "muster", "ca", "signer", "--socket", str(path), "--key", str(key_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith(b"Signing for")
            sign_over(path, ca)
        finally:
            process.terminate()
            process.wait(20)
    assert process.returncode == 0
    assert not path.exists()


def test_the_signer_of_the_command_line_knows_its_ca_by_the_file_beside_its_key(place: Path) -> None:
    ca, other = puppetca.new_ca(), puppetca.new_ca("Puppet CA: other")
    key_file = put(place / "key.pem", puppetca.key_pem(ca.key))
    (place / "other.pem").write_text(other.issuer.chain_pem)
    socket_path = place / "socket"
    command = [sys.executable, "-m", "muster", "ca", "signer", "--socket", str(socket_path), "--key", str(key_file)]
    refused = subprocess.run([*command, "--ca", str(place / "other.pem")], capture_output=True, text=True, timeout=60)
    assert refused.returncode != 0
    assert "does not belong to Puppet CA: other" in refused.stderr
    (place / "ca_crt.pem").write_text(ca.issuer.chain_pem)

    def foreign() -> None:
        request = csr.read(puppetca.agent("a.example.net").csr)
        with custody.opened(AuthorityKey(kind="signer", socket=socket_path), ca.issuer, socket_path) as key:
            profile.signed_leaf(request, other.issuer, key, serial=7, now=NOW, ttl=timedelta(days=1))

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert process.stdout.readline() == f"Signing for {socket_path}, as Puppet CA: test\n"
            sign_over(socket_path, ca)
            with pytest.raises(Misconfigured, match="in the name of another issuer: CN=Puppet CA: other"):
                foreign()
        finally:
            process.terminate()
            process.wait(20)
        assert process.stderr.read().count("Signed") == 3


# ------------------------------------------------------------------ tokens

PIN = "4711"


class HSM:
    """A SoftHSM with one token and two keys on it."""

    def __init__(self, directory: Path) -> None:
        library = available.softhsm()
        assert library is not None
        self.library = library
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
            module=module or self.library,
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
    with custody.opened(hsm.settings(kind), ca.issuer, Path("/absent")) as key:
        everything_signed(ca, key)
        assert not isinstance(key, ed25519.Ed25519PrivateKey)
        with pytest.raises(Unsupported):
            key.private_numbers()
    # Opened again after it was closed.
    with custody.opened(hsm.settings(kind), ca.issuer, Path("/absent")) as key:
        everything_signed(ca, key)


async def test_a_token_is_used_by_several_threads_one_after_another(hsm: HSM) -> None:
    ca = puppetca.new_ca("Puppet CA: kinds", "ec")
    with custody.opened(hsm.settings("ec"), ca.issuer, Path("/absent")) as key:
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
        with pytest.raises(Misconfigured, match=said), custody.opened(settings, ca.issuer, tmp_path):
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
                await member.submit("a.example.net", puppetca.agent("a.example.net").csr, source="192.0.2.1")
                await member.sign("a.example.net", actor="test")
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
            custody.opened(hsm.settings(kind), other.issuer, Path("/absent")),
        ):
            pass


def test_a_member_opens_with_its_key_on_a_token(hsm: HSM, tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
            ca = puppetca.new_ca("Puppet CA: kinds", "ec")
            await puppetca.begin(store, tmp_path / "made", ca)
            settings = Authority(key=hsm.settings("ec"), requests_per_minute=0)
            async with puppetca.member(store, tmp_path / "home", settings) as member:
                await member.submit("a.example.net", puppetca.agent("a.example.net").csr, source="192.0.2.1")
                await member.sign("a.example.net", actor="test")
                made = x509.load_pem_x509_certificate((await member.certificate("a.example.net")).encode())
                made.verify_directly_issued_by(ca.issuer.certificate)
                await member.revoke("a.example.net", actor="test")
                assert puppetca.revoked_in((await member.lists()).pem) == {made.serial_number}
            assert not (tmp_path / "home" / "ca_key.pem").exists()

    asyncio.run(run())
