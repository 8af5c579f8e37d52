"""An origin over HTTP whose files change at any moment, and which breaks off where a test says so."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from muster.cli.demo.bind import free_port
from muster.edge import ranges


@dataclass
class Changing:
    """One. Use :func:`served`.

    Attributes:
        files: by path below it, plain text.
        breaks_at: after so many bytes it hangs up, once for each path.
        before: is called before each answer with what is asked for.
        asked: path and range of each request, in order.
    """

    url: str
    files: Mapping[str, bytes]
    breaks_at: dict[str, int] = field(default_factory=dict)
    before: Callable[[str], None] = lambda _: None
    asked: list[tuple[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def served(files: Mapping[str, bytes], *, address: str = "127.0.0.71") -> Iterator[Changing]:
    """Serve files until the block ends, below a directory."""
    port = free_port(address)
    it = Changing(f"http://{address}:{port}/x", files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do(self) -> None:
            path, part = unquote(self.path).removeprefix("/x/"), self.headers.get("Range", "")
            it.asked.append((path, part))
            it.before(path)
            body = it.files.get(path)
            asked = ranges.asked(part or None, len(body)) if body is not None else None
            self.send_response(404 if body is None else 206 if asked else 200)
            body = body if body is not None else b"no such file"
            if asked is not None:
                self.send_header("Content-Range", f"bytes {asked[0]}-{asked[1]}/{len(body)}")
                body = body[asked[0] : asked[1] + 1]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            at = it.breaks_at.pop(path, None)
            with contextlib.suppress(OSError):
                self.wfile.write(body[:at])
            self.close_connection = at is not None

        do_GET = do_HEAD = do  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        allow_reuse_address = True
        daemon_threads = True

    server = Server((address, port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield it
    finally:
        server.shutdown()
        server.server_close()
