"""A real BIND 9 on a loopback address: for the demo, and for the tests that must see records land."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import secrets
import shutil
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode

from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.files import make_directory, write_atomically
from muster.kernel.process import clean_environment

KEY_NAME = "muster-demo"
_NOBODY = "allow-update { none; };"
_APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
ZONES = ("example.net", "2.0.192.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa")


@dataclass(frozen=True)
class Zone:
    """A zone to serve: its name, extra lines of its file, and who may change it (a key name or nobody)."""

    name: str
    lines: Sequence[str] = ()
    updatable: bool = True


@dataclass(frozen=True)
class Kerberos:
    """By what a BIND takes changes under GSS-TSIG.

    Attributes:
        keytab: its own.
        principal: whoever may change the zones.
        configuration: the realm's krb5.conf.
    """

    keytab: Path
    principal: str
    configuration: Path


@dataclass
class Bind:
    """A running ``named``. Use :func:`running`.

    Attributes:
        key_file: its TSIG key in BIND's form.
    """

    address: str
    port: int
    directory: Path
    key_file: Path
    binary: str
    environment: Mapping[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = field(default=None, repr=False)

    async def start(self) -> None:
        """Start it and return when it has answered for its first zone.

        Raises:
            Unavailable: it did not come up; the sentence has the end of its log.
        """
        log = (self.directory / "named.log").open("ab")
        with log:
            self.process = await asyncio.create_subprocess_exec(
                self.binary, "-g", "-4", "-c", str(self.directory / "named.conf"), "-n", "1", "-U", "1",
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env={**clean_environment(), **self.environment},
            )  # fmt: skip
        question = dns.message.make_query("version.bind", "TXT", "CH")
        for _ in range(100):
            if self.process.returncode is not None:
                break
            with contextlib.suppress(OSError, EOFError, dns.exception.DNSException):
                answer = await dns.asyncquery.tcp(question, self.address, 1.0, self.port)
                if answer.rcode() in (dns.rcode.NOERROR, dns.rcode.REFUSED):
                    return
            await asyncio.sleep(0.05)
        tail = (self.directory / "named.log").read_text("utf-8", "replace")[-800:]
        raise Unavailable(f"named did not come up on {self.address}#{self.port}: {tail}")

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            try:
                async with asyncio.timeout(5):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        self.process = None


def binary() -> str | None:
    """Return where ``named`` is, or None; Debian keeps it outside an ordinary user's PATH."""
    return shutil.which("named") or shutil.which("named", path="/usr/sbin:/usr/local/sbin:/sbin")


def unconfined(binary: str, directory: Path) -> str:
    """Return a copy of the program in the directory.

    Debian's AppArmor profile holds for ``/usr/sbin/named`` and lets that read zones below ``/etc/bind`` and the like only;
    profiles go by a program's path. The copy runs as whoever started it, on loopback, with files of its own.
    """
    copy = directory / "named"
    shutil.copyfile(binary, copy)
    copy.chmod(0o700)
    return str(copy)


def _apparmor_is_on() -> bool:
    try:
        return _APPARMOR.read_text().strip() == "Y"
    except OSError:
        return False


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port that is free there, below those the kernel gives to clients, who could have it a moment later."""
    while True:
        port = random.SystemRandom().randrange(11_000, 32_000)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind((address, port))
            return port


@asynccontextmanager
async def running(
    directory: Path,
    *,
    address: str = "127.0.0.1",
    port: int | None = None,
    zones: Sequence[Zone] = tuple(Zone(z) for z in ZONES),
    keys: Mapping[str, str] = {KEY_NAME: "hmac-sha256"},
    others: Sequence[Zone] | None = None,
    kerberos: Kerberos | None = None,
) -> AsyncIterator[Bind]:
    """Yield a BIND that is primary for the zones; every key in ``keys`` (name to algorithm) may change them.

    With ``others`` it has two views: the zones for whoever brings a key, and those others for everybody else. With
    ``kerberos`` one principal may change the zones, and no key.

    Raises:
        Misconfigured: there is no ``named`` on this machine.
        Unavailable: it did not come up.
    """
    found = binary()
    if found is None:
        raise Misconfigured("There is no named on this machine; Debian's package is bind9")
    make_directory(directory)
    found = unconfined(found, directory) if _apparmor_is_on() else found
    environment = {} if kerberos is None else {"KRB5_CONFIG": str(kerberos.configuration)}
    bind = Bind(address, port or free_port(address), directory, directory / "key.conf", found, environment)
    _write(bind, zones, keys, others, kerberos)
    await bind.start()
    try:
        yield bind
    finally:
        await bind.stop()


def _write(
    bind: Bind,
    zones: Sequence[Zone],
    keys: Mapping[str, str],
    others: Sequence[Zone] | None,
    kerberos: Kerberos | None,
) -> None:
    declared = []
    for number, (name, algorithm) in enumerate(keys.items()):
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        text = f'key "{name}" {{\n  algorithm {algorithm};\n  secret "{secret}";\n}};\n'
        path = bind.key_file if number == 0 else bind.directory / f"{name}.key"
        write_atomically(path, text, mode=0o600)
        declared.append(text)
    granted = " ".join(f'key "{k}";' for k in keys) or "none;"
    policy = f"allow-update {{ {granted} }};"
    if kerberos is not None:
        policy = f'update-policy {{ grant "{kerberos.principal}" zonesub ANY; }};'
    here = bind.directory
    blocks = _declared(here, "", zones, policy)
    if others is not None:
        inside = ['view "keyed" {', f"match-clients {{ {granted} }};", *blocks, "};"]
        outside = ['view "other" {', "match-clients { any; };", *_declared(here, "other-", others, _NOBODY), "};"]
        blocks = [*inside, *outside]
    options = [
        f'directory "{here}"; pid-file "{here}/named.pid"; session-keyfile "{here}/session.key";',
        f"listen-on port {bind.port} {{ {bind.address}; }}; listen-on-v6 {{ none; }};",
        "recursion no; allow-query { any; }; dnssec-validation no; notify no; empty-zones-enable no;",
        "tcp-clients 200; ixfr-from-differences no; check-names primary ignore;",
        f'lock-file "{here}/named.lock";' if os.geteuid() == 0 else "lock-file none;",
    ]
    if kerberos is not None:
        options.append(f'tkey-gssapi-keytab "{kerberos.keytab}";')
    text = "\n".join([*declared, "options {", *options, "};", "controls { };", *blocks]) + "\n"
    write_atomically(here / "named.conf", text, mode=0o600)


def _declared(directory: Path, prefix: str, zones: Sequence[Zone], policy: str) -> list[str]:
    """Write the zones' files and return their lines of the configuration."""
    lines = []
    for zone in zones:
        path = directory / f"{prefix}{zone.name}.db"
        soa = f"@ IN SOA ns.{zone.name}. root.{zone.name}. 1 3600 600 86400 300"
        write_atomically(path, "\n".join(["$TTL 300", soa, "@ IN NS ns.invalid.", *zone.lines]) + "\n")
        lines.append(f'zone "{zone.name}" {{ type primary; file "{path}"; {policy if zone.updatable else _NOBODY} }};')
    return lines
