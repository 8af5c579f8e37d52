"""What a support bundle says of the store, on both stores: numbers of rows and no rows."""

from __future__ import annotations

import json
from pathlib import Path

from muster.app.settings import loaded
from muster.cli.support_bundle.pieces import Wanted, pieces
from muster.cluster.roster import Roster
from muster.store import schema
from muster.store.engine import Store
from tests.unit.cli.calls import CLUSTER


async def test_the_store_is_told_by_its_schema_and_how_many_rows_each_table_has(
    store: Store, url: str, tmp_path: Path
) -> None:
    await Roster(store).wish("proxy01.test", "drain", reason="planted", by="carol")
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.replace('"sqlite:///{store}"', json.dumps(url)).replace("{{", "{").replace("}}", "}"))
    wanted = Wanted(file, tmp_path / "pki", tmp_path / "run")
    piece = next(p for p in pieces(wanted, loaded(file)) if p.name == "store.json")
    found = await piece.made()
    assert (found["revision"], found["needed"]) == (schema.HEAD, schema.HEAD)
    rows = {t["table"]: t["rows"] for t in found["tables"]}
    assert rows["wishes"] == 1
    assert rows["members"] == 0
    assert "planted" not in json.dumps(found)
