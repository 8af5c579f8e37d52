"""Members and their balancer as processes of their own, as systemd runs them: they can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from muster.kernel import failpoints
from muster.kernel.process import end_with_parent
from tests.servers.client import Connection, Place, request
from tests.servers.member import CLUSTER_ADDRESS, Member

_START_S = 60.0


@dataclass
class Process:
    """``muster serve`` for a member. Use :func:`serving`."""

    member: Member
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.member.name} is stopped"
        return self._process.pid

    def begin(self, armed: str = "") -> None:
        """Start it and do not wait for it; ``armed`` is what its failpoints do."""
        assert self._process is None, f"{self.member.name} runs"
        command = [
            sys.executable, "-m", "muster", "serve", "--cluster", str(self.member.cluster_file),
            "--pki", str(self.member.pki), "--member", self.member.name,
        ]  # fmt: skip
        with (self.member.directory / "serve.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=end_with_parent,
                env=os.environ | ({failpoints.VARIABLE: armed} if armed else {}),
            )  # fmt: skip

    def start(self) -> None:
        """Start it; return when it says that it takes clients of content."""
        self.begin()
        limit = time.monotonic() + _START_S
        while not self.readiness()["ready"]:
            assert self._process is not None
            assert self._process.poll() is None, f"{self.member.name} ended: {self.log()[-3000:]}"
            assert time.monotonic() < limit, f"{self.member.name} is not ready: {self.readiness()}"
            time.sleep(0.1)

    def readiness(self, service: str = "https") -> dict[str, Any]:
        """Return what it says of a service; it is not ready while it does not answer."""
        with contextlib.suppress(OSError):
            answer = self.member.ask("GET", f"/health/ready?service={service}", name=None)
            said: dict[str, Any] = json.loads(answer.body)
            return said
        return {"ready": False, "why": "it does not answer"}

    def died(self) -> None:
        """Return when its failpoint has killed it, and only then."""
        assert self._process is not None, f"{self.member.name} is stopped"
        assert self._process.wait(_START_S) == -signal.SIGKILL, self.log()[-3000:]
        self._process = None

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        assert self._process is not None, f"{self.member.name} is stopped"
        self._process.kill()
        self._process.wait()
        self._process = None

    def log(self) -> str:
        return (self.member.directory / "serve.log").read_text("utf-8", "replace")


@contextlib.contextmanager
def serving(*members: Member) -> Iterator[list[Process]]:
    """Hold members running that take clients of content."""
    found = [Process(one) for one in members]
    try:
        for one in found:
            one.start()
        yield found
    finally:
        for one in found:
            if one._process is not None:
                one.kill()


@contextlib.contextmanager
def balancing(first: Member, place: Place | None = None, path: str = "/") -> Iterator[None]:
    """Hold the cluster's balancer running; with a place a path is answered 200 there when the block begins."""
    # A short path: HAProxy's sockets lie there.
    with tempfile.TemporaryDirectory(prefix="lb-") as run, (first.directory / "balance.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "muster", "balance", "--cluster", str(first.cluster_file), "--run", run],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            if place is not None:
                _until_answered(place, first, path)
            yield
        finally:
            process.terminate()
            process.wait(30)


def _until_answered(place: Place, of: Member, path: str) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), Connection(place, tls=of.tls(), server_name=CLUSTER_ADDRESS) as connection:
            connection.send(request("GET", path))
            if connection.answer().status == 200:
                return
        time.sleep(0.2)
    raise AssertionError("the balancer leads nowhere")
