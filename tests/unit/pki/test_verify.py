from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from muster.kernel.errors import Rejected
from muster.pki.authority import ClusterCA
from muster.pki.verify import verify_port

GOOD = "proxy.example.com"


@pytest.mark.parametrize(
    ("host", "port", "name"),
    [
        ("a" * 80 + ".x", 443, GOOD),
        ("a..b", 443, GOOD),
        ("", 443, GOOD),
        (GOOD, 443, "a..b"),
        (GOOD, 443, "a" * 80 + ".x"),
        (GOOD, 0, GOOD),
        (GOOD, 99_999, GOOD),
    ],
)
async def test_what_no_port_can_be_is_rejected_before_resolver_and_tls_library_stumble(
    tmp_path: Path, host: str, port: int, name: str
) -> None:
    ClusterCA.create(tmp_path, "demo", now=datetime.now(UTC))
    with pytest.raises(Rejected):
        await verify_port(host, port, server_name=name, ca_file=tmp_path / "ca.pem", now=datetime.now(UTC))
