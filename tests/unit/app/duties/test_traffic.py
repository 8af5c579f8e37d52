from __future__ import annotations

from muster.app.duties.traffic import TrafficKept
from muster.edge.traffic import Traffic


async def test_workers_calls_are_the_members() -> None:
    own, worker = Traffic(), Traffic()
    own.count("https", 200, 0.01)
    worker.count("https", 500, 0.01)

    async def counted() -> list[dict[str, list[int]]]:
        return [worker.take()]

    await TrafficKept(own, counted).beat()
    await TrafficKept(own).beat()
    of = own.told()["services"]["https"]
    assert (sum(of["calls"]), sum(of["errors"])) == (2, 1)
