"""What a host asks to be registered, as Foreman is asked for it. Source: docs/facts/smart-proxy-protocol.md §16.

What comes back is piped into a shell, so it is the whole of Foreman's script, Foreman's own text, or :data:`FAILED`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager

from muster.balancer.model import modelled
from muster.content import handed
from muster.content.backend import once
from muster.content.handed import ACCEPTED, Foreman, Said, authorization, passed, told, without_url
from muster.derived.ruby_members import registration_url
from muster.edge import params
from muster.edge.budget import Held
from muster.edge.feature import Surroundings, Told
from muster.edge.replies import HTML, Reply, reply
from muster.edge.request import ClientGone, Request, TooLarge, TooSlow
from muster.features.registration import scripts
from muster.features.registration.scripts import Scripts
from muster.features.registration.settings import LACKS_TEMPLATES, RegistrationSettings, has_templates
from muster.kernel import log
from muster.kernel.errors import Misconfigured, MusterError
from muster.kernel.names import source_of

_log = log.logger("features")

FAILED = b'echo "Internal Server Error"\nexit 1\n'
"""The script that says that there is none."""

_FORM = "application/x-www-form-urlencoded"
# What asking may take beside Foreman's time to begin: to connect, also a second time, and to end.
_BESIDE_S = 15.0
# So that what is kept is what whoever asks would get: nothing of one host's own goes on.
_SAME_FOR_ALL = [("Accept", f"{ACCEPTED}, */*")]


class Registration:
    """The feature's service.

    Attributes:
        url: where Foreman tells hosts to register.
    """

    def __init__(self, foreman: Foreman, url: str, kept: Scripts) -> None:
        self.url = url
        self._foreman = foreman
        self._kept = kept
        self._refusals = log.Seldom()

    def told(self) -> Told:
        return Told({"registration_url": self.url})

    async def script(self, request: Request) -> Said:
        """Return the script that registers a host: asked once for all who ask for the same with the same token.

        Raises:
            Rejected: the parameters or the token are malformed.
            Unavailable, GatewayTimeout, BadGateway: Foreman did not answer.
        """
        given, proof = request.query(), authorization(request)
        # Whoever asks for another place gets this one.
        given = without_url(given)
        # Not the call's own, which may end before others have what it asked for.
        held = Held(request.budget)

        async def asked() -> Said:
            query = params.written({**given, "url": self.url})
            try:
                return await self._foreman.ask("GET", f"/register?{query}", [*_SAME_FOR_ALL, *proof], hold=held.hold)
            finally:
                held.release()

        key = self._kept.key(self.url, given, proof[0][1] if proof else "")
        return await self._kept.script(key, asked)

    async def registered(self, request: Request) -> Said:
        """Hand a host's own facts to Foreman, and return the script that it runs then.

        Raises:
            As :meth:`script`; TooLarge, TooSlow, ClientGone: its facts are too long, or did not arrive.
        """
        body = await request.body()
        sent = request.headers.get(b"content-type", b"").decode("latin-1")
        given: params.Params = {}
        # A form is passed on as it came, and what stood in the query is not.
        if sent.partition(";")[0].strip().lower() != _FORM or not handed.is_value(sent):
            given, sent = without_url(request.query()), "application/json"
        query = params.written({**given, "url": self.url})
        headers = [*told(request), *authorization(request), ("Content-Type", sent)]
        return await self._foreman.ask(
            "POST", f"/register?{query}", headers,
            body=once(body) if body else None, length=len(body) if body else None, hold=request.hold,
        )  # fmt: skip

    async def answered(self, request: Request, asked: Awaitable[Said]) -> Reply:
        """Return what a shell is given of what Foreman said, or of an error."""
        try:
            said = await asked
        except (TooLarge, TooSlow, ClientGone) as e:
            # The host's own matter, as everywhere.
            return reply(e.status, FAILED, HTML)
        except MusterError as e:
            held = self._refusals.held_back((source_of(request.peer.address), type(e)))
            if held is not None:
                at = f" ({e.place})" if e.place else ""
                _log.warning(f"Failed to register: {e}{at}{log.and_more(held)}", status=e.status)
            return reply(e.status, FAILED, HTML)
        if 200 <= said.status < 300:
            return passed(200, said.body)
        held = self._refusals.held_back((source_of(request.peer.address), said.status))
        if held is not None:
            sentence = f"Failed to register: Foreman answers {said.status} to {request.method} /register"
            _log.warning(f"{sentence}{log.and_more(held)}", status=said.status)
        return passed(said.status, said.body if "text/plain" in said.content_type else FAILED)


def _url(settings: RegistrationSettings, around: Surroundings) -> str:
    if settings.registration_url is not None:
        return settings.registration_url.removesuffix("/")
    if around.cluster is None:
        raise Misconfigured("registration_url is absent, and there is no cluster file that says the address")
    return registration_url(modelled(around.cluster, frozenset()))


@asynccontextmanager
async def opened(settings: RegistrationSettings, around: Surroundings) -> AsyncIterator[Registration]:
    """Yield the service.

    Raises:
        Misconfigured: the feature Templates is off; the cluster file does not say where Foreman is, or where hosts come in.
    """
    cluster = around.cluster
    if cluster is None or not has_templates(cluster):
        raise Misconfigured(LACKS_TEMPLATES)
    url = _url(settings, around)
    kept = scripts.opened(around, kept_s=settings.scripts_kept_s, asked_within_s=settings.foreman_timeout_s + _BESIDE_S)
    opening = handed.opened(around, timeout_s=settings.foreman_timeout_s, needed_by="registration")
    async with opening as foreman, aclosing(kept):
        yield Registration(foreman, url, kept)
