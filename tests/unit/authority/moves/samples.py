"""The recorded CA directory, read, and certificates and lists that do not belong there."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from muster.authority.moves.directory import Found, read_directory
from tests.servers import puppetca

SAMPLE = puppetca.RECORDED / "cadir-sample"
NOW = datetime.now(UTC)


def read(directory: Path) -> Found:
    return read_directory(directory, now=NOW)


def sample_key() -> rsa.RSAPrivateKey:
    key = load_pem_private_key((SAMPLE / "ca_key.pem").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def expected() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((SAMPLE / "expected.json").read_text())
    return content
