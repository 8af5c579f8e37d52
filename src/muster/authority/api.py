"""The Puppet CA's HTTP API, as agents, the ``puppetserver ca`` command line and Foreman speak it.

Not a table of routes like a feature's: puppetserver authorises by prefixes before it routes, refuses methods with 403, and
tells unknown paths apart by both; clients know those answers (docs/facts/puppet-ca.md §1). So one
endpoint takes every path of the listener; who may call what is data (:mod:`muster.authority.rules`).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from muster.authority.answers import (
    CHARSET_ONLY,
    JSON,
    TEXT,
    TEXT_UTF8,
    Refusal,
    accepted,
    bare,
    date,
    edn,
    forbidden,
    json_value,
    no_route,
    nothing,
    reply,
)
from muster.authority.authority import PuppetCA
from muster.authority.ledger.lookup import refuse_unwritable
from muster.authority.requests import ttl_of
from muster.authority.rules import V1, ruling
from muster.authority.x509 import profile
from muster.authority.x509.certnames import ROUTABLE
from muster.edge import paths
from muster.edge.replies import SERVER_HEADER, Header, Reply
from muster.edge.request import Request
from muster.edge.routes import Mount
from muster.kernel.errors import Conflict, Denied, Misconfigured, NotFound, Rejected, Unavailable
from muster.kernel.names import shown

PUPPET_VERSION = "7.23.0"
"""What agents learn of our capabilities: those of the version the recordings are from."""
SERVICE_VERSION = "8.4.0"
"""From this version on the command line uses the bulk calls."""

_MEDIA = frozenset({"application/json", "text/pson", "pson"})
_SERVICES = ("ca", "server", "master", "status-service")


Call = Callable[[PuppetCA, Request, str], Awaitable[Reply]]


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
        raise Refusal(bare(400, f"Invalid relative path (.. or .) in: {path}"))
    if not path.isprintable():
        raise Refusal(bare(404, ""))
    return path


async def _admitted(ca: PuppetCA, request: Request, path: str) -> tuple[Call, str]:
    """Return what answers the call, once the caller may make it."""
    if not path.startswith(("/puppet-ca", "/status/v1")):
        raise Refusal(reply(404, f"HTTP ERROR 404 Not Found\nURI: {path}\n", b"text/plain;charset=iso-8859-1"))
    rule = ruling(request.method, path)
    presented = request.peer.certificate
    if rule is None:
        raise Refusal(forbidden(request, path))
    if presented is not None:
        try:
            await ca.certificates.refuse_revoked(presented, leniently=rule.who == "anyone")
        except Denied:
            raise Refusal(forbidden(request, path)) from None
    if rule.who != "anyone" and presented is None:
        raise Refusal(forbidden(request, path))
    if rule.who == "administrator" and (presented is None or not await ca.certificates.holds_authority(presented)):
        raise Refusal(forbidden(request, path))
    return _routed(request, path)


def _routed(request: Request, path: str) -> tuple[Call, str]:
    if path.startswith("/status/v1/"):
        kind, _, name = path.removeprefix("/status/v1/").partition("/")
        if path.endswith("/") or "/" in name:
            raise Refusal(reply(404, f"HTTP ERROR 404 Not Found\nURI: {path}\n", b"text/plain;charset=iso-8859-1"))
        return (_simple if kind == "simple" else _services), name
    resource, slash, name = path.removeprefix(V1).partition("/")
    if resource == "certificate_statuses":
        if slash and not name:
            raise Refusal(reply(400, "Missing URL Segment", TEXT_UTF8))
        if not slash or not ROUTABLE.match(name):
            raise Refusal(no_route())
        if request.method != "GET":
            raise Refusal(reply(405, "Method not allowed.", TEXT_UTF8))
        return _statuses, name
    if not slash and (plain := _PLAIN.get((request.method, resource))):
        return plain, ""
    if resource == "sign" and name == "all":
        return _sign_all, ""
    named = _NAMED.get((request.method, resource))
    if named is None or not ROUTABLE.match(name):
        raise Refusal(no_route())
    return named, name


async def _certificate(ca: PuppetCA, _request: Request, name: str) -> Reply:
    if name == "ca":
        return reply(200, ca.chain_pem, TEXT)
    return await _found(ca.certificates.pem(name))


async def _certificate_request(ca: PuppetCA, _request: Request, name: str) -> Reply:
    return await _found(ca.requests.pem(name))


async def _found(looking: Awaitable[str]) -> Reply:
    try:
        return reply(200, await looking, TEXT)
    except NotFound as e:
        return reply(404, str(e), TEXT)


async def _submit(ca: PuppetCA, request: Request, name: str) -> Reply:
    try:
        await ca.requests.submit(name, await request.body(), source=request.peer.address)
    except Rejected as e:
        return reply(400, str(e), TEXT_UTF8)
    return reply(200, "", TEXT)


async def _list(ca: PuppetCA, request: Request, _name: str) -> Reply:
    lists = await ca.lists.served()
    etag = f'"{lists.number}-{lists.updated_at:.6f}"'
    since = date(request.header(b"if-modified-since"))
    tagged: tuple[Header, ...] = ((b"etag", etag.encode()),)
    slack = ca.settings.crl_slack_s
    # Agents send their own clock's time of their last look, not ours of the last change (docs/facts/puppet-ca.md §3.4).
    if request.header(b"if-none-match") == etag or (since is not None and since > lists.updated_at + slack):
        return Reply(304, b"", [(b"content-type", TEXT), SERVER_HEADER, *tagged])
    return reply(200, lists.pem, TEXT, *tagged)


async def _take_lists(ca: PuppetCA, request: Request, _name: str) -> Reply:
    try:
        await ca.lists.take(await request.body(), actor=_actor(request))
    except Rejected as e:
        return reply(400, str(e), TEXT_UTF8)
    return reply(200, "Successfully updated CRLs.", TEXT_UTF8)


async def _status(ca: PuppetCA, request: Request, name: str) -> Reply:
    media = accepted(request)
    found = await ca.certificates.status(name) if name != "ca" else None
    if found is None:
        return reply(404, "Resource not found.", media or CHARSET_ONLY)
    return reply(200, found.as_json, media or JSON)


async def _statuses(ca: PuppetCA, request: Request, _name: str) -> Reply:
    media = accepted(request)
    # Given twice it is a list there, and a list is none of the three words.
    states = parse_qs(request.raw_query.decode("latin-1")).get("state", [])
    found = await ca.certificates.statuses(states[0] if len(states) == 1 else None)
    return reply(200, f"[{','.join(found)}]", media or JSON)


async def _change_status(ca: PuppetCA, request: Request, name: str) -> Reply:
    accepted(request)
    wanted, ttl_s = await _wish(request, name)
    given = (request.header(b"content-type") or "application/json").partition(";")[0].strip().lower()
    if given not in _MEDIA:
        return reply(415, "Unsupported media type.", TEXT_UTF8)
    try:
        if wanted == "signed":
            await ca.requests.sign(name, actor=_actor(request), ttl_s=ttl_s)
        else:
            await ca.certificates.revoke(name, actor=_actor(request))
    except NotFound as e:
        return reply(404, str(e), TEXT_UTF8)
    except (Conflict, Rejected) as e:
        return reply(409, str(e), TEXT_UTF8)
    return nothing(TEXT)


async def _wish(request: Request, name: str) -> tuple[str, int | None]:
    """Return the wished state and time to live, refused in puppetserver's order."""
    content = json_value(await request.body())
    if content is None or content is False:
        raise Refusal(reply(400, "Request body is not JSON.", TEXT_UTF8))
    wanted = content.get("desired_state") if isinstance(content, dict) else None
    if not isinstance(wanted, str):
        raise Refusal(reply(400, 'Missing required parameter "desired_state"', TEXT_UTF8))
    if wanted not in ("signed", "revoked"):
        text = f"State {wanted} invalid; Must specify desired state of 'signed' or 'revoked' for host {name}."
        raise Refusal(reply(400, text, TEXT_UTF8))
    ttl = content.get("cert_ttl")
    if ttl is None or ttl is False:
        return wanted, None
    if isinstance(ttl, bool) or not isinstance(ttl, int):
        shown = ttl if isinstance(ttl, str) else json.dumps(ttl)
        text = f'cert_ttl specified for host {name} must be an integer, not "{shown}"'
        raise Refusal(reply(400, text, TEXT_UTF8))
    try:
        return wanted, ttl_of(ttl)
    except Rejected as e:
        raise Refusal(reply(400, str(e), TEXT_UTF8)) from e


async def _remove(ca: PuppetCA, request: Request, name: str) -> Reply:
    media = accepted(request)
    try:
        await ca.certificates.remove(name, actor=_actor(request))
    except NotFound:
        return reply(404, "Resource not found.", media or CHARSET_ONLY)
    return nothing(media or CHARSET_ONLY)


async def _clean(ca: PuppetCA, request: Request, _name: str) -> Reply:
    content = json_value(await request.body())
    if content is None or content is False:
        return reply(400, "Request body is not JSON.", TEXT)
    if isinstance(content, dict) and content.get("async"):
        return reply(400, "Async mode is not currently supported.", TEXT)
    names = content.get("certnames") if isinstance(content, dict) else None
    if names is None:
        text = "Missing required key: 'certnames'. Please supply the list of certs you want to clean."
        return reply(400, text, TEXT)
    if not _are_names(names):
        return reply(400, "'certnames' must be a list of names.", TEXT)
    missing = await ca.certificates.clean(names, actor=_actor(request))
    if not missing:
        return reply(200, "Successfully cleaned all certs.", TEXT)
    listed = " ".join(edn(n) for n in missing)
    return reply(200, f"The following certs do not exist and cannot be revoked: [{listed}]", TEXT)


async def _sign(ca: PuppetCA, request: Request, _name: str) -> Reply:
    content = json_value(await request.body())
    names = content.get("certnames") if isinstance(content, dict) else None
    if not _are_names(names):
        error = {"kind": "schema-violation", "submitted": content, "error": "certnames must be a list of names"}
        return reply(422, json.dumps(error), JSON)
    return await _signed(ca, request, names)


async def _sign_all(ca: PuppetCA, request: Request, _name: str) -> Reply:
    return await _signed(ca, request, None)


async def _signed(ca: PuppetCA, request: Request, names: list[str] | None) -> Reply:
    done = await ca.requests.sign_all(names, actor=_actor(request))
    content = {"signed": done.signed, "no-csr": done.without_request, "signing-errors": done.refused}
    return reply(200, json.dumps(content), JSON)


async def _renew(ca: PuppetCA, request: Request, _name: str) -> Reply:
    presented = request.peer.certificate
    assert presented is not None  # noqa: S101 - the rule demands one
    try:
        return reply(200, await ca.certificates.renew(presented), TEXT)
    except NotFound as e:
        return reply(404, str(e), TEXT)
    except Denied as e:
        return reply(403, str(e), TEXT)
    except Rejected as e:
        return reply(400, str(e), TEXT_UTF8)


async def _expirations(ca: PuppetCA, _request: Request, _name: str) -> Reply:
    content = await ca.lists.expirations()
    return reply(200, json.dumps(content, ensure_ascii=False, separators=(",", ":")), b"application/json")


async def _simple(ca: PuppetCA, _request: Request, name: str) -> Reply:
    if name and name not in _SERVICES:
        return reply(404, f"not found: {name}", TEXT_UTF8)
    try:
        await ca.reached()
    except (Unavailable, Misconfigured):
        return reply(503, "error", TEXT_UTF8)
    return reply(200, "running", TEXT_UTF8)


async def _services(ca: PuppetCA, request: Request, name: str) -> Reply:
    level = request.query().get("level", "info")
    if level not in ("critical", "info", "debug"):
        return reply(400, json.dumps({"kind": "data-invalid", "msg": f"Invalid level: :{level}"}), JSON)
    if name and name not in _SERVICES:
        content: Any = {"kind": "service-not-found", "msg": f"No status information found for service {name}"}
        return reply(404, json.dumps(content), JSON)
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
    return reply(200 if state == "running" else 503, json.dumps(content), JSON)


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


def _are_names(value: Any) -> bool:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        return False
    try:
        refuse_unwritable(*value)
    except Rejected:
        return False
    return True
