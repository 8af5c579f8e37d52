"""The recorded conversations: found, read, and turned back into the bytes that were sent."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.servers.bind import Zone

FILES = ("root", "auth", "logs", "dns")
_BOUNDARY = "------------------------7f0d3b2a9c"


def directory(software: str = "smart-proxy") -> Path:
    """Return where the recordings of a software lie: in ``shared/`` beside the clone, or below MUSTER_SHARED."""
    beside = Path(__file__).resolve().parents[2].parent / "shared"
    return Path(os.environ.get("MUSTER_SHARED", beside)) / "golden" / software


def missing(software: str = "smart-proxy") -> str | None:
    """Return why the recordings cannot be played, or None when they can."""
    return None if directory(software).is_dir() else f"no recordings in {directory(software)}; set MUSTER_SHARED"


def lines(name: str) -> list[dict[str, Any]]:
    """Return a file's lines, in order; empty when there are no recordings."""
    path = directory() / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


@dataclass(frozen=True)
class Effect:
    """What a question to the DNS server brings after a call."""

    name: str
    type: str
    answer: tuple[str, ...]


@dataclass(frozen=True)
class Exchange:
    """One recorded call with its answer; ``line`` is the record as it stands in the file."""

    file: str
    line: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, int]:
        return self.file, self.line["seq"]

    @property
    def id(self) -> str:
        return f"{self.file}-{self.line['seq']}"

    @property
    def method(self) -> str:
        return str(self.line["method"])

    @property
    def over_tls(self) -> bool:
        return str(self.line["scheme"]) == "https"

    @property
    def client(self) -> str | None:
        """Return the kind of client certificate; a pair in one file is said in the note alone."""
        together = self.line["note"] == "cert+key in one PEM"
        return "foreman" if together else self.line["client_cert"]

    @property
    def effects(self) -> tuple[Effect, ...]:
        given = self.line.get("effects") or []
        found = []
        for one in [given] if isinstance(given, dict) else given:
            name, kind = one["dig"].split()
            found.append(Effect(name, kind, tuple(one["answer"])))
        return tuple(found)

    def raw(self, path: str | None = None) -> bytes:
        """Return the request as curl sent it, its path untouched."""
        body, content_type = self._body()
        headers: dict[str, str | None] = {
            "Host": "proxy.example.com:18443",
            "User-Agent": "curl/7.88.1",
            "Accept": "*/*",
        }
        if content_type is not None:
            headers |= {"Content-Length": str(len(body)), "Content-Type": content_type}
        headers |= self.line["request_headers"]
        version = "1.0" if self.line["note"] == "HTTP/1.0" else "1.1"
        target = path or self.line["path"] or "/"
        head = [f"{self.method} {target} HTTP/{version}", *(f"{k}: {v}" for k, v in headers.items() if v is not None)]
        return "\r\n".join([*head, "", ""]).encode("utf-8") + body

    def _body(self) -> tuple[bytes, str | None]:
        form, multipart = self.line.get("form"), self.line.get("multipart")
        if multipart is not None:
            return _multipart(multipart), f"multipart/form-data; boundary={_BOUNDARY}"
        if self.line.get("json") is not None:
            return json.dumps(self.line["json"]).encode(), "application/json"
        if form is None:
            return b"", None
        text = form if isinstance(form, str) else "&".join(f"{k}={quote(v, safe='')}" for k, v in form.items())
        return text.encode(), self.line.get("content_type_sent") or "application/x-www-form-urlencoded"


def _multipart(fields: Mapping[str, str]) -> bytes:
    parts = [f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    return "".join([*parts, f"--{_BOUNDARY}--\r\n"]).encode()


def exchanges() -> list[Exchange]:
    """Return every exchange this member is to answer, in the order in which they are played."""
    return [Exchange(name, line) for name in FILES for line in lines(name)]


def zones() -> Sequence[Zone]:
    """Return the lab's zones; the one named readonly may not be changed."""
    return [_zone(path.read_text("utf-8")) for path in sorted((directory() / "environment").glob("*.db"))]


def _zone(text: str) -> Zone:
    records = [line for line in text.splitlines() if line and not line.startswith("$TTL")]
    soa = next(line for line in records if " SOA " in line)
    name = soa.split()[0].removesuffix(".")
    return Zone(name, [r for r in records if " SOA " not in r and " NS " not in r], not name.startswith("readonly"))
