"""``muster explain feature``: the chain and how each provider is on every member."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from muster.cli import NOT_DONE, muster
from muster.kernel.errors import NotFound, Unavailable
from muster.observed.chains import _checked
from tests.unit.cli.calls import run
from tests.unit.cli.terminal import CLEAN, EVIL

CHAIN = ["metered", "breaker (opens after 5 failures, for 5 s to 60 s)", "deadline (25 s)", "retry (3 attempts)"]
CLOSED = {"state": "closed", "failures": 0, "why": "", "again_in_s": 0}
OPEN = {"state": "open", "failures": 5, "why": EVIL, "again_in_s": 4.0}


def provider(name: str, breaker: dict[str, Any] = CLOSED, **more: Any) -> dict[str, Any]:
    own = {"name": name, "provider": "nsupdate", "chain": CHAIN, "breaker": breaker}
    return {**own, "role": "asked", "why": "", "pending": 0, "stuck": 0, **more}


GROUP = {
    "mode": "all",
    "providers": [provider("ns1"), provider("ns2", OPEN, pending=3, stuck=1)],
    "strangers": [{"name": "old", "pending": 2, "stuck": 0}],
}


@pytest.fixture
def asked(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    async def told(*_: object) -> tuple[dict[str, Any], dict[str, str]]:
        leads = {"mode": "leader", "providers": [provider("a", led_since=60.0, epoch=2)], "strangers": []}
        return {"proxy01.test": {"dns": GROUP, "dhcp": leads}}, {"proxy02.test": "no answer"}

    monkeypatch.setattr("muster.observed.chains.chains_of", told)
    file.write_text(file.read_text() + "features: {dns: {enabled: false}, dhcp: {enabled: false}, logs: {}}\n")
    return file


def test_the_chain_is_told_and_how_each_provider_is(asked: Path) -> None:
    result = run(asked, "explain", "feature", "dns")
    assert result.output.splitlines() == [
        "Feature dns, a group of 2 providers, mode all",
        f"  {' → '.join(CHAIN)} → ns1 (nsupdate)",
        "    proxy01.test: asked; breaker closed",
        f"  {' → '.join(CHAIN)} → ns2 (nsupdate)",
        "    proxy01.test: asked; breaker open, again in 4 s; has yet to have 3 changes; refused 1 change; "
        f"last failure: {CLEAN}",
        "  old: is not in the settings, and has yet to have 2 changes (muster repairs drop --all --provider NAME)",
        "Not asked: proxy02.test: no answer",
    ]
    # Somebody was not asked.
    assert result.return_value == NOT_DONE


def test_of_a_leader_it_is_said_since_when(asked: Path) -> None:
    assert (
        "leads since 1970-01-01 00:01:00 UTC, term 2; breaker closed" in run(asked, "explain", "feature", "dhcp").output
    )


def test_programs_get_what_members_said(asked: Path) -> None:
    said = json.loads(run(asked, "explain", "feature", "dns", "--json").output)
    assert said["feature"] == "dns"
    assert said["members"]["proxy01.test"]["mode"] == "all"
    assert said["unasked"] == {"proxy02.test": "no answer"}


def test_a_feature_without_a_provider_and_one_that_is_none_are_said_to_be_so(asked: Path) -> None:
    with pytest.raises(NotFound, match="has no feature realm; it has dhcp, dns, logs"):
        run(asked, "explain", "feature", "realm")
    with pytest.raises(NotFound, match="calls no provider"):
        run(asked, "explain", "feature", "logs")


def test_connections_are_explained_as_before_and_help_names_both() -> None:
    help_ = CliRunner().invoke(muster, ["explain", "--help"]).output
    assert "CLIENT|CONNECTION" in help_
    assert "muster explain feature NAME" in help_
    assert "Usage: muster explain feature" in CliRunner().invoke(muster, ["explain", "feature", "--help"]).output


@pytest.mark.parametrize("answer", [[], {"dns": 1}, {"dns": {"providers": [{}], "strangers": []}}, {"dns": {}}])
def test_an_answer_of_another_shape_is_refused(answer: Any) -> None:
    with pytest.raises(Unavailable, match="answers something else than chains"):
        _checked(answer, "https://192.0.2.1:8443")
