"""What a registry wants to see of who asks: a token that another server gives out, or an account.

Sources: the Docker registry's token authentication specification; RFC 9110 §11, RFC 7617.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol
from urllib.parse import urlencode

from muster.cluster.mirror import Mirrored
from muster.content.backend import Answer, BadGateway
from muster.content.mirror.targets import Target
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Misconfigured, Rejected, Unavailable
from muster.kernel.files import read_bounded
from muster.kernel.names import shown

_LIMIT_SAID = 8 << 10
_LIMIT_BODY = 64 << 10
_LIMIT_FILE = 16 << 10
_SCHEME = re.compile(r"[ \t,]*([A-Za-z][A-Za-z0-9-]*)(?:[ \t]+|\Z)")
_PARAMETER = re.compile(r'[ \t,]*([A-Za-z][A-Za-z0-9_-]*)[ \t]*=[ \t]*(?:"([^"\\]*)"|([^\s,"]+))[ \t]*(?=,|\Z)')
_TOKEN = re.compile(r"[!-~]{1,16000}\Z")
_PASSWORD = re.compile(r"[ -~]{1,8192}\Z")
# Source: the specification: so long one lasts of which nothing is said, and no shorter.
_LASTS_S = 60.0
_LONGEST_S = 3600.0
# What was refused is shown again no sooner.
_AGAIN_S = 30.0
# Of its time it is used for so much.
_USED = 0.9


class Challenge(NamedTuple):
    """What an answer of 401 wants.

    Attributes:
        scheme: ``bearer`` or ``basic``.
        realm: who gives out tokens.
        service: what that calls the registry.
    """

    scheme: str
    realm: str
    service: str


class Registry(Protocol):
    """Whose tokens these are, as :class:`muster.content.mirror.origin.Origin`."""

    name: str
    root: Target

    async def ask_at(self, target: Target, headers: Sequence[tuple[str, str]], why: str, /) -> Answer: ...


def challenges(said: Iterable[str]) -> list[Challenge]:
    """Return what values of ``WWW-Authenticate`` want that is known here; what is malformed wants nothing."""
    found: list[Challenge] = []
    for value in said:
        if len(value) > _LIMIT_SAID:
            continue
        at = 0
        while (scheme := _SCHEME.match(value, at)) is not None and at < len(value):
            at = scheme.end()
            parameters: dict[str, str] = {}
            while (one := _PARAMETER.match(value, at)) is not None:
                parameters.setdefault(one[1].lower(), one[2] if one[2] is not None else one[3])
                at = one.end()
            name = scheme[1].lower()
            if name == "basic" or (name == "bearer" and "realm" in parameters):
                found.append(Challenge(name, parameters.get("realm", ""), parameters.get("service", "")))
    return found


class Tokens:
    """What one process shows one registry for one of its repositories. Concurrency: any number of tasks of one loop.

    A token is held in memory until it expires, and is in no error and no log, as the account's password is.
    """

    def __init__(self, name: str, mirrored: Mirrored, registry: Registry, *, clock: Clock | None = None) -> None:
        self._settings = f"content.mirror.repositories.{name}"
        self._user, self._file = mirrored.user, mirrored.password_file
        self._scope = f"repository:{mirrored.upstream}:pull"
        self._registry, self._clock = registry, clock or SystemClock()
        self._shown, self._until = "", 0.0
        # What was refused, as a digest, and when it may be shown again.
        self._refused, self._again_at = b"", 0.0
        self._getting = asyncio.Lock()

    @property
    def shown(self) -> str:
        """What to send as ``Authorization``; empty: nothing yet, or nothing any more."""
        return self._shown if self._clock.monotonic() < self._until else ""

    async def renew(self, said: Iterable[str], had: str) -> str:
        """Return what to send after the registry has refused ``had``; ``said`` are its ``WWW-Authenticate``.

        Raises:
            Unavailable: it wants an account, and there is none, or another.
            BadGateway: what it wants, or what gives out tokens, is not understood, or nobody is led there.
            Misconfigured: the password cannot be read.
        """
        async with self._getting:
            if (now := self.shown) and now != had:
                # Somebody else was quicker.
                return now
            wanted = challenges(said)
            if (bearer := next((one for one in wanted if one.scheme == "bearer"), None)) is not None:
                token, lasts_s = await self._token(bearer)
                self._shown = f"Bearer {token}"
            elif wanted and self._user is not None:
                self._shown, lasts_s = await self._account(had), _LASTS_S
            elif wanted:
                raise Unavailable(f"{self._registry.name} wants an account ({self._settings}.user and password_file)")
            else:
                raise BadGateway(f"{self._registry.name} answers 401 and does not say what it wants")
            self._until = self._clock.monotonic() + lasts_s * _USED
            return self._shown

    async def _account(self, had: str) -> str:
        """Return the account as it is shown to the registry itself, which has refused ``had``."""
        basic = await self._basic()
        self._refuse_again(f"{self._registry.name} wants an account", basic)
        if basic == had:
            self._note_refused(basic)
            self._until = 0.0
            raise Unavailable(
                f"{self._registry.name} refuses the account {self._user} ({self._settings}.user and password_file)"
            )
        return basic

    def _refuse_again(self, of: str, basic: str) -> None:
        """Refuse to show what was refused a moment ago: accounts are locked that are tried too often.

        Raises:
            Unavailable: it was.
        """
        if self._clock.monotonic() < self._again_at and self._refused == _digest(basic):
            raise Unavailable(
                f"{of}, which refused {self._who} a moment ago, and is asked again {_AGAIN_S:g} s after that, or with "
                f"another password ({self._settings}.user and password_file)"
            )

    def _note_refused(self, basic: str) -> None:
        self._refused, self._again_at = _digest(basic), self._clock.monotonic() + _AGAIN_S

    @property
    def _who(self) -> str:
        return f"the account {self._user}" if self._user is not None else "anybody without an account"

    async def _token(self, wanted: Challenge) -> tuple[str, float]:
        """Return a token, and how many seconds it lasts."""
        target = self._realm(wanted)
        basic = await self._basic() if self._user is not None else ""
        headers = [("Authorization", basic)] if basic else []
        of = f"{self._registry.name} gets its tokens from {target}"
        self._refuse_again(of, basic)
        answer = await self._registry.ask_at(target, headers, of)
        if answer.status != 200:
            answer.end()
            if answer.status in (401, 403):
                self._note_refused(basic)
                raise Unavailable(
                    f"{of}, which refuses {self._who}: {answer.status} ({self._settings}.user and password_file)"
                )
            raise Unavailable(f"{of}, which answers {answer.status}")
        body = await answer.whole(_LIMIT_BODY)
        try:
            said = json.loads(body) if body is not None else None
        except (ValueError, RecursionError):
            said = None
        token = (said.get("token") or said.get("access_token")) if isinstance(said, dict) else None
        if not isinstance(token, str) or not _TOKEN.match(token):
            raise BadGateway(f"{of}, whose answer holds none")
        lasts = said.get("expires_in") if isinstance(said, dict) else None
        return token, min(float(lasts), _LONGEST_S) if isinstance(lasts, int) and lasts > _LASTS_S else _LASTS_S

    def _realm(self, wanted: Challenge) -> Target:
        of = f"{self._registry.name} says that tokens are had at {shown(wanted.realm.partition('?')[0], 200)}"
        try:
            target = Target.of(wanted.realm)
        except Rejected as e:
            raise BadGateway(f"{of}: {e}") from None
        if self._registry.root.scheme == "https" and target.scheme != "https":
            raise BadGateway(f"{of}, away from TLS, and is not followed there")
        asked = urlencode({**({"service": wanted.service} if wanted.service else {}), "scope": self._scope})
        return target._replace(path=f"{target.path or '/'}{'&' if '?' in target.path else '?'}{asked}")

    async def _basic(self) -> str:
        """Return what says who asks; read each time, for the file may change.

        Raises:
            Misconfigured: the file cannot be read, or holds no password.
        """
        assert self._user is not None and self._file is not None  # noqa: S101, PT018
        what = f"password file of {self._settings}"
        raw = await asyncio.to_thread(read_bounded, self._file, what=what, limit_bytes=_LIMIT_FILE)
        lines = raw.decode("utf-8", "replace").splitlines()
        password = lines[0].strip() if lines else ""
        if not _PASSWORD.match(password):
            raise Misconfigured(
                f"The {what}, {self._file}, holds no password in its first line, or one that is no ASCII"
            )
        return f"Basic {base64.b64encode(f'{self._user}:{password}'.encode()).decode('ascii')}"


def _digest(basic: str) -> bytes:
    return hashlib.sha256(basic.encode()).digest()
