"""``/services``: the services register over HTTP, for trusted hosts; changes for those alone that show a certificate.

``ETag`` is the version of what was typed in, and a change says in ``If-Match`` which one it replaces: ``"0"`` where nobody
typed anything. So of two who changed the same entry, the second hears 412 and loses nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from muster.cluster.service import Change, Service
from muster.cluster.services import Services, register
from muster.edge.replies import Header, Reply, empty_reply, json_reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.kernel.errors import Denied, Rejected
from muster.store.engine import Store

_TAG = re.compile(r'"(0|[1-9][0-9]{0,17})"\Z')


@dataclass(frozen=True)
class Registered:
    """The register as members answer it.

    Attributes:
        base: returns what the settings say.
    """

    store: Store
    base: Callable[[], Mapping[str, Service]]


async def list_(of: Registered, _request: Request) -> Reply:
    found = await register(of.store, of.base())
    return json_reply({name: one.as_json() for name, one in found.services.items()})


async def show(of: Registered, request: Request) -> Reply:
    return _told((await register(of.store, of.base())).service(request.arguments["name"]))


async def put(of: Registered, request: Request) -> Reply:
    by, expected = _who(request), _expected(request)
    try:
        content: Any = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise Rejected("The body is no JSON") from None
    services = Services(of.store)
    change = Change.of(content)
    return _told(await services.put(request.arguments["name"], change, by=by, base=of.base(), expected=expected))


async def remove(of: Registered, request: Request) -> Reply:
    by, expected = _who(request), _expected(request)
    left = await Services(of.store).remove(request.arguments["name"], by=by, base=of.base(), expected=expected)
    return empty_reply() if left is None else _told(left)


def _told(one: Service) -> Reply:
    answer = json_reply(one.as_json())
    tag: Header = (b"etag", b'"%d"' % one.version)
    return answer._replace(headers=[*answer.headers, tag])


def _who(request: Request) -> str:
    """Return who changes something.

    Raises:
        Denied: nobody who has proven it.
    """
    if not request.over_tls or request.peer.certificate is None:
        raise Denied("Services are changed over TLS, with a certificate")
    return request.peer.name or request.peer.address


def _expected(request: Request) -> int:
    given = request.header(b"if-match")
    found = _TAG.match(given) if given is not None else None
    if found is None:
        raise Rejected('Say which version is replaced: If-Match: "N", as ETag told it; "0" where nobody typed anything')
    return int(found[1])


MOUNT = Mount(
    "/services",
    (
        Route("GET", "/", Access.TRUSTED, list_),
        Route("GET", "/{name}", Access.TRUSTED, show),
        Route("PUT", "/{name}", Access.TRUSTED, put),
        Route("DELETE", "/{name}", Access.TRUSTED, remove),
    ),
)
