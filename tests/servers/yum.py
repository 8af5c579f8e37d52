"""A quick client with dnf's habits: each file on a connection of its own, asked for up to four times, and verified.

It shows in a second what dnf needs several for; that dnf has these habits, tests with dnf beside it show.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import socket
import ssl
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException

from tests.servers.client import PATIENCE_S, Place
from tests.servers.member import CLUSTER_ADDRESS

_REPO = "{http://linux.duke.edu/metadata/repo}"
_COMMON = "{http://linux.duke.edu/metadata/common}"
_TRIES = 4


class Broken(Exception):
    """A file did not come in four tries; the text says what came."""


@dataclass(frozen=True)
class Metadata:
    """What a client has in its hand.

    Attributes:
        named: the other files of the version: size and digest.
        signature: None: it did not ask for one.
    """

    revision: int
    repomd: bytes
    named: Mapping[str, tuple[int, str]]
    signature: bytes | None


@dataclass
class Yum:
    """A client of one repository.

    Attributes:
        path: the repository's, with a slash at its end.
        wrong: files that came whole and with other bytes, in the order in which that was seen.
    """

    place: Place
    path: str
    tls: ssl.SSLContext | None = None
    wrong: list[str] = field(default_factory=list)

    def repomd(self, *, signed: bool = False) -> Metadata:
        """Fetch ``repomd.xml``, and its signature.

        Raises:
            Broken: one of them did not come.
        """
        body = self._fetched("repodata/repomd.xml", lambda _: True)
        signature = self._fetched("repodata/repomd.xml.asc", lambda _: True) if signed else None
        root = ET.fromstring(body)  # noqa: S314 — what a test wrote itself
        named = {}
        for data in root.iter(f"{_REPO}data"):
            location, checksum = data.find(f"{_REPO}location"), data.findtext(f"{_REPO}checksum")
            assert location is not None
            assert checksum is not None
            named[location.get("href", "")] = (int(data.findtext(f"{_REPO}size") or 0), checksum)
        return Metadata(int(root.findtext(f"{_REPO}revision") or 0), body, named, signature)

    def packages(self, metadata: Metadata) -> dict[str, tuple[int, str]]:
        """Fetch all that ``repomd.xml`` names; return the packages that it names: size and digest.

        Raises:
            Broken: one of them did not come.
        """
        found = {}
        for name in sorted(metadata.named, reverse=True):
            body = self.fetched(name, metadata.named[name])
            if name.endswith("-primary.xml.gz"):
                for one in ET.fromstring(gzip.decompress(body)).iter(f"{_COMMON}package"):  # noqa: S314 — as above
                    location, size = one.find(f"{_COMMON}location"), one.find(f"{_COMMON}size")
                    assert location is not None
                    assert size is not None
                    digest = one.findtext(f"{_COMMON}checksum") or ""
                    found[location.get("href", "")] = (int(size.get("package", 0)), digest)
        return found

    def fetched(self, name: str, expected: tuple[int, str]) -> bytes:
        """Fetch a file of which size and digest are known.

        Raises:
            Broken: it did not come with these.
        """

        def is_it(body: bytes) -> bool:
            return (len(body), hashlib.sha256(body).hexdigest()) == expected

        return self._fetched(name, is_it)

    def _fetched(self, name: str, is_it: Callable[[bytes], bool]) -> bytes:
        said = []
        for _ in range(_TRIES):
            try:
                status, body = self._asked(name)
            except (OSError, HTTPException) as e:
                said.append(repr(e))
                continue
            if status != 200:
                said.append(f"{status} {body[:200].decode('utf-8', 'replace')}")
            elif is_it(body):
                return body
            else:
                said.append("other bytes")
                self.wrong.append(name)
        raise Broken(f"{name}: {'; '.join(said)}")

    def _asked(self, name: str) -> tuple[int, bytes]:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(socket.create_connection(self.place, PATIENCE_S))
            if self.tls is not None:
                raw = stack.enter_context(self.tls.wrap_socket(raw, server_hostname=CLUSTER_ADDRESS))
            connection = HTTPConnection(CLUSTER_ADDRESS)
            connection.sock = raw
            connection.request("GET", self.path + name, headers={"Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read()
