"""Images of registries that are mirrored, as container clients fetch them: ``/v2/muster/ENVIRONMENT/NAME``.

All of it is of the version that all members show. Whatever changes something is refused. Referrers are not told: on 404
clients look at a tag for them, which is mirrored as others are.

Source: the OCI distribution specification 1.1.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import ClassVar
from urllib.parse import parse_qs, unquote

from muster.cluster.mirror import Mirror
from muster.content import conditions, registry
from muster.content.call import Call
from muster.content.manifest import TAGS, Manifest
from muster.content.metadata.image import TAG, Tags
from muster.content.mirror import paths
from muster.content.repositories import Repositories
from muster.content.validators import Digest
from muster.edge.replies import Header, Reply, Streamed, reply
from muster.edge.request import Request
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.names import shown

_OURS = re.compile(r"/v2/muster/(?P<environment>[a-z0-9._-]+)/(?P<name>[a-z0-9._-]+)/(?P<below>.+)\Z")
_MANIFEST = re.compile(r"manifests/(?P<reference>[^/]+)\Z")
_BLOB = re.compile(r"blobs/(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")
_NUMBER = re.compile(r"[0-9]{1,9}\Z")
_VERSION: Header = (b"docker-distribution-api-version", b"registry/2.0")
_DIGEST_HEADER = b"docker-content-digest"
_READING = ("GET", "HEAD")
_FIELDS = 20
# So many manifests of versions that were asked for last, 25 MB of them, and the last version anyway.
_REMEMBERED = 100_000


class Images:
    """What answers for them in one process. Concurrency: one loop, any number of calls.

    Args:
        names: the repositories of the kind container.
        environments: in which they are.
    """

    PREFIX: ClassVar = "/v2"

    def __init__(self, names: Collection[str], environments: Collection[str]) -> None:
        self._names, self._environments = frozenset(names), frozenset(environments)
        # By the digest of what was read.
        self._tags: OrderedDict[str, Tags] = OrderedDict()
        self._remembered = 0

    @classmethod
    def of(cls, settings: Mirror) -> Images | None:
        """Return what answers what is mirrored of registries; None: nothing is."""
        names = [name for name, one in settings.repositories.items() if one.kind == "container"]
        return cls(names, settings.environments) if names else None

    async def answer(
        self, repositories: Repositories, call: Call, path: str, request: Request, *, is_alone: bool
    ) -> Reply | Streamed | None:
        """Answer a call below ``/v2``; None: it is of something else. ``is_alone``: there is no registry for that.

        Raises:
            Unavailable: what is wanted cannot be had now.
        """
        below, _, query = path.partition("?")
        ours = _OURS.match(below)
        if ours is not None and ours["name"] in self._names and ours["environment"] in self._environments:
            if request.method not in _READING:
                refused = "what is mirrored is changed at its origin: nothing is pushed or deleted here"
                return _versioned(registry.error(405, "UNSUPPORTED", refused, (b"allow", b"GET, HEAD")))
            asked = _Asked(repositories, call, request, ours["environment"], ours["name"])
            async with request.while_waited_for():
                return _versioned(await self._below(asked, unquote(ours["below"]), query))
        if not is_alone:
            return None
        if below in (self.PREFIX, f"{self.PREFIX}/"):
            return _versioned(reply(200, b"{}", b"application/json"))
        return _versioned(_unknown("there is no such repository here"))

    async def _below(self, asked: _Asked, below: str, query: str) -> Reply | Streamed:
        if _BLOB.match(below) is not None:
            return await _blob(asked, below)
        found = _MANIFEST.match(below)
        if found is None and below != "tags/list":
            return registry.error(404, "UNSUPPORTED", f"{shown(below, 100)} is nothing that is answered here")
        version = await asked.repositories.version(asked.at, asked.call)
        if version is None:
            return _unknown(f"nothing of {asked.called} is published")
        if found is None:
            return _listed(asked, await self._named(version, asked), query)
        return await self._manifest(asked, version, found["reference"])

    async def _manifest(self, asked: _Asked, version: Manifest, reference: str) -> Reply:
        tags = await self._named(version, asked)
        is_tag = TAG.match(reference) is not None
        digest = tags.tags.get(reference, "") if is_tag else reference.removeprefix("sha256:")
        if not is_tag and digest not in tags.manifests:
            # An image is fetched by many questions, between which there may be a newer version.
            for one in await asked.repositories.versions_here(asked.at):
                if f"manifests/{reference}" in one.files:
                    tags = await self._named(one, asked)
                    break
        known = tags.manifests.get(digest)
        if known is None:
            what = f"tag {reference}" if is_tag else f"manifest {shown(reference, 80)}"
            return registry.error(404, "MANIFEST_UNKNOWN", f"there is no {what} in what is mirrored of {asked.called}")
        body = await asked.repositories.small(digest, asked.call)
        asked.request.hold(len(body))
        passed = [(b"content-type", known[0].encode()), (_DIGEST_HEADER, f"sha256:{digest}".encode())]
        if is_tag:
            passed.append((b"cache-control", b"no-cache"))
        return conditions.answered(body, asked.request, Digest("sha256", digest), passed)

    async def _named(self, version: Manifest, asked: _Asked) -> Tags:
        digest = version.files[TAGS]
        if digest not in self._tags:
            body = await asked.repositories.small(digest, asked.call)
            if digest not in self._tags:
                self._tags[digest] = Tags.read(body)
                self._remembered += len(self._tags[digest].manifests)
        self._tags.move_to_end(digest)
        found = self._tags[digest]
        while self._remembered > _REMEMBERED and len(self._tags) > 1:
            self._remembered -= len(self._tags.popitem(last=False)[1].manifests)
        return found


@dataclass(frozen=True)
class _Asked:
    """One call for something of a repository in an environment."""

    repositories: Repositories
    call: Call
    request: Request
    environment: str
    name: str

    @property
    def at(self) -> str:
        """Where it is followed."""
        return paths.at(self.environment, "container", self.name, "")

    @property
    def called(self) -> str:
        """What clients call it."""
        return f"muster/{self.environment}/{self.name}"


async def _blob(asked: _Asked, below: str) -> Reply | Streamed:
    try:
        found = await asked.repositories.package(asked.at, below, asked.call, asked.request)
    except Unavailable:
        raise
    except MusterError as e:
        return registry.error(e.status, "UNKNOWN", str(e))
    if found is None or found.status == 404:
        if isinstance(found, Streamed):
            found.end()
        unknown = f"no manifest that is mirrored of {asked.called} names this blob, or its origin has lost it"
        return registry.error(404, "BLOB_UNKNOWN", unknown)
    said_of_it: Header = (_DIGEST_HEADER, below.removeprefix("blobs/").encode())
    return _with(found, said_of_it) if found.status in (200, 206) else found


def _listed(asked: _Asked, tags: Tags, query: str) -> Reply:
    try:
        wanted = parse_qs(query, keep_blank_values=True, max_num_fields=_FIELDS)
    except ValueError:
        return registry.error(400, "UNSUPPORTED", f"more than {_FIELDS} parameters")
    most, last = wanted.get("n", [""])[0], wanted.get("last", [""])[0]
    if "n" in wanted and not _NUMBER.match(most):
        return registry.error(400, "PAGINATION_NUMBER_INVALID", "n is how many tags are wanted")
    left = sorted(tag for tag in tags.tags if tag > last)
    page = left[: int(most)] if most else left
    body = json.dumps({"name": asked.called, "tags": page}).encode()
    more: list[Header] = []
    if page and len(page) < len(left):
        following = f"{Images.PREFIX}/{asked.called}/tags/list?n={len(page)}&last={page[-1]}"
        more.append((b"link", f'<{following}>; rel="next"'.encode()))
    return reply(200, body, b"application/json", *more)


def _unknown(why: str) -> Reply:
    return registry.error(404, "NAME_UNKNOWN", why)


def _versioned(found: Reply | Streamed) -> Reply | Streamed:
    return _with(found, _VERSION)


def _with(found: Reply | Streamed, header: Header) -> Reply | Streamed:
    said = [*found.headers, header]
    return found._replace(headers=said) if isinstance(found, Reply) else replace(found, headers=said)
