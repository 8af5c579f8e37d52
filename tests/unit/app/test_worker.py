from __future__ import annotations

import asyncio
import socket

import pytest

from muster.app.worker import Worker
from muster.kernel.errors import Unavailable

pytestmark = pytest.mark.anyio


async def test_a_worker_whose_member_is_gone_before_it_gave_an_order_does_not_wait_for_it() -> None:
    members, its = socket.socketpair()
    members.close()
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match="ended before it said what to do"):
            await Worker().work(its)
