from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pyrage
import pytest

from muster.app.backup import sealed
from muster.kernel.errors import Misconfigured

KEY = pyrage.x25519.Identity.generate()


def opened(content: bytes) -> bytes:
    with sealed.opened(io.BytesIO(content), [KEY], "it") as stream:
        out = b""
        while piece := stream.read(1000):
            out += piece
    return out


def test_what_is_written_comes_out_again_whatever_its_size() -> None:
    for size in (0, 1, 65_536, 1_000_001):
        out = io.BytesIO()
        with sealed.sealed(out, [KEY.to_public()]) as plain:
            plain.write(b"x" * size)
        assert opened(out.getvalue()) == b"x" * size


def test_what_was_given_up_can_be_taken_for_nothing_whole() -> None:
    out = io.BytesIO()

    def given_up() -> None:
        with sealed.sealed(out, [KEY.to_public()]) as plain:
            plain.write(b"x" * 200_000)
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        given_up()
    with pytest.raises(Misconfigured, match="it is damaged, or was copied in part"):
        opened(out.getvalue())


class Full(io.BytesIO):
    def write(self, _: object) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_said_as_what_it_is() -> None:
    def written() -> None:
        with sealed.sealed(Full(), [KEY.to_public()]) as plain:
            for _ in range(100):
                plain.write(b"x" * 100_000)

    with pytest.raises(OSError, match="No space left") as caught:
        written()
    assert caught.value.errno == 28


def test_who_stops_reading_leaves_no_thread_behind() -> None:
    content = pyrage.encrypt(b"x" * 5_000_000, [KEY.to_public()])
    with sealed.opened(io.BytesIO(content), [KEY], "it") as stream:
        assert stream.read(10) == b"x" * 10


def test_recipients_are_those_of_age_and_ssh(tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a comment", "-f", tmp_path / "id"], check=True
    )
    file = tmp_path / "recipients"
    file.write_text(f"# Anna\n\n{KEY.to_public()}\n{(tmp_path / 'id.pub').read_text()}")
    assert len(sealed.recipients([f" {KEY.to_public()}"], [file])) == 3
    assert len(sealed.identities(tmp_path / "id")) == 1
    for given, why in (
        ("age1abc", "is no recipient"),
        ("hello", "age1…"),
        ("age1yubikey1qt", "is no recipient"),
        ("", "age1…"),
    ):
        with pytest.raises(Misconfigured, match=why):
            sealed.recipients([given], [])
    file.write_text("# nobody\n")
    with pytest.raises(Misconfigured, match="Nobody could open it"):
        sealed.recipients([], [file])
    file.write_text("# nobody\nnobody")
    with pytest.raises(Misconfigured, match="line 2"):
        sealed.recipients([], [file])


def test_a_secret_given_for_a_recipient_is_not_repeated() -> None:
    with pytest.raises(Misconfigured, match="that is an identity") as caught:
        sealed.recipients([str(KEY)], [])
    assert str(KEY)[16:] not in str(caught.value)


def test_identities_that_need_a_passphrase_say_what_to_do(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "hello", "-f", tmp_path / "id"], check=True)
    with pytest.raises(Misconfigured, match="ssh-keygen -p"):
        sealed.identities(tmp_path / "id")
    (tmp_path / "id").write_bytes(pyrage.passphrase.encrypt(str(KEY).encode(), "hello"))
    with pytest.raises(Misconfigured, match="open it first: age -d"):
        sealed.identities(tmp_path / "id")
    for content in ("# empty\n", "AGE-SECRET-KEY-1HELLO"):
        (tmp_path / "id").write_text(content)
        with pytest.raises(Misconfigured, match=r"holds no identity|cannot be used"):
            sealed.identities(tmp_path / "id")


def test_whoever_gives_public_keys_to_open_with_is_told_which_file_it_is(tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a comment", "-f", tmp_path / "id"], check=True
    )
    for content in (f"# Anna\n{KEY.to_public()}\n", (tmp_path / "id.pub").read_text()):
        (tmp_path / "recipients").write_text(content)
        with pytest.raises(Misconfigured, match=r"recipients holds a public key.*the file that age-keygen wrote"):
            sealed.identities(tmp_path / "recipients")
    (tmp_path / "recipients").write_text("hello\n")
    with pytest.raises(Misconfigured, match="line 1 is none: AGE-SECRET-KEY-…") as caught:
        sealed.identities(tmp_path / "recipients")
    assert "hello" not in str(caught.value)
