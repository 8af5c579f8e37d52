from __future__ import annotations

from pathlib import Path

import pytest

from muster.features.realm import checks
from muster.features.realm.settings import RealmSettings

pytestmark = pytest.mark.anyio


async def codes(provider: str, keytab: Path) -> list[str]:
    given = {
        "keytab_path": str(keytab), "principal": "muster", "realm": "EXAMPLE.COM", "domain_controller": "dc.example.com",
    }  # fmt: skip
    if provider == "freeipa":
        del given["realm"], given["domain_controller"]
    settings = RealmSettings.model_validate(
        {"provider": provider, **({provider: given} if provider != "memory" else {})}
    )
    [check] = checks.checks(settings, lambda: None)
    return [f.code for f in await check.run()]


async def test_a_host_without_the_keytab_tries_nothing(tmp_path: Path) -> None:
    assert await codes("ad", tmp_path / "absent") == ["REALM-KEYTAB-ABSENT"]
    assert await codes("freeipa", tmp_path / "absent") == ["REALM-UNPROVEN", "REALM-KEYTAB-ABSENT"]


async def test_what_is_in_memory_has_nothing_to_be_found_out(tmp_path: Path) -> None:
    assert await codes("memory", tmp_path) == []
