from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from muster.features.puppet.checks import found
from muster.features.puppet.settings import CodeSettings

SETTINGS = CodeSettings(environments=(Path("/code"),))
WELL = {"version": "3.11.0", "muster.puppet_code": "read", "muster.puppet_code.production": "0123456789abcdef"}


def test_members_that_could_read_their_code_or_have_none_to_compare_are_well() -> None:
    assert found(SETTINGS, {"a": WELL, "b": {"version": "3.11.0"}}) == []


@pytest.mark.parametrize(
    ("facts", "code", "sentence"),
    [
        (
            {"muster.puppet_code": "absent"},
            "PUPPET-CODE-ABSENT",
            "b has no Puppet code to be compared: there is no /code on its host",
        ),
        (
            {"muster.puppet_code": "unreadable"},
            "PUPPET-CODE-UNREADABLE",
            "b does not compare Puppet's code in /code: it is unreadable",
        ),
        (
            {**WELL, "muster.puppet_code.b": "unreadable", "muster.puppet_code.a": "unreadable"},
            "PUPPET-CODE-UNREADABLE",
            "b does not compare Puppet's code of a, b: it is unreadable",
        ),
        (
            {**WELL, "muster.puppet_code.(shared)": "too large"},
            "PUPPET-CODE-LARGE",
            "b does not compare Puppet's code of (shared): it is too large",
        ),
    ],
    ids=["absent", "unreadable", "environments", "large"],
)
def test_a_member_that_does_not_compare_its_code_is_named(facts: dict[str, Any], code: str, sentence: str) -> None:
    findings = found(SETTINGS, {"a": WELL, "b": facts})
    assert [(f.code, f.place, f.sentence, f.severity) for f in findings] == [(code, "b", sentence, "warning")]
