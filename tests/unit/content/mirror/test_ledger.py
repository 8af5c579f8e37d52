"""The ledger under any order of what members and administrators do: what always holds of what environments have."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from muster.content.mirror.ledger import Ledger, Move
from muster.content.mirror.publications import Publication
from muster.kernel.errors import NotFound
from muster.kernel.secrets import Secret
from muster.store.engine import opened

pytestmark = pytest.mark.anyio

ENVIRONMENTS = ("library", "test", "prod")


def state(chance: random.Random) -> Publication:
    suites = chance.sample(("stable", "testing", "unstable"), chance.randint(1, 3))
    return Publication("debian", {f"dists/{s}": f"{chance.randint(0, 3)}" * 64 for s in suites})


@pytest.mark.parametrize("seed", range(8))
async def test_an_environment_has_one_whole_publication_that_is_there_and_a_history_that_ends_in_it(
    seed: int, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        ledger, other = Ledger(store), Ledger(store)
        made = [state(chance)]
        for _ in range(40):
            environment = chance.choice(ENVIRONMENTS)
            match chance.randint(0, 3):
                case 0:
                    made.append(state(chance))
                    await ledger.publish(made[-1], environment="library", kind="deb", by="p1")
                case 1:
                    move = Move("debian", "deb", chance.choice(made).digest)
                    try:
                        await ledger.promote([move], to=environment, by="ann")
                    except NotFound:
                        assert move.publication not in {p.digest for p in await ledger.publications()}
                case 2:
                    await ledger.forget(chance.randint(0, 2))
                case _:
                    gone = await ledger.drop(
                        ["debian"], chance.sample(ENVIRONMENTS, 2), by="p1", after_s=chance.choice((-60.0, 86_400.0))
                    )
                    assert gone.publications == ()
            given = await ledger.distributions()
            assert given == await other.given()
            known = {p.digest: p for p in await ledger.publications()}
            for name in ENVIRONMENTS:
                parts = {d.part: d for d in given.values() if d.environment == name}
                lines = list(reversed(await ledger.history(name)))
                assert [m.previous for m in lines] == ["", *(m.publication for m in lines[:-1])][: len(lines)]
                had = lines[-1].publication if lines else ""
                assert {d.publication for d in parts.values()} == ({had} if had else set())
                if had:
                    assert {part: d.manifest for part, d in parts.items()} == known[had].parts
