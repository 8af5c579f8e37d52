"""A small cluster's backup, made in this process, and the same entries in any order, as anybody could encrypt them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml

from muster.app.backup import entries, made
from muster.app.backup.files import collected
from muster.kernel.secrets import Secret
from muster.pki import bundles
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest
from muster.store.engine import opened as store_opened

Entries = list[tuple[str, bytes]]


@dataclass
class World:
    """A host with a cluster on it."""

    directory: Path
    identity: Path
    recipient: Any
    key: Any

    @property
    def cluster_file(self) -> Path:
        return self.directory / "old" / "cluster.yaml"

    @property
    def pki(self) -> Path:
        return self.cluster_file.parent / "pki"

    def wanted(self) -> made.Wanted:
        return made.Wanted(collected(self.cluster_file, self.pki), self.cluster_file, self.pki, "host.example.net")

    async def backed_up(self) -> Path:
        at = self.directory / "muster.age"
        async with store_opened(Secret(self.url)) as store:
            await store.prepare()
            with made.to_file(at, force=True) as out:
                await made.write(store, self.wanted(), out, [self.recipient])
        return at

    @property
    def url(self) -> str:
        return f"sqlite:///{self.directory}/old.db"

    def entries_of(self, at: Path) -> Entries:
        stream = io.BytesIO(pyrage.decrypt(at.read_bytes(), [self.key]))
        return [(e.name, e.content(1 << 20)) for e in entries.entries(stream, "it")]

    def crafted(self, some: Iterable[tuple[str, bytes]], *, summed: bool = True, end: bytes = bytes(1024)) -> Path:
        """Write an archive as somebody else could who knows the recipient; ``summed`` with sums that fit."""
        out = io.BytesIO()
        kept = list(some)
        if summed:
            kept = self.with_sums(kept)
        for name, content in kept:
            out.write(entries.header(name, len(content), 0) + content + bytes(-len(content) % 512))
        out.write(end)
        return self.sealed(out.getvalue())

    def sealed(self, content: bytes) -> Path:
        at = self.directory / "crafted.age"
        at.write_bytes(pyrage.encrypt(content, [self.recipient]))
        return at

    @staticmethod
    def with_sums(some: Entries) -> Entries:
        sums = json.loads(dict(some)["SUMS.json"])
        before = [(n, c) for n, c in some if n != "SUMS.json"]
        sums["entries"] = {n: {"size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in before}
        return [*before, ("SUMS.json", json.dumps(sums).encode())]


def cluster_text(directory: Path, **more: Any) -> str:
    content = {
        "schema": 1,
        "cluster": "small",
        "address": "proxy.example.net",
        "store": {"url": f"sqlite:///{directory}/old.db"},
        "members": [{"id": 1, "name": "proxy01.example.net", "address": "127.0.0.1"}],
        **more,
    }
    return "# Ask Anna.\n" + yaml.safe_dump(content)


@pytest.fixture
def world(tmp_path: Path) -> World:
    key = pyrage.x25519.Identity.generate()
    identity = tmp_path / "identity.txt"
    identity.write_text(f"# created: today\n{key}\n")
    found = World(tmp_path, identity, key.to_public(), key)
    found.pki.mkdir(parents=True)
    found.cluster_file.write_text(cluster_text(tmp_path))
    now = datetime.now(UTC)
    ca = ClusterCA.create(found.pki, "small", now=now)
    for request in (BundleRequest("member", "proxy01.example.net"), BundleRequest("balancer", "balancer")):
        bundles.write(ca.issue(request, now=now), found.pki)
    return found


@pytest.fixture
def changed() -> Callable[[Entries, str, Callable[[Any], None]], Entries]:
    """Return what changes an entry that is JSON."""

    def change(some: Entries, name: str, how: Callable[[Any], None]) -> Entries:
        out = []
        for entry, content in some:
            said = json.loads(content) if entry == name else None
            if entry == name:
                how(said)
            out.append((entry, json.dumps(said).encode() if entry == name else content))
        return out

    return change
