"""Routes on which members that have dhcpd's files tell them to those that have not; Foreman asks none of them.

Other members alone are told what stands in the files; that they can be read, whoever may look at the cluster.
"""

from __future__ import annotations

import re

from muster.edge.replies import SERVER_HEADER, Header, Reply, Streamed, json_reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.features.dhcp.isc.feed import Held, Source
from muster.features.dhcp.isc.frames import MAX_MARK
from muster.features.dhcp.service import DHCP
from muster.kernel.errors import Denied, MusterError, NotFound, Rejected, Unsupported

_NAME = re.compile(r"[0-9a-f]{32}\Z")
_DIGEST = re.compile(r"(?:[0-9a-f]{64})?\Z")
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,12})\Z")
_HEADERS: tuple[Header, ...] = (
    (b"content-type", b"application/octet-stream"),
    (b"x-content-type-options", b"nosniff"),
    SERVER_HEADER,
    (b"cache-control", b"no-store"),
)


async def readable(dhcp: DHCP, _request: Request) -> Reply:
    source = _source(dhcp)
    try:
        size, trouble = await source.readable(), None
    except MusterError as e:
        size, trouble = None, str(e)
    return json_reply({"leases_bytes": size, "trouble": trouble, "streams": source.streams})


async def announced(_dhcp: DHCP, _request: Request) -> Reply:
    raise Unsupported("Of dhcpd's files only the whole stream is told")


async def stream(dhcp: DHCP, request: Request) -> Streamed:
    source = _for_members(dhcp, request)
    given = request.query()
    conf, leases = (_text(given.get(name, ""), _DIGEST, name) for name in ("conf", "leases"))
    size = int(_text(given.get("size", "0"), _NUMBER, "size"))
    name = _text(request.arguments["stream"], _NAME, "stream")
    return Streamed(200, [*_HEADERS], source.told(name, Held(conf, size, leases)))


async def mark(dhcp: DHCP, request: Request) -> Reply:
    source = _for_members(dhcp, request)
    name = _text(request.arguments["stream"], _NAME, "stream")
    number = int(_text(request.arguments["mark"], _NUMBER, "mark"))
    if number > MAX_MARK or not source.marked(name, number):
        raise NotFound(f"There is no stream {name}")
    return json_reply({})


def _source(dhcp: DHCP) -> Source:
    if dhcp.files is None:
        raise NotFound("isc.files_on does not name this member, so it tells nobody dhcpd's files")
    return dhcp.files


def _for_members(dhcp: DHCP, request: Request) -> Source:
    source = _source(dhcp)
    # Who showed it was looked at before: a certificate of the cluster's CA, or of a trusted host.
    if not request.over_tls or request.peer.name not in source.members:
        raise Denied("Only members of the cluster are told dhcpd's files")
    return source


def _text(value: object, form: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or not form.match(value):
        raise Rejected(f"Invalid {what}")
    return value


MOUNT = Mount(
    "/dhcp_files",
    (
        Route("GET", "/", Access.CLUSTER, readable),
        Route("GET", "/streams/{stream}", Access.CLUSTER, announced, stream),
        Route("GET", "/streams/{stream}/{mark}", Access.CLUSTER, mark),
    ),
)
