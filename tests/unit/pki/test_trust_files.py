from __future__ import annotations

import errno
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from muster.kernel.errors import Misconfigured
from muster.pki import pem as pems
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, write
from muster.pki.trust_files import verify_trust_file
from muster.pki.verify import verify_files


@pytest.fixture
def ca(tmp_path: Path) -> str:
    return ClusterCA.create(tmp_path / "pki", "demo", now=datetime.now(UTC)).chain_pem


def test_plain_certificates_and_words_between_them_draw_no_complaint(ca: str, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(f"subject=one\n{ca}\r\nsubject=-----again\n{ca.replace('CERTIFICATE', 'X509 CERTIFICATE')}")
    assert verify_trust_file(file) == []
    assert verify_trust_file(tmp_path / "absent.pem") == []


@pytest.mark.parametrize(
    ("label", "severity"),
    [
        ("TRUSTED CERTIFICATE", "error"),
        ("PKCS7", "error"),
        # Nothing of these could be trusted; whoever put them there expects something of it all the same.
        ("X509 CRL", "warning"),
        ("PRIVATE KEY", "warning"),
        ("CERTIFICATE REQUEST", "warning"),
        ("\x1b[31m", "warning"),
    ],
)
def test_every_block_that_is_not_used_is_named(ca: str, tmp_path: Path, label: str, severity: str) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(f"{ca}-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n{ca}")
    (found,) = verify_trust_file(file)
    assert (found.code, found.severity) == ("FILE-PASSED-OVER", severity)
    assert f"block 2 (line {ca.count(chr(10)) + 1}, " in found.sentence
    assert found.sentence.isprintable()
    assert "AAAA" not in found.sentence


def test_of_many_blocks_the_first_few_are_named(ca: str, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(ca + "-----BEGIN X509 CRL-----\n" * 1000)
    (found,) = verify_trust_file(file)
    assert found.sentence.endswith(f"block 6 (line {ca.count(chr(10)) + 5}, X509 CRL) and 995 more")


def test_a_block_that_cannot_be_read_is_the_one_that_is_named(ca: str, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    damaged = ca.splitlines(keepends=True)
    file.write_text(ca + "".join([*damaged[:2], *damaged[3:]]) + ca)
    (found,) = verify_trust_file(file)
    assert found.code == "FILE-UNREADABLE"
    assert f"block 2 (line {ca.count(chr(10)) + 1}, CERTIFICATE); remove it, or copy it again" in found.sentence


def test_a_file_that_this_account_may_not_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    at = write(
        ClusterCA.create(tmp_path, "demo", now=now).issue(BundleRequest("member", "proxy01.test"), now=now), tmp_path
    )
    opened = Path.open

    def refused(path: Path, *arguments: Any, **named: Any) -> Any:
        if path in (at.key, tmp_path / "ca.pem"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refused)
    found = [
        *verify_files(at, tmp_path / "ca.pem", ["proxy01.test"], now), *verify_trust_file(tmp_path / "ca.pem")
    ]  # fmt: skip
    assert [c.code for c in found] == ["FILE-UNREADABLE"] * 2
    for complaint in found:
        assert "may not read" in complaint.cause
        assert "damaged" not in complaint.cause
        assert "as root" in complaint.remedy


def test_a_file_without_any_plain_certificate_says_what_it_holds_instead() -> None:
    with pytest.raises(
        Misconfigured, match=r"no line BEGIN CERTIFICATE; it holds block 1 \(line 2, TRUSTED CERTIFICATE\)"
    ):
        pems.certificates(b"\n-----BEGIN TRUSTED CERTIFICATE-----\n", "The CA file ca.pem")
