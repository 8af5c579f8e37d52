"""A key that signs metadata of repositories, with GnuPG and a keyring of its own."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from muster.kernel.process import clean_environment

_RUN_S = 60.0


@dataclass(frozen=True)
class Signer:
    """A key; use :func:`made`.

    Attributes:
        key: the file with its public half, in armour.
    """

    home: Path

    @property
    def key(self) -> Path:
        return self.home / "key.asc"

    def detach(self, file: Path, signature: Path) -> None:
        """Write a signature of the file, in armour, beside or instead of what is there."""
        self.run("--armor", "--output", str(signature), "--detach-sign", str(file))

    def clear(self, file: Path, signed: Path) -> None:
        """Write the text with its signature around it."""
        self.run("--output", str(signed), "--clear-sign", str(file))

    def run(self, *arguments: str) -> None:
        """Run gpg with this keyring."""
        command = ["gpg", "--homedir", str(self.home), "--batch", "--yes", "--quiet", *arguments]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_RUN_S, check=False,
            env=clean_environment(),
        )  # fmt: skip
        assert done.returncode == 0, f"gpg {' '.join(arguments)}: {done.stderr}"


@contextlib.contextmanager
def made(name: str = "Muster tests <root@muster.test>") -> Iterator[Signer]:
    """Hold a new key that nobody asks a password for; ask ``needs("gpg")`` first."""
    # Short: the agent's socket is in it, and a socket's path has little room.
    home = Path(tempfile.mkdtemp(prefix="muster-gpg-"))
    signer = Signer(home)
    try:
        signer.run("--passphrase", "", "--quick-generate-key", name, "rsa2048", "sign", "never")
        signer.run("--armor", "--output", str(signer.key), "--export")
        yield signer
    finally:
        # gpg started an agent for this keyring, which ends when it is told to.
        subprocess.run(
            ["gpgconf", "--homedir", home, "--kill", "all"], capture_output=True, timeout=_RUN_S, check=False
        )
        shutil.rmtree(home, ignore_errors=True)
