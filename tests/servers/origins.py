"""Where a Pulp syncs from: yum and deb repositories and plain files in directories, served over HTTP where one asks.

Each version lies in a directory of its own: a sync never meets a source that changes.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from muster.cli.demo.bind import free_port
from muster.kernel.process import clean_environment
from tests.servers import pulp
from tests.servers.packages import Package, Source, listed_files
from tests.servers.signing import Signer

_WHEN = 1_700_000_000


def yum(
    directory: Path,
    packages: Sequence[Package],
    *,
    revision: int,
    compression: str = "gz",
    signer: Signer | None = None,
    excludes: Sequence[str] = (),
) -> Path:
    """Write a yum repository into a directory that is not there yet; ask ``needs("pulp")`` first.

    The packages lie in ``Packages/<first letter>/``, as Pulp publishes them. With a signer, ``repomd.xml`` is signed.
    ``excludes``: directories below it that are not of it.
    """
    for package in packages:
        place = directory / "Packages" / package.name[0]
        place.mkdir(parents=True, exist_ok=True)
        (place / package.rpm_name).write_bytes(package.rpm())
    done = subprocess.run(
        [
            pulp.HOME / "venv" / "bin" / "createrepo_c", "--quiet", "--workers", "1", "--revision", str(revision),
            f"--general-compress-type={compression}", "--no-database", *(f"--excludes={one}/*" for one in excludes),
            directory,
        ],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False, env=clean_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if signer is not None:
        repomd = directory / "repodata" / "repomd.xml"
        signer.detach(repomd, repomd.with_name("repomd.xml.asc"))
        shutil.copy(signer.key, repomd.with_name("repomd.xml.key"))
    return directory


def deb(
    directory: Path,
    packages: Sequence[Package],
    *,
    revision: int,
    by_hash: bool,
    suite: str = "stable",
    signer: Signer | None = None,
    sources: Sequence[Source] = (),
) -> Path:
    """Write a deb repository with the component ``main`` into a directory that is not there yet.

    The revision is in its date, by which apt knows what is newer. With a signer there is an ``InRelease``, too.
    """
    stanzas = []
    for package in packages:
        pool = Path("pool") / "main" / package.name[0]
        data = package.deb()
        (directory / pool).mkdir(parents=True, exist_ok=True)
        (directory / pool / package.deb_name).write_bytes(data)
        fields = {
            **package.control(),
            "Filename": f"{pool / package.deb_name}",
            "Size": f"{len(data)}",
            "MD5sum": hashlib.md5(data, usedforsecurity=False).hexdigest(),
            "SHA256": hashlib.sha256(data).hexdigest(),
        }
        stanzas.append("".join(f"{k}: {v}\n" for k, v in fields.items()))
    listed = "\n".join(stanzas).encode()
    home = directory / "dists" / suite
    lists = {Path("main/binary-amd64/Packages"): listed}
    if sources:
        lists[Path("main/source/Sources")] = _sources(directory, sources)
    lines = []
    for path, plain in lists.items():
        (home / path.parent).mkdir(parents=True)
        for one, data in {path: plain, path.with_suffix(".gz"): gzip.compress(plain, mtime=0)}.items():
            (home / one).write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            lines.append(f" {digest} {len(data)} {one}\n")
            if by_hash:
                (home / one.parent / "by-hash" / "SHA256").mkdir(parents=True, exist_ok=True)
                (home / one.parent / "by-hash" / "SHA256" / digest).write_bytes(data)
    release = {
        "Origin": "Muster",
        "Label": "Muster",
        "Suite": suite,
        "Codename": suite,
        "Date": formatdate(_WHEN + revision, usegmt=True),
        "Architectures": "amd64",
        "Components": "main",
        **({"Acquire-By-Hash": "yes"} if by_hash else {}),
    }
    (home / "Release").write_text("".join(f"{k}: {v}\n" for k, v in release.items()) + "SHA256:\n" + "".join(lines))
    if signer is not None:
        signer.clear(home / "Release", home / "InRelease")
        signer.detach(home / "Release", home / "Release.gpg")
    for file in home.glob("*Release*"):
        # What a server says of it (Last-Modified) has to change with it.
        os.utime(file, (_WHEN + revision, _WHEN + revision))
    return directory


def _sources(directory: Path, sources: Sequence[Source]) -> bytes:
    """Write source packages into the pool, and return the list of them."""
    stanzas = []
    for one in sources:
        pool = Path("pool") / "main" / one.name[0] / one.name
        (directory / pool).mkdir(parents=True, exist_ok=True)
        for name, data in one.files.items():
            (directory / pool / name).write_bytes(data)
        fields = {**one.control(), "Directory": f"{pool}"}
        stanzas.append("".join(f"{k}: {v}\n" for k, v in fields.items()) + listed_files(one.files))
    return "\n".join(stanzas).encode()


def files(directory: Path, contents: dict[str, bytes]) -> Path:
    """Write plain files with the ``PULP_MANIFEST`` that lists them."""
    directory.mkdir(parents=True)
    rows = []
    for name, data in contents.items():
        (directory / name).write_bytes(data)
        rows.append(f"{name},{hashlib.sha256(data).hexdigest()},{len(data)}\n")
    (directory / "PULP_MANIFEST").write_text("".join(rows))
    return directory


@dataclass
class Origin:
    """A directory behind HTTP.

    Attributes:
        asked: method and path of each request, in order.
        clients: common name in the certificate behind each request, empty where none was shown.
        fails: pattern that a path has somewhere to the status it is answered with.
        leads: pattern that a path has somewhere to where it is led.
        context: with TLS.
    """

    directory: Path
    address: str
    port: int
    asked: list[tuple[str, str]] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)
    fails: dict[str, HTTPStatus] = field(default_factory=dict)
    leads: dict[str, str] = field(default_factory=dict)
    context: ssl.SSLContext | None = None

    def url(self, path: str = "", *, name: str | None = None) -> str:
        """Return where a path is, by the address or by a name that leads to it."""
        return f"http{'s' if self.context else ''}://{name or self.address}:{self.port}/{path}"


class _Answer(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *given: object, origin: Origin, **more: object) -> None:
        self._origin = origin
        super().__init__(*given, directory=str(origin.directory), **more)  # type: ignore[arg-type]

    def setup(self) -> None:
        if self._origin.context is not None:
            self.request = self._origin.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        if self._origin.context is not None:
            # The server closes the one below it alone.
            self.request.close()

    def do_GET(self) -> None:
        self._answer(super().do_GET)

    def do_HEAD(self) -> None:
        self._answer(super().do_HEAD)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, with_the_file: object) -> None:
        self._origin.asked.append((self.command, self.path))
        shown: Any = (self.request.getpeercert() or {}) if isinstance(self.request, ssl.SSLSocket) else {}
        self._origin.clients.append(dict(pair[0] for pair in shown.get("subject", ())).get("commonName", ""))
        for pattern, to in self._origin.leads.items():
            if re.search(pattern, self.path):
                self.send_response(HTTPStatus.FOUND)
                self.send_header("Location", to)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        for pattern, status in self._origin.fails.items():
            if re.search(pattern, self.path):
                self.send_error(status)
                break
        else:
            assert callable(with_the_file)
            with_the_file()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        # A client that goes, or that refuses our certificate, is no news; what else happens, a test would see.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextlib.contextmanager
def served(directory: Path, *, address: str = "127.0.0.69", context: ssl.SSLContext | None = None) -> Iterator[Origin]:
    """Serve a directory until the block ends."""
    origin = Origin(directory, address, free_port(address), context=context)
    with _Server((address, origin.port), partial(_Answer, origin=origin)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="origin")
        thread.start()
        try:
            yield origin
        finally:
            server.shutdown()
            thread.join()
