#!/usr/bin/env bash
# pyrage 1.4.0 (age for Python, on rage): decrypt_io raises pyrage.DecryptError where the header is damaged or the identity is another,
# and a plain OSError("decryption error"), without errno and no DecryptError, where what follows was cut off or damaged. By then it
# has written what came before to the target: 65536 bytes of 200000 for a change in the middle, 196608 for five bytes that are missing.
#
# Seen: header: DecryptError, 0 bytes; other identity: DecryptError, 0 bytes; changed: OSError, 65536 bytes; cut: OSError, 196608 bytes.
# So whoever catches DecryptError alone takes a backup that was cut off for a full disk, and nothing may be done with what was
# written before the call returns.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv v
v/bin/pip install --quiet --only-binary :all: pyrage==1.4.0
cat >try.py <<'P'
import io

import pyrage

identity = pyrage.x25519.Identity.generate()
sealed = io.BytesIO()
pyrage.encrypt_io(io.BytesIO(b"x" * 200000), sealed, [identity.to_public()])
whole = sealed.getvalue()
changed = bytearray(whole)
changed[100000] ^= 1
for name, data, by in (
    ("header", whole[:30] + b"~" + whole[31:], identity),
    ("other identity", whole, pyrage.x25519.Identity.generate()),
    ("changed", bytes(changed), identity),
    ("cut", whole[:-5], identity),
):
    out = io.BytesIO()
    try:
        pyrage.decrypt_io(io.BytesIO(data), out, [by])
        print(f"{name}: no error")
    except Exception as e:
        print(f"{name}: {type(e).__name__}, {len(out.getvalue())} bytes")
P
v/bin/python try.py | tee seen
diff seen - <<'S'
header: DecryptError, 0 bytes
other identity: DecryptError, 0 bytes
changed: OSError, 65536 bytes
cut: OSError, 196608 bytes
S
