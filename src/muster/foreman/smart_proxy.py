"""A client of any Smart Proxy, ours or the Ruby one, over its REST API and mutual TLS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from muster.foreman.answers import Answer
from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.reasons import spoken

_BODY_LIMIT_BYTES = 4 << 20

Form = Mapping[str, str] | Sequence[tuple[str, str]]
"""What a form says; pairs where a name stands there more than once."""


class SmartProxy:
    """One other Smart Proxy. Use :func:`opened`. Connections are kept alive; safe for many tasks of one loop."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        server_name: str | None,
        context: Callable[[], ssl.SSLContext | None],
        answer_limit_bytes: int = _BODY_LIMIT_BYTES,
    ) -> None:
        self._answer_limit_bytes = answer_limit_bytes
        self._session = session
        self._context = context
        self._server_name = server_name
        self.url = url.rstrip("/")
        # A socket's path stands in no URL; it is the connector's.
        self._base = "http://localhost" if self.url.startswith("unix:") else self.url

    async def ask(
        self,
        method: str,
        path: str,
        form: Form | None = None,
        *,
        document: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] = {},
    ) -> Answer:
        """Send one call, with a form, a JSON document or bytes as its body, and return the answer, whatever its status.

        Raises:
            Unavailable: no answer; whether a change happened is unknown.
            Misconfigured: TLS refused; the sentence has the library's words.
        """
        # A member is reached by its own address under the cluster's name, so SNI and Host carry that name.
        # Bodies are read as they come: nothing here unpacks them.
        sent = {"Accept": "application/json", "Accept-Encoding": "identity", **headers}
        if self._server_name:
            sent["Host"] = self._server_name
        target = f"{method} {self.url}{path}"
        try:
            async with self._session.request(
                method,
                self._base + path,
                data=form if content is None else content,
                json=document,
                headers=sent,
                server_hostname=self._server_name,
                # Connections are kept per context, so those of an old one end by themselves.
                ssl=self._context() or True,
                # Whoever is led elsewhere would ask there with a GET, and with our certificate.
                allow_redirects=False,
            ) as response:
                raw = await self._whole(response, target)
                return Answer(response.status, raw.decode("utf-8", "replace"), response.headers.get("ETag"))
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as e:
            raise Misconfigured(f"{target} failed in TLS: {spoken(e)}") from e
        except (ssl.SSLError, aiohttp.ClientOSError) as e:
            if _is_of_tls(e):
                raise Misconfigured(f"{target} failed in TLS: {spoken(e)}") from e
            raise Unavailable(f"{target} failed: {spoken(e)}") from e
        except TimeoutError:
            raise Unavailable(f"{target} got no answer in time") from None
        except (aiohttp.ClientError, OSError) as e:
            raise Unavailable(f"{target} failed: {spoken(e)}") from e

    async def _whole(self, response: aiohttp.ClientResponse, target: str) -> bytes:
        out = bytearray()
        async for chunk in response.content.iter_any():
            out += chunk
            if len(out) > self._answer_limit_bytes:
                raise Unavailable(f"{target} was answered with more than {self._answer_limit_bytes} bytes")
        return bytes(out)

    async def call(self, method: str, path: str, form: Form | None = None) -> Answer:
        """As :meth:`ask`, and turn every refusal into the error it stands for, with the other proxy's words."""
        return (await self.ask(method, path, form)).accepted(self.url, method, path)


def _is_of_tls(error: OSError) -> bool:
    """Whether a connection failed in TLS; a refusal of our certificate arrives while reading, as an ordinary error."""
    inner = getattr(error, "os_error", None) or error.__cause__
    return isinstance(error, ssl.SSLError) or isinstance(inner, ssl.SSLError) or "[SSL" in str(error.strerror)


@asynccontextmanager
async def opened(
    url: str,
    *,
    context: ssl.SSLContext | Callable[[], ssl.SSLContext] | None,
    server_name: str | None = None,
    timeout_s: float = 10.0,
    connect_timeout_s: float = 2.0,
    answer_limit_bytes: int = _BODY_LIMIT_BYTES,
) -> AsyncIterator[SmartProxy]:
    """Yield a client of the proxy at ``url``, which may be ``unix:/PATH``: a socket of this host.

    ``server_name`` is the name its certificate must carry when it is not the URL's host. ``context`` may be a callable
    that is asked before each call, so that it can follow files; None trusts the CAs of the system.
    """
    timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=connect_timeout_s)
    connector: aiohttp.BaseConnector = (
        aiohttp.UnixConnector(url.removeprefix("unix:"), limit=64, keepalive_timeout=15)
        if url.startswith("unix:")
        else aiohttp.TCPConnector(limit=64, keepalive_timeout=15)
    )
    asked = context if callable(context) else lambda: context
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, trust_env=False, auto_decompress=False
    ) as session:
        yield SmartProxy(session, url, server_name, asked, answer_limit_bytes)
