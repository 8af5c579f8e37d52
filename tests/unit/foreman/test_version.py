"""Foreman's version: what counts as one, and of which others Foreman warns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muster.foreman.api import Login, opened
from muster.foreman.version import asked, parsed, warns
from muster.kernel.errors import Unavailable
from muster.kernel.secrets import Secret
from muster.pki.authority import ca_paths
from muster.pki.context import client_context
from tests.servers import foreman as servers
from tests.servers.foreman import TOKEN, USER

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("3.19.2", "3.19.2"),
        ("5.0", "5.0.0"),
        ("5.1.0-develop", "5.1.0"),
        ("3.14.0-rc2", "3.14.0"),
        ("5.0.1~rc1", "5.0.1"),
        ("5", None),
        ("", None),
        ("v5.0.0", None),
        ("5.0.0\n", None),
        ("5.0.0 ", None),
        ("5.00.0", None),
        ("5.0.00", None),
        ("5.0.", None),
        ("1.2.3.4", None),
        ("5.0.0-", None),
        ("5.0.0-\r\nX: 1", None),
        ("٥.0.0", None),
        ("1" * 5 + ".0.0", None),
        ("5.0.0-" + "a" * 41, None),
        (5.0, None),
        (None, None),
        ({"version": "5.0.0"}, None),
    ],
)
def test_a_version_is_two_or_three_numbers_and_what_is_built_before_it(said: Any, version: str | None) -> None:
    assert parsed(said) == version


@pytest.mark.parametrize(
    ("foreman", "told", "does"),
    [
        ("3.12.0", "3.11.0", True),
        ("3.12.0", "3.12.7", False),
        ("3.12.4", "3.13.0", False),
        ("3.12.0", "3.14.0", True),
        ("3.19.2", "5.0.0", True),
        ("5.0.0", "3.19.2", True),
        ("5.0.0", "5.1.0", False),
        ("5.0.1", "3.11.0", False),
        ("5.1.0", "3.11.0", False),
    ],
)
def test_foreman_warns_up_to_5_0_0_of_what_does_not_match(foreman: str, told: str, does: bool) -> None:
    assert warns(foreman, told) is does


async def test_what_is_no_version_is_refused_with_what_came_back(tmp_path: Path) -> None:
    with servers.running(tmp_path) as foreman:
        context = client_context(ca_paths(foreman.ca.directory)[0])
        async with opened(foreman.url, Login(USER, Secret(TOKEN)), context=context) as api:
            assert await asked(api) == "3.19.0"
            for body in ({}, {"version": None}, {"version": "latest"}):
                foreman.raw = (200, json.dumps(body))
                with pytest.raises(Unavailable, match="GET /api/v2/status was answered with no version of Foreman"):
                    await asked(api)
