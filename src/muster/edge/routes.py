"""Routes as data: method, path, who may call, what answers; and the table that finds them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from muster.edge.replies import Reply, Streamed
from muster.edge.request import Request


class Access(Enum):
    """Who may call a route.

    ``TRUSTED`` is the Ruby proxy's pair of checks (docs/facts/smart-proxy-protocol.md §3). ``CLUSTER`` is for what members
    and monitoring ask each other: any certificate our CA verifies, or a loopback client over HTTP. ``OPERATORS`` is for what
    people look at who run the cluster: the same certificates, over TLS only, none of a Puppet agent. ``CERTIFIED`` is for
    hosts that speak for themselves: whoever shows a certificate of any trusted CA, with a name in it, over TLS. ``OPEN`` is
    everybody.
    """

    TRUSTED = "trusted"
    CLUSTER = "cluster"
    OPERATORS = "operators"
    CERTIFIED = "certified"
    OPEN = "open"


Endpoint = Callable[[Any, Request], Awaitable[Reply]]
Below = Callable[[Any, Request], Awaitable[Reply | Streamed]]


@dataclass(frozen=True)
class Route:
    """One call.

    Attributes:
        path: relative to the mount: ``/``, ``/{value}``, ``/{value}/{type}``. A final ``[/]`` also matches a trailing
            slash. A parameter is one non-empty segment.
        access: who may call it.
        endpoint: called with the feature's service and the request.
        streamed: called instead for GET, where the reply comes piece by piece.
    """

    method: str
    path: str
    access: Access
    endpoint: Endpoint
    streamed: Below | None = None

    @property
    def segments(self) -> tuple[str, ...]:
        return tuple(self.path.removesuffix("[/]").split("/")[1:])

    @property
    def slash_allowed(self) -> bool:
        return self.path.endswith("[/]")


@dataclass(frozen=True)
class Mount:
    """The routes under a prefix.

    A mount whose routes are all protected protects its unknown routes too: the caller learns 403 before 404, as in the
    Ruby proxy (docs/facts/ruby-proxy.md §5 no. 10).
    """

    prefix: str
    routes: tuple[Route, ...]
    unrouted: Below | None = None
    """Answers, and admits, what no route does; for a protocol with rules of its own. None: 404."""
    busy: bool = False
    """Calls are so many that they would push everything else out of the log that Foreman reads; the access log has them."""

    @property
    def access(self) -> Access:
        if self.unrouted is not None:
            return Access.OPEN
        kinds = {r.access for r in self.routes}
        return kinds.pop() if len(kinds) == 1 else Access.OPEN


class RouteTable:
    """Finds the route of a method and path in time that depends on the number of segments only."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[tuple[str, str], Route] = {}
        self._by_shape: dict[tuple[str, int], list[Route]] = {}
        for route in routes:
            if "{" not in route.path and not route.slash_allowed:
                self._exact[route.method, route.path] = route
            self._by_shape.setdefault((route.method, len(route.segments)), []).append(route)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the route and its path parameters; HEAD finds what GET finds."""
        method = "GET" if method == "HEAD" else method
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact, {}
        given = path.split("/")[1:]
        for segments, is_slashed in _forms(given):
            for route in self._by_shape.get((method, len(segments)), ()):
                if is_slashed and not route.slash_allowed:
                    continue
                arguments = _matched(route.segments, segments)
                if arguments is not None:
                    return route, arguments
        return None


def _forms(given: list[str]) -> Iterator[tuple[list[str], bool]]:
    yield given, False
    if len(given) > 1 and given[-1] == "":
        yield given[:-1], True


def _matched(pattern: tuple[str, ...], given: list[str]) -> dict[str, str] | None:
    arguments: dict[str, str] = {}
    for part, value in zip(pattern, given, strict=True):
        if part.startswith("{"):
            if not value:
                return None
            arguments[part[1:-1]] = value
        elif part != value:
            return None
    return arguments
