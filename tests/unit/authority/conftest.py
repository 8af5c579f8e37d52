"""Wiring only: a store of one file, and a CA begun in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muster.authority.authority import PuppetCA
from muster.cluster.file import Authority
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from tests.servers import puppetca
from tests.unit.authority.hosts import ADMIN


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        yield store


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "puppet-ca"


@pytest.fixture
async def ca(store: Store, home: Path) -> AsyncIterator[PuppetCA]:
    await puppetca.begin(store, home)
    async with puppetca.member(store, home) as ca:
        yield ca


@pytest.fixture
async def open_ca(store: Store, home: Path) -> AsyncIterator[PuppetCA]:
    """Yield a CA that signs everybody, renews, and knows an administrator by name."""
    await puppetca.begin(store, home)
    settings = Authority(autosign=("all",), allow_auto_renewal=True, administrators=(ADMIN,), requests_per_minute=0)
    async with puppetca.member(store, home, settings) as ca:
        yield ca
