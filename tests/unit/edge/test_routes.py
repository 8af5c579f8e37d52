from __future__ import annotations

from typing import Any

import pytest

from muster.edge.replies import Reply, empty_reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route, RouteTable


async def endpoint(_: Any, __: Request) -> Reply:
    return empty_reply()


def route(method: str, path: str, access: Access = Access.TRUSTED) -> Route:
    return Route(method, path, access, endpoint)


TABLE = RouteTable(
    [
        route("POST", "/"),
        route("GET", "/features"),
        route("DELETE", "/{value}[/]"),
        route("DELETE", "/{value}/{type}"),
        route("GET", "/{network}/record/{address}"),
        route("GET", "/list[/]"),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "template", "arguments"),
    [
        ("POST", "/", "/", {}),
        ("GET", "/features", "/features", {}),
        ("HEAD", "/features", "/features", {}),
        ("DELETE", "/a.example.com", "/{value}[/]", {"value": "a.example.com"}),
        ("DELETE", "/a.example.com/", "/{value}[/]", {"value": "a.example.com"}),
        ("DELETE", "/a.example.com/A", "/{value}/{type}", {"value": "a.example.com", "type": "A"}),
        ("GET", "/192.0.2.0/record/aa:bb", "/{network}/record/{address}", {"network": "192.0.2.0", "address": "aa:bb"}),
        ("GET", "/list", "/list[/]", {}),
        ("GET", "/list/", "/list[/]", {}),
    ],
)
def test_a_route_is_found_by_method_and_shape(method: str, path: str, template: str, arguments: dict[str, str]) -> None:
    found = TABLE.find(method, path)
    assert found is not None
    assert (found[0].path, found[1]) == (template, arguments)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("HEAD", "/"),
        ("PUT", "/"),
        ("get", "/features"),
        ("GET", "/Features"),
        ("GET", "/features/"),
        ("GET", "/features/x"),
        ("DELETE", "/"),
        ("DELETE", "//"),
        ("DELETE", "/a/A/"),
        ("DELETE", "/a/A/b"),
        ("GET", "/a/recorD/b"),
        ("GET", "/a/record/"),
        ("GET", "/list//"),
        ("OPTIONS", "/features"),
    ],
)
def test_nothing_is_found_for_anything_else(method: str, path: str) -> None:
    assert TABLE.find(method, path) is None


def test_unknown_routes_are_protected_as_the_known_ones_are() -> None:
    assert Mount("/dns", (route("GET", "/a"), route("POST", "/a"))).access is Access.TRUSTED
    assert Mount("/metrics", (route("GET", "/", Access.CLUSTER),)).access is Access.CLUSTER
    assert Mount("", (route("GET", "/a", Access.OPEN), route("GET", "/b"))).access is Access.OPEN
