"""The recorded TLS handshakes, played with the same ``openssl s_client`` to a real member."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers.client import Connection, request, tls_client
from tests.servers.member import CLUSTER_ADDRESS, Member
from tests.wire import golden

ROWS = golden.lines("tls")

_NO_FORWARD_SECRECY = (
    "Key exchange by RSA and CBC with SHA1 are off: no client of the last ten years needs them (§1.3)."
)
# What the Ruby proxy took and we refuse, and the other way round; ``§`` counts the sections of
# docs/facts/smart-proxy-protocol.md.
DIFFERENCES: Mapping[str, str] = {
    **{
        f"cipher {name}": _NO_FORWARD_SECRECY
        for name in (
            "AES128-GCM-SHA256",
            "AES256-GCM-SHA384",
            "AES128-SHA256",
            "AES256-SHA256",
            "AES128-SHA",
            "AES256-SHA",
        )
    },
    "cipher ECDHE-RSA-CHACHA20-POLY1305": "As good as AES-GCM and faster where the processor has no AES (§23, free).",
}


@dataclass(frozen=True)
class Handshake:
    protocol: str | None
    alpn: str | None
    answered: bool


def _shaken(proxy: Member, arguments: list[str]) -> Handshake:
    binary = shutil.which("openssl")
    if binary is None:
        pytest.skip("openssl: not on this machine")
    place = f"{proxy.https.address}:{proxy.https.port}"
    command = [binary, "s_client", "-connect", place, "-servername", CLUSTER_ADDRESS, "-CAfile", str(proxy.ca)]
    finished = subprocess.run(
        [*command, "-ign_eof", *arguments],
        input=request("GET", "/version", {"Connection": "close"}),
        capture_output=True,
        timeout=30,
        check=False,
    )
    text = finished.stdout.decode("latin-1")
    protocol = re.search(r"(?m)^(?:New, |Reused, )?(TLSv[0-9.]+), Cipher is (?!\(NONE\))", text)
    alpn = re.search(r"(?m)^ALPN protocol: (\S+)", text)
    # A TLS 1.2 cipher may carry an older name in that line; the session's own line is exact.
    session = re.findall(r"(?m)^ +Protocol *: (\S+)", text)
    shown = session[-1] if session else (protocol.group(1) if protocol else None)
    return Handshake(shown, alpn.group(1) if alpn else None, "HTTP/1.1 200 OK" in text)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r["note"].replace(" ", "-"))
def test_the_handshake_is_the_recorded_one(row: dict[str, Any], proxy: Member) -> None:
    recorded = row["result"]
    ours = _shaken(proxy, row["openssl_args"])
    if row["note"] in DIFFERENCES:
        assert ours.answered is not recorded["http"], "no difference here any more"
        return
    assert (ours.answered, ours.alpn) == (recorded["http"], recorded["alpn"])
    if ours.answered:
        assert ours.protocol == recorded["protocol"]


def test_all_handshakes_were_played() -> None:
    assert len(ROWS) == 18


def _refused(proxy: Member, client: Path, version: ssl.TLSVersion) -> OSError:
    """Return how a client learns that its certificate is not taken."""
    tls = tls_client(proxy.ca, client)
    tls.minimum_version = tls.maximum_version = version
    # Under TLS 1.3 a client believes it is done before the server has looked at its certificate.
    try:
        with Connection(proxy.https, tls=tls) as connection:
            connection.send(request("GET", "/version"))
            connection.answer()
    except TimeoutError:
        raise
    except OSError as e:
        return e
    pytest.fail("the certificate was taken")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", ["foreman-rogue", "foreman-expired"])
def test_a_bad_client_certificate_gets_no_answer_even_on_open_routes(
    version: ssl.TLSVersion, kind: str, proxy: Member, clients: Mapping[str, Path]
) -> None:
    _refused(proxy, clients[kind], version)


@pytest.mark.parametrize(("kind", "alert"), [("foreman-rogue", "UNKNOWN_CA"), ("foreman-expired", "EXPIRED")])
def test_a_client_whose_certificate_is_refused_is_told_why(
    kind: str, alert: str, proxy: Member, clients: Mapping[str, Path]
) -> None:
    assert alert in str(_refused(proxy, clients[kind], ssl.TLSVersion.TLSv1_2))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", ["foreman", "foreman-ec", "foreman-upper", "foreman-dn", "foreman-dn2"])
def test_every_spelling_of_the_trusted_name_is_let_in(
    version: ssl.TLSVersion, kind: str, proxy: Member, clients: Mapping[str, Path]
) -> None:
    tls = tls_client(proxy.ca, clients[kind])
    tls.minimum_version = tls.maximum_version = version
    with Connection(proxy.https, tls=tls) as c:
        c.send(request("GET", "/v2/features"))
        assert c.answer().status == 200
