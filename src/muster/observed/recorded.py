"""What was found last by those who look seldom: the doctor's findings and the census, kept in the store for who asks later.

Each is one document, the newest only, bounded, with who found it; its age is in store time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from muster.kernel.errors import Conflict
from muster.store.reading import Query, Reading

if TYPE_CHECKING:
    from muster.store.engine import Store

Kind = Literal["doctor", "parity"]

# A member compares all of them about every five minutes. What was found before a longer pause may have gone and come again.
_UNBROKEN_S = 1800.0
# The documents' names before the kind.
_PREFIX = "found/"
_FOUND = Query(
    "SELECT name, content, changed_at, changed_by FROM documents WHERE name IN ('found/doctor', 'found/parity')",
    json=("content",),
)
# A cluster of which everything is wrong says it in fewer; what is longer nobody reads.
_MOST_ENTRIES = 200
_LONGEST = 2000
_MOST_BYTES = 512 << 10


@dataclass(frozen=True)
class Record:
    """What somebody found.

    Attributes:
        found: as the command prints it with ``--json``, less what is long and seldom read.
        by: which process, on which host.
    """

    found: Any
    age_s: float
    by: str

    def as_json(self) -> dict[str, Any]:
        return {"found": self.found, "age_s": round(self.age_s, 3), "by": self.by}


async def record(store: Store, kind: Kind, found: dict[str, Any], *, by: str) -> None:
    """Make this what was found last. Of two who found something at the same time one is kept.

    Raises:
        Unavailable: the store did not answer; what was found before stands.
    """
    from muster.store.documents import Documents

    documents = Documents(store)
    kept = bounded(found)
    before = await documents.read(f"{_PREFIX}{kind}")
    try:
        await documents.replace(before, kept, by=by)
    except Conflict:
        # Somebody else found something in this moment; that is as new.
        return


def bounded(found: dict[str, Any]) -> dict[str, Any]:
    """Return it with lists and texts cut to what a page can show; ``cut`` says that something was left out."""
    cut = False

    def shortened(value: Any) -> Any:
        nonlocal cut
        if isinstance(value, str) and len(value) > _LONGEST:
            cut = True
            return value[:_LONGEST]
        if isinstance(value, list | tuple):
            cut = cut or len(value) > _MOST_ENTRIES
            return [shortened(v) for v in value[:_MOST_ENTRIES]]
        return {k: shortened(v) for k, v in value.items()} if isinstance(value, dict) else value

    kept: dict[str, Any] = shortened(found)
    if len(json.dumps(kept, default=str)) > _MOST_BYTES:
        cut = True
        kept = {k: v for k, v in kept.items() if not isinstance(v, list | dict)}
    return kept | {"cut": True} if cut else kept


async def records_in(uow: Reading) -> dict[str, Record]:
    """Return what was found last, by kind; one that nobody found yet is absent."""
    now = await uow.now()
    rows = await uow.rows(_FOUND)
    return {
        str(r["name"]).removeprefix(_PREFIX): Record(
            r["content"], max(0.0, now - r["changed_at"]), str(r["changed_by"])
        )
        for r in rows
    }


def differed(found: Mapping[str, Record]) -> dict[str, float]:
    """Return for how many seconds at least members have differed in fields that they differed in when last compared."""
    last = found.get("parity")
    if last is None or last.age_s > _UNBROKEN_S:
        return {}
    drifts = last.found.get("drifts") if isinstance(last.found, Mapping) else None
    return {
        str(d["field"]): float(d.get("lasted_s", 0.0)) + last.age_s
        for d in (drifts if isinstance(drifts, list) else ())
        if d["differing"]
    }
