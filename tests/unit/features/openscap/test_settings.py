from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from muster.edge.feature import Surroundings
from muster.features.openscap.service import proxy_of
from muster.features.openscap.settings import NOWHERE, OpenscapSettings
from tests.unit.cluster.written import SMALL, parsed


def around(text: str, member: str = "proxy01.test") -> Surroundings:
    cluster = parsed(text)
    return Surroundings(member, None, Path("c"), Path("k"), Path("ca"), cluster=cluster)  # type: ignore[arg-type]


@pytest.mark.parametrize("foreman", ["{}", "{url: 'http://foreman.test'}"])
def test_without_foreman_it_is_said_before_members_start(foreman: str) -> None:
    assert OpenscapSettings().doubts(parsed(f"{SMALL}foreman: {foreman}\n")) == (f"fails on members: {NOWHERE}",)
    assert OpenscapSettings().doubts(parsed(f"{SMALL}foreman: {{url: 'https://foreman.test'}}\n")) == ()


def test_foreman_is_told_the_smart_proxy_that_it_knows() -> None:
    cluster = parsed(SMALL)
    found = proxy_of(OpenscapSettings(), around(SMALL))
    assert (found.name, found.url) == (str(cluster.address), f"https://{cluster.address}:9090")
    name = str(cluster.members[0].name)
    each = proxy_of(OpenscapSettings(), around(f"{SMALL}foreman: {{registration: members}}\n", name))
    assert (each.name, each.url.startswith(f"https://{name}:")) == (name, True)
    given = OpenscapSettings(registered_proxy_name="other", registered_proxy_url="https://other.test:1")
    assert proxy_of(given, around(SMALL)).name == "other"


@pytest.mark.parametrize(
    "given", [{"timeout": 0}, {"upload_limit_bytes": 5}, {"spooldir": "/x"}, {"reports_kept_days": 0}]
)
def test_what_makes_no_sense_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        OpenscapSettings.model_validate(given)
