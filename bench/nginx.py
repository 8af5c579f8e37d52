"""nginx as Debian sets it up, on loopback: it serves a directory itself, and passes other calls on to a backend."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bench import processes
from bench.processes import Running
from muster.cli.demo.bind import free_port
from muster.kernel.files import write_atomically
from muster.kernel.process import clean_environment

STATIC, PROXIED = "/pulp/content/static/", "/pulp/content/"

# What Debian's nginx.conf says, without the compression of texts, and two lines that a proxy for a Pulp gets in practice:
# connections to the backend are kept, and what a client is slow to take is not spooled to disk, as members do not.
_CONFIG = """\
{user}
worker_processes {workers};
pid {directory}/nginx.pid;
worker_rlimit_nofile {files};
events {{ worker_connections 4096; }}
http {{
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    default_type application/octet-stream;
    access_log {directory}/access.log;
    error_log {directory}/error.log;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_session_cache shared:tls:1m;
    upstream backend {{ server {backend}; keepalive 64; }}
    server {{
        listen {address}:{http_port};
        listen {address}:{https_port} ssl;
        {static}
        location {proxied} {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_max_temp_file_size 0;
        }}
        location /version {{ return 200 "nginx"; }}
    }}
}}
"""


def missing() -> str | None:
    """Return why there is none here, None when there is."""
    return None if _binary() else "no nginx on this machine (Debian's package nginx-light)"


def version() -> str:
    """Return what it calls itself."""
    said = subprocess.run([_binary() or "nginx", "-v"], capture_output=True, text=True, check=True).stderr
    return f"nginx {said.strip().rpartition('/')[2]}"


@contextlib.asynccontextmanager
async def running(
    directory: Path, *, address: str, workers: int, root: Path | None, backend: str, certificate: Path, key: Path
) -> AsyncIterator[Running]:
    """Run one with so many workers; below ``PROXIED`` is the ``backend`` (host and port), below ``STATIC`` the ``root``.

    Without a root ``STATIC`` is the backend's, too.

    Raises:
        Unavailable: it did not answer; with the end of its log.
    """
    directory.mkdir()
    http_port, https_port = free_port(address), free_port(address)
    text = _CONFIG.format(
        # As the account that may read the files; with its own it might not.
        user="user root;" if os.geteuid() == 0 else "",
        workers=workers, directory=directory, files=processes.descriptors(), certificate=certificate, key=key,
        backend=backend, address=address, http_port=http_port, https_port=https_port, proxied=PROXIED,
        static=f"location {STATIC} {{ alias {root}/; }}" if root is not None else "",
    )  # fmt: skip
    config, log = directory / "nginx.conf", directory / "log"
    write_atomically(config, text, mode=0o600)
    started = time.perf_counter()
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            _binary() or "nginx", "-e", "stderr", "-p", directory, "-c", config, "-g", "daemon off;",
            stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, env=clean_environment(),
        )  # fmt: skip
    try:
        await processes.answered(address, http_port, process, log)
        yield Running(process.pid, address, http_port, https_port, time.perf_counter() - started)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def _binary() -> str | None:
    return shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
