from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from muster.authority.x509 import csr
from muster.cli import autosign


@pytest.mark.parametrize("text", ["url: [", "[" * 5000, "- a\n", "url: x\n", b"\xff"])
def test_settings_that_cannot_be_read_are_no_verdict_on_the_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | bytes
) -> None:
    file = tmp_path / "autosign.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.setenv("MUSTER_AUTOSIGN", str(file))
    monkeypatch.setattr(sys, "argv", ["muster-autosign", "a.test"])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"x")))
    monkeypatch.setattr(csr, "read", lambda _: SimpleNamespace(name="a.test"))
    with pytest.raises(SystemExit) as raised:
        autosign.main()
    assert raised.value.code == 2
    assert capsys.readouterr().err.startswith("muster-autosign: ")
