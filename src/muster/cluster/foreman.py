"""The cluster's Foreman: how its API is asked, and what it last said of its version, which the members share."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster.cluster.file import ClusterFile
from muster.foreman.version import parsed
from muster.kernel.errors import Conflict, Misconfigured
from muster.kernel.files import read_bounded
from muster.kernel.secrets import Secret
from muster.store.reading import Query, Reading

if TYPE_CHECKING:
    from muster.foreman.api import ForemanAPI, Login
    from muster.store.engine import Store

DOCUMENT = "foreman/version"
HEARD = Query("SELECT content, changed_by FROM documents WHERE name = :name", json=("content",))
_TRIES = 5
_TOKEN_BYTES = 4096
# What a header may hold; Foreman's own tokens are 22 letters and digits.
_LONGEST_TOKEN = 1000


@dataclass(frozen=True)
class Heard:
    """What Foreman said of its version.

    Attributes:
        version: ``x.y.z``.
        at: when it was asked, in store time.
        by: the member that asked.
    """

    version: str
    at: float
    by: str

    @classmethod
    def read(cls, rows: list[dict[str, Any]]) -> Heard | None:
        """Return what a :data:`HEARD` found; None: nothing was ever heard, or nothing that this Muster understands."""
        content = rows[0]["content"] if rows else None
        if not isinstance(content, Mapping):
            return None
        version, at = parsed(content.get("version")), content.get("heard_at")
        if version is None or not isinstance(at, int | float):
            return None
        return cls(version, float(at), str(rows[0]["changed_by"]))


async def heard_in(uow: Reading) -> Heard | None:
    """Return what was heard last, within a unit that reads more."""
    return Heard.read(await uow.rows(HEARD, name=DOCUMENT))


async def keep(store: Store, version: str, *, age_s: float, by: str) -> Heard:
    """Keep what was heard for an answer to a question of ``age_s`` ago, and return what counts: the latest that was asked.

    Raises:
        Unavailable: the store did not answer.
        Conflict: others wrote at the same moment, again and again; nothing was changed.
    """
    for _ in range(_TRIES - 1):
        with contextlib.suppress(Conflict):
            return await _kept(store, version, age_s, by)
    return await _kept(store, version, age_s, by)


async def _kept(store: Store, version: str, age_s: float, by: str) -> Heard:
    from muster.store.documents import document_in, replaced

    async with store.write("foreman-version") as uow:
        now = await uow.now()
        mine, last = Heard(version, now - age_s, by), await heard_in(uow)
        # One from the future was written before the store's clock was set back.
        if last is not None and mine.at <= last.at <= now:
            return last
        before = await document_in(uow, DOCUMENT)
        await replaced(uow, before, {"version": mine.version, "heard_at": mine.at}, by=by)
        return mine


def is_asked(cluster: ClusterFile) -> bool:
    """Whether the cluster file says how Foreman's API is asked."""
    return cluster.foreman.api_user is not None and cluster.foreman.api_token_file is not None


def is_named(cluster: ClusterFile) -> bool:
    """Whether the cluster file says that there is a Foreman, and not only where it might be."""
    return cluster.foreman.url is not None or bool(cluster.foreman.trusted_hosts)


def trust_of(cluster: ClusterFile) -> tuple[Path, ...]:
    """Return the CA files beside the cluster's that may have issued Foreman's certificate."""
    of_content = cluster.content.ca_file if cluster.content is not None else None
    return tuple(file for file in (of_content, cluster.foreman.ca_file) if file is not None)


def _login(cluster: ClusterFile) -> Login:
    """Return who asks Foreman's API.

    Raises:
        Misconfigured: the settings do not say it, or the file holds no token.
    """
    from muster.foreman.api import Login

    user, path = cluster.foreman.api_user, cluster.foreman.api_token_file
    if user is None or path is None:
        raise Misconfigured("Foreman's API was not asked: foreman.api_user and foreman.api_token_file are not set")
    raw = read_bounded(path, what="token of Foreman's API", limit_bytes=_TOKEN_BYTES)
    lines = raw.decode("utf-8", "replace").splitlines()
    token = lines[0].strip() if lines else ""
    if not token or len(token) > _LONGEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise Misconfigured(f"The first line of foreman.api_token_file {path} is no personal access token")
    return Login(user, Secret(token))


@asynccontextmanager
async def api_opened(cluster: ClusterFile, ca: Path) -> AsyncIterator[ForemanAPI]:
    """Yield Foreman's API as the cluster file says it; its certificate must be of ``ca``, or of the CAs that file names.

    Token and CA files are read now.

    Raises:
        Misconfigured: a setting or a file cannot be used.
    """
    # Whoever only reads what was heard does not pay for it.
    from muster.foreman import api
    from muster.pki.context import client_context

    if cluster.foreman.url is None:
        raise Misconfigured("Foreman's API was not asked: foreman.url is absent")
    login, context = _login(cluster), client_context(ca, also=trust_of(cluster))
    async with api.opened(cluster.foreman.url, login, context=context) as opened:
        yield opened
