from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muster.app.worker import Worker
from muster.content.known import FILE, Followed, Known
from muster.kernel.errors import Unavailable

pytestmark = pytest.mark.anyio


async def test_a_worker_whose_member_is_gone_before_it_gave_an_order_does_not_wait_for_it() -> None:
    members, its = socket.socketpair()
    members.close()
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match="ended before it said what to do"):
            await Worker().work(its)


async def test_what_is_open_is_so_only_as_the_member_has_written_it_now(tmp_path: Path) -> None:
    path = "/pulp/content/r"
    Known({path: Followed((), True)}).write(tmp_path / FILE)
    worker, known = Worker(), Known()
    content: Any = SimpleNamespace(repositories=SimpleNamespace(known=known))
    worker._content, worker._known_file = content, tmp_path / FILE
    # What is there may be of a member of before.
    worker._look()
    assert known.repositories[path].is_open is None
    worker._hear_known(None)
    assert known.repositories[path].is_open is True
    # The disk takes nothing: who may have it now is not there.
    worker._hear_known("as it was")
    assert known.repositories[path].is_open is None
