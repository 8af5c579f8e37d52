import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from muster.cluster.file import ClusterFile
from muster.cluster.proxy_dhcp import ProxyDHCP
from muster.kernel.errors import Unavailable
from muster.kernel.findings import Finding
from muster.kernel.secrets import Secret
from muster.netboot.contract import BootPath, Put
from muster.netboot.ledger import Ledger
from muster.netboot.proxydhcp.checks import checks
from muster.netboot.proxydhcp.holding import ROLE
from muster.store.engine import Store, opened
from muster.store.leases import Leases

pytestmark = pytest.mark.anyio
LOADERS = {"bios": "pxelinux.0", "efi32": None, "efi64": "a/x.efi", "arm64": None}


async def found(
    tmp_path: Path, *, held: bool = True, files: tuple[str, ...] = ("pxelinux.0", "a/x.efi"), has_tree: bool = True,
    is_away: bool = False,
) -> list[Finding]:  # fmt: skip
    given: dict[str, Any] = {
        "schema": 1,
        "cluster": "c",
        "address": "proxy.example.com",
        "store": {"url": "sqlite:///nowhere"},
        "members": [{"id": 1, "name": "m1.example.com", "address": "192.0.2.1"}],
        "netboot": {"proxy_dhcp": ProxyDHCP.model_validate({"loaders": LOADERS}).model_dump()},
    }
    cluster = ClusterFile.model_validate(given)
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        if files:
            await Ledger(store).change([Put(BootPath.parse(f), b"x") for f in files])
        if held:
            await Leases(store).acquire(ROLE, "member m1 1.1", 60)

        @contextlib.asynccontextmanager
        async def at() -> AsyncIterator[Store]:
            if is_away:
                raise Unavailable("the store does not answer")
            yield store

        return [f for check in checks(cluster, at, has_tree=has_tree) for f in await check.run()]


async def test_nothing_is_said_where_a_member_answers_and_its_loaders_are_there(tmp_path: Path) -> None:
    assert await found(tmp_path) == []


async def test_that_nobody_answers_is_said(tmp_path: Path) -> None:
    (one,) = await found(tmp_path, held=False)
    assert (one.code, one.severity) == ("PROXY-DHCP-NOBODY", "error")


async def test_loaders_that_are_not_there_are_named(tmp_path: Path) -> None:
    (one,) = await found(tmp_path, files=("a/x.efi",))
    assert (one.code, one.severity) == ("PROXY-DHCP-LOADER", "warning")
    assert "Machines are told pxelinux.0, which" in one.sentence


async def test_where_there_is_no_tree_or_no_store_nobody_knows(tmp_path: Path) -> None:
    assert await found(tmp_path, files=(), has_tree=False) == []
    assert await found(tmp_path, held=False, is_away=True) == []
