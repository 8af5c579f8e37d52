from __future__ import annotations

import http.client
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from anyio.from_thread import start_blocking_portal

from tests.servers import pages

Got = tuple[int, dict[str, str], str]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with start_blocking_portal() as portal:
        opened = pages.serving(pages.page_of(3))
        with portal.wrap_async_context_manager(opened) as (found, _):
            yield found


def ask(address: str, path: str, method: str = "GET", **headers: str) -> Got:
    port = urlsplit(address).port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers={"Host": f"127.0.0.1:{port}", **headers})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()
    finally:
        connection.close()


def test_the_address_lets_one_browser_in_once(address: str) -> None:
    once, port = urlsplit(address).path, urlsplit(address).port
    assert len(once) > 40
    # Nobody else, and by no other name.
    assert ask(address, "/cluster/")[0] == 403
    assert ask(address, "/cluster/live")[0] == 403
    assert ask(address, "/cluster/", Cookie=f"muster_{port}=guessed")[0] == 403
    assert ask(address, "/guessed/")[0] == 403
    for host in ("localhost", f"localhost:{port}", "evil.example", "127.0.0.1"):
        assert ask(address, once, Host=host)[0] == 403
    assert ask(address, once, "HEAD")[0] == 403
    status, headers, _ = ask(address, once)
    assert (status, headers["location"], headers["cache-control"]) == (303, "/cluster/", "no-store")
    cookie = headers["set-cookie"]
    assert {"Path=/cluster/", "HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    shown = cookie.split(";")[0]
    status, _, text = ask(address, "/cluster/", Cookie=f"other=1; {shown}")
    assert (status, "proxies" in text) == (200, True)
    # Once.
    status, _, text = ask(address, once)
    assert (status, "opened already" in text) == (403, True)
    # A page elsewhere whose name leads here has no use of the cookie either.
    assert ask(address, "/cluster/", Cookie=shown, Host="evil.example")[0] == 403
    assert ask(address, "/cluster/", Cookie=f"{shown}; {shown}")[0] == 403
    for method in ("POST", "PUT", "DELETE"):
        assert ask(address, "/cluster/", method, Cookie=shown)[0] == 404
    assert ask(address, "/cluster/live", "HEAD", Cookie=shown)[0] == 200
    for path in ("/metrics", "/health/ready", "/cluster/rings.json", "/dns/"):
        assert ask(address, path, Cookie=shown)[0] in (403, 404)
