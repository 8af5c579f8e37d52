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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from muster.authority.keys import custody, signer
from muster.authority.keys.remote import held
from muster.authority.keys.signable import Rules
from muster.authority.keys.signer import Askers
from muster.authority.x509 import csr, profile
from muster.cluster.file import AuthorityKey
from muster.kernel import log
from muster.kernel.errors import Conflict, Misconfigured, Unavailable, Unsupported
from tests.servers import puppetca
from tests.servers.puppetca import NewCA
from tests.unit.authority.keys.material import NOW, everything_signed, put

pytestmark = pytest.mark.anyio


@pytest.fixture
def place() -> Iterator[Path]:
    """Yield a directory whose path is short enough for a socket, whatever pytest's is."""
    with tempfile.TemporaryDirectory(prefix="muster-signer-") as directory:
        yield Path(directory)


def sign_over(path: Path, ca: NewCA) -> None:
    with custody.named(AuthorityKey(kind="signer", socket=path), path).opened(ca.issuer) as key:
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
        with custody.named(AuthorityKey(kind="signer", socket=path), path).opened(ca.issuer) as key:

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
        with custody.named(AuthorityKey(kind="signer", socket=socket_path), socket_path).opened(ca.issuer) as key:
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
