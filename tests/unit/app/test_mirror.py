"""What a worker hears of a package that its member was to bring."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muster.app import mirror
from muster.app.mirror import Mirroring
from muster.content.index import Expected
from muster.content.kept import Full
from muster.content.mirror.packages import Wanted
from muster.kernel.errors import MusterError, NotFound, Rejected, Unavailable

pytestmark = pytest.mark.anyio

WANTED = Wanted("tools", "/a.rpm", Expected(3, "sha256", "0" * 64))


@pytest.mark.parametrize(
    ("failed", "heard"),
    [(None, None), (NotFound, NotFound), (Full, Full), (Unavailable, Unavailable), (Rejected, Unavailable)],
)
async def test_a_worker_hears_why_a_package_did_not_come(
    failed: type[MusterError] | None, heard: type[MusterError] | None
) -> None:
    asked: list[Wanted] = []

    async def fetch(wanted: Wanted) -> None:
        asked.append(wanted)
        if failed is not None:
            raise failed("so it is")

    none: Any = None
    packages: Any = SimpleNamespace(fetch=fetch)
    member = Mirroring(none, packages, none, none, Path("x"))
    said = json.loads(json.dumps(await member.fetched(json.loads(json.dumps(mirror.question(WANTED))))))
    assert asked == [WANTED]
    if heard is None:
        mirror.refuse_unfetched(said)
        return
    with pytest.raises(heard, match="so it is") as found:
        mirror.refuse_unfetched(said)
    assert type(found.value) is heard


async def test_a_member_of_before_says_the_reason_alone() -> None:
    mirror.refuse_unfetched("")
    with pytest.raises(Unavailable, match="so it is"):
        mirror.refuse_unfetched("so it is")
