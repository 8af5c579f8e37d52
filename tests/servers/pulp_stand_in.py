"""A stand-in for Pulp's content application: versions of one yum repository, changed in a moment, and what it was asked.

What it cannot show is how Pulp publishes; tests with the real one do.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from muster.edge import ranges

ROOT = "/pulp/content/r"


@dataclass(frozen=True)
class Version:
    """A version: its packages' bytes by name, and all its files by path below the repository."""

    revision: int
    packages: Mapping[str, bytes]
    files: Mapping[str, bytes]

    @property
    def repomd(self) -> bytes:
        return self.files["repodata/repomd.xml"]

    @property
    def primary(self) -> str:
        """The path of its primary."""
        return next(name for name in self.files if name.endswith("-primary.xml.gz"))


def version(revision: int, packages: Mapping[str, bytes], *, signed: bool = True, kind: str = "") -> Version:
    """Return a version whose packages lie in ``Packages/``; ``kind`` makes another one of the same revision."""
    listed = "".join(
        f'<package type="rpm"><name>{name}</name><checksum type="sha256" pkgid="YES">'
        f'{hashlib.sha256(data).hexdigest()}</checksum><size package="{len(data)}" installed="1" archive="1"/>'
        f'<location href="Packages/{name}.rpm"/></package>'
        for name, data in packages.items()
    )
    space = "http://linux.duke.edu/metadata"
    primary = f'<metadata xmlns="{space}/common" packages="{len(packages)}">{listed}</metadata><!-- {kind} -->'
    files, said = {}, []
    for name, text in {"primary": primary, "filelists": f"<filelists/><!-- {revision} -->"}.items():
        packed = gzip.compress(text.encode(), mtime=0)
        digest = hashlib.sha256(packed).hexdigest()
        href = f"repodata/{digest}-{name}.xml.gz"
        files[href] = packed
        said.append(
            f'<data type="{name}"><checksum type="sha256">{digest}</checksum><location href="{href}"/>'
            f"<timestamp>{1_700_000_000 + revision}</timestamp><size>{len(packed)}</size></data>"
        )
    repomd = f'<repomd xmlns="{space}/repo"><revision>{revision}</revision>{"".join(said)}</repomd>'.encode()
    files["repodata/repomd.xml"] = repomd
    if signed:
        files["repodata/repomd.xml.asc"] = b"signature of " + hashlib.sha256(repomd).hexdigest().encode()
    files |= {f"Packages/{name}.rpm": data for name, data in packages.items()}
    return Version(revision, packages, files)


@dataclass
class Pulp:
    """One. Use :meth:`running`.

    Attributes:
        carries: what it has now; None: there is no such repository.
        before: what it had, whose files are still to be had.
        guarded: it wants a client certificate.
        status: of every answer, while it is set.
        pause_s: for so long it thinks about each answer.
        answers: it takes requests and answers none while this is not set.
        asked: method and path of all it was asked.
    """

    address: str
    port: int
    carries: Version | None = None
    before: list[Version] = field(default_factory=list)
    guarded: bool = False
    status: int | None = None
    pause_s: float = 0.0
    answers: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    def found(self, path: str) -> bytes | None:
        """Return what is at a path."""
        if not path.startswith(f"{ROOT}/") or self.carries is None:
            return None
        below = path.removeprefix(f"{ROOT}/")
        return next((v.files[below] for v in (self.carries, *self.before) if below in v.files), None)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        it = self
        it.answers.set()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do(self) -> None:
                it.asked.append((self.command, self.path))
                it.answers.wait(30)
                time.sleep(it.pause_s)
                file = it.found(self.path)
                status = it.status or (200 if file is not None or self.path == "/pulp/content/" else 404)
                if it.guarded and self.path.startswith(ROOT) and "X-CLIENT-CERT" not in self.headers:
                    status = 403
                body = file if status == 200 and file is not None else b"said"
                part = ranges.asked(self.headers.get("Range"), len(body)) if status == 200 else None
                self.send_response(206 if part else status)
                if part is not None:
                    self.send_header("Content-Range", f"bytes {part[0]}-{part[1]}/{len(body)}")
                    body = body[part[0] : part[1] + 1]
                self.send_header("ETag", f'"{id(it):x}-{hash(body):x}"')
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    with contextlib.suppress(OSError):
                        self.wfile.write(body)

            do_GET = do_HEAD = do  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

        server = Server((self.address, self.port), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            it.answers.set()
            server.shutdown()
            server.server_close()
