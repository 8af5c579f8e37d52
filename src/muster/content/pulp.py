"""Pulp's REST API, as far as yum content needs it: what is distributed, what repositories keep, and keepers changed.

Source: docs/facts/content-and-boot.md §3, §9.2.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from muster.content.backend import BadGateway, once
from muster.content.call import Program
from muster.kernel.errors import Denied, Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.files import read_bounded
from muster.kernel.names import shown
from muster.kernel.secrets import Secret

ROOT = "/pulp/api/v3/"
_DISTRIBUTIONS = f"{ROOT}distributions/rpm/rpm/"
_PUBLICATIONS = f"{ROOT}publications/rpm/rpm/"
_REPOSITORIES = f"{ROOT}repositories/rpm/rpm/"
_OF_DISTRIBUTIONS = (
    "pulp_href,name,base_path,repository,repository_version,publication,content_guard,pulp_labels,hidden,checkpoint"
)
_OF_PUBLICATIONS = "pulp_href,repository_version,pulp_created"
_OF_REPOSITORIES = "pulp_href,retain_repo_versions,retain_package_versions"
# What an answer names is asked for again, so it has to look like what Pulp makes.
_HREF = re.compile(r"/pulp/api/v3/[A-Za-z0-9_/-]{1,300}/\Z")
_QUERY = re.compile(r"[!-~]{1,8000}\Z")
_CORE = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})(?:[.a-z0-9]{0,40})\Z")
# Halves of characters, as JSON can bring them, and what does things to a terminal.
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_RETAINS_SINCE = (3, 109)
_ANSWER_BYTES = 8 << 20
_ASK_S = 10.0
_TASK_S = 30.0
_TASK_PAUSE_S = 0.2
_PAGE = 100
_PAGES = 100
# Of paths in one question; a request line has its limits.
_NAMED_BYTES = 3000
ENDED = frozenset({"completed", "failed", "canceled", "skipped"})
_USER = "admin"


@dataclass(frozen=True, slots=True)
class Distribution:
    """What the content application serves at a path.

    Attributes:
        repository, version, publication: what it leads to, empty: not to such a thing.
        guard: the content guard it asks, empty: nobody.
        hidden: whether lists leave it out; None: this Pulp knows nothing of that.
    """

    href: str
    name: str
    base_path: str
    repository: str
    version: str
    publication: str
    guard: str
    labels: Mapping[str, str]
    hidden: bool | None
    is_checkpoint: bool


@dataclass(frozen=True, slots=True)
class Repository:
    """What a repository keeps.

    Attributes:
        versions: how many versions of it; None: all.
        packages: how many builds of each package a version has; 0: all.
    """

    href: str
    versions: int | None
    packages: int


@dataclass(frozen=True, slots=True)
class Publication:
    """What is served of one version of a repository.

    Attributes:
        number: of the version.
        created: when it was made, as text that sorts.
    """

    href: str
    number: int
    created: str


def retains(core: tuple[int, int]) -> bool:
    """Whether such a pulpcore serves superseded publications for a while, unless it is told not to.

    Its API does not say whether it is (``DISTRIBUTED_PUBLICATION_RETENTION_PERIOD``); by default it is.
    """
    return core >= _RETAINS_SINCE


def password(file: Path | None) -> Secret | None:
    """Return the first line of a password file; None: there is none.

    Raises:
        Misconfigured: it cannot be read or is empty.
    """
    if file is None:
        return None
    lines = read_bounded(file, what="password file of Pulp", limit_bytes=4096).decode("utf-8", "replace").splitlines()
    if not lines or not lines[0].strip():
        raise Misconfigured(f"The password file of Pulp {file} is empty")
    return Secret(lines[0].strip())


class Pulp:
    """One Pulp's API, asked as its administrator. Safe for many tasks of one loop.

    Every method raises ``Unavailable`` or another :class:`~muster.kernel.errors.MusterError` of the backend when there is no
    answer, ``Denied`` when it does not take us for its administrator, ``Rejected`` when it refuses what was asked.
    """

    _remedy = "content: pulp_password_file"

    def __init__(self, backend: Program, secret: Secret | None = None, *, is_direct: bool = True) -> None:
        """``is_direct``: the backend is Pulp itself, which believes whoever is in the place of the installer's Apache."""
        self._backend = backend
        self._who: list[tuple[str, str]] = []
        if secret is not None:
            pair = base64.b64encode(f"{_USER}:{secret.reveal()}".encode()).decode()
            self._who = [("Authorization", f"Basic {pair}")]
        elif is_direct:
            self._who = [("Remote-User", _USER)]

    async def core(self) -> tuple[int, int]:
        """Return pulpcore's version."""
        said = mapping_of(await self._get(f"{ROOT}status/"), "status")
        for one in sequence_of(said.get("versions"), "versions"):
            known = mapping_of(one, "versions")
            if known.get("component") == "core":
                found = _CORE.match(text_of(known, "version"))
                if found is not None:
                    return int(found[1]), int(found[2])
        raise BadGateway(f"{self._backend.name} does not say which version it is")

    async def at(self, base_paths: Iterable[str]) -> list[Distribution]:
        """Return the yum distributions at these paths."""
        found: list[Distribution] = []
        for some in _in_parts(sorted(set(base_paths))):
            found += await self._distributions(base_path__in=",".join(some))
        return found

    async def labelled(self, label: str, value: str | None = None) -> list[Distribution]:
        """Return the yum distributions with a label, which has a value where one is given."""
        select = label if value is None else f"{label}={value}"
        # What they were asked for is asked of the answer, too.
        return [
            d for d in await self._distributions(pulp_label_select=select)
            if label in d.labels and (value is None or d.labels[label] == value)
        ]  # fmt: skip

    async def repositories(self) -> list[Repository]:
        """Return what each yum repository keeps."""
        return [_repository(one) for one in await self._all(_REPOSITORIES, {"fields": _OF_REPOSITORIES})]

    async def repository_of(self, publication: str) -> str:
        """Return the repository that a publication is of."""
        return _of_version(
            text_of(mapping_of(await self._get(href_of(publication)), "publication"), "repository_version")
        )

    async def publications(self, *, most: int, repository: str = "", version: str = "") -> list[Publication]:
        """Return the newest publications of a repository, or of one version of it, the oldest of them first."""
        of = {"repository": repository} if repository else {"repository_version": version}
        asked = {**of, "ordering": "-pulp_created", "limit": most, "fields": _OF_PUBLICATIONS}
        said = mapping_of(await self._get(f"{_PUBLICATIONS}?{urlencode(asked)}"), "list")
        found = [_publication(one) for one in sequence_of(said.get("results"), "results")[:most]]
        return sorted(found, key=lambda p: (p.number, p.created))

    async def make(self, content: Mapping[str, Any]) -> None:
        """Make a distribution.

        Raises:
            Rejected: Pulp does not take it, or its task failed.
        """
        await self._change("POST", _DISTRIBUTIONS, content)

    async def alter(self, href: str, content: Mapping[str, Any]) -> None:
        """Change fields of a distribution.

        Raises:
            Rejected: as :meth:`make`.
            NotFound: there is no such distribution.
        """
        await self._change("PATCH", href_of(href), content)

    async def remove(self, href: str) -> None:
        """Remove a distribution; one that is gone is no error."""
        try:
            await self._change("DELETE", href_of(href), None)
        except NotFound:
            return

    async def _distributions(self, **asked: str) -> list[Distribution]:
        found = await self._all(_DISTRIBUTIONS, {**asked, "fields": _OF_DISTRIBUTIONS})
        return [_distribution(one) for one in found]

    async def _all(self, path: str, asked: Mapping[str, str], *, page: int = _PAGE, pages: int = _PAGES) -> list[Any]:
        """Return every object of a list."""
        query, found, seen = urlencode({**asked, "limit": page}), list[Any](), set[str]()
        while len(seen) < pages:
            seen.add(query)
            said = mapping_of(await self._get(f"{path}?{query}"), "list")
            found += sequence_of(said.get("results"), "results")
            following = said.get("next")
            if following is None:
                return found
            # Where it leads is our matter: its host is what the request named.
            query = urlsplit(following).query if isinstance(following, str) else ""
            if not _QUERY.match(query) or query in seen:
                raise BadGateway(f"{self._backend.name} names no next page of {path}")
        raise BadGateway(f"{self._backend.name} lists more than {pages * page} objects at {path}")

    async def _get(self, path: str) -> Any:
        _, said = await self._asked("GET", path, None)
        return said

    async def _change(self, method: str, path: str, content: Mapping[str, Any] | None) -> None:
        status, said = await self._asked(method, path, content)
        if status != 202:
            return
        task = href_of(text_of(mapping_of(said, "task"), "task"))
        what = f"{self._backend.name}'s task for {method} {path}"
        try:
            async with asyncio.timeout(_TASK_S):
                while (state := text_of(now := mapping_of(await self._get(task), "task"), "state")) not in ENDED:
                    await asyncio.sleep(_TASK_PAUSE_S)
        except TimeoutError:
            raise Unavailable(f"{what} did not end within {_TASK_S:g} s; do its workers run?") from None
        if state != "completed":
            error = now.get("error")
            why = error.get("description") if isinstance(error, dict) else None
            raise Rejected(f"{what} {state}: {shown(str(why or 'it does not say why'))}")

    async def _asked(self, method: str, path: str, content: Mapping[str, Any] | None) -> tuple[int, Any]:
        target = f"{method} {path.partition('?')[0]}"
        sent = [("Accept", "application/json"), ("Accept-Encoding", "identity"), *self._who]
        body = json.dumps(content).encode() if content is not None else None
        if body is not None:
            sent.append(("Content-Type", "application/json"))
        try:
            async with asyncio.timeout(_ASK_S):
                length = None if body is None else len(body)
                answer = await self._backend.ask(method, path, sent, None if body is None else once(body), length)
                told = await answer.whole(_ANSWER_BYTES)
        except TimeoutError:
            raise Unavailable(f"{self._backend.name} did not answer {target} within {_ASK_S:g} s") from None
        if told is None:
            raise BadGateway(f"{answer.of} answers with more than {_ANSWER_BYTES >> 20} MiB")
        if 200 <= answer.status < 300:
            if not told:
                return answer.status, None
            try:
                return answer.status, json.loads(told)
            except (ValueError, RecursionError):
                raise BadGateway(f"{self._backend.name} answers {target} with no JSON") from None
        why = f"{self._backend.name} answers {answer.status} to {target}"
        if answer.status in (401, 403):
            raise Denied(f"{why}: who asks is not its administrator there ({self._remedy})")
        kinds: Mapping[int, type[MusterError]] = {400: Rejected, 404: NotFound, 405: Rejected, 409: Rejected}
        kind = kinds.get(answer.status, Unavailable)
        raise kind(f"{why}: {shown(told.decode('utf-8', 'replace').strip())}" if kind is Rejected else why)


def _in_parts(base_paths: Iterable[str]) -> list[list[str]]:
    """Return paths in parts that fit into a question each; what a list cannot hold is nowhere."""
    parts: list[list[str]] = []
    room = 0
    for one in base_paths:
        if "," in one:
            continue
        size = len(urlencode({"": one}))
        if not parts or size > room:
            parts.append([])
            room = _NAMED_BYTES
        parts[-1].append(one)
        room -= size
    return parts


def _distribution(said: Any) -> Distribution:
    one = mapping_of(said, "distribution")
    labels = one.get("pulp_labels")
    hidden = one.get("hidden")
    return Distribution(
        href_of(text_of(one, "pulp_href")),
        text_of(one, "name"),
        text_of(one, "base_path"),
        _href_or_none(one, "repository"),
        _href_or_none(one, "repository_version"),
        _href_or_none(one, "publication"),
        _href_or_none(one, "content_guard"),
        {str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {},
        hidden if isinstance(hidden, bool) else None,
        one.get("checkpoint") is True,
    )


def _repository(said: Any) -> Repository:
    one = mapping_of(said, "repository")
    versions, packages = one.get("retain_repo_versions"), one.get("retain_package_versions")
    return Repository(
        href_of(text_of(one, "pulp_href")),
        versions if isinstance(versions, int) and versions > 0 else None,
        packages if isinstance(packages, int) and packages > 0 else 0,
    )


def _of_version(href: str) -> str:
    """Return the repository that a version is of."""
    return f"{href_of(href).partition('/versions/')[0].rstrip('/')}/"


def _publication(said: Any) -> Publication:
    one = mapping_of(said, "publication")
    number = href_of(text_of(one, "repository_version")).rstrip("/").rpartition("/")[2]
    if not number.isascii() or not number.isdigit() or len(number) > 12:
        raise BadGateway("Pulp's API names a version without a number")
    return Publication(href_of(text_of(one, "pulp_href")), int(number), text_of(one, "pulp_created"))


def mapping_of(said: Any, what: str) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise BadGateway(f"Pulp's API answers with no {what}")
    return said


def sequence_of(said: Any, what: str) -> Sequence[Any]:
    if not isinstance(said, list):
        raise BadGateway(f"Pulp's API answers without {what}")
    return said


def text_of(said: Mapping[str, Any], name: str) -> str:
    found = said.get(name)
    if not isinstance(found, str) or len(found) > 4096 or _NO_TEXT.search(found):
        raise BadGateway(f"Pulp's API answers without {name}")
    return found


def href_of(found: str) -> str:
    if not _HREF.match(found):
        raise BadGateway(f"Pulp's API names {shown(found)}, which is no object of it")
    return found


def _href_or_none(said: Mapping[str, Any], name: str) -> str:
    found = said.get(name)
    return href_of(found) if isinstance(found, str) and found else ""
