"""What is recorded of mirrored repositories, as commands read it: at a glance, and by the beginning of a digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.content.mirror.ledger import Ledger
from muster.content.mirror.publications import Publication
from muster.content.mirror.recorded import Recorded, chosen
from muster.kernel.errors import NotFound, Rejected
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from muster.store.glance import glanced

pytestmark = pytest.mark.anyio


async def test_a_glance_reads_what_the_ledger_wrote(tmp_path: Path) -> None:
    url = Secret(f"sqlite:///{tmp_path}/muster.db")
    one = Publication("rocky", {"": "1" * 64}, "http://origin.test", 3, 300)
    async with opened(url) as store:
        ledger = Ledger(store)
        await ledger.publish(one, environment="library", kind="yum", by="p1")
        await ledger.ask("sync", "rocky", "", "ann")
        read = Recorded(glanced(url))
        assert await read.publications() == await ledger.publications()
        assert await read.publication("rocky", one.digest[:8]) == (await ledger.publications())[0]
        assert await read.given() == await ledger.distributions()
        assert (await read.history("library", "rocky"))[0].publication == one.digest
        assert [(c.environment, c.packages) for c in await read.counts()] == [("library", 3)]
        assert await read.jobs(is_open=True) == [await read.job(1)]
        assert await read.jobs(is_open=False) == []


def test_one_beginning_that_several_have_is_refused() -> None:
    # Digests that begin alike in eight digits are not to be had for a test: the rule is asked with names that do.
    class Named(Publication):
        @property
        def digest(self) -> str:
            return self.parts[""]

    alike = [Named("r", {"": f"{n}" * 8 + end * 56}) for n, end in ((1, "a"), (1, "b"), (2, "a"))]
    assert chosen(alike, "r", "2" * 8) is alike[2]
    assert chosen(alike, "r", "1" * 8 + "b") is alike[1]
    with pytest.raises(Rejected, match="2 publications of r begin with 11111111; say more of the digest"):
        chosen(alike, "r", "1" * 8)
    with pytest.raises(NotFound):
        chosen(alike, "other", "2" * 8)
