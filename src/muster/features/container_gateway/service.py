"""Rules of the container gateway: who a caller is, what he may read, and what Pulp has of it.

Source: docs/facts/smart-proxy-protocol.md §18.1.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from muster.content import backend as backends
from muster.content import headers
from muster.content.backend import Backend, Patience
from muster.content.registry import error, linked
from muster.edge.feature import Surroundings
from muster.edge.replies import SERVER_HEADER, Header, Reply, Streamed, reply
from muster.edge.request import Request
from muster.features.container_gateway import katello
from muster.features.container_gateway.grants import Grants, Subject
from muster.features.container_gateway.katello import Katello
from muster.features.container_gateway.mapping import is_repository
from muster.features.container_gateway.settings import ContainerGatewaySettings
from muster.features.container_gateway.tokens import Tokens
from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.names import in_url
from muster.pki.context import RenewedContext
from muster.pki.facts import common_name

# What Katello says in place of a token.
_NOT_LOGGED_IN = "unauthenticated"
_REFUSED = "unauthorized"
# Source: the distribution project's token specification. It counts where nothing is said, and clients that are told less
# keep a token for as long all the same.
_LIFETIME_S = 60.0
_ETERNITY_S = 1e12
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_FORWARDED = b"x_rhsm_ssl_client_cert"
_READ = re.compile(r"/v2/(?P<name>.+)/(?P<what>manifests|blobs|tags)/(?P<which>[^/]+)/?\Z")
_UPLOAD = re.compile(r"/v2/.+/blobs/uploads(?:/[^/]*)?\Z")
_WHICH = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|[a-z0-9]+:[0-9a-f]{32,128})\Z")
_API_VERSION: Header = (b"docker-distribution-api-version", b"registry/2.0")
_GIVEN = frozenset({
    "content-type", "content-length", "content-range", "accept-ranges", "docker-content-digest", "location", "link",
})  # fmt: skip
_ASKED = frozenset({b"accept", b"range", b"user-agent"})
_INDEX_BYTES = 16 << 20
_FOUND = 25
_MOST_FOUND = 1000


class Gateway:
    """The feature's service.

    Attributes:
        grants: what Foreman said.
    """

    def __init__(
        self,
        member: str,
        grants: Grants,
        tokens: Tokens,
        katello: Katello,
        pulp: Backend,
        *,
        is_revoked: Callable[[x509.Certificate], bool] = lambda _: False,
    ) -> None:
        """``is_revoked`` says whether a list that counts now names a certificate."""
        self.grants = grants
        self._is_revoked = is_revoked
        self._member = member.lower()
        self._tokens = tokens
        self._katello = katello
        self._pulp = pulp

    async def answer(self, path: str, request: Request) -> Reply | Streamed:
        """Answer a call of a container client below the mount.

        Raises:
            Rejected: it is malformed.
            Unavailable, GatewayTimeout, BadGateway: the store, Foreman or Pulp did not answer.
        """
        is_reading = request.method in ("GET", "HEAD")
        if path in ("/v2", "/v2/") and is_reading:
            return await self._greeted(request)
        if path == "/v2/token" and request.method == "GET":
            return await self._logged_in(request)
        if path in ("/v2/_catalog", "/v2/_catalog/") and is_reading:
            return await self._catalog(request)
        if path in ("/v1/_ping", "/v1/_ping/") and is_reading:
            return await self._passed("/v2/", request)
        if path in ("/v1/search", "/v1/search/") and is_reading:
            return await self._searched(request)
        if path in ("/index/static", "/index/static/") and is_reading:
            return await self._index(request)
        if found := _READ.match(path):
            if not is_reading or _UPLOAD.match(path):
                return _unsupported()
            return await self._read(found["name"], found["what"], found["which"], request)
        return _unsupported() if _UPLOAD.match(path) else _not_found()

    async def _greeted(self, request: Request) -> Reply | Streamed:
        """Say whether a client has to log in."""
        who = await self._who(request)
        if who is None and not _is_without_account(request):
            return _log_in(request, 401)
        return await self._passed("/v2/", request)

    async def _logged_in(self, request: Request) -> Reply:
        """Give somebody whom Foreman knows a token of ours."""
        authorization = request.header(b"authorization") or ""
        given = request.query()
        query = {k: v for k in ("scope", "account") if isinstance(v := given.get(k), str)}
        said = await self._katello.token(authorization, query)
        if said.status != 200:
            return reply(said.status, said.body, said.content_type.encode("latin-1", "replace"), _API_VERSION)
        answer = said.json()
        token = answer.get("token")
        if not isinstance(token, str) or not token:
            return reply(502, b"Katello answered without a token", b"text/plain", _API_VERSION)
        if token == _REFUSED:
            return _log_in(request, 401)
        if token == _NOT_LOGGED_IN:
            return reply(200, said.body, b"application/json", _API_VERSION)
        # Whose password it was, and not whom the query names.
        user = _user_of(authorization)
        if user is None:
            return _log_in(request, 401)
        listed = await self._katello.repositories_of_user(authorization, query)
        if listed.status != 200:
            return reply(listed.status, listed.body, listed.content_type.encode("latin-1", "replace"), _API_VERSION)
        await self.grants.set(Subject("user", user), _names(listed.json()))
        issued, lifetime_s = await self._tokens.issued(user, _left_s(answer, datetime.now(UTC)))
        now = datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
        content = {"token": issued, "access_token": issued, "expires_in": int(lifetime_s), "issued_at": now}
        return _json(content)

    async def _catalog(self, request: Request) -> Reply:
        who = await self._who(request)
        if who is None and not _is_without_account(request):
            return _log_in(request, 401)
        return _json({"repositories": await self.grants.catalog(who)})

    async def _searched(self, request: Request) -> Reply:
        # A client of the second version asks for the catalog when this is not there.
        if request.header(b"docker-distribution-api-version") == "registry/2.0":
            return _not_found()
        who = None
        authorization = request.header(b"authorization") or ""
        user = _user_of(authorization)
        if user is not None:
            said = await self._katello.token(authorization, {"account": user})
            if said.status != 200 or said.json().get("token") in (_NOT_LOGGED_IN, _REFUSED, None):
                return _log_in(request, 401)
            who = Subject("user", user)
        given = request.query()
        asked, number = given.get("q"), given.get("n")
        wanted = asked if isinstance(asked, str) else ""
        most = int(number) if isinstance(number, str) and re.match(r"[0-9]{1,6}\Z", number) else _FOUND
        names = [n for n in await self.grants.catalog(who) if wanted in n][: min(most, _MOST_FOUND)]
        results = [{"description": "", "name": name} for name in names]
        return _json({"num_results": len(results), "query": asked, "results": results})

    async def _index(self, request: Request) -> Reply:
        """Return what flatpak may install: of Pulp's index what the caller may read."""
        who = await self._who(request)
        got = await self._asked("GET", f"/index/static{_query(request)}", request)
        body = await got.whole(_INDEX_BYTES, hold=request.hold)
        if body is None:
            raise Rejected(f"Pulp's index is larger than {_INDEX_BYTES >> 20} MiB: ask for less of it")
        if got.status >= 400:
            return reply(got.status, body, b"application/json")
        try:
            index = json.loads(body)
        except (ValueError, RecursionError):
            index = None
        results = index.get("Results") if isinstance(index, dict) else None
        if not isinstance(index, dict) or not isinstance(results, list):
            return reply(502, b"Pulp's index has no Results", b"text/plain")
        names = set(await self.grants.catalog(who))
        index["Results"] = [
            r for r in results if isinstance(r, dict) and isinstance(name := r.get("Name"), str) and name in names
        ]
        return _json(index)

    async def _read(self, name: str, what: str, which: str, request: Request) -> Reply | Streamed:
        if not is_repository(name) or not _WHICH.match(which) or (what == "tags") != (which == "list"):
            return _unknown_name(request)
        who = await self._who(request)
        if not await self.grants.may_read(name, who):
            if who is not None and who.kind == "host":
                return _log_in(request, 401)
            # A token that has ended is asked for anew on 401, and on nothing else.
            is_ended = who is None and _bearer(request) is not None and not _is_without_account(request)
            return _log_in(request, 401) if is_ended else _unknown_name(request)
        query = _query(request) if what == "tags" else ""
        return await self._passed(f"/v2/{name}/{what}/{which}{query}", request)

    async def _passed(self, path: str, request: Request) -> Streamed:
        got = linked(await self._asked(request.method, path, request), lambda location: self._here(location, path))
        kept = [(k.lower().encode(), v.encode("latin-1", "replace")) for k, v in got.headers if k.lower() in _GIVEN]
        return Streamed(got.status, [*kept, _API_VERSION, SERVER_HEADER], got.pieces, got.end)

    def _here(self, location: str, path: str) -> str | None:
        """Return path and query of a location at Pulp's registry, None when it is elsewhere."""
        try:
            there = urlsplit(urljoin(self._pulp.url + path, location))
        except ValueError:
            return None
        is_there = there.netloc == urlsplit(self._pulp.url).netloc and there.path.startswith("/v2/")
        return f"{there.path}?{there.query}" if is_there else None

    async def _asked(self, method: str, path: str, request: Request) -> backends.Answer:
        sent = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.sent_headers if k in _ASKED]
        # Whoever may read it was found out here; to Pulp it is its administrator who reads.
        sent += [("Accept-Encoding", "identity"), ("Remote-User", "admin")]
        return await self._pulp.ask(method, path, sent)

    async def _who(self, request: Request) -> Subject | None:
        """Return who a caller is: a host by its certificate, a user by a token; None: anybody."""
        uuid = self._uuid(request)
        if uuid is not None:
            host = Subject("host", uuid)
            if not await self.grants.is_known(host):
                said = await self._katello.repositories_of_host(uuid)
                if said.status == 200:
                    await self.grants.set(host, _names(said.json()))
            return host
        token = _bearer(request)
        user = await self._tokens.user(token) if token is not None and not _is_without_account(request) else None
        return Subject("user", user) if user is not None else None

    def _uuid(self, request: Request) -> str | None:
        """Return the UUID in a host's certificate, its own or the one that this member's port of content says it showed."""
        peer = request.peer
        if peer.certificate is None or peer.trust is None:
            return None
        certificate = peer.parsed
        if self._is_this_member(request):
            said = [v for k, v in request.sent_headers if k == _FORWARDED]
            certificate = _in_one_line(said[0]) if len(said) == 1 else None
        # The cluster's own CA issues names that hosts choose.
        if certificate is None or peer.trust.issuer(certificate)[0] != "other" or self._is_revoked(certificate):
            return None
        name = common_name(certificate.public_bytes(Encoding.DER)) or ""
        return name if _UUID.match(name) else None

    def _is_this_member(self, request: Request) -> bool:
        peer = request.peer
        return peer.trust is not None and peer.name == self._member and peer.issued_under(peer.trust)[0] == "own"


def _host(request: Request) -> str:
    """Return for which name and port the client asked."""
    said = [(b"host", v) for k, v in request.sent_headers if k == b"x-forwarded-host"]
    return headers.host(said) or headers.host(request.sent_headers)


def _bearer(request: Request) -> str | None:
    kind, _, value = (request.header(b"authorization") or "").partition(" ")
    return value.strip() if kind.lower() == "bearer" else None


def _is_without_account(request: Request) -> bool:
    """Whether a client says that it has asked for a token and got none for anybody."""
    return _bearer(request) in (_NOT_LOGGED_IN, _REFUSED)


def _user_of(authorization: str) -> str | None:
    kind, _, value = authorization.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        user, colon, _ = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (ValueError, binascii.Error):
        return None
    return user if colon and user and len(user) <= 255 and user.isprintable() else None


def _names(content: Mapping[str, Any]) -> set[str]:
    given = content.get("repositories")
    return {n for n in given if isinstance(n, str) and is_repository(n)} if isinstance(given, list) else set()


def _left_s(answer: Mapping[str, Any], now: datetime) -> float:
    """Return how long a token of Katello's is still good, or a minute: what may be read is looked up at each call."""
    lifetime, lifetime_s = answer.get("expires_in"), _LIFETIME_S
    # JSON also brings numbers that are none of seconds.
    if isinstance(lifetime, int | float) and not isinstance(lifetime, bool) and abs(lifetime) < _ETERNITY_S:
        lifetime_s = float(lifetime)
    with contextlib.suppress(ValueError, TypeError):
        # It may have been made long before, and was made to last for longer now.
        lifetime_s -= (now - datetime.fromisoformat(str(answer["issued_at"]))).total_seconds()
    return max(lifetime_s, _LIFETIME_S)


def _query(request: Request) -> str:
    given = {k: v for k, v in request.query().items() if isinstance(v, str)}
    return f"?{urlencode(given)}" if given else ""


def _in_one_line(value: bytes) -> x509.Certificate | None:
    body = value.replace(b"-----BEGIN CERTIFICATE-----", b"").replace(b"-----END CERTIFICATE-----", b"")
    try:
        return x509.load_der_x509_certificate(base64.b64decode(b"".join(body.split()), validate=True))
    except (ValueError, binascii.Error):
        return None


def _json(content: Any) -> Reply:
    return reply(200, json.dumps(content).encode(), b"application/json", _API_VERSION)


def _challenge(request: Request) -> Sequence[Header]:
    host = _host(request)
    said = f'Bearer realm="https://{host}/v2/token",service="{host}",scope="repository:registry:pull,push"'
    return (_API_VERSION, (b"www-authenticate", said.encode("ascii")))


def _log_in(request: Request, status: int) -> Reply:
    return error(status, "UNAUTHORIZED", "unauthorized", *_challenge(request))


def _unknown_name(request: Request) -> Reply:
    return error(404, "NAME_UNKNOWN", "Repository name unknown", *_challenge(request))


def _unsupported() -> Reply:
    return error(404, "UNSUPPORTED", "Pushing content is unsupported", _API_VERSION)


def _not_found() -> Reply:
    return error(404, "NOT_FOUND", "not found", _API_VERSION)


@contextlib.asynccontextmanager
async def opened(settings: ContainerGatewaySettings, around: Surroundings) -> AsyncIterator[Gateway]:
    """Yield the service.

    Raises:
        Misconfigured: the cluster file says no Pulp or no Foreman.
    """
    cluster, store = around.cluster, around.store
    if cluster is None or store is None or cluster.content is None or cluster.foreman.url is None:
        raise Misconfigured("container_gateway needs the section content (pulp_api_url), and foreman.url")
    content = cluster.content
    if content.pulp_api_url is None:
        raise Misconfigured("container_gateway needs a Pulp, and pulp_api_url is null")
    member = cluster.member(around.member)
    also = [f for f in (content.ca_file, cluster.foreman.ca_file) if f is not None]
    shown = content.foreman_certificate or around.certificate
    key = content.foreman_key if content.foreman_certificate is not None else around.key
    context = RenewedContext(around.ca, shown, key, also=also)
    patience = Patience(content.connect_timeout_s, content.first_byte_timeout_s, content.stall_timeout_s)
    url = content.pulp_api_url.replace("{address}", in_url(member.address)).rstrip("/")
    tokens = Tokens(
        store, str(cluster.cluster), longest_s=settings.token_lifetime_s, key_lifetime_s=settings.key_lifetime_s
    )
    async with contextlib.AsyncExitStack() as stack:
        asking = katello.opened(cluster.foreman.url, context, timeout_s=settings.foreman_timeout_s)
        foreman = await stack.enter_async_context(asking)
        pulp = await stack.enter_async_context(backends.opened("Pulp's API", url, patience, context=context))
        yield Gateway(around.member, Grants(store), tokens, foreman, pulp, is_revoked=around.is_revoked)
