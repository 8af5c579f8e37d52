"""What needs no server: key files as administrators have them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import get_args

import dns.message
import dns.name
import dns.tsig
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.features.dns.providers.tsig_key import key_from
from muster.features.dns.settings import Algorithm, NSUpdateSettings
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


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_every_algorithm_signs_whether_it_stands_in_a_file_or_in_the_settings(algorithm: str, tmp_path: Path) -> None:
    path = tmp_path / "key.conf"
    path.write_text(f'key "k" {{ algorithm {algorithm.upper()}; secret "{SLASHES}"; }};')
    in_settings = NSUpdateSettings.model_validate(
        {"key_name": "k", "key_algorithm": algorithm, "key_secret": Secret(SLASHES)}
    )
    found = [key_from(NSUpdateSettings(key_file=path)), key_from(in_settings)]
    assert found[0] is not None
    assert found[0] == found[1]
    question = dns.message.make_query("example.com", "SOA")
    question.use_tsig(found[0])
    assert len(question.to_wire()) > len(SLASHES)


@pytest.mark.parametrize("algorithm", ["hmac-sha999", "hmac-sha256-160", "hmac-", "HMAC-SHA3"])
def test_an_algorithm_that_cannot_sign_is_refused_before_the_first_update(algorithm: str, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as raised:
        key(f'key "k" {{ algorithm {algorithm}; secret "{SLASHES}"; }};', tmp_path)
    said = str(raised.value)
    assert SLASHES not in said
    if algorithm != "hmac-":
        known = ", ".join(get_args(Algorithm))
        assert f"has algorithm {algorithm.lower()}, which is none of {known}" in said


def test_an_algorithm_the_machine_lacks_is_refused_before_the_first_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(_: object) -> None:
        raise ValueError("unsupported hash type md5")

    monkeypatch.setattr(dns.tsig, "get_context", lacking)
    with pytest.raises(Misconfigured, match=r"DNS key old from .* cannot be used: ValueError"):
        key('key "old" { algorithm hmac-md5; secret "AAAAAAAA"; };', tmp_path)


def test_a_shortened_hmac_is_named_as_bind_names_it_in_messages(tmp_path: Path) -> None:
    found = key('key "short" { algorithm hmac-sha256-128; secret "AAAAAAAA"; };', tmp_path)
    assert found[1] == "hmac-sha256."


def test_no_key_means_unsigned_updates_and_md5_has_its_old_name(tmp_path: Path) -> None:
    assert key_from(NSUpdateSettings()) is None
    found = key('key "old" { algorithm hmac-md5; secret "AAAAAAAA"; };', tmp_path)
    assert found[1] == dns.name.from_text("hmac-md5.sig-alg.reg.int").to_text()
