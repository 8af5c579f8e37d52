"""What needs no server: key files as administrators have them."""

from __future__ import annotations

import base64
from pathlib import Path

import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.features.dns.providers.nsupdate import key_from
from muster.features.dns.settings import NSUpdateSettings
from muster.kernel.errors import Misconfigured
from muster.kernel.secrets import Secret

SLASHES = base64.b64encode(b"\xff" * 32).decode()


def key(text: str, tmp_path: Path) -> tuple[str, str, bytes]:
    path = tmp_path / "key.conf"
    path.write_text(text)
    found = key_from(NSUpdateSettings(key_file=path))
    assert found is not None
    return found.name.to_text(), found.algorithm.to_text(), found.secret


@pytest.mark.parametrize(
    "text",
    [
        'key "foreman" { algorithm hmac-sha256; secret "%s"; };',
        'key foreman {\n\talgorithm hmac-sha256;\n\tsecret "%s";\n};\n',
        '# made by tsig-keygen\nkey "foreman" { // for Foreman\n algorithm "hmac-sha256";\n secret "%s"; # keep\n };',
        'KEY "foreman" { ALGORITHM HMAC-SHA256; SECRET %s; }',
    ],
)
def test_a_key_file_is_read_as_bind_reads_it(text: str, tmp_path: Path) -> None:
    assert SLASHES.startswith("//")
    for secret in (SLASHES, "c2VjcmV0"):
        if secret is SLASHES and "SECRET %s" in text:
            continue
        found = key(text % secret, tmp_path)
        assert found == ("foreman.", "hmac-sha256.", base64.b64decode(secret))


@given(st.binary(min_size=16, max_size=64))
def test_every_secret_that_base64_can_write_is_read_whole(secret: bytes) -> None:
    text = base64.b64encode(secret).decode()
    found = key_from(NSUpdateSettings(key_name="k", key_algorithm="hmac-sha512", key_secret=Secret(text)))
    assert found is not None
    assert found.secret == secret


@given(raw=st.binary(min_size=16, max_size=64))
def test_every_secret_in_a_file_is_read_whole(raw: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = f'key "k" {{ algorithm hmac-sha256; secret "{base64.b64encode(raw).decode()}"; }};'
    assert key(text, tmp_path_factory.mktemp("key"))[2] == raw


@pytest.mark.parametrize(
    "text", ["", "key", 'key "a" { secret "x"; };', 'key "a" { algorithm rsa; secret "AAAA"; };', "AAAA" * 20]
)
def test_another_file_is_refused_without_its_content(text: str, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="is not of the form key NAME") as raised:
        key(text, tmp_path)
    assert "AAAA" not in str(raised.value)


def test_no_key_means_unsigned_updates_and_md5_has_its_old_name(tmp_path: Path) -> None:
    assert key_from(NSUpdateSettings()) is None
    found = key('key "old" { algorithm hmac-md5; secret "AAAAAAAA"; };', tmp_path)
    assert found[1] == dns.name.from_text("hmac-md5.sig-alg.reg.int").to_text()
