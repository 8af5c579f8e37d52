"""A client of Infoblox' web API (WAPI): JSON over HTTPS, a name and a password, lists in pages.

The same for every feature whose records a grid can keep; which grid, and whose account, :mod:`muster.edge.infoblox` says.

Source: Infoblox' own WAPI documentation (https://GRID/wapidoc), "General Syntax and Options", "GET", "Function Calls",
"Error Handling", version 2.0 and newer. No Infoblox was there to try it on.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp

from muster.edge.infoblox import GridSettings, password_of
from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.names import shown
from muster.kernel.reasons import spoken
from muster.kernel.secrets import Secret
from muster.pki.context import believing

_ANSWER_LIMIT_BYTES = 16 << 20
_PAGE = 1000
_MOST_PAGES = 200
_CONNECT_S = 5.0
# Kind and opaque part; what is there for people follows a colon.
_REF = re.compile(r"[a-z][a-z0-9:_]{0,63}/[A-Za-z0-9+/=_-]{1,1000}(?::|\Z)")
_CONFLICTS = ("Client.Ibap.Data.Conflict", "Client.Ibap.Data.AlreadyExists")

Fields = Mapping[str, Any]
"""An object as WAPI has it."""


class WAPI:
    """One grid. Use :func:`opened`.

    Concurrency: any number of tasks of one loop; connections are kept.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        authorization: Secret,
        context: ssl.SSLContext | None,
        unreached: type[Unavailable],
    ) -> None:
        self._unreached = unreached
        self._session = session
        self._authorization = authorization
        self._context = context
        self.url = url

    async def all(self, kind: str, fields: Sequence[str], **wanted: str) -> list[Fields]:
        """Return every object of a kind that has these values, page by page.

        Raises:
            Unavailable: no answer, or one that is none.
            Misconfigured: the name or the password is refused.
            Rejected: WAPI does not know that kind or field.
        """
        query = {
            **wanted, "_return_fields": ",".join(fields), "_paging": "1", "_return_as_object": "1",
            "_max_results": str(_PAGE),
        }  # fmt: skip
        found: list[Fields] = []
        for _ in range(_MOST_PAGES):
            try:
                answer = await self._asked("GET", kind, query)
            except NotFound as e:
                # Of a list that is none of a grid's answers: whoever looked for something to remove would take it for gone.
                raise Unavailable(f"{e}: is a grid there?") from e
            page = answer.get("result") if isinstance(answer, dict) else None
            if not isinstance(page, list) or not all(isinstance(one, dict) for one in page):
                raise Unavailable(f"{self.url} answered no list to GET {kind}: {shown(answer)}")
            found += page
            following = answer.get("next_page_id")
            if not isinstance(following, str) or not following:
                return found
            query = {"_page_id": following}
        raise Unavailable(f"{self.url} has more than {_PAGE * _MOST_PAGES} objects {kind} there")

    async def create(self, kind: str, content: Fields) -> str:
        """Make an object and return its reference.

        Raises:
            Conflict: another one stands against it.
            Rejected, Unavailable, Misconfigured: as :meth:`all`.
        """
        answer = await self._asked("POST", kind, {}, content)
        return self._ref(answer)

    async def delete(self, one: Fields) -> None:
        """Remove an object.

        Raises:
            NotFound: it is gone.
            Rejected, Unavailable, Misconfigured: as :meth:`all`.
        """
        await self._asked("DELETE", self._ref(one.get("_ref")), {})

    async def call(self, one: Fields, function: str, content: Fields) -> Any:
        """Call a function of an object and return what it answers."""
        return await self._asked("POST", self._ref(one.get("_ref")), {"_function": function}, content)

    def _ref(self, said: Any) -> str:
        found = _REF.match(said) if isinstance(said, str) else None
        if found is None:
            raise Unavailable(f"{self.url} named an object in no way that it can be asked for: {shown(said)}")
        return found[0].removesuffix(":")

    async def _asked(self, method: str, path: str, query: Mapping[str, str], content: Fields | None = None) -> Any:
        """Send one call and return what it answers; the one place where its refusals become ours."""
        target = f"{method} {self.url}/{path}"
        address = f"{self.url}/{quote(path, safe='/:=+')}" + (f"?{urlencode(query)}" if query else "")
        try:
            async with self._session.request(
                method, address, json=content, ssl=self._context or True, allow_redirects=False,
                headers={
                    "Accept": "application/json", "Accept-Encoding": "identity",
                    "Authorization": self._authorization.reveal(),
                },
            ) as response:  # fmt: skip
                raw = bytearray()
                async for chunk in response.content.iter_any():
                    raw += chunk
                    if len(raw) > _ANSWER_LIMIT_BYTES:
                        raise Unavailable(f"{target} was answered with more than {_ANSWER_LIMIT_BYTES} bytes")
                status = response.status
        except aiohttp.ClientConnectorCertificateError as e:
            raise Misconfigured(f"{target} failed in TLS: {spoken(e)}") from e
        except aiohttp.ClientConnectorError as e:
            raise self._unreached(f"{target} failed: {spoken(e)}") from e
        except TimeoutError:
            raise Unavailable(f"{target} got no answer in time") from None
        except (aiohttp.ClientError, OSError) as e:
            raise Unavailable(f"{target} failed: {spoken(e)}") from e
        text = raw.decode("utf-8", "replace")
        if status in (401, 403):
            raise Misconfigured(
                f"{target} was answered {status}: the name or the password is refused, or has no right to it"
            )
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise Unavailable(f"{target} was answered {status} with no JSON: {shown(text)}") from e
        if status >= 300:
            raise _refused(status, target, answer)
        return answer


def _refused(status: int, target: str, answer: Any) -> MusterError:
    code = str(answer.get("code", "")) if isinstance(answer, dict) else ""
    words = str(answer.get("text", answer.get("Error", ""))) if isinstance(answer, dict) else str(answer)
    said = f"{target} was answered {status}: {shown(words, 200)}"
    if code in _CONFLICTS:
        return Conflict(said)
    if status == 404:
        return NotFound(said)
    return Rejected(said) if 400 <= status < 500 and status not in (408, 429) else Unavailable(said)


@asynccontextmanager
async def opened(settings: GridSettings, *, unreached: type[Unavailable] = Unavailable) -> AsyncIterator[WAPI]:
    """Yield a client of the grid; ``unreached`` is raised when it could not even be asked.

    Raises:
        Misconfigured: the password or the CA's file cannot be read.
    """
    url, password = settings.url, password_of(settings)
    context = believing(settings.ca, of=url) if settings.ca is not None else None
    timeout = aiohttp.ClientTimeout(total=settings.timeout_s, sock_connect=_CONNECT_S)
    # Its cookie would keep a session that a changed password does not end.
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=8), timeout=timeout, trust_env=False, auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:  # fmt: skip
        authorization = Secret(aiohttp.encode_basic_auth(settings.username, password.reveal(), "utf-8"))
        yield WAPI(session, f"{url.rstrip('/')}/wapi/v{settings.wapi_version}", authorization, context, unreached)
