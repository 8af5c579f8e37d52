from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from muster.authority.authority import PuppetCA
from muster.cluster.file import Authority
from muster.edge.feature import Surroundings
from muster.features.puppetca import service
from muster.features.puppetca.service import PuppetCAFeature
from muster.features.puppetca.settings import PuppetCASettings
from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.secrets import Secret
from muster.policy.metered import OperationMetrics
from muster.store.engine import Store
from muster.store.engine import opened as store_opened
from tests.servers import puppetca

NOWHERE = Path("/nonexistent")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with store_opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        await puppetca.begin(store, tmp_path)
        yield store


@asynccontextmanager
async def feature(store: Store, authority: Any = None, **settings: Any) -> AsyncIterator[PuppetCAFeature]:
    """Hold the feature open as a member does."""
    around = Surroundings("proxy01", OperationMetrics(CollectorRegistry()), NOWHERE, NOWHERE, NOWHERE, store, authority)
    async with service.opened(PuppetCASettings.model_validate(settings), around) as found:
        yield found


@pytest.mark.parametrize(
    ("autosigner", "autosign", "heeded"),
    [
        ("hostnames", (), False),
        ("hostnames", ("tokens",), False),
        ("tokens", ("hostnames",), False),
        ("tokens", (), False),
        ("hostnames", ("hostnames",), True),
        ("tokens", ("hostnames", "tokens"), True),
        ("hostnames", ("all",), True),
        ("tokens", ("policy",), True),
    ],
)
async def test_an_autosigner_that_the_ca_passes_over_shows(
    store: Store, tmp_path: Path, autosigner: str, autosign: tuple[Any, ...], heeded: bool
) -> None:
    settings = Authority(autosign=autosign, policy_executable=Path("/bin/false"), requests_per_minute=0)
    there: list[PuppetCA | None] = [None]
    async with (
        puppetca.member(store, tmp_path, settings) as ca,
        feature(store, lambda: there[0], autosigner=autosigner) as found,
    ):
        # Features open before the CA does: nothing is known yet but that it is not open.
        with pytest.raises(Unavailable, match="is not open yet"):
            await found.reached()
        there[0] = ca
        if heeded:
            await found.reached()
            return
        with pytest.raises(Misconfigured) as raised:
            await found.reached()
        assert str(raised.value) == (
            f"Hosts that Foreman lets be signed wait for an administrator: autosigner is {autosigner}, and "
            f"authority.autosign [{', '.join(autosign)}] does not name it"
        )
        # It is shown, not inflicted: sites that sign by hand go on building hosts.
        await found.allow("web01.example.com", None)


async def test_another_ca_decides_by_itself_whom_it_signs(store: Store) -> None:
    async with feature(store, provider="memory") as found:
        await found.reached()


async def test_a_stale_file_shows(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "absent" / "autosign.conf"
    async with feature(store, provider="memory", autosign_file=str(path)) as found:
        await found.reached()
        await found.allow("web01.example.com", None)
        with pytest.raises(Misconfigured, match=f"Writing {path} failed"):
            await found.reached()
