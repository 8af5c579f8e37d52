"""A real Samba as the domain controller of a domain of its own: its KDC, its directory, on a loopback address. Needs root.

It has no DNS server, and who asks finds it by its address: its services have names with that, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from muster.kernel.process import clean_environment, end_with_parent
from tests.servers.available import sbin
from tests.servers.ending import ended

__all__ = ["ADDRESS", "BASE", "REALM", "SambaServer", "running"]

ADDRESS, NOBODY = "127.0.0.191", "127.0.0.192"
REALM, DOMAIN, BASE = "AD.EXAMPLE.TEST", "ADTEST", "DC=ad,DC=example,DC=test"
IPA_ADDRESS = "127.0.0.193"
_PASSWORD = "Domain-Pass-1"
_LONGEST_START_S = 60.0
# Its own Python is Debian's.
_PYTHON = "/usr/bin/python3"
_OPTIONS = (
    f"interfaces = {ADDRESS}/8",
    "bind interfaces only = yes",
    "server services = ldap, cldap, kdc",
    # Of extended attributes, which no file system under tests need have; nobody asks for files.
    "vfs objects = dfs_samba4 acl_xattr xattr_tdb",
    "ldb:nosync = true",
)


@dataclass
class SambaServer:
    """A running domain controller. Use :func:`running`."""

    directory: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def krb5_conf(self) -> Path:
        return self.directory / "krb5.conf"

    @property
    def place(self) -> str:
        """Where the members' account may make others."""
        return f"OU=Linux,{BASE}"

    def keytab(self, name: str = "muster") -> Path:
        return self.directory / f"{name}.keytab"

    @property
    def settings(self) -> dict[str, object]:
        """Settings of provider ``ad``."""
        return {
            "realm": REALM,
            "keytab_path": str(self.keytab()),
            "principal": "muster",
            "domain_controller": ADDRESS,
            "ou": self.place,
            "krb5_config": str(self.krb5_conf),
        }

    def found(self, account: str, *attributes: str) -> dict[str, list[str]]:
        """Return what its database has of an account by names of attributes, empty when there is none."""
        command = ["ldbsearch", "-H", f"{self.directory}/private/sam.ldb", f"(sAMAccountName={account})", *attributes]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, env=clean_environment())
        found: dict[str, list[str]] = {}
        for line in done.stdout.replace("\n ", "").splitlines():
            name, colon, value = line.partition(": ")
            if colon and not line.startswith(("#", "ref:")):
                found.setdefault(name, []).append(value)
        return found

    def changed(self, ldif: str) -> None:
        """Change its database as an administrator does."""
        command = ["ldbmodify", "-H", f"{self.directory}/private/sam.ldb"]
        subprocess.run(
            command, input=ldif, capture_output=True, text=True, timeout=30, check=True, env=self.environment
        )

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a program on a host that is to join."""
        return clean_environment({"KRB5_CONFIG": str(self.krb5_conf)})

    def joined(self, fqdn: str, password: str, keytab: Path) -> subprocess.CompletedProcess[str]:
        """Join as a new host does, by ``adcli``, which has no other way to be told the password."""
        return subprocess.run(
            [
                "adcli", "join", f"--domain={REALM.lower()}", f"--domain-controller={ADDRESS}", f"--host-fqdn={fqdn}",
                f"--host-keytab={keytab}", f"--one-time-password={password}",
            ],
            capture_output=True, text=True, timeout=60, check=False, env=self.environment,
        )  # fmt: skip

    def logs_in(self, account: str, password: str) -> bool:
        """Whether somebody is let in with a password."""
        asked = ["kinit", "-c", f"FILE:{self.directory}/asked", f"{account}@{REALM}"]
        done = subprocess.run(
            asked, input=f"{password}\n", capture_output=True, text=True, timeout=30, check=False, env=self.environment
        )
        assert done.returncode == 0 or "Password incorrect" in done.stderr, done.stderr
        return done.returncode == 0

    def wrong_clock(self) -> Path:
        """Return a directory of the programs that members run, each an hour ahead."""
        directory = self.directory / "ahead"
        directory.mkdir()
        for name in ("kinit", "ldapsearch"):
            program = directory / name
            program.write_text(f'#!/bin/sh\nexec faketime -f +1h {sbin(name)} "$@"\n')
            program.chmod(0o755)
        return directory

    def start(self) -> None:
        """Start it and return when it has given a ticket to somebody and taken a connection for LDAP."""
        assert self._process is None, "Samba runs"
        samba = sbin("samba")
        assert samba is not None
        conf, log = self.directory / "etc" / "smb.conf", self.directory / "samba.log"
        places = (f"pid directory={self.directory}", f"log file={self.directory}/log.%m")
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [samba, "-F", "-M", "single", "--debug-stdout", "-s", conf, *(f"--option={one}" for one in places)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=end_with_parent, env=clean_environment(),
            )  # fmt: skip
        limit = time.monotonic() + _LONGEST_START_S
        while time.monotonic() < limit and self._process.poll() is None:
            if self._answers():
                return
            time.sleep(0.1)
        self.stop()
        raise AssertionError(f"Samba did not come up: {log.read_text('utf-8', 'replace')[-1500:]}")

    def _answers(self) -> bool:
        try:
            socket.create_connection((ADDRESS, 389), 2).close()
        except OSError:
            return False
        asked = ["kinit", "-k", "-t", str(self.keytab()), "-c", f"FILE:{self.directory}/ready", f"muster@{REALM}"]
        return subprocess.run(asked, capture_output=True, timeout=30, check=False, env=self.environment).returncode == 0

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it, unless it is stopped."""
        process, self._process = self._process, None
        ended(process, how)

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """Hold it so that it takes connections and answers nothing."""
        assert self._process is not None, "Samba is stopped"
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


def missing() -> str | None:
    """Why there is none on this machine."""
    packages = "Debian packages samba, samba-ad-provision, samba-dsdb-modules, ldb-tools, adcli, krb5-user, ldap-utils"
    needed = ("samba", "ldbsearch", "adcli", "kinit", "ldapmodify")
    if not all(sbin(name) for name in needed) or not Path("/usr/share/samba/setup/ad-schema").is_dir():
        return f"no Samba domain controller on this machine ({packages})"
    return None if os.geteuid() == 0 else "Kerberos and LDAP have ports below 1024, which take root"


def krb5_conf(kdc: str = ADDRESS) -> str:
    """Return what Kerberos is to know of a realm with its KDC at an address."""
    return f"""\
[libdefaults]
  default_realm = {REALM}
  dns_lookup_kdc = false
  dns_lookup_realm = false
  dns_canonicalize_hostname = false
  rdns = false
[realms]
  {REALM} = {{
    kdc = {kdc}
    kpasswd_server = {kdc}
  }}
[domain_realm]
  .{REALM.lower()} = {REALM}
  {ADDRESS} = {REALM}
  {IPA_ADDRESS} = {REALM}
"""


@contextlib.contextmanager
def running(directory: Path) -> Iterator[SambaServer]:
    """Yield a domain controller of a new domain."""
    domain = directory / "domain"
    domain.mkdir()
    wanted = {
        "directory": str(domain), "base": BASE, "realm": REALM, "domain": DOMAIN, "password": _PASSWORD,
        "address": ADDRESS, "options": _OPTIONS,
        # As it gives them to itself, where it has a DNS server; and by its address, since nobody here looks names up.
        "names": {"DC1$": [f"ldap/dc1.{REALM.lower()}", f"ldap/{ADDRESS}"], "ipa": [f"HTTP/{IPA_ADDRESS}"]},
        "keytabs": [f"HTTP/{IPA_ADDRESS}"],
    }  # fmt: skip
    made = subprocess.run(
        # Isolated: this directory has a module by the name of theirs.
        [_PYTHON, "-I", Path(__file__).with_name("samba_domain.py"), json.dumps(wanted)],
        capture_output=True, text=True, timeout=180, check=False, env=clean_environment(),
    )  # fmt: skip
    assert made.returncode == 0, f"{made.stdout[-1000:]}\n{made.stderr[-2000:]}"
    server = SambaServer(domain)
    server.krb5_conf.write_text(krb5_conf())
    server.start()
    try:
        yield server
    finally:
        server.stop()
