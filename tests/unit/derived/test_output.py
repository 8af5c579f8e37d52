from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from muster.app.offers import modelled
from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile
from muster.derived.output import Document, Output, Site, Trial, tried
from muster.kernel.errors import Rejected
from tests.unit.balancer.test_model import document

pytestmark = pytest.mark.anyio

CLUSTER = document("").parsed(ClusterFile)
SITE = Site(run=Path("/run/muster"), place=Path("/etc/one"))


def rendered(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:
    return (Document("a", f"{site.place} {site.run}", "one"), Document("b", "b", "one", 0o600))


@pytest.mark.parametrize("scratch_run", [True, False])
async def test_the_consumer_reads_documents_that_know_where_they_lie(scratch_run: bool) -> None:
    seen: list[tuple[Path, list[str], list[int]]] = []

    async def asked(directory: Path, documents: Sequence[Document]) -> None:
        files = [directory / d.name for d in documents]
        seen.append((directory, [f.read_text() for f in files], [f.stat().st_mode & 0o777 for f in files]))

    output = Output("one", "One.", rendered, check=Trial("one", "Ask.", asked, scratch_run=scratch_run))
    await tried(output, modelled(CLUSTER), CLUSTER, SITE)
    ((directory, texts, modes),) = seen
    assert texts == [f"{directory} {directory if scratch_run else '/run/muster'}", "b"]
    assert modes == [0o644, 0o600]
    assert not directory.exists()


async def test_nothing_is_left_of_what_was_refused() -> None:
    seen = []

    async def asked(directory: Path, documents: Sequence[Document]) -> None:
        seen.append(directory)
        raise Rejected("one refuses it")

    output = Output("one", "One.", rendered, check=Trial("one", "Ask.", asked))
    with pytest.raises(Rejected, match="one refuses it"):
        await tried(output, modelled(CLUSTER), CLUSTER, SITE)
    assert not seen[0].exists()
