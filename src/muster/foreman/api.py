"""Foreman's own API, asked by a user with a personal access token: ``GET``, and JSON objects as answers."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from muster.foreman import questions
from muster.foreman.answers import Answer
from muster.foreman.questions import Questions
from muster.kernel.errors import Denied, Misconfigured, MusterError, Unavailable
from muster.kernel.names import shown
from muster.kernel.secrets import Secret

_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True)
class Login:
    """Who asks."""

    user: str
    token: Secret

    @property
    def authorization(self) -> Secret:
        """The header's value, as HTTP Basic has it."""
        return Secret(f"Basic {base64.b64encode(f'{self.user}:{self.token.reveal()}'.encode()).decode()}")

    def withheld(self, text: str) -> str:
        """Return a text of somebody else's without what it repeats of the header."""
        header = self.authorization.reveal()
        for secret in (header, header.removeprefix("Basic "), self.token.reveal()):
            # JSON may write a slash as two characters.
            for form in (secret, secret.replace("/", "\\/")):
                text = text.replace(form, "***")
        return text


class ForemanAPI:
    """Foreman's API. Use :func:`opened`. One question after another, on a connection that is kept."""

    def __init__(self, asking: Questions, below: str, login: Login) -> None:
        self._asking = asking
        self._below = below
        self._login = login

    async def get(self, path: str) -> dict[str, Any]:
        """Return the JSON object at a path, which begins with ``/api/``.

        Raises:
            Unavailable: no answer, one that may pass, or none of Foreman's.
            Denied: Foreman does not take the token (401), or refuses the user or the name it was asked by (403).
            MusterError: another refusal, in Foreman's words.
            Misconfigured: TLS refused.
        """
        path = self._below + path
        try:
            answer = await self._asking.ask(path)
            # What answers may be anything, also something that repeats what it was sent: in its refusals, and as content.
            answer = replace(answer, text=self._login.withheld(answer.text))
            return _object(_accepted(answer, self._asking.url, path, self._login.user), path)
        except MusterError as e:
            raise type(e)(self._login.withheld(str(e))) from None


def _accepted(answer: Answer, url: str, path: str, user: str) -> Answer:
    if answer.status in (401, 403):
        raise Denied(f"{url} answered {answer.status} to GET {path} of user {user}{_said(answer)}")
    return answer.accepted(url, "GET", path)


def _said(answer: Answer) -> str:
    """Return what Foreman says of a refusal; a page of something else is nobody's words."""
    try:
        found = answer.json()
    except Unavailable:
        return ", and not in the words of Foreman's API"
    error = found.get("error") if isinstance(found, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return f": {shown(message)}" if isinstance(message, str) else ""


def _object(answer: Answer, path: str) -> dict[str, Any]:
    try:
        found = answer.json()
    except Unavailable as e:
        raise Unavailable(f"GET {path}: {e}") from None
    if not isinstance(found, dict):
        raise Unavailable(f"GET {path}: the answer is no JSON object: {shown(found)}")
    return found


@asynccontextmanager
async def opened(
    url: str, login: Login, *, context: ssl.SSLContext, timeout_s: float = 10.0, connect_timeout_s: float = 3.0
) -> AsyncIterator[ForemanAPI]:
    """Yield the API of the Foreman at ``url``, which may lie below a path; asked by the host name that stands there.

    In a container Foreman answers 403 to any other ``Host``. ``timeout_s`` counts for each question.

    Raises:
        Misconfigured: the URL is not ``https``, so that a token would go about in the open.
    """
    parts = urlsplit(url)
    if parts.scheme != "https":
        raise Misconfigured(
            f"{shown(url)} is not https, so Foreman's API was not asked: a token would go about in the open"
        )
    async with questions.opened(
        f"{parts.scheme}://{parts.netloc}",
        context=context,
        timeout_s=timeout_s,
        connect_timeout_s=connect_timeout_s,
        authorization=login.authorization,
        limit_bytes=_LIMIT_BYTES,
    ) as asking:
        yield ForemanAPI(asking, parts.path.rstrip("/"), login)
