"""What is broken on purpose is named by doctor and status, with a remedy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from muster.kernel.clock import SystemClock
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, write
from tests.servers.local import Local, is_running, presented_serial, until

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def stopped(local: Local, pid: int | None, number: signal.Signals) -> AsyncIterator[None]:
    """Hold one process of the cluster stopped: `muster up` is held still meanwhile, or it would start it again."""
    assert pid is not None
    os.kill(local.supervisor, signal.SIGSTOP)
    try:
        os.kill(pid, number)

        async def is_gone() -> bool:
            return not is_running(pid)

        await until(is_gone, f"process {pid} ended")
        yield
    finally:
        os.kill(local.supervisor, signal.SIGCONT)


async def findings(local: Local) -> tuple[int, list[dict[str, Any]], dict[tuple[str, str], dict[str, Any]]]:
    """Return doctor's exit code, findings, and cells by service and path."""
    said = await local.cli("doctor", "--json")
    cells = {(c["service"], c["path"]): c for c in said.json["cells"]}
    return said.code, said.json["findings"], cells


async def test_a_well_cluster_is_healthy(local: Local) -> None:
    code, found, cells = await findings(local)
    assert code == 0, found
    # Nobody gives a cluster on loopback a DNS name.
    assert [f["code"] for f in found] == ["ADDRESS-UNKNOWN"]
    assert all(c["ok"] for c in cells.values())
    assert len(cells) == 2 * (3 + 1)
    text = await local.cli("doctor")
    assert (text.code, "Healthy." in text.out) == (0, True)


async def test_a_stopped_member_is_named_and_the_service_goes_on(local: Local) -> None:
    name = local.names[2]
    async with stopped(local, local.pid_of(name), signal.SIGKILL):

        async def is_found() -> bool:
            return any(f["code"] == "MEMBER-SILENT" for f in (await findings(local))[1])

        await until(is_found, "doctor says that the member is silent")
        code, found, cells = await findings(local)
        status = await local.cli("status")
    assert code == 1
    errors = [f for f in found if f["severity"] == "error"]
    assert {f["place"].rpartition(" ")[2] for f in errors} == {name}, errors
    assert {f["code"] for f in errors} >= {"MEMBER-SILENT"}
    # One cause, and everything else follows from it.
    assert (errors[0]["code"], {f["because"] for f in errors[1:]}) == ("MEMBER-DOWN", {"MEMBER-DOWN"})
    assert all(f["remedy"] for f in errors)
    assert {p for (_, p), c in cells.items() if not c["ok"]} == {name}
    assert cells["smartproxy", "balancer"]["ok"]
    assert status.code == 1
    assert "proxy03 anaconda, smartproxy: GET http" in status.out
    assert f"{name}: silent for" in status.out


async def test_a_hung_member_is_named_and_taken_out(local: Local) -> None:
    name = local.names[2]
    pid = local.pid_of(name)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:

        async def is_out() -> bool:
            return not (await local.servers())[name].takes_traffic

        await until(is_out, "the hung member is out of the balancer")
        (code, found, cells), status = await asyncio.gather(findings(local), local.cli("status", "--json"))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert code == 1
    assert name in {f["place"].rpartition(" ")[2] for f in found if f["severity"] == "error" and f["remedy"]}
    assert not cells["smartproxy", name]["ok"]
    assert cells["smartproxy", "balancer"]["ok"]
    assert status.code == 1
    answer = next(a for s in status.json["services"] for a in s["members"] if a["member"] == name)
    assert (answer["state"], "no answer in time" in answer["reason"]) == ("unreachable", True), answer


async def test_a_certificate_without_the_cluster_s_name_is_named(local: Local) -> None:
    name = local.names[1]
    before = presented_serial(local, name)
    ca = ClusterCA.open(local.pki)
    write(ca.issue(BundleRequest("member", name, (), ("127.0.0.12",)), now=SystemClock().now()), local.pki)
    try:

        async def is_presented() -> bool:
            return not (await findings(local))[2]["smartproxy", name]["ok"]

        await until(is_presented, "doctor sees the wrong certificate")
        code, found, cells = await findings(local)
    finally:
        assert (await local.cli("certs", "issue", "--all", "--drop-names")).code == 0

        async def is_mended() -> bool:
            with contextlib.suppress(OSError):
                return await asyncio.to_thread(presented_serial, local, name) != before
            return False

        await until(is_mended, "the member presents a good certificate again")
    assert code == 1
    about = [f for f in found if f["severity"] == "error" and name in f["place"]]
    assert any("smartproxy.muster.test" in f["sentence"] and f["cause"] and f["remedy"] for f in about), found
    assert [p for (s, p), c in cells.items() if not c["ok"] and p != "balancer"] == [name]


async def test_a_stopped_balancer_is_named_and_every_member_is_well(local: Local) -> None:
    async with stopped(local, local.balance_pid, signal.SIGTERM):
        code, found, cells = await findings(local)
        status = await local.cli("status", "--json")
        text = await local.cli("status")
    assert code == 1
    errors = [f for f in found if f["severity"] == "error"]
    assert {f["place"] for f in errors} == {"smartproxy on balancer", "anaconda on balancer", "HAProxy"}, errors
    assert all(f["remedy"] for f in errors)
    assert {p for (_, p), c in cells.items() if not c["ok"]} == {"balancer"}
    assert all(a["state"] == "ready" for s in status.json["services"] for a in s["members"])
    assert status.json["balancer"] is None or not status.json["balancer"]["ok"]
    assert "balancer runs on this host" in text.out or "Asking HAProxy" in text.out


async def test_a_support_bundle_has_what_each_member_and_the_balancer_say(local: Local, tmp_path: Path) -> None:
    archive = tmp_path / "bundle.tar.gz"
    said = await local.cli("support-bundle", "--json", "--output", str(archive))
    assert said.code == 0, said
    # Neither systemd nor a journal is needed; of all else nothing is missing.
    missing = {row["file"] for row in said.json["files"] if row["failed"]}
    assert missing <= {"units.txt", "journal.txt"}
    with tarfile.open(archive) as tar:
        found = {e.name.partition("/")[2]: tar.extractfile(e).read().decode() for e in tar}  # type: ignore[union-attr]
    for name in local.names:
        assert "muster_store_up 1.0" in found[f"metrics/{name}.prom"]
    assert {r["member"] for r in json.loads(found["logs.json"])["of"]["members"]["logs"]} == set(local.names)
    assert [m["stands"] for m in json.loads(found["status.json"])["members"]] == ["ready"] * 3
    assert found["haproxy/in-force.cfg"] == (local.run / "haproxy.cfg").read_text()
    assert found["haproxy/stat.csv"].startswith("# pxname,svname,")
    assert {t["table"]: t["rows"] for t in json.loads(found["store.json"])["tables"]}["members"] == 3
