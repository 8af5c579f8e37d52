"""A member that was restarted on a changed cluster file is not what the others are; parity and its metric say so."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.servers import local as clusters
from tests.servers.local import Local, until

pytestmark = pytest.mark.anyio

# The one that asks another DNS server has none that answers.
FIELDS = ["dns.settings.use_provider", "muster.cluster_file", "muster.providers.dns"]


async def restarted(local: Local, name: str) -> None:
    """Kill the member and wait for the next one, which reads the cluster file as it stands now."""
    before = local.pid_of(name)
    assert before is not None
    os.kill(before, signal.SIGKILL)

    async def is_back() -> bool:
        return local.pid_of(name) not in (None, before) and await local.is_steady()

    await until(is_back, f"{name} serves again")


async def metric(local: Local, name: str) -> float | None:
    with contextlib.suppress(OSError):
        lines = (await local.ask("/metrics", name)).text.splitlines()
        return next((float(v) for k, _, v in (x.partition(" ") for x in lines) if k == "muster_parity_drift"), None)
    return None


async def settled(local: Local, *expected: float) -> None:
    async def is_settled() -> bool:
        return [await metric(local, name) for name in local.names] == list(expected)

    await until(is_settled, f"the members count {expected} drifted fields")


def changed(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "features": {**content["features"], "dns": {"provider": "nsupdate"}}}


@pytest.fixture
def own_cluster(needs: Callable[[str], None]) -> Iterator[Local]:
    """A cluster of its own: the others' tests read what `muster up` said of restarts, and these would be among them."""
    needs("haproxy")
    with clusters.running() as local:
        yield local


async def test_a_member_restarted_on_a_changed_file_drifts_until_it_is_changed_back(own_cluster: Local) -> None:
    local = own_cluster
    await until(local.is_steady, "every member is ready and up")
    name = local.names[1]
    text = local.cluster_file.read_text()
    well = await local.cli("parity")
    assert (well.code, "No drift in" in well.out) == (0, True), well
    try:
        local.cluster_file.write_text(yaml.safe_dump(changed(yaml.safe_load(text))))
        await restarted(local, name)
        await settled(local, 0.0, float(len(FIELDS)), 0.0)
        said = await local.cli("parity", "--json")
        assert said.code == 1, said
        assert {d["field"]: d["differing"] for d in said.json["drifts"]} == {field: [name] for field in FIELDS}
        assert said.json["unasked"] == {}
        shown = await local.cli("parity")
        assert f"dns.settings.use_provider differs: {name} has dns_nsupdate, most have dns_memory" in shown.out
        assert f"fields='{', '.join(FIELDS)}'" in local.log(name)
        declared = changed(yaml.safe_load(text))
        wanted = [{"field": f, "members": [name], "reason": "a zone of its own"} for f in FIELDS]
        local.cluster_file.write_text(yaml.safe_dump({**declared, "expected_differences": wanted}))
        assert (await local.cli("parity")).code == 0
    finally:
        local.cluster_file.write_text(text)
        await restarted(local, name)
    assert (await local.cli("parity")).code == 0
    await settled(local, 0.0, 0.0, 0.0)
