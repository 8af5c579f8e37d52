"""What makes a member unready, and what warns before: programs beside it, its certificate, its disks, what ends."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.app.duties import disks
from muster.kernel.files import write_atomically
from muster.pki import bundles
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest
from tests.servers import member
from tests.servers.client import PATIENCE_S
from tests.servers.haproxy import free_ports
from tests.servers.member import CLUSTER_ADDRESS, Member
from tests.servers.program import Program, running


def declare(own: Member, **changes: Any) -> None:
    content = yaml.safe_load(own.cluster_file.read_text())
    services = {**content["services"], **changes.pop("services", {})}
    write_atomically(own.cluster_file, yaml.safe_dump({**content, "services": services, **changes}))


@contextmanager
def beside(program: Program) -> Iterator[Program]:
    """Hold the program running in a thread of its own."""
    done, up = threading.Event(), threading.Event()

    async def serve() -> None:
        async with running(program):
            up.set()
            while not done.is_set():
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert up.wait(PATIENCE_S)
        yield program
    finally:
        done.set()
        thread.join()


@contextmanager
def started(own: Member) -> Iterator[Member]:
    own.start()
    try:
        yield own
    finally:
        own.stop()


def until(own: Member, service: str, wanted: Callable[[str], bool]) -> str:
    """Return the reason the service is not ready for, empty when it is, as soon as it is the wanted one."""
    limit = time.monotonic() + PATIENCE_S
    while True:
        verdict = own.tell(own.process.health.verdict, service)
        if wanted(verdict.reason):
            return str(verdict.reason)
        assert time.monotonic() < limit, verdict
        time.sleep(0.02)


def gauges(own: Member, family: str) -> dict[str, float]:
    lines = (line for line in own.ask("GET", "/metrics").text.splitlines() if line.startswith(family + "{"))
    return {line[len(family) + 1 :].split("}")[0]: float(line.split()[-1]) for line in lines}


def test_a_program_that_hangs_is_not_ready_and_the_member_serves_on(tmp_path: Path) -> None:
    own = member.made(tmp_path)
    (port,) = free_ports(own.https.address, 1)
    new = {"listen_port": 7000, "member_port": port, "traffic": "plain", "check": {"path": "/state", "timeout_s": 0.5}}
    declare(own, services={"new": new})
    with beside(Program(own.https.address, port)) as program, started(own):
        until(own, "new", lambda reason: not reason)
        assert program.asked[0] == ("GET /state HTTP/1.1", CLUSTER_ADDRESS)
        where = f"GET http://{own.https.address}:{port}/state"
        program.mood = "stalls"
        assert until(own, "new", bool) == f"{where} got no answer within 0.5 s"
        assert own.tell(own.process.health.verdict, "smartproxy").status == 200
        program.mood = "answers"
        until(own, "new", lambda reason: not reason)
        program.status = 503
        assert until(own, "new", bool) == f"{where} was answered with 503, and 200 is good"
        assert gauges(own, "muster_service_ready")['service="new"'] == 0


def test_a_program_is_not_ready_before_it_answered_for_the_first_time(tmp_path: Path) -> None:
    own = member.made(tmp_path)
    (port,) = free_ports(own.https.address, 1)
    declare(own, services={"puppet": {"member_port": port}})
    with beside(Program(own.https.address, port, mood="hangs")), started(own):
        said = own.tell(own.process.health.verdict, "puppet")
        assert said.status == 503
        assert said.reason
        assert "no answer within 3 s" in until(own, "puppet", lambda reason: "within" in reason)


def test_a_certificate_that_is_valid_only_later_takes_every_service_out(tmp_path: Path) -> None:
    with member.running(tmp_path) as own:
        wanted = BundleRequest("member", own.name, (CLUSTER_ADDRESS,), (own.https.address,))
        later = own.authority.issue(wanted, now=datetime.now(UTC) + timedelta(days=2))
        bundles.write(later, own.pki)
        reason = until(own, "smartproxy", bool)
        day = datetime.now(UTC) + timedelta(days=2)
        assert reason.startswith(f"the certificate is valid only from {day:%Y-%m-%d}")
        assert "clock" in reason
        bundles.write(own.issue(), own.pki)
        until(own, "smartproxy", lambda r: not r)


def test_an_alarm_sounds_for_everything_that_ends(tmp_path: Path) -> None:
    own = member.made(tmp_path)
    # A CA that is only still trusted, and ends tomorrow, is nobody's issuer here.
    old = ClusterCA.create(tmp_path / "old", "old", now=datetime.now(UTC), valid_days=1)
    bundle = own.issue()
    bundles.write(replace(bundle, chain_pem=bundle.chain_pem + old.chain_pem), own.pki)
    check = own.authority.issue(BundleRequest("balancer", "balancer"), now=datetime.now(UTC), valid_days=5)
    bundles.write(check, own.pki)
    with started(own):
        ends = gauges(own, "muster_expiry_timestamp_seconds")
        assert set(ends) == {'what="member"', 'what="cluster-ca"', 'what="balancer-check"'}
        ca_end = own.authority.certificate.not_valid_after_utc.timestamp()
        assert ends['what="cluster-ca"'] == pytest.approx(ca_end)
        sounding = {k for k, v in gauges(own, "muster_expiry_alarm").items() if v}
        assert sounding == {f'days="{d}",what="balancer-check"' for d in (30, 7)}
        # The older names go on.
        assert "muster_certificate_expiry_timestamp_seconds " in own.ask("GET", "/metrics").text
        bundles.paths(own.pki, "balancer", "balancer").certificate.unlink()
        own.tell(own.process.certificates.look_at_ends)
        own.tell(own.process.certificates.sound_alarms)
        assert 'what="balancer-check"' not in gauges(own, "muster_expiry_timestamp_seconds")
        assert not [k for k in gauges(own, "muster_expiry_alarm") if "balancer" in k]


def full(monkeypatch: pytest.MonkeyPatch, directory: Path, left: int) -> None:
    """Let the file system of a directory have so many bytes left, for the member only."""
    real = os.statvfs

    def told(path: Any) -> Any:
        found = real(path)
        if Path(path) != directory:
            return found
        return type("Full", (), {"f_bavail": left, "f_frsize": 1, "f_files": 1, "f_favail": 1})()

    monkeypatch.setattr(disks.os, "statvfs", told)  # type: ignore[attr-defined]


def test_an_empty_list_of_disks_ends_that_a_member_watches_its_own(tmp_path: Path) -> None:
    own = member.made(tmp_path)
    declare(own, disks=[])
    with started(own):
        assert own.process.disks.watched == ()


@pytest.mark.parametrize("whose", ["the member's", "the store's"])
def test_without_a_word_about_disks_a_full_one_shows(
    whose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = member.made(tmp_path)
    with started(own):
        directory = own.pki if whose == "the member's" else tmp_path
        full(monkeypatch, directory, 1 << 20)
        limit = time.monotonic() + PATIENCE_S
        sentence = f"disk {directory}: 1 MiB left, 32 MiB are needed"
        while sentence not in (said := own.tell(own.process.health.verdict, "smartproxy")).notes:
            assert time.monotonic() < limit, said
            time.sleep(0.02)
        assert said.status == 200
