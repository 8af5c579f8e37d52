"""Debian's docker-registry on a loopback address, everything it writes below one directory: where images come from."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

from muster.cli.demo.bind import free_port
from muster.kernel.process import clean_environment
from tests.servers.clients import Identity

_START_S = 30.0


@dataclass(frozen=True)
class Registry:
    """A running registry that takes pushes from everybody."""

    address: str
    port: int
    directory: Path

    @property
    def place(self) -> str:
        return f"{self.address}:{self.port}"


@contextlib.contextmanager
def running(
    directory: Path, *, address: str = "127.0.0.68", port: int | None = None, tls: Identity | None = None
) -> Iterator[Registry]:
    """Hold a registry running; ask ``needs("registry")`` first.

    Args:
        directory: what it writes lies below.
        address: on loopback.
        port: a free one when absent.
        tls: its certificate, and the CA of those it asks of its clients; None: plain HTTP.
    """
    registry = Registry(address, port or free_port(address), directory)
    encrypted = {"certificate": str(tls.certificate), "key": str(tls.key), "clientcas": [str(tls.ca)]} if tls else {}
    settings = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "registry")}, "delete": {"enabled": True}},
        "http": {"addr": registry.place, **({"tls": encrypted} if tls else {})},
    }
    # Its settings are YAML, of which JSON is a part.
    (directory / "registry.yml").write_text(json.dumps(settings))
    with (directory / "registry.log").open("ab") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", directory / "registry.yml"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env=clean_environment(), start_new_session=True,
        )  # fmt: skip
    try:
        limit = time.monotonic() + _START_S
        while not _answers(registry, tls):
            said = (directory / "registry.log").read_text("utf-8", "replace")
            assert process.poll() is None, f"docker-registry ended: {said}"
            assert time.monotonic() < limit, f"docker-registry did not start within {_START_S:g} s: {said}"
            time.sleep(0.05)
        yield registry
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _answers(registry: Registry, tls: Identity | None) -> bool:
    place: HTTPConnection = HTTPConnection(registry.address, registry.port, timeout=5)
    if tls is not None:
        context = ssl.create_default_context(cafile=str(tls.ca))
        assert tls.certificate is not None
        context.load_cert_chain(tls.certificate, tls.key)
        place = HTTPSConnection(registry.address, registry.port, timeout=5, context=context)
    with contextlib.suppress(OSError), contextlib.closing(place) as connection:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 200
    return False
