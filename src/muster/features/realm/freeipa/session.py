"""A session with FreeIPA: logged in by Kerberos, then asked in JSON over HTTPS.

The login is curl's, which speaks Negotiate; the cookie that comes of it is a secret of this process.
Source: docs/facts/realm.md §2. No FreeIPA was there to try it on.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from muster.features.realm.contract import Untouched
from muster.features.realm.freeipa.config import Place
from muster.features.realm.kerberos import Tickets
from muster.features.realm.programs import ran
from muster.features.realm.settings import FreeIPASettings
from muster.foreman import smart_proxy
from muster.foreman.answers import Answer
from muster.foreman.smart_proxy import SmartProxy
from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.names import shown
from muster.kernel.secrets import Secret

VERSION = "2.230"
"""The version of the API that is asked for: FreeIPA 4.6 and later have it."""
_ANSWER_LIMIT_BYTES = 1 << 20
_COOKIE = re.compile(r"^set-cookie:[ \t]*ipa_session=([^;\s]{1,8192})", re.IGNORECASE | re.MULTILINE)
_STATUS = re.compile(r"^HTTP/[0-9.]+ ([0-9]{3})", re.MULTILINE)
# curl(1), "EXIT CODES".
_TLS_CODES = (35, 58, 60, 77, 83, 91)
_NOT_FOUND, _DUPLICATE, _NO_RIGHT, _NOTHING_TO_DO = 4001, 4002, 2100, 4202


class NothingToDo(Rejected):
    """What was asked for is so already."""


class Session:
    """One session at a time, made anew when it has ended. Use :func:`opened`."""

    def __init__(self, place: Place, settings: FreeIPASettings, tickets: Tickets, server: SmartProxy) -> None:
        self.place = place
        self._settings = settings
        self._tickets = tickets
        self._server = server
        self._cookie: Secret | None = None

    async def call(self, method: str, arguments: Sequence[str], options: Mapping[str, Any] = {}) -> Mapping[str, Any]:
        """Call a method and return its ``result``.

        Raises:
            NotFound, Conflict: there is no such thing; there is one.
            NothingToDo: it is so already.
            Rejected: FreeIPA refuses.
            Misconfigured: it does not let us in, or the principal lacks the right.
            Unavailable: no answer.
        """
        document = {"method": method, "params": [list(arguments), {**options, "version": VERSION}], "id": 0}
        answer = await self._asked(document)
        if answer.status == 401:
            # The session has ended, and nothing was done.
            self._cookie = None
            answer = await self._asked(document)
        return self._result(method, answer)

    async def _asked(self, document: Mapping[str, Any]) -> Answer:
        if self._cookie is None:
            self._cookie = await self._login()
        headers = {"Referer": f"{self.place.url}/ipa", "Cookie": f"ipa_session={self._cookie.reveal()}"}
        return await self._server.ask("POST", "/ipa/session/json", document=document, headers=headers)

    def _result(self, method: str, answer: Answer) -> Mapping[str, Any]:
        """Return what was answered; the one place where FreeIPA's refusals become ours."""
        said = f"{self.place.url} refused {method}"
        if answer.status in (401, 403):
            raise Misconfigured(f"{said}: {answer.status}")
        if answer.status != 200:
            kind = Unavailable if answer.status >= 500 else Rejected
            raise kind(f"{said}: {answer.status}")
        document = answer.json()
        error = document.get("error") if isinstance(document, dict) else None
        if isinstance(error, dict):
            raise _error(said, error)
        result = document.get("result") if isinstance(document, dict) else None
        if not isinstance(result, dict):
            raise Unavailable(f"{self.place.url} answered {method} with no result")
        return result

    async def _login(self) -> Secret:
        url = f"{self.place.url}/ipa/session/login_kerberos"
        trust = ("--cacert", self._settings.ca_file) if self._settings.verify_ca else ("--insecure",)
        timeout_s = self._settings.timeout_s
        environment = await self._tickets.environment()
        done = await ran(
            [
                # --disable stands first: no file of somebody's home changes what is asked.
                "curl", "--disable", "--silent", "--show-error", "--proto", "=https", "--noproxy", "*",
                "--max-time", str(timeout_s), *trust, "--negotiate", "--user", ":", "--referer", f"{self.place.url}/ipa",
                "--data", "", "--dump-header", "-", "--output", "/dev/null", url,
            ],
            timeout_s=timeout_s + 2,
            environment=environment,
        )  # fmt: skip
        if done.status != 0:
            kind = Misconfigured if done.status in _TLS_CODES else Untouched
            raise kind(f"Logging in at {url} failed: {shown(done.stderr.strip(), 200)}")
        status = (_STATUS.findall(done.stdout) or ["no answer"])[-1]
        cookie = _COOKIE.search(done.stdout)
        if status == "200" and cookie is not None:
            return Secret(cookie[1])
        self._tickets.forget(environment)
        kind = Untouched if status.startswith("5") else Misconfigured
        raise kind(f"Logging in at {url} was answered {status}{'' if status != '200' else ' without a session'}")


def _error(said: str, error: Mapping[str, Any]) -> MusterError:
    code = error.get("code")
    kinds: Mapping[object, type[MusterError]] = {
        _NOT_FOUND: NotFound,
        _DUPLICATE: Conflict,
        _NO_RIGHT: Misconfigured,
        _NOTHING_TO_DO: NothingToDo,
    }
    return kinds.get(code, Rejected)(f"{said}: {shown(error.get('message'), 300)} ({shown(code)})")


def _context(settings: FreeIPASettings) -> ssl.SSLContext:
    if not settings.verify_ca:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        return ssl.create_default_context(cafile=str(settings.ca_file))
    except (OSError, ssl.SSLError) as e:
        raise Misconfigured(f"Reading FreeIPA's CA, {settings.ca_file}, failed: {e}") from e


@asynccontextmanager
async def opened(place: Place, settings: FreeIPASettings, tickets: Tickets) -> AsyncIterator[Session]:
    """Yield a session; nobody logs in before the first question.

    Raises:
        Misconfigured: FreeIPA's CA cannot be read.
    """
    async with smart_proxy.opened(
        place.url,
        context=_context(settings),
        timeout_s=settings.timeout_s,
        answer_limit_bytes=_ANSWER_LIMIT_BYTES,
    ) as server:
        yield Session(place, settings, tickets, server)
