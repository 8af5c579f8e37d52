from __future__ import annotations

import pytest

from muster.content.uploads import Uploads

HERE = "/v2/r/blobs/uploads/7d9c"


@pytest.mark.parametrize("path", [HERE, f"{HERE}?_state=a%3D", f"{HERE}?a=1&b"])
def test_what_was_marked_is_read_back_byte_for_byte(path: str) -> None:
    it = Uploads("Proxy01.Example.com", lambda _: None)  # type: ignore[arg-type, return-value]
    assert it.begun_at(it.marked(path)) == ("proxy01.example.com", path)
    assert it.begun_at(f"{it.marked(path)}&digest=sha256:ab")[0] == "proxy01.example.com"
    assert it.begun_at(path) == (None, path)


def test_only_a_parameter_of_its_own_is_the_mark() -> None:
    it = Uploads("proxy01.example.com", lambda _: None)  # type: ignore[arg-type, return-value]
    for path in (f"{HERE}?x_muster=a", f"{HERE}?x=_muster=a", "/v2/_muster=a/blobs/uploads/7d9c"):
        assert it.begun_at(path) == (None, path)
