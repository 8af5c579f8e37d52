"""`muster up` and `muster down` as a person or a script uses them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from muster.cli.local.only_one import recorded
from tests.servers import local as clusters
from tests.servers.local import Local, alive, descendants, end, environment, free_ports, muster, until, up_options

pytestmark = pytest.mark.anyio


@pytest.fixture
def planned(needs: Callable[[str], None]) -> Iterator[Local]:
    """A cluster of one member that nobody has started; whatever is left of it afterwards is ended."""
    needs("haproxy")
    # Short, as an administrator's directory is: HAProxy's sockets are below it.
    directory = Path(tempfile.mkdtemp(prefix="muster-e2e-"))
    yield Local(directory / "c", free_ports(1), 1)
    if (pid := recorded(directory / "c")) is not None:
        end(descendants(pid))
    shutil.rmtree(directory, ignore_errors=True)


def up(local: Local, *more: str) -> clusters.Said:
    return muster("up", "--dir", str(local.directory), *up_options(local), *more)


async def test_detached_it_runs_is_well_refuses_a_second_and_leaves_nothing(planned: Local) -> None:
    first = up(planned, "--detach")
    assert first.code == 0, first
    assert f"export MUSTER_CLUSTER={planned.cluster_file}" in first.out
    processes = descendants(planned.supervisor)
    assert len(processes) >= 5, "up, member, balance, HAProxy's master and worker"

    before = planned.cluster_file.read_bytes()
    # Without ports a second run would choose others, and write them down.
    here = ("--dir", str(planned.directory))
    for second in (
        up(planned, "--detach"),
        up(planned, "--plain"),
        muster("up", "--plain", *here),
        muster("up", "--dry-run", *here),
        muster("demo", "--check", "--memory", *here),
    ):
        assert second.code == 4, second
        assert f"A local cluster already runs in {planned.directory}" in second.err
    assert alive(processes) == processes
    assert planned.cluster_file.read_bytes() == before

    await until(planned.is_steady, "the member is ready and up")
    status = await planned.cli("status", "--json")
    assert (status.code, status.json["ready"]) == (0, True)
    assert [m["sentence"] for m in status.json["members"]] == ["ready"]
    examined = await planned.cli("doctor", "--json")
    assert (examined.code, examined.json["healthy"]) == (0, True), examined
    assert {c["path"] for c in examined.json["cells"]} == {*planned.names, "balancer"}

    would = muster("down", "--dir", str(planned.directory), "--dry-run")
    assert (would.code, alive(processes)) == (0, processes)
    down = muster("down", "--dir", str(planned.directory))
    assert (down.code, down.out) == (0, "Stopped.\n")
    await until(gone(processes), "nothing of the cluster runs")
    again = muster("down", "--dir", str(planned.directory))
    assert again.code == 4
    assert "No local cluster runs in" in again.err


def test_a_dry_run_changes_nothing(planned: Local) -> None:
    said = up(planned, "--dry-run")
    assert said.code == 0
    assert planned.names[0] in said.out
    assert str(planned.ports["smartproxy"]) in said.out
    assert not planned.directory.exists()


@pytest.mark.parametrize(("address", "whose"), [("127.0.0.11", "proxy01.muster.test"), ("127.0.0.1", "balancer")])
def test_a_taken_port_is_named_and_nothing_is_left_running(planned: Local, address: str, whose: str) -> None:
    port = planned.ports["smartproxy"]
    with socket.create_server((address, port)):
        said = up(planned, "--detach")
    assert said.code == 4, said
    assert f"{whose} ended at start" in said.err
    assert str(port) in said.err
    assert "in use" in said.err
    assert recorded(planned.directory) is None
    assert mentioning(planned.directory) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_the_foreground_stops_everything(planned: Local, number: signal.Signals) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "muster", "up", "--dir", str(planned.directory), *up_options(planned)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    try:

        async def is_ready() -> bool:
            assert child.poll() is None, child.stdout.read() if child.stdout else ""
            return (planned.run / "ready").exists()

        await until(is_ready, "the cluster runs")
        processes = descendants(child.pid)
        assert len(processes) >= 5
        child.send_signal(number)
        out, _ = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 0, out
    assert "Stopping: members drain" in out
    assert alive(processes) == set()
    assert not (planned.run / "ready").exists()
    assert recorded(planned.directory) is None


async def test_a_killed_up_takes_its_processes_along_and_can_be_started_again(planned: Local) -> None:
    """The certificates stay: whoever trusted the first cluster trusts the second."""
    assert up(planned, "--detach").code == 0
    ca = (planned.pki / "ca.pem").read_bytes()
    orphans = descendants(planned.supervisor)
    os.kill(planned.supervisor, signal.SIGKILL)
    await until(gone(orphans), "nothing of the first cluster runs")
    assert recorded(planned.directory) is None
    again = up(planned, "--detach")
    assert again.code == 0, again
    assert (planned.pki / "ca.pem").read_bytes() == ca
    assert muster("down", "--dir", str(planned.directory)).code == 0


async def test_ports_may_change_between_two_runs(planned: Local) -> None:
    """The balancer serves what it last served until it has read the file again; that must not confuse it."""
    assert up(planned, "--detach").code == 0
    assert muster("down", "--dir", str(planned.directory)).code == 0
    moved = Local(planned.directory, free_ports(1), 1)
    said = up(moved, "--detach")
    assert said.code == 0, said
    assert f"127.0.0.1:{moved.ports['smartproxy']}\n" in (moved.run / "haproxy.cfg").read_text()

    async def runs_again() -> bool:
        return moved.log("balancer").count("Balancer runs") == 2

    # HAProxy serves before the balancer says so.
    await until(runs_again, "the balancer says that it runs")
    assert muster("down", "--dir", str(moved.directory)).code == 0


def gone(processes: set[tuple[int, str]]) -> Callable[[], Awaitable[bool]]:
    async def are_gone() -> bool:
        return not alive(processes)

    return are_gone


def mentioning(directory: Path) -> list[int]:
    """Return the processes whose command line names the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if os.fsencode(directory) in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found
