"""Key files: what BIND's own nsupdate takes, we take, and the other way round."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from muster.features.dns.providers.tsig_key import key_from
from muster.features.dns.settings import NSUpdateSettings
from muster.kernel.errors import Misconfigured

RAW = b"an HMAC key of thirty-two bytes!"
SECRET = base64.b64encode(RAW).decode()
SLASHES = base64.b64encode(b"\xff" * 32).decode()

TAKEN = {
    "as tsig-keygen writes it": f'key "muster" {{\n\talgorithm hmac-sha256;\n\tsecret "{SECRET}";\n}};\n',
    "secret first": f'key "muster" {{ secret "{SECRET}"; algorithm hmac-sha256; }};',
    "a comment of C before it": f'/* for Foreman */ key "muster" {{ algorithm hmac-sha256; secret "{SECRET}"; }};',
    "comments of C inside": f'key /*1*/ "muster" {{/**/ algorithm /* * / */ hmac-sha256; secret "{SECRET}" /*;*/; }};',
    "a comment over lines": f'/* one\n * two */\nkey "muster" {{ algorithm hmac-sha256; secret "{SECRET}"; }};',
    "comments of the shell and of C++": f'# x\nkey "muster" {{ // y\n algorithm hmac-sha256; # z\n secret "{SECRET}"; }};',
    "a slash in the name": f'key "site/muster" {{ algorithm hmac-sha256; secret "{SECRET}"; }};',
    "bare texts": f"key muster {{ algorithm hmac-sha256; secret {SECRET}; }};",
    "a name with a dot at its end": f'key "muster." {{ algorithm hmac-sha256; secret "{SECRET}"; }};',
    "a name with an underscore": f'key "a_b.muster" {{ algorithm hmac-sha256; secret "{SECRET}"; }};',
    "a name with an escaped dot": f'key "a\\.b" {{ algorithm hmac-sha256; secret "{SECRET}"; }};',
    "blanks in the secret": f'key "muster" {{ algorithm hmac-sha256; secret "{SECRET[:9]} {SECRET[9:]}"; }};',
    "tabs in the secret": f'key "muster" {{ algorithm hmac-sha256; secret "\t{SECRET[:9]}\t{SECRET[9:]} "; }};',
    "a secret over lines": f'key "muster" {{ algorithm hmac-sha256; secret "{SECRET[:9]}\n  {SECRET[9:]}"; }};',
    "upper case": f'KEY "muster" {{ ALGORITHM HMAC-SHA256; SECRET "{SECRET}"; }};',
    "line ends of another system": f'key "muster" {{\r\n algorithm hmac-sha256;\r\n secret "{SECRET}";\r\n}};\r\n',
    "no blanks": f'key"muster"{{algorithm"hmac-sha256";secret"{SECRET}";}};',
    "slashes in a quoted secret": f'key "muster" {{ algorithm hmac-sha256; secret "{SLASHES}"; }};',
}
REFUSED = {
    "nothing": "",
    "no secret": 'key "muster" { algorithm hmac-sha256; };',
    "no algorithm": f'key "muster" {{ secret "{SECRET}"; }};',
    "two secrets": f'key "muster" {{ algorithm hmac-sha256; secret "{SECRET}"; secret "{SECRET}"; }};',
    "an unknown clause": f'key "muster" {{ algorithm hmac-sha256; secret "{SECRET}"; port 53; }};',
    "two keys": "".join(f'key "{n}" {{ algorithm hmac-sha256; secret "{SECRET}"; }};' for n in "ab"),
    "another statement": f'key "muster" {{ algorithm hmac-sha256; secret "{SECRET}"; }}; controls {{ }};',
    "no name": f'key {{ algorithm hmac-sha256; secret "{SECRET}"; }};',
    "an open comment": f'/* key "muster" {{ algorithm hmac-sha256; secret "{SECRET}"; }};',
    "an open quote": f'key "muster {{ algorithm hmac-sha256; secret {SECRET}; }};',
    "no base64": 'key "muster" { algorithm hmac-sha256; secret "not base64!"; };',
    "half of base64": f'key "muster" {{ algorithm hmac-sha256; secret "{SECRET[:-3]}"; }};',
    "a mark of byte order": f'\ufeffkey "muster" {{ algorithm hmac-sha256; secret "{SECRET}"; }};',
    "no brace at the end": f'key "muster" {{ algorithm hmac-sha256; secret "{SECRET}";',
    "no semicolon after the secret": f'key "muster" {{ algorithm hmac-sha256; secret "{SECRET}" }};',
}


def _nsupdate_takes(path: Path) -> bool:
    found = shutil.which("nsupdate")
    assert found is not None
    done = subprocess.run(
        [found, "-k", str(path)], input="quit\n", capture_output=True, text=True, timeout=20, check=False
    )
    return done.returncode == 0 and not done.stderr


@pytest.mark.parametrize("text", TAKEN.values(), ids=TAKEN.keys())
def test_what_nsupdate_takes_we_take(text: str, tmp_path: Path, needs: Callable[[str], None]) -> None:
    needs("dig")
    path = tmp_path / "key.conf"
    path.write_bytes(text.encode())
    assert _nsupdate_takes(path)
    key = key_from(NSUpdateSettings(key_file=path))
    assert key is not None
    assert key.algorithm.to_text() == "hmac-sha256."
    assert key.secret == (b"\xff" * 32 if SLASHES in text else RAW)


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_what_nsupdate_refuses_we_refuse(text: str, tmp_path: Path, needs: Callable[[str], None]) -> None:
    needs("dig")
    path = tmp_path / "key.conf"
    path.write_bytes(text.encode())
    assert not _nsupdate_takes(path)
    with pytest.raises(Misconfigured) as raised:
        key_from(NSUpdateSettings(key_file=path))
    assert SECRET not in str(raised.value)
