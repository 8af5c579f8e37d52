"""The Smart Proxies that Foreman knows, by its own API: listed, registered, refreshed.

Source: docs/facts/foreman-and-katello.md, *Smart Proxies over Foreman's API*.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlsplit

from muster.foreman import smart_proxy
from muster.foreman.answers import Answer
from muster.foreman.api import ForemanAPI, Login
from muster.foreman.smart_proxy import SmartProxy
from muster.kernel.errors import Conflict, Denied, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.names import shown

_PER_PAGE = 100
_MOST_PAGES = 100
# Foreman asks the proxy for its features before it answers.
_CHANGE_S = 60.0
_MOST_SAID = 10


@dataclass(frozen=True)
class Record:
    """One Smart Proxy as Foreman knows it.

    Attributes:
        features: capabilities by feature's name; None where this Foreman does not tell them.
        organizations: names; None where the answer does not tell them.
    """

    id: int
    name: str
    url: str
    features: Mapping[str, frozenset[str] | None]
    organizations: frozenset[str] | None = None
    locations: frozenset[str] | None = None

    @classmethod
    def read(cls, said: Any) -> Record:
        """Read one from Foreman's JSON.

        Raises:
            Unavailable: it is none.
        """
        number = said.get("id") if isinstance(said, dict) else None
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise Unavailable(f"Foreman's answer holds no Smart Proxy with a number: {shown(said)}")
        features = said.get("features")
        return cls(
            number,
            str(said.get("name", "")),
            str(said.get("url", "")),
            {str(f.get("name")): _capabilities(f) for f in features if isinstance(f, dict)}
            if isinstance(features, list)
            else {},
            _names(said.get("organizations")),
            _names(said.get("locations")),
        )


class Records:
    """Foreman's list of Smart Proxies. Use :func:`opened`."""

    def __init__(self, api: ForemanAPI, changes: SmartProxy, login: Login) -> None:
        self._api = api
        self._changes = changes
        self._login = login

    async def listed(self) -> tuple[Record, ...]:
        """Return all that the user may see.

        Raises:
            MusterError: as :meth:`ForemanAPI.get`.
        """
        found: list[Record] = []
        for page in range(1, _MOST_PAGES + 1):
            said = await self._api.get(f"/api/smart_proxies?per_page={_PER_PAGE}&page={page}")
            results = said.get("results")
            if not isinstance(results, list):
                raise Unavailable("Foreman answers GET /api/smart_proxies without results")
            rows = [Record.read(one) for one in results]
            if rows and rows == found[-len(rows) :]:
                raise Unavailable(
                    f"Foreman answers GET /api/smart_proxies with page {page - 1} once more for page {page}"
                )
            found += rows
            if len(results) < _PER_PAGE:
                return tuple(found)
        raise Unavailable(f"Foreman knows more than {_PER_PAGE * _MOST_PAGES} Smart Proxies")

    async def whole(self, record: Record) -> Record:
        """Return a record with all that Foreman tells of one, its organisations and locations among it."""
        return Record.read(await self._api.get(f"/api/smart_proxies/{record.id:d}"))

    async def ids(self, kind: str, names: Sequence[str]) -> list[int]:
        """Return the numbers of ``organizations`` or ``locations`` of these titles: ``A/B`` is B within A.

        Raises:
            NotFound: Foreman has none of a title.
        """
        found = []
        for title in names:
            name = title.rpartition("/")[2]
            asked = quote(f'name="{name}"', safe="")
            said = await self._api.get(f"/api/{kind}?search={asked}&per_page={_PER_PAGE}")
            results = said.get("results")
            # Several may have the name, each within another.
            fits = (
                [r.get("id") for r in results if isinstance(r, dict) and r.get("title", r.get("name")) == title]
                if isinstance(results, list)
                else []
            )
            if not fits or not isinstance(fits[0], int):
                raise NotFound(f"Foreman has no {kind.removesuffix('s')} {title!r}, or the user may not see it")
            found.append(fits[0])
        return found

    async def register(self, name: str, url: str, *, organizations: Sequence[int], locations: Sequence[int]) -> Record:
        """Have Foreman know a Smart Proxy; it asks that for its features first, so it has to answer.

        Raises:
            Conflict: one of that name or URL is there.
            Rejected: Foreman refuses it: it could not reach the proxy, above all; in its words.
        """
        taxonomies = {"organization_ids": list(organizations), "location_ids": list(locations)}
        given = {"name": name, "url": url, **{key: ids for key, ids in taxonomies.items() if ids}}
        return Record.read(await self._change("POST", "/api/smart_proxies", {"smart_proxy": given}))

    async def refresh(self, record: Record) -> Record:
        """Have Foreman ask a Smart Proxy for its features anew.

        Raises:
            Rejected: it could not; in its words.
        """
        return Record.read(await self._change("PUT", f"/api/smart_proxies/{record.id:d}/refresh", {}))

    async def move(self, record: Record, url: str) -> Record:
        """Have Foreman reach a Smart Proxy at another URL.

        Raises:
            Rejected: Foreman refuses it, in its words.
        """
        path = f"/api/smart_proxies/{record.id:d}"
        return Record.read(await self._change("PUT", path, {"smart_proxy": {"url": url}}))

    async def _change(self, method: str, path: str, document: Mapping[str, Any]) -> Any:
        header = self._login.authorization.reveal()
        answer = await self._changes.ask(method, path, document=document, headers={"Authorization": header})
        answer = replace(answer, text=self._login.withheld(answer.text))
        try:
            return _accepted(answer, self._changes.url, method, path).json()
        except MusterError as e:
            raise type(e)(self._login.withheld(str(e))) from None


@asynccontextmanager
async def opened(api: ForemanAPI, url: str, login: Login, context: Any) -> AsyncIterator[Records]:
    """Yield the records of the Foreman at ``url``, read by ``api``, changed by a client of its own."""
    parts = urlsplit(url)
    async with smart_proxy.opened(
        f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", context=context, timeout_s=_CHANGE_S
    ) as changes:
        yield Records(api, changes, login)


def _accepted(answer: Answer, url: str, method: str, path: str) -> Answer:
    if answer.status in (401, 403):
        raise Denied(f"{url} answered {answer.status} to {method} {path}: the user may not do this{_said(answer)}")
    if answer.status == 422:
        words = _said(answer)
        raise (Conflict if "taken" in words else Rejected)(f"Foreman refuses {method} {path}{words}")
    return answer.accepted(url, method, path)


def _said(answer: Answer) -> str:
    try:
        found = json.loads(answer.text)
    except (ValueError, RecursionError):
        return ""
    error = found.get("error") if isinstance(found, dict) else None
    if not isinstance(error, dict):
        return ""
    words = error.get("full_messages") or [error.get("message")]
    listed = [shown(str(w)) for w in words[:_MOST_SAID] if w] if isinstance(words, list) else []
    return f": {'; '.join(listed)}" if listed else ""


def _capabilities(feature: Mapping[str, Any]) -> frozenset[str] | None:
    found = feature.get("capabilities")
    return frozenset(map(str, found)) if isinstance(found, list) else None


def _names(said: Any) -> frozenset[str] | None:
    return frozenset(str(one.get("name")) for one in said if isinstance(one, dict)) if isinstance(said, list) else None
