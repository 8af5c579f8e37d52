"""A stand-in for Amazon Route 53: what its documentation says of zones, record sets and signatures. It is none: see provider
``route53``.

It checks the signature (AWS Signature Version 4) of every call by the rules of "Create a signed AWS API request", with code
of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

ACCESS_KEY, SECRET_KEY = "AKIAIOSFODNN7EXAMPLE", "secret/key+of/no/account/at/all/anywhere"
_API = "/2013-04-01/hostedzone"
_NAMESPACE = "https://route53.amazonaws.com/doc/2013-04-01/"
_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class Values:
    """A resource record set: its values with their time to live, or what else it has, as XML."""

    ttl: int = 0
    values: tuple[str, ...] = ()
    other: str = ""


@dataclass
class HostedZone:
    """A zone; its sets by name, type and identifier."""

    id: str
    name: str
    is_private: bool = False
    sets: dict[tuple[str, str, str], Values] = field(default_factory=dict)


@dataclass
class Account:
    """An account's zones.

    Attributes:
        page: how many are told at once at most.
        broken: status and body of every answer while it is set.
        refusals: status, code and message of the next answers, one each.
        refuse_changes: the same for every change while it is set.
        off: how far its clock is from ours.
        asked: method and path of the calls whose signature it accepted.
        before: called once before the next change is looked at.
    """

    url: str = ""
    zones: list[HostedZone] = field(default_factory=list)
    page: int = 100
    slow_s: float = 0.0
    broken: tuple[int, bytes] | None = None
    refusals: list[tuple[int, str, str]] = field(default_factory=list)
    refuse_changes: tuple[int, str, str] | None = None
    off: timedelta = timedelta()
    asked: list[str] = field(default_factory=list)
    before: Any = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, *, private: bool = False, id: str = "") -> HostedZone:
        zone = HostedZone(id or f"Z{len(self.zones) + 1:012}", f"{name}.", private)
        soa = "ns-1.awsdns-1.org. awsdns-hostmaster.amazon.com. 1 7200 900 1209600 86400"
        zone.sets[zone.name, "SOA", ""] = Values(900, (soa,))
        zone.sets[zone.name, "NS", ""] = Values(172800, ("ns-1.awsdns-1.org.",))
        self.zones.append(zone)
        return zone

    def values(self, name: str, kind: str) -> tuple[str, ...]:
        """Return what any zone has under a name."""
        keys = ((zone, key) for zone in self.zones for key in zone.sets)
        return tuple(v for zone, key in keys if key[:2] == (f"{name.lower()}.", kind) for v in zone.sets[key].values)

    def answer(self, method: str, path: str, query: Mapping[str, list[str]], body: bytes) -> tuple[int, str]:
        one = {key: values[0] for key, values in query.items()}
        size = min(int(one.get("maxitems", "100")), self.page)
        if path == _API and method == "GET":
            return self._listed(one.get("marker"), size)
        id, _, rest = path.removeprefix(f"{_API}/").partition("/")
        zone = next((z for z in self.zones if z.id == id), None)
        if zone is None:
            return _error(404, "NoSuchHostedZone", f"No hosted zone found with ID: {id}")
        if method == "GET" and not rest:
            return _told("GetHostedZoneResponse", _zone(zone))
        if method == "GET" and rest == "rrset":
            return _sets(zone, one, size)
        if method == "POST" and rest.rstrip("/") == "rrset":
            if self.refuse_changes is not None:
                return _error(*self.refuse_changes)
            if self.before is not None:
                before, self.before = self.before, None
                before(zone)
            return _changed(zone, body)
        return _error(404, "InvalidAction", "no such call")

    def _listed(self, marker: str | None, size: int) -> tuple[int, str]:
        first = next((n for n, z in enumerate(self.zones) if z.id == marker), 0)
        page, following = self.zones[first : first + size], self.zones[first + size : first + size + 1]
        told = f"<HostedZones>{''.join(map(_zone, page))}</HostedZones>{_truncated(following)}"
        told += f"<MaxItems>{size}</MaxItems>" + "".join(f"<NextMarker>{z.id}</NextMarker>" for z in following)
        return _told("ListHostedZonesResponse", told)


def _zone(zone: HostedZone) -> str:
    config = f"<Config><PrivateZone>{str(zone.is_private).lower()}</PrivateZone></Config>"
    return (
        f"<HostedZone><Id>/hostedzone/{zone.id}</Id><Name>{zone.name}</Name><CallerReference>r</CallerReference>{config}"
        f"<ResourceRecordSetCount>{len(zone.sets)}</ResourceRecordSetCount></HostedZone>"
    )


def _truncated(following: Sequence[object]) -> str:
    return f"<IsTruncated>{str(bool(following)).lower()}</IsTruncated>"


def _order(key: tuple[str, str, str]) -> tuple[str, str, str]:
    name, kind, identifier = key
    return ".".join(reversed(name.rstrip(".").split("."))) + ".", kind, identifier


def _sets(zone: HostedZone, one: Mapping[str, str], size: int) -> tuple[int, str]:
    start = _order((one.get("name", "").lower(), one.get("type", ""), one.get("identifier", "")))
    keys = [key for key in sorted(zone.sets, key=_order) if "name" not in one or _order(key) >= start]
    page, following = keys[:size], keys[size : size + 1]
    told = "".join(_set(key, zone.sets[key]) for key in page)
    told = f"<ResourceRecordSets>{told}</ResourceRecordSets>{_truncated(following)}"
    for name, kind, identifier in following:
        told += f"<NextRecordName>{name}</NextRecordName><NextRecordType>{kind}</NextRecordType>"
        told += f"<NextRecordIdentifier>{identifier}</NextRecordIdentifier>" if identifier else ""
    return _told("ListResourceRecordSetsResponse", f"{told}<MaxItems>{size}</MaxItems>")


def _set(key: tuple[str, str, str], has: Values) -> str:
    name, kind, identifier = key
    told = f"<Name>{escape(name)}</Name><Type>{kind}</Type>"
    told += f"<SetIdentifier>{identifier}</SetIdentifier>" if identifier else ""
    told += has.other
    if has.values:
        values = "".join(f"<ResourceRecord><Value>{escape(v)}</Value></ResourceRecord>" for v in has.values)
        told += f"<TTL>{has.ttl}</TTL><ResourceRecords>{values}</ResourceRecords>"
    return f"<ResourceRecordSet>{told}</ResourceRecordSet>"


def _changed(zone: HostedZone, body: bytes) -> tuple[int, str]:
    """Make all changes, or none."""
    sets, wrong = dict(zone.sets), list[str]()
    ns = {"r": _NAMESPACE}
    for change in ElementTree.fromstring(body).iterfind(".//r:Change", ns):  # noqa: S314
        action, one = change.findtext("r:Action", "", ns), change.find("r:ResourceRecordSet", ns)
        assert one is not None
        name, kind = one.findtext("r:Name", "", ns).lower(), one.findtext("r:Type", "", ns)
        values = tuple(v.text or "" for v in one.iterfind(".//r:Value", ns))
        has = Values(int(one.findtext("r:TTL", "0", ns)), values)
        key = (name, kind, one.findtext("r:SetIdentifier", "", ns))
        said = f"[name='{name}', type='{kind}']"
        cnames = [k for k in sets if k[0] == name and k[1] == "CNAME"]
        others = [k for k in sets if k[0] == name and k[1] != "CNAME"]
        if not f".{name}".endswith(f".{zone.name}"):
            wrong.append(f"RRSet with DNS name {name} is not permitted in zone {zone.name}")
        elif action == "DELETE":
            if key not in sets:
                wrong.append(f"Tried to delete resource record set {said} but it was not found")
            elif sets.pop(key) != has:
                wrong.append(
                    f"Tried to delete resource record set {said} but the values provided do not match the current values"
                )
        elif action != "CREATE":
            wrong.append(f"this stand-in knows no {action}")
        elif len(set(values)) != len(values) or not values:
            wrong.append(f"Duplicate Resource Record: '{values}'")
        elif key in sets:
            wrong.append(f"Tried to create resource record set {said} but it already exists")
        elif kind == "CNAME" and name == zone.name:
            wrong.append(f"RRSet of type CNAME with DNS name {name} is not permitted at apex in zone {zone.name}")
        elif (kind == "CNAME" and others) or (kind != "CNAME" and cnames):
            wrong.append(
                f"RRSet of type {kind} with DNS name {name} is not permitted as it conflicts with other records"
            )
        else:
            sets[key] = has
    if wrong:
        return _error(400, "InvalidChangeBatch", f"[{', '.join(wrong)}]")
    zone.sets = sets
    info = "<Id>/change/C1</Id><Status>PENDING</Status><SubmittedAt>2026-11-30T12:00:00Z</SubmittedAt>"
    return _told("ChangeResourceRecordSetsResponse", f"<ChangeInfo>{info}</ChangeInfo>")


def _told(root: str, content: str) -> tuple[int, str]:
    return 200, f'<?xml version="1.0"?>\n<{root} xmlns="{_NAMESPACE}">{content}</{root}>'


def _error(status: int, code: str, message: str) -> tuple[int, str]:
    told = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    return (
        status,
        f'<?xml version="1.0"?>\n<ErrorResponse xmlns="{_NAMESPACE}">{told}<RequestId>r</RequestId></ErrorResponse>',
    )


def _unsigned(
    account: Account, method: str, target: str, headers: Mapping[str, str], body: bytes
) -> tuple[str, str] | None:
    """Return code and message for a call that is not signed as it must be, None when it is."""
    said = headers.get("authorization", "")
    scheme, _, rest = said.partition(" ")
    parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    if scheme != "AWS4-HMAC-SHA256" or set(parts) != {"Credential", "SignedHeaders", "Signature"}:
        return "MissingAuthenticationToken", "Missing Authentication Token"
    access_key, date, region, service, end = parts["Credential"].split("/")
    if access_key != ACCESS_KEY:
        return "InvalidClientTokenId", "The security token included in the request is invalid."
    if (region, service, end) != ("us-east-1", "route53", "aws4_request"):
        return "SignatureDoesNotMatch", f"Credential should be scoped to a valid region, not '{region}'."
    signed = parts["SignedHeaders"].split(";")
    if not {"host", "x-amz-date"} <= set(signed):
        return "SignatureDoesNotMatch", "'Host' and 'X-Amz-Date' must be signed."
    path, _, query = target.partition("?")
    pairs = sorted(tuple(pair.partition("=")[::2]) for pair in query.split("&")) if query else []
    canonical = "\n".join(
        [
            method, quote(path, safe="/~"), "&".join(f"{key}={value}" for key, value in pairs),
            *(f"{name}:{' '.join(headers[name].split())}" for name in signed), "", ";".join(signed),
            hashlib.sha256(body).hexdigest(),
        ]
    )  # fmt: skip
    stamp = headers["x-amz-date"]
    scope = f"{date}/{region}/{service}/{end}"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{SECRET_KEY}".encode()
    for word in (date, region, service, end):
        key = hmac.digest(key, word.encode(), "sha256")
    if not hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), parts["Signature"]):
        return "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided."
    now, at = datetime.now(UTC) + account.off, datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if at < now - _SKEW:
        return "SignatureDoesNotMatch", f"Signature expired: {stamp} is now earlier than {now - _SKEW:%Y%m%dT%H%M%SZ}"
    if at > now + _SKEW:
        return (
            "SignatureDoesNotMatch",
            f"Signature not yet current: {stamp} is still later than {now + _SKEW:%Y%m%dT%H%M%SZ}",
        )
    return None


@contextlib.contextmanager
def running(certificate: Path | None = None) -> Iterator[Account]:
    """Yield an account whose API answers on 127.0.0.1, over TLS with a certificate and its key, else over plain HTTP."""
    account = Account()

    class Calls(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

        def _served(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            time.sleep(account.slow_s)
            with account.lock:
                status, told = self._answered(headers, body)
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(told)

        def _answered(self, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
            if account.broken is not None:
                return account.broken
            if (wrong := _unsigned(account, self.command, self.path, headers, body)) is not None:
                status, text = _error(403, *wrong)
                return status, text.encode()
            account.asked.append(f"{self.command} {self.path}")
            if account.refusals:
                status, text = _error(*account.refusals.pop(0))
                return status, text.encode()
            parts = urlsplit(self.path)
            status, text = account.answer(self.command, unquote(parts.path), parse_qs(parts.query), body)
            return status, text.encode()

        do_GET = do_POST = _served  # noqa: N815 - the library's names

    with ThreadingHTTPServer(("127.0.0.1", 0), Calls) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        account.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield account
        finally:
            server.shutdown()
            thread.join()
