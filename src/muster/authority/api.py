"""The Puppet CA's HTTP API, as agents, the ``puppetserver ca`` command line and Foreman speak it.

Not a table of routes like a feature's: puppetserver authorises by prefixes before it routes, refuses methods with 403, and
tells unknown paths apart by both; clients know those answers (docs/facts/puppet-ca.md §1). So one
endpoint takes every path of the listener, and its rules stand here as data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import parse_qs

from muster.authority.authority import PuppetCA, ttl_of
from muster.authority.ledger.lookup import refuse_unwritable
from muster.authority.x509 import profile
from muster.authority.x509.certnames import ROUTABLE
from muster.edge import paths
from muster.edge.replies import RETRY_AFTER, SERVER_HEADER, Header, Reply
from muster.edge.request import Request
from muster.edge.routes import Mount
from muster.kernel.errors import Conflict, Denied, Misconfigured, NotFound, Rejected, Unavailable
from muster.kernel.log import logger
from muster.kernel.names import shown

_log = logger("authority")

PUPPET_VERSION = "7.23.0"
"""What agents learn of our capabilities: those of the version the recordings are from."""
SERVICE_VERSION = "8.4.0"
"""From this version on the command line uses the bulk calls."""

_V1 = "/puppet-ca/v1/"
Who = Literal["anyone", "bearer", "administrator"]

_JSON = b"application/json;charset=utf-8"
_TEXT = b"text/plain"
_TEXT_UTF8 = b"text/plain;charset=utf-8"
_HTML = b"text/html;charset=utf-8"
_CHARSET_ONLY = b";charset=UTF-8"
_NO_ACCEPTABLE = "No acceptable resource available."
_MEDIA = frozenset({"application/json", "text/pson", "pson"})
_DATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d{2}) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (\d{4})"
    r" (\d{2}):(\d{2}):(\d{2}) (GMT|[+-]\d{4})\Z"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SERVICES = ("ca", "server", "master", "status-service")


@dataclass(frozen=True)
class Rule:
    """Who may call what: the first rule whose method and path fit decides; none fits: nobody.

    Attributes:
        exact: the whole path, not only its beginning.
    """

    path: str
    methods: frozenset[str]
    who: Who
    exact: bool = False

    def fits(self, method: str, path: str) -> bool:
        return method in self.methods and (path == self.path if self.exact else path.startswith(self.path))


def _rule(path: str, methods: str, who: Who, *, exact: bool = False) -> Rule:
    return Rule(path, frozenset(methods.split()), who, exact)


# The packaged auth.conf, its prefix semantics included.
RULES: Sequence[Rule] = (
    _rule(f"{_V1}certificate_revocation_list/ca", "GET", "anyone"),
    _rule(f"{_V1}certificate_revocation_list", "PUT", "administrator", exact=True),
    _rule(f"{_V1}certificate/", "GET", "anyone"),
    _rule(f"{_V1}certificate_request", "GET PUT", "anyone"),
    _rule(f"{_V1}certificate_status", "GET PUT DELETE", "administrator"),
    _rule(f"{_V1}certificate_renewal", "POST", "bearer"),
    _rule(f"{_V1}expirations", "GET", "bearer"),
    _rule(f"{_V1}clean", "PUT", "administrator"),
    _rule(f"{_V1}sign", "POST", "administrator"),
    _rule("/status/v1/simple", "GET", "anyone"),
    _rule("/status/v1/services", "GET", "anyone"),
)

Call = Callable[[PuppetCA, Request, str], Awaitable[Reply]]


@dataclass(frozen=True)
class Refusal(Exception):
    """An answer that is decided early."""

    reply: Reply


async def answered(ca: PuppetCA, request: Request) -> Reply:
    """Answer any call to the authority's listener."""
    try:
        path = _path(request)
        call, rest = await _admitted(ca, request, path)
        answer = await call(ca, request, rest)
    except Refusal as e:
        return e.reply
    if answer.status == 304 or not path.startswith("/puppet-ca"):
        return answer
    return Reply(answer.status, answer.body, [*answer.headers, (b"x-puppet-version", PUPPET_VERSION.encode())])


MOUNT = Mount("", (), unrouted=answered)


def _path(request: Request) -> str:
    path = paths.decoded(request.raw_path)
    if any(part in (".", "..") for part in path.split("/")):
        raise Refusal(_bare(400, f"Invalid relative path (.. or .) in: {path}"))
    if not path.isprintable():
        raise Refusal(_bare(404, ""))
    return path


async def _admitted(ca: PuppetCA, request: Request, path: str) -> tuple[Call, str]:
    """Return what answers the call, once the caller may make it."""
    if not path.startswith(("/puppet-ca", "/status/v1")):
        raise Refusal(_reply(404, f"HTTP ERROR 404 Not Found\nURI: {path}\n", b"text/plain;charset=iso-8859-1"))
    rule = next((r for r in RULES if r.fits(request.method, path)), None)
    presented = request.peer.certificate
    if rule is None:
        raise Refusal(_forbidden(request, path))
    if presented is not None:
        try:
            await ca.refuse_revoked(presented, leniently=rule.who == "anyone")
        except Denied:
            raise Refusal(_forbidden(request, path)) from None
    if rule.who != "anyone" and presented is None:
        raise Refusal(_forbidden(request, path))
    if rule.who == "administrator" and (presented is None or not await ca.holds_authority(presented)):
        raise Refusal(_forbidden(request, path))
    return _routed(request, path)


def _routed(request: Request, path: str) -> tuple[Call, str]:
    if path.startswith("/status/v1/"):
        kind, _, name = path.removeprefix("/status/v1/").partition("/")
        if path.endswith("/") or "/" in name:
            raise Refusal(_reply(404, f"HTTP ERROR 404 Not Found\nURI: {path}\n", b"text/plain;charset=iso-8859-1"))
        return (_simple if kind == "simple" else _services), name
    resource, slash, name = path.removeprefix(_V1).partition("/")
    if resource == "certificate_statuses":
        if slash and not name:
            raise Refusal(_reply(400, "Missing URL Segment", _TEXT_UTF8))
        if not slash or not ROUTABLE.match(name):
            raise Refusal(_no_route())
        if request.method != "GET":
            raise Refusal(_reply(405, "Method not allowed.", _TEXT_UTF8))
        return _statuses, name
    if not slash and (plain := _PLAIN.get((request.method, resource))):
        return plain, ""
    if resource == "sign" and name == "all":
        return _sign_all, ""
    named = _NAMED.get((request.method, resource))
    if named is None or not ROUTABLE.match(name):
        raise Refusal(_no_route())
    return named, name


async def _certificate(ca: PuppetCA, _request: Request, name: str) -> Reply:
    if name == "ca":
        return _reply(200, ca.chain_pem, _TEXT)
    return await _found(ca.certificate(name))


async def _certificate_request(ca: PuppetCA, _request: Request, name: str) -> Reply:
    return await _found(ca.request(name))


async def _found(looking: Awaitable[str]) -> Reply:
    try:
        return _reply(200, await looking, _TEXT)
    except NotFound as e:
        return _reply(404, str(e), _TEXT)


async def _submit(ca: PuppetCA, request: Request, name: str) -> Reply:
    try:
        await ca.submit(name, await request.body(), source=request.peer.address)
    except Rejected as e:
        return _reply(400, str(e), _TEXT_UTF8)
    return _reply(200, "", _TEXT)


async def _list(ca: PuppetCA, request: Request, _name: str) -> Reply:
    lists = await ca.lists()
    etag = f'"{lists.number}-{lists.updated_at:.6f}"'
    since = _date(request.header(b"if-modified-since"))
    tagged: tuple[Header, ...] = ((b"etag", etag.encode()),)
    slack = ca.settings.crl_slack_s
    # Agents send their own clock's time of their last look, not ours of the last change (docs/facts/puppet-ca.md §3.4).
    if request.header(b"if-none-match") == etag or (since is not None and since > lists.updated_at + slack):
        return Reply(304, b"", [(b"content-type", _TEXT), SERVER_HEADER, *tagged])
    return _reply(200, lists.pem, _TEXT, *tagged)


async def _take_lists(ca: PuppetCA, request: Request, _name: str) -> Reply:
    try:
        await ca.take_lists(await request.body(), actor=_actor(request))
    except Rejected as e:
        return _reply(400, str(e), _TEXT_UTF8)
    return _reply(200, "Successfully updated CRLs.", _TEXT_UTF8)


async def _status(ca: PuppetCA, request: Request, name: str) -> Reply:
    media = _media(request)
    found = await ca.status(name) if name != "ca" else None
    if found is None:
        return _reply(404, "Resource not found.", media or _CHARSET_ONLY)
    return _reply(200, found.as_json, media or _JSON)


async def _statuses(ca: PuppetCA, request: Request, _name: str) -> Reply:
    media = _media(request)
    # Given twice it is a list there, and a list is none of the three words.
    states = parse_qs(request.raw_query.decode("latin-1")).get("state", [])
    found = await ca.statuses(states[0] if len(states) == 1 else None)
    return _reply(200, f"[{','.join(found)}]", media or _JSON)


async def _change_status(ca: PuppetCA, request: Request, name: str) -> Reply:
    _media(request)
    wanted, ttl_s = await _wish(request, name)
    given = (request.header(b"content-type") or "application/json").partition(";")[0].strip().lower()
    if given not in _MEDIA:
        return _reply(415, "Unsupported media type.", _TEXT_UTF8)
    try:
        if wanted == "signed":
            await ca.sign(name, actor=_actor(request), ttl_s=ttl_s)
        else:
            await ca.revoke(name, actor=_actor(request))
    except NotFound as e:
        return _reply(404, str(e), _TEXT_UTF8)
    except (Conflict, Rejected) as e:
        return _reply(409, str(e), _TEXT_UTF8)
    return _nothing(_TEXT)


async def _wish(request: Request, name: str) -> tuple[str, int | None]:
    """Return the wished state and time to live, refused in puppetserver's order."""
    content = _json_value(await request.body())
    if content is None or content is False:
        raise Refusal(_reply(400, "Request body is not JSON.", _TEXT_UTF8))
    wanted = content.get("desired_state") if isinstance(content, dict) else None
    if not isinstance(wanted, str):
        raise Refusal(_reply(400, 'Missing required parameter "desired_state"', _TEXT_UTF8))
    if wanted not in ("signed", "revoked"):
        text = f"State {wanted} invalid; Must specify desired state of 'signed' or 'revoked' for host {name}."
        raise Refusal(_reply(400, text, _TEXT_UTF8))
    ttl = content.get("cert_ttl")
    if ttl is None or ttl is False:
        return wanted, None
    if isinstance(ttl, bool) or not isinstance(ttl, int):
        shown = ttl if isinstance(ttl, str) else json.dumps(ttl)
        text = f'cert_ttl specified for host {name} must be an integer, not "{shown}"'
        raise Refusal(_reply(400, text, _TEXT_UTF8))
    try:
        return wanted, ttl_of(ttl)
    except Rejected as e:
        raise Refusal(_reply(400, str(e), _TEXT_UTF8)) from e


async def _remove(ca: PuppetCA, request: Request, name: str) -> Reply:
    media = _media(request)
    try:
        await ca.remove(name, actor=_actor(request))
    except NotFound:
        return _reply(404, "Resource not found.", media or _CHARSET_ONLY)
    return _nothing(media or _CHARSET_ONLY)


async def _clean(ca: PuppetCA, request: Request, _name: str) -> Reply:
    content = _json_value(await request.body())
    if content is None or content is False:
        return _reply(400, "Request body is not JSON.", _TEXT)
    if isinstance(content, dict) and content.get("async"):
        return _reply(400, "Async mode is not currently supported.", _TEXT)
    names = content.get("certnames") if isinstance(content, dict) else None
    if names is None:
        text = "Missing required key: 'certnames'. Please supply the list of certs you want to clean."
        return _reply(400, text, _TEXT)
    if not _are_names(names):
        return _reply(400, "'certnames' must be a list of names.", _TEXT)
    missing = await ca.clean(names, actor=_actor(request))
    if not missing:
        return _reply(200, "Successfully cleaned all certs.", _TEXT)
    listed = " ".join(_edn(n) for n in missing)
    return _reply(200, f"The following certs do not exist and cannot be revoked: [{listed}]", _TEXT)


async def _sign(ca: PuppetCA, request: Request, _name: str) -> Reply:
    content = _json_value(await request.body())
    names = content.get("certnames") if isinstance(content, dict) else None
    if not _are_names(names):
        error = {"kind": "schema-violation", "submitted": content, "error": "certnames must be a list of names"}
        return _reply(422, json.dumps(error), _JSON)
    return await _signed(ca, request, names)


async def _sign_all(ca: PuppetCA, request: Request, _name: str) -> Reply:
    return await _signed(ca, request, None)


async def _signed(ca: PuppetCA, request: Request, names: list[str] | None) -> Reply:
    done = await ca.sign_all(names, actor=_actor(request))
    content = {"signed": done.signed, "no-csr": done.without_request, "signing-errors": done.refused}
    return _reply(200, json.dumps(content), _JSON)


async def _renew(ca: PuppetCA, request: Request, _name: str) -> Reply:
    presented = request.peer.certificate
    assert presented is not None  # noqa: S101 - the rule demands one
    try:
        return _reply(200, await ca.renew(presented), _TEXT)
    except NotFound as e:
        return _reply(404, str(e), _TEXT)
    except Denied as e:
        return _reply(403, str(e), _TEXT)
    except Rejected as e:
        return _reply(400, str(e), _TEXT_UTF8)


async def _expirations(ca: PuppetCA, _request: Request, _name: str) -> Reply:
    content = await ca.expirations()
    return _reply(200, json.dumps(content, ensure_ascii=False, separators=(",", ":")), b"application/json")


async def _simple(ca: PuppetCA, _request: Request, name: str) -> Reply:
    if name and name not in _SERVICES:
        return _reply(404, f"not found: {name}", _TEXT_UTF8)
    try:
        await ca.reached()
    except (Unavailable, Misconfigured):
        return _reply(503, "error", _TEXT_UTF8)
    return _reply(200, "running", _TEXT_UTF8)


async def _services(ca: PuppetCA, request: Request, name: str) -> Reply:
    level = request.query().get("level", "info")
    if level not in ("critical", "info", "debug"):
        return _reply(400, json.dumps({"kind": "data-invalid", "msg": f"Invalid level: :{level}"}), _JSON)
    if name and name not in _SERVICES:
        content: Any = {"kind": "service-not-found", "msg": f"No status information found for service {name}"}
        return _reply(404, json.dumps(content), _JSON)
    try:
        await ca.reached()
        state = "running"
    except (Unavailable, Misconfigured):
        state = "error"
    every = {
        service: {
            "service_version": SERVICE_VERSION,
            "service_status_version": 1,
            "detail_level": level,
            "state": state,
            "status": {},
            "active_alerts": [],
        }
        for service in _SERVICES
    }
    content = {**every[name], "service_name": name} if name else every
    return _reply(200 if state == "running" else 503, json.dumps(content), _JSON)


_NAMED: dict[tuple[str, str], Call] = {
    ("GET", "certificate"): _certificate,
    ("GET", "certificate_request"): _certificate_request,
    ("PUT", "certificate_request"): _submit,
    ("GET", "certificate_revocation_list"): _list,
    ("GET", "certificate_status"): _status,
    ("PUT", "certificate_status"): _change_status,
    ("DELETE", "certificate_status"): _remove,
}
_PLAIN: dict[tuple[str, str], Call] = {
    ("PUT", "certificate_revocation_list"): _take_lists,
    ("POST", "certificate_renewal"): _renew,
    ("GET", "expirations"): _expirations,
    ("PUT", "clean"): _clean,
    ("POST", "sign"): _sign,
}


def _actor(request: Request) -> str:
    certificate = request.peer.parsed
    # A certname may hold underscores, which no host name does.
    return shown(profile.common_name(certificate.subject)) if certificate is not None else request.peer.address


def _media(request: Request) -> bytes | None:
    """Return the content type the client gets its status in; None when it does not care.

    Raises:
        Refusal: it takes none we have.
    """
    accept = request.accept
    if not accept or not accept.strip():
        return None
    given = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    for kind in ("text/pson", "pson"):
        if kind in given:
            return f"{kind};charset=UTF-8".encode()
    if given & {"application/json", "application/*"}:
        return _JSON
    if "*/*" in given:
        return b"*/*;charset=UTF-8"
    raise Refusal(_reply(406, _NO_ACCEPTABLE, _TEXT_UTF8))


def _json_value(body: bytes) -> Any:
    """Return the first JSON value of a body, None when there is none; what follows it is passed over."""
    try:
        return json.JSONDecoder().raw_decode(body.decode("utf-8").lstrip())[0]
    except (ValueError, RecursionError):
        return None


def _are_names(value: Any) -> bool:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        return False
    try:
        refuse_unwritable(*value)
    except Rejected:
        return False
    return True


def _edn(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _date(text: str | None) -> float | None:
    """Return a moment in the one form puppetserver understands (RFC 1123), None for anything else."""
    found = _DATE.match(text) if text else None
    if found is None:
        return None
    day, month, year, hour, minute, second, zone = found.groups()
    offset = 0 if zone == "GMT" else (int(zone[1:3]) * 60 + int(zone[3:])) * (1 if zone[0] == "+" else -1)
    try:
        number = _MONTHS.index(month) + 1
        moment = datetime(int(year), number, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
        return (moment - timedelta(minutes=offset)).timestamp()
    except (ValueError, OverflowError):
        return None


def _forbidden(request: Request, path: str) -> Reply:
    if request.method == "HEAD":
        return _bare(403, "")
    method = request.method.lower()
    return _bare(403, f"Forbidden request: {path} (method :{method}). Please see the server logs for details.")


def _no_route() -> Reply:
    return _reply(404, "Not Found", _HTML)


def _nothing(content_type: bytes) -> Reply:
    return Reply(204, b"", [(b"content-type", content_type), SERVER_HEADER])


def _reply(status: int, text: str, content_type: bytes, *extra: Header) -> Reply:
    body = text.encode("utf-8", "replace")
    length = (b"content-length", b"%d" % len(body))
    later = (RETRY_AFTER,) if status == 503 else ()
    return Reply(status, body, [(b"content-type", content_type), length, SERVER_HEADER, *later, *extra])


def _bare(status: int, text: str) -> Reply:
    """Return an answer without a content type, as puppetserver gives some."""
    body = text.encode("utf-8", "replace")
    return Reply(status, body, [(b"content-length", b"%d" % len(body)), SERVER_HEADER])
