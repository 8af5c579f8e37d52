from __future__ import annotations

import pytest

from muster.features.httpboot import types


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/grub2/grubx64.efi", "application/octet-stream"),
        ("/grub2/grub.cfg", "application/octet-stream"),
        ("/hb/plain", "application/octet-stream"),
        ("/a.html/plain", "application/octet-stream"),
        ("/html", "application/octet-stream"),
        ("/a.HTML", "text/html;charset=utf-8"),
        ("/a.json/", "application/json"),
        ("/initrd.gz", "application/x-gzip"),
        ("/a.tar.gz", "application/x-gzip"),
        ("/", "application/octet-stream"),
    ],
)
def test_a_file_s_type_follows_from_the_end_of_its_name(path: str, expected: str) -> None:
    assert types.of(path) == expected.encode()
