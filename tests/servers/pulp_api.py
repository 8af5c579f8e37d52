"""A Pulp asked over HTTP: its REST interface, tasks awaited, and the repositories a test makes with it."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

Kind = Literal["rpm", "file", "deb", "container"]
Policy = Literal["immediate", "on_demand", "streamed"]

_PATHS: Mapping[Kind, str] = {
    "rpm": "rpm/rpm",
    "file": "file/file",
    "deb": "deb/apt",
    "container": "container/container",
}
_CONTENT: Mapping[Kind, str] = {"rpm": "rpm/packages", "file": "file/files", "deb": "deb/packages"}
_TASK_S = 120.0


class Refused(Exception):
    """Pulp answered with an error, or a task failed; the text says which."""

    def __init__(self, what: str, status: int, text: str) -> None:
        super().__init__(f"{what}: {status} {text[:2000]}")
        self.status = status


@dataclass(frozen=True)
class Reply:
    """What came back; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Api:
    """One listener of Pulp's, asked on a connection for each call."""

    USER, PASSWORD = "admin", "not-for-messages"

    def __init__(self, address: str, port: int, *, base: str = "/pulp/api/v3/") -> None:
        self.address, self.port, self.base = address, port, base

    def reply(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Make one call, whatever comes back; a path that begins with a slash is taken as it is."""
        pair = base64.b64encode(f"{self.USER}:{self.PASSWORD}".encode()).decode()
        # The content app takes no account of its own; without a guard it would ignore one.
        own = {"Authorization": f"Basic {pair}"} if "/api/" in self.base else {}
        with contextlib.closing(HTTPConnection(self.address, self.port, timeout=60)) as connection:
            where = path if path.startswith("/") else self.base + path
            connection.request(method, where, body, {**own, **(headers or {})})
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def read(self, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        """Return the body of a 200.

        Raises:
            Refused: another status.
        """
        reply = self.reply("GET", path, headers=headers)
        if reply.status != 200:
            raise Refused(f"GET {path}", reply.status, reply.body.decode("utf-8", "replace"))
        return reply.body

    def get(self, path: str, **query: str | int) -> Any:
        """Return what the path describes."""
        return json.loads(self.read(f"{path}?{urlencode(query)}" if query else path))

    def all(self, path: str, **query: str | int) -> list[Any]:
        """Return every object of a list, to a thousand of them."""
        found = self.get(path, limit=1000, **query)
        assert found["count"] <= 1000
        return list(found["results"])

    def send(self, method: str, path: str, content: Mapping[str, Any] | None = None) -> Any:
        """Change something; return what was made, or None where nothing is said of it. A task is waited for.

        Raises:
            Refused: it was not taken, or its task failed.
        """
        return self._done(method, path, json.dumps(content or {}).encode(), {"Content-Type": "application/json"})

    def upload(self, path: str, file: bytes, name: str, **fields: str) -> Any:
        """As :meth:`send`, with a file and form fields.

        Raises:
            Refused: as there.
        """
        boundary = secrets.token_hex(16)
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode()
            for k, v in fields.items()
        ]
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        body = b"".join([*parts, head.encode(), b"\r\n", file, f"\r\n--{boundary}--\r\n".encode()])
        return self._done("POST", path, body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})

    def _done(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Any:
        reply = self.reply(method, path, body, headers)
        if reply.status >= 300:
            raise Refused(f"{method} {path}", reply.status, reply.body.decode("utf-8", "replace"))
        said: Any = json.loads(reply.body) if reply.body else None
        if reply.status != 202:
            return said
        return self.task(said["task"])["created_resources"]

    def task(self, href: str) -> Any:
        """Return a task when it has ended well.

        Raises:
            Refused: it failed or was cancelled.
        """
        limit = time.monotonic() + _TASK_S
        while (task := self.get(href))["state"] not in ("completed", "failed", "canceled", "skipped"):
            assert time.monotonic() < limit, f"{task['name']} still {task['state']} after {_TASK_S:g} s"
            time.sleep(0.1)
        if task["state"] != "completed":
            raise Refused(task["name"], 0, json.dumps(task["error"]))
        return task


@dataclass(frozen=True)
class Repository:
    """A repository with its distribution, in one Pulp.

    Attributes:
        base_path: of the distribution, which is where the content app serves it.
        remote: where it is synced from; none where a test fills it by hand.
    """

    api: Api
    kind: Kind
    href: str
    distribution: str
    base_path: str
    remote: str | None = None

    def sync_from(self, url: str, *, policy: Policy = "immediate", **more: Any) -> Repository:
        """Sync what the URL has now; ``more`` are fields of the remote. Return the repository with its remote."""
        name = f"{self.base_path.replace('/', '-')}"
        if self.remote is None:
            made = self.api.send(
                "POST", f"remotes/{_PATHS[self.kind]}/", {"name": name, "url": url, "policy": policy, **more}
            )
            synced = replace(self, remote=made["pulp_href"])
        else:
            self.api.send("PATCH", self.remote, {"url": url, "policy": policy, **more})
            synced = self
        synced.sync()
        return synced

    def sync(self) -> int:
        """Sync again; return the newest version's number. A yum repository is mirrored whole, metadata included."""
        how = {"sync_policy": "mirror_complete"} if self.kind == "rpm" else {"mirror": True}
        self.api.send("POST", f"{self.href}sync/", {"remote": self.remote, **how})
        return self.version

    @property
    def version(self) -> int:
        """The newest version's number."""
        return int(self.api.get(self.href)["latest_version_href"].rstrip("/").rpartition("/")[2])

    def add(self, *files: Path) -> None:
        """Upload files and make one version with them; packages, or with another kind plain files."""
        hrefs = []
        for file in files:
            named = {"relative_path": file.name} if self.kind == "file" else {}
            # A yum repository's newest version is made by the task only where it is told the repository.
            hrefs += self.api.upload(f"content/{_CONTENT[self.kind]}/", file.read_bytes(), file.name, **named)
        self.modify(add=hrefs)

    def modify(self, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> None:
        """Make a version from the one before."""
        self.api.send(
            "POST", f"{self.href}modify/", {"add_content_units": list(add), "remove_content_units": list(remove)}
        )

    def packages(self) -> dict[str, str]:
        """Return what the newest version has, by the path it is published under: where the API has it."""
        version = self.api.get(self.href)["latest_version_href"]
        found = self.api.all(f"content/{_CONTENT[self.kind]}/", repository_version=version)
        key = "location_href" if self.kind == "rpm" else "relative_path"
        return {one[key]: one["pulp_href"] for one in found}

    def publish(self, **more: Any) -> str:
        """Let Pulp make metadata of its own for the newest version; return the publication."""
        made = self.api.send("POST", f"publications/{_PATHS[self.kind]}/", {"repository": self.href, **more})
        return str(made[0])

    def publish_verbatim(self) -> str:
        """Publish a deb repository's newest version with the metadata it was synced with."""
        made = self.api.send("POST", "publications/deb/verbatim/", {"repository": self.href})
        return str(made[0])

    def publications(self) -> list[str]:
        """Return them, the newest first."""
        found = self.api.all(f"publications/{_PATHS[self.kind]}/", repository=self.href)
        return [one["pulp_href"] for one in sorted(found, key=lambda one: str(one["pulp_created"]), reverse=True)]

    def show(self, publication: str | None) -> None:
        """Let the distribution lead to one publication; None: to the newest, whichever that is at any time."""
        leads = {"publication": publication, "repository": None if publication else self.href}
        self.api.send("PATCH", self.distribution, leads)

    def guard(self, guard: str | None) -> None:
        """Let the distribution ask a content guard, or nobody."""
        self.api.send("PATCH", self.distribution, {"content_guard": guard})


def repository(api: Api, kind: Kind, base_path: str, *, retain_versions: int | None = None, **more: Any) -> Repository:
    """Make an empty repository and a distribution of its newest content; ``more`` are fields of the repository."""
    name = base_path.replace("/", "-")
    made = api.send(
        "POST", f"repositories/{_PATHS[kind]}/", {"name": name, "retain_repo_versions": retain_versions, **more}
    )
    path = f"distributions/{_PATHS[kind]}/"
    distribution = api.send("POST", path, {"name": name, "base_path": base_path, "repository": made["pulp_href"]})
    return Repository(api, kind, made["pulp_href"], distribution[0], base_path)


def certificate_guard(api: Api, name: str, ca_pem: str) -> str:
    """Make a content guard that wants a certificate of this CA in ``X-CLIENT-CERT``."""
    made = api.send("POST", "contentguards/certguard/x509/", {"name": name, "ca_certificate": ca_pem})
    return str(made["pulp_href"])


def header_guard(api: Api, name: str, header: str, value: str) -> str:
    """Make a content guard that wants a header with this value."""
    made = api.send("POST", "contentguards/core/header/", {"name": name, "header_name": header, "header_value": value})
    return str(made["pulp_href"])
