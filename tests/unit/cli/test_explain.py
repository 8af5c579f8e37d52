from __future__ import annotations

import pytest
from click.testing import CliRunner

from muster.cli.explain import explain
from tests.unit.cli.terminal import CLEAN, EVIL


def test_a_connection_is_explained_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorded:
        sentence = EVIL
        failed = False

    monkeypatch.setattr("muster.balancer.haproxy.journal.found", lambda *_, **__: [Recorded()])
    assert CliRunner().invoke(explain, ["192.0.2.1"]).output == f"{CLEAN}\n"
