"""Routes of the Openscap feature: hosts hand in reports and fetch contents; Foreman asks for reports.

Source: docs/facts/openscap.md §2. Answers are labelled as the Ruby plugin's are, JSON too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from muster.content.metadata.malformed import Malformed
from muster.edge.replies import HTML, SERVER_HEADER, Header, Reply, Streamed, empty_reply, reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.kernel.errors import MusterError, NotFound
from muster.kernel.names import shown

if TYPE_CHECKING:
    from muster.features.openscap.contents import Given, Kind
    from muster.features.openscap.ledger import Upload
    from muster.features.openscap.service import Compliance

_NOSNIFF: Header = (b"x-content-type-options", b"nosniff")
# What is shown, and said as JSON labelled as a page, is of hosts' words: in a browser with an operator's certificate nothing
# of it acts in the member's name.
_SANDBOX: Header = (
    b"content-security-policy",
    b"sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline';"
    b" script-src 'unsafe-inline'; img-src data:; font-src data:; form-action 'none'; base-uri 'none'",
)
_XML, _BZIP2 = b"application/xml", b"application/x-bzip2"


class Unparsed(MusterError):
    """A content could not be read; the Ruby plugin says so with 500."""

    status = 500


async def taken(compliance: Compliance, request: Request) -> Reply:
    upload = await compliance.taken(request, request.arguments["policy"])
    return _json(_stands(compliance, upload))


async def imported(compliance: Compliance, request: Request) -> Reply:
    given = request.arguments
    upload = await compliance.taken(request, given["policy"], cname=given["cname"], reported_at=given["date"])
    return _json({"success": True, "arf_id": upload.foreman_id or None})


async def xml(compliance: Compliance, request: Request) -> Streamed:
    upload, pieces = await compliance.report(**_named(request))
    return _streamed(upload.size, pieces, _BZIP2)


async def page(compliance: Compliance, request: Request) -> Streamed:
    given = await compliance.page(**_named(request))
    return Streamed(200, [*_headers(given.size, HTML), _SANDBOX], given.pieces, given.close)


async def removed(compliance: Compliance, request: Request) -> Reply:
    if await compliance.removed(**_named(request)):
        return _json({"id": request.arguments["id"], "deleted": True})
    return empty_reply()


async def content(compliance: Compliance, request: Request) -> Streamed:
    return await _given(compliance, request, "content")


async def tailoring(compliance: Compliance, request: Request) -> Streamed:
    return await _given(compliance, request, "tailoring")


async def content_profiles(compliance: Compliance, request: Request) -> Reply:
    try:
        found = await compliance.profiles(request, "scap_content")
    except Malformed as e:
        raise Unparsed(f"Error occurred: {e}") from e
    return _profiles(found)


async def tailoring_profiles(compliance: Compliance, request: Request) -> Reply:
    try:
        found = await compliance.profiles(request, "tailoring_file")
    except Malformed as e:
        raise Unparsed(f"Error occurred: {e}") from e
    return _profiles(found)


async def validated(compliance: Compliance, request: Request) -> Reply:
    kind = request.arguments.get("type", "scap_content")
    if kind not in ("scap_content", "tailoring_file"):
        raise NotFound(f"There is no validator of {shown(kind)}: known are scap_content and tailoring_file")
    try:
        await compliance.checked(request)
    except Malformed as e:
        # Foreman shows each to whoever uploads the content.
        return _json({"errors": [str(e)]})
    return _json({"errors": []})


async def guide(compliance: Compliance, request: Request) -> Reply:
    try:
        return _json({"html": await compliance.guide(request, request.arguments.get("profile"))})
    except Malformed as e:
        raise Unparsed(f"Error occurred: {e}") from e


async def spool_errors(compliance: Compliance, _request: Request) -> Reply:
    return _json({"errors_count": await compliance.errors()})


def _stands(compliance: Compliance, upload: Upload) -> dict[str, Any]:
    """Return what a host is told: its client prints the id, or the result as the cause that there is none."""
    if upload.state == "sent":
        return {"result": "ok", "id": upload.foreman_id} if upload.foreman_id else {"result": "ok"}
    if upload.state == "refused":
        return {"result": f"The Smart Proxy has the report, and Foreman will not: {upload.why}"}
    return {"result": f"The Smart Proxy has the report and sends it to Foreman later: {compliance.trouble_of(upload)}"}


def _named(request: Request) -> dict[str, str]:
    return {name: request.arguments[name] for name in ("id", "cname", "date", "digest")}


async def _given(compliance: Compliance, request: Request, kind: Kind) -> Streamed:
    given = request.arguments
    return _of_file(await compliance.content(kind, given["policy"], given["digest"]), _XML)


def _profiles(found: dict[str, str | None]) -> Reply:
    if not found:
        raise Unparsed("Error occurred: the content has no profiles")
    return _json(found)


def _json(content: Any) -> Reply:
    said = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    return reply(200, said, HTML, _SANDBOX)


def _of_file(given: Given, kind: bytes) -> Streamed:
    return Streamed(200, _headers(given.size, kind), given.pieces, given.close)


def _streamed(size: int, pieces: Any, kind: bytes) -> Streamed:
    return Streamed(200, _headers(size, kind), pieces)


def _headers(size: int, kind: bytes) -> list[Header]:
    return [(b"content-type", kind), (b"content-length", b"%d" % size), _NOSNIFF, SERVER_HEADER]


async def _head(compliance: Compliance, request: Request) -> Reply:
    """Answer HEAD for a report: whether it is there."""
    upload, pieces = await compliance.report(**_named(request))
    await pieces.aclose()
    return Reply(200, b"", _headers(upload.size, _BZIP2))


async def _unasked(_compliance: Compliance, _request: Request) -> Reply:
    """Answer HEAD for what would have to be made or fetched first."""
    return Reply(200, b"", [SERVER_HEADER])


_ONE = "/arf/{id}/{cname}/{date}/{digest}"

MOUNT = Mount(
    "/compliance",
    (
        Route("POST", "/arf/{policy}", Access.CERTIFIED, taken),
        Route("GET", f"{_ONE}/xml", Access.TRUSTED, _head, streamed=xml),
        Route("GET", f"{_ONE}/html", Access.TRUSTED, _unasked, streamed=page),
        Route("DELETE", _ONE, Access.TRUSTED, removed),
        Route("GET", "/policies/{policy}/content/{digest}", Access.CERTIFIED, _unasked, streamed=content),
        Route("GET", "/policies/{policy}/tailoring/{digest}", Access.CERTIFIED, _unasked, streamed=tailoring),
        Route("POST", "/scap_content/policies", Access.TRUSTED, content_profiles),
        Route("POST", "/tailoring_file/profiles", Access.TRUSTED, tailoring_profiles),
        Route("POST", "/scap_file/validator/{type}", Access.TRUSTED, validated),
        Route("POST", "/scap_content/validator", Access.TRUSTED, validated),
        Route("POST", "/scap_content/guide[/]", Access.TRUSTED, guide),
        Route("POST", "/scap_content/guide/{profile}", Access.TRUSTED, guide),
        Route("GET", "/spool_errors", Access.TRUSTED, spool_errors),
    ),
)

IMPORTER = Mount(
    "/compliance-importer",
    (Route("POST", "/arf/{cname}/{policy}/{date}", Access.TRUSTED, imported),),
)
