"""Real Puppet agents and the real ``puppetserver ca`` command line, for which the cluster's name leads to loopback.

They find the name in a hosts file of their own: each runs in a mount namespace where that file lies over ``/etc/hosts``.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_AGENT_S = 90.0
_QUIET = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/root"}


@dataclass(frozen=True)
class Puppet:
    """Puppet's programs, with everything they write below one directory.

    Attributes:
        server_port: where catalogs come from; None: Puppet's own port.
    """

    directory: Path
    server: str
    ca_port: int
    server_port: int | None = None
    hosts: Mapping[str, str] = field(default_factory=dict)

    def settings(self, certname: str) -> list[str]:
        """Return the options that make a host of its own."""
        home = self.home(certname)
        return [
            "--certname", certname, "--ssldir", str(home / "ssl"), "--confdir", str(home), "--vardir", str(home / "var"),
            "--server", self.server, "--ca_server", self.server, "--ca_port", str(self.ca_port),
            "--color", "false", "--waitforcert", "0",
            *(["--serverport", str(self.server_port)] if self.server_port else []),
        ]  # fmt: skip

    def home(self, certname: str) -> Path:
        home = self.directory / certname
        home.mkdir(parents=True, exist_ok=True)
        return home

    def configure(self, certname: str, **settings: str) -> None:
        """Write a host's ``puppet.conf``."""
        lines = [f"{name} = {value}\n" for name, value in settings.items()]
        (self.home(certname) / "puppet.conf").write_text("".join(["[main]\n", *lines]))

    async def bootstrap(self, certname: str) -> tuple[int, str]:
        """Let a host get its certificate; return the exit status and what it said."""
        return await self._run("puppet", "ssl", "bootstrap", *self.settings(certname))

    async def agent(self, certname: str, *more: str) -> tuple[int, str]:
        """Let a host apply its catalog."""
        return await self._run("puppet", "agent", "--test", "--noop", *self.settings(certname), *more)

    async def command(self, *arguments: str, config: Path) -> tuple[int, str]:
        """Run ``puppetserver ca``."""
        return await self._run("puppetserver", "ca", *arguments, "--config", str(config))

    async def _run(self, *command: str) -> tuple[int, str]:
        return await asyncio.to_thread(self._ran, command)

    def _ran(self, command: tuple[str, ...]) -> tuple[int, str]:
        hosts = self.directory / "hosts"
        lines = [f"{address} {name}\n" for name, address in self.hosts.items()]
        hosts.write_text("".join([f"127.0.0.1 localhost {self.server}\n", *lines]))
        # Paths and names reach the shell as arguments only.
        script = 'mount --bind "$0" /etc/hosts && exec "$@"'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, str(hosts), *command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_AGENT_S, check=False, env=_QUIET,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr
