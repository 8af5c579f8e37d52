from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from muster.store import schema

PROGRAM = """
import asyncio, sys
from muster.kernel.secrets import Secret
from muster.store.engine import opened

async def main():
    async with opened(Secret(sys.argv[1])) as store:
        await store.ping()

asyncio.run(main())
print("alembic" in sys.modules)
"""


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", "muster.store:migrations")
    return ScriptDirectory.from_config(config)


def test_the_known_revisions_are_the_scripts_in_order() -> None:
    assert tuple(reversed([s.revision for s in scripts().walk_revisions()])) == schema.KNOWN


def test_no_revision_goes_back() -> None:
    for script in scripts().walk_revisions():
        with pytest.raises(NotImplementedError):
            script.module.downgrade()


def test_a_revision_nobody_here_knows_is_newer() -> None:
    assert schema.is_newer("9999")
    assert not schema.is_newer(None)
    assert not any(schema.is_newer(known) for known in schema.KNOWN)


def test_alembic_is_imported_to_make_the_schema_and_not_to_find_it_made(tmp_path: Path) -> None:
    imported = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, f"sqlite:///{tmp_path}/store.db"],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout.split()[-1]
        for _ in range(2)
    ]
    assert imported == ["True", "False"]
