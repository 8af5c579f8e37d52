"""A real Kerberos realm: MIT's KDC on a loopback address, with a database, a configuration and keytabs of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from muster.cli.demo.bind import free_port
from muster.kernel.process import clean_environment, end_with_parent
from tests.servers.available import sbin
from tests.servers.ending import ended

__all__ = ["REALM", "Realm", "running"]

REALM = "EXAMPLE.COM"
_LONGEST_START_S = 15.0


@dataclass
class Realm:
    """A running KDC. Use :func:`running`.

    Attributes:
        configuration: what clients and servers of the realm have as their krb5.conf.
    """

    directory: Path
    address: str
    port: int
    configuration: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process of the realm has in its environment."""
        return {"KRB5_CONFIG": str(self.configuration), "KRB5_KDC_PROFILE": str(self.directory / "kdc.conf")}

    def start(self, clock: str | None = None) -> None:
        """Start it and return when it has answered; ``clock``: how far its clock is off, in faketime's words."""
        command = [_program("krb5kdc"), "-n", "-r", REALM, "-P", str(self.directory / "kdc.pid")]
        # Not by the program faketime, which runs it as a process of its own.
        faked = {} if clock is None else {"LD_PRELOAD": str(_faketime()), "FAKETIME": clock}
        with (self.directory / "kdc.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**clean_environment(), **self.environment, **faked}, preexec_fn=end_with_parent,
            )  # fmt: skip
        limit = time.monotonic() + _LONGEST_START_S
        while time.monotonic() < limit and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if self._answers():
                    return
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"krb5kdc did not come up: {(self.directory / 'kdc.log').read_text()[-800:]}")

    def stop(self) -> None:
        """Stop it, unless it is stopped."""
        process, self._process = self._process, None
        ended(process)

    def _answers(self) -> bool:
        """Whether it says over TCP that it cannot read what it is asked, which it does when it is there."""
        with socket.create_connection((self.address, self.port), timeout=1) as asked:
            asked.settimeout(1)
            asked.sendall((2).to_bytes(4, "big") + b"no")
            return asked.recv(4) != b"never"

    def administer(self, *commands: Sequence[str]) -> None:
        """Change its database."""
        for command in commands:
            done = subprocess.run(
                [_program("kadmin.local"), "-r", REALM, *command],
                env={**clean_environment(), **self.environment}, capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"kadmin.local {command}: {done.stderr}"

    def principal(self, name: str, keytab: str, *options: str) -> Path:
        """Have a principal with a random key, and return a keytab that holds it."""
        path = self.directory / keytab
        self.administer(["addprinc", "-randkey", *options, name], ["ktadd", "-k", str(path), name])
        path.chmod(0o600)
        return path


def _faketime() -> Path:
    return next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


def _program(name: str) -> str:
    found = sbin(name)
    assert found is not None, name
    return found


@contextlib.contextmanager
def running(directory: Path, *, address: str = "127.0.0.1") -> Iterator[Realm]:
    """Yield a realm :data:`REALM` that knows nobody yet."""
    directory.mkdir(parents=True, exist_ok=True)
    realm = Realm(directory, address, free_port(address), directory / "krb5.conf")
    realm.configuration.write_text(
        f"""[libdefaults]
 default_realm = {REALM}
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
 rdns = false
 udp_preference_limit = 1
 kdc_timesync = 0
 default_ccache_name = FILE:{directory}/never
[realms]
 {REALM} = {{
  kdc = {address}:{realm.port}
 }}
"""
    )
    (directory / "kdc.conf").write_text(
        f"""[kdcdefaults]
 kdc_listen = {address}:{realm.port}
 kdc_tcp_listen = {address}:{realm.port}
[realms]
 {REALM} = {{
  database_name = {directory}/principal
  key_stash_file = {directory}/stash
  acl_file = {directory}/acl
  supported_enctypes = aes256-cts:normal
 }}
[logging]
 kdc = FILE:{directory}/kdc.log
"""
    )
    made = subprocess.run(
        [_program("kdb5_util"), "-r", REALM, "create", "-s", "-P", os.urandom(12).hex()],
        env={**clean_environment(), **realm.environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    try:
        realm.start()
        yield realm
    finally:
        realm.stop()
