"""Origins over real connections: what leads astray, breaks off, hangs, or asks for a certificate."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from muster.cluster.mirror import Mirror, Mirrored
from muster.content.backend import BadGateway, GatewayTimeout
from muster.content.mirror import addresses, origin
from muster.content.mirror.origin import Origin
from muster.kernel.errors import MusterError, Unavailable
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundlePaths, BundleRequest, write
from muster.pki.context import server_context
from tests.servers import origins
from tests.servers.resolver import Names

pytestmark = pytest.mark.anyio

HERE, THERE = "127.0.0.71", "127.0.0.72"
NAMES = {"origin.example": [[HERE]], "cdn.example": [[THERE]]}
NOW = datetime.now(UTC)
Talk = Callable[["Server", str, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """Says what a test says, whatever it is asked.

    Attributes:
        said: by path, the bytes that are sent before the connection is closed, or what talks.
        heads: what it was asked, and the headers that came with that.
        open: how many connections it has, and had at most.
    """

    address: str
    port: int = 0
    said: dict[str, bytes | Talk] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)
    open: list[int] = field(default_factory=lambda: [0, 0])

    @property
    def asked(self) -> list[str]:
        return [head.partition(" HTTP")[0] for head in self.heads]

    def url(self, path: str = "", name: str | None = None) -> str:
        return f"http://{name or self.address}:{self.port}{path}"

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open[0] += 1
        self.open[1] = max(self.open)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            said = self.said.get(head.split(" ")[1].partition("?")[0], answer(404))
            if isinstance(said, bytes):
                writer.write(said if not head.startswith("HEAD") else said.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
                await writer.drain()
            else:
                await said(self, head, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open[0] -= 1
            writer.close()


def answer(status: int, body: bytes = b"", length: int | None = None, **more: str) -> bytes:
    fields = {"Content-Length": str(len(body) if length is None else length), "Connection": "close", **more}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + body


def leads_to(url: str) -> bytes:
    return answer(302, Location=url)


@contextlib.asynccontextmanager
async def serving(address: str = HERE, port: int = 0) -> AsyncIterator[Server]:
    it = Server(address)
    server = await asyncio.start_server(it.talk, address, port)
    it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()


@contextlib.asynccontextmanager
async def asking(
    url: str = "", *, timeout_s: float = 5.0, connections: int = 8, names: Names | None = None, **settings: Any
) -> AsyncIterator[Origin]:
    more = {"url": url} if url else {}
    mirrored = Mirrored.model_validate({"kind": "file", **more, **settings})
    mirror = Mirror(timeout_s=timeout_s, connections=connections)
    async with origin.opened("r", mirrored, mirror, resolver=names or Names({**NAMES})) as it:
        yield it


async def body(it: Origin, path: str = "/x", *headers: tuple[str, str]) -> bytes:
    found = await it.ask("GET", path, headers)
    assert found.status in (200, 206), found
    whole = await found.whole(64 << 20)
    assert whole is not None
    return whole


async def test_a_file_comes_as_it_is_and_nothing_but_ours_is_sent() -> None:
    async with serving() as server, asking(server.url("/f")) as it:
        server.said["/f/a%20b"] = answer(200, b"file")
        assert await body(it, "/a%20b", ("Cookie", "c"), ("Host", "elsewhere"), ("Range", "bytes=0-")) == b"file"
        first, *rest = server.heads[0].lower().split("\r\n")
        assert first == "get /f/a%20b http/1.1"
        assert {line.partition(":")[0] for line in rest if line} == {"host", "user-agent", "accept-encoding", "range"}
        found = await it.ask("HEAD", "/a%20b", ())
        assert (found.status, await found.whole(10)) == (200, b"")
        assert (await it.ask("GET", "/other", ())).status == 404


async def test_it_may_lead_to_private_hosts_that_settings_name_and_to_no_other() -> None:
    async with serving() as server, serving(THERE) as there:
        there.said["/p"] = answer(200, b"there")
        for to, host in (
            (there.url("/p?sig=secret"), THERE),
            (there.url("/p?sig=secret", "cdn.example"), "cdn.example"),
        ):
            server.said["/x"] = leads_to(to)
            async with asking(server.url()) as it:
                with pytest.raises(BadGateway) as caught:
                    await it.ask("GET", "/x", ())
                told = str(caught.value)
                assert f"Fetching /x from origin r failed: {server.url('/x')} leads on to http://{host}:" in told
                assert "not public" in told
                assert "content.mirror.repositories.r.redirects_to" in told
                assert "secret" not in told
                # Those, too, who come while somebody looks the name up.
                at_once = await asyncio.gather(*(it.ask("GET", "/x", ()) for _ in range(5)), return_exceptions=True)
                assert {str(e) for e in at_once} == {told}
            assert there.heads == []
            async with asking(server.url(), redirects_to=[host]) as it:
                assert await body(it) == b"there"
            assert there.asked == ["GET /p?sig=secret"]
            there.heads.clear()
        # Its own host is asked wherever it lies, on another port, too.
        server.said["/x"] = leads_to(server.url("/y"))
        server.said["/y"] = answer(200, b"here")
        async with asking(server.url()) as it:
            assert await body(it) == b"here"


async def test_what_is_connected_to_is_what_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "is_public", lambda address: address == THERE)
    names = Names({"origin.example": [[HERE]], "cdn.example": [[THERE], [HERE]]})
    async with serving() as server, serving(THERE, server.port) as there:
        server.said.update({"/x": leads_to(server.url("/p", "cdn.example")), "/p": answer(200, b"what nobody may see")})
        there.said["/p"] = answer(200, b"there")
        async with asking(server.url(name="origin.example"), names=names) as it:
            assert await body(it) == b"there"
        # The name leads elsewhere by now.
        async with asking(server.url(name="origin.example"), names=names) as it:
            with pytest.raises(BadGateway, match=f"cdn.example has the address {HERE}, which is not public"):
                await body(it)
        assert names.asked.count("cdn.example") == 2
        assert "GET /p" not in server.asked


async def test_a_name_that_is_none_is_said() -> None:
    async with asking("http://none.example/f") as it:
        with pytest.raises(
            Unavailable, match=r"from origin r failed: http://none\.example cannot be reached: .*no such name"
        ):
            await it.ask("GET", "/x", ())


async def test_a_circle_of_redirects_ends() -> None:
    async with serving() as server, asking(server.url()) as it:
        server.said.update({"/x": leads_to("/y"), "/y": leads_to("/x")})
        with pytest.raises(BadGateway, match="Fetching /x from origin r failed: it leads on more than 5 times"):
            await it.ask("GET", "/x", ())
        assert len(server.heads) == 6


@pytest.mark.parametrize(
    ("said", "error", "why"),
    [
        (answer(200, b"half", length=9), Unavailable, "broke off its answer"),
        (answer(200, Transfer_Encoding="chunked").replace(b"Content-Length: 0\r\n", b"") + b"4\r\nhalf\r\n", Unavailable,
         "broke off its answer"),
        (answer(206, Content_Range="bytes 0-8/9", Transfer_Encoding="chunked").replace(b"Content-Length: 0\r\n", b"")
         + b"4\r\nhalf\r\n0\r\n\r\n", Unavailable, "ended its answer after 4 of 9 bytes"),
        (answer(206, Content_Range="bytes 0-2/9", Transfer_Encoding="chunked").replace(b"Content-Length: 0\r\n", b"")
         + b"4\r\nmore\r\n0\r\n\r\n", BadGateway, "gives more than the 3 bytes that it said"),
        (answer(206, b"four", Content_Range="bytes 0-2/9"), BadGateway, "does not say which it is"),
        (answer(200, b"x", Content_Encoding="gzip"), BadGateway, "content coding gzip"),
        (answer(200, b"x", X="x" * 20_000), BadGateway, "gave no answer: what came is no HTTP"),
        (b"220 ready\r\n\r\n", BadGateway, "gave no answer: what came is no HTTP"),
        (b"", Unavailable, "hung up before it answered"),
    ],
)  # fmt: skip
async def test_what_is_not_whole_is_an_error_that_says_of_what(said: bytes, error: type[MusterError], why: str) -> None:
    async with serving() as server, asking(server.url(), connections=1) as it:
        server.said.update({"/x": said, "/y": answer(200, b"well")})
        for _ in range(2):
            with pytest.raises(error, match=f"^Fetching /x from origin r failed: .*{why}"):
                await body(it, "/x", ("Range", "bytes=0-"))
        assert await body(it, "/y") == b"well"


async def test_what_comes_after_a_body_belongs_to_nobody() -> None:
    kept = answer(200, b"said").replace(b"Connection: close\r\n", b"")
    async with serving() as server, asking(server.url(), connections=1) as it:
        server.said["/x"] = kept + answer(200, b"more")
        assert [await body(it), await body(it), await body(it)] == [b"said"] * 3
        # It came with the rest, and is no HTTP.
        server.said["/x"] = kept + b"more"
        with pytest.raises(BadGateway, match="what came is no HTTP"):
            await body(it)


async def test_more_after_a_long_body_is_not_read_as_part_of_it() -> None:
    said = b"s" * (1 << 20)
    async with serving() as server, asking(server.url(), connections=1) as it:
        server.said.update(
            {"/x": answer(200, said).replace(b"Connection: close\r\n", b"") + b"more", "/y": answer(200, b"y")}
        )
        for _ in range(3):
            # Whether what follows is noticed is a matter of when it comes.
            with contextlib.suppress(BadGateway, Unavailable):
                assert await body(it) == said
            assert await body(it, "/y") == b"y"


async def test_an_origin_that_hangs_is_left() -> None:
    async def silent(_: Server, __: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def stalling(_: Server, __: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(200, b"half", length=9))
        await reader.read()

    async with serving() as server, asking(server.url(), timeout_s=0.3, connections=1) as it:
        server.said.update({"/x": stalling, "/y": silent, "/z": answer(200, b"well")})
        with pytest.raises(Unavailable, match=r"^Fetching /x from origin r failed: .* went silent for 0\.3 s within"):
            await body(it)
        with pytest.raises(GatewayTimeout, match=r"^Fetching /y from origin r failed: .* did not begin to answer"):
            await body(it, "/y")
        assert await body(it, "/z") == b"well"


async def test_what_one_mirror_has_not_another_gives() -> None:
    async with serving() as lists, serving() as first, serving(THERE) as second:
        lists.said["/list"] = answer(200, f"# mirrors\n{first.url()}\n{second.url('/f')}\n".encode())
        second.said["/f/x"] = answer(200, b"second")
        first.said["/y"] = answer(200, b"first")
        async with asking(mirror_list=lists.url("/list"), redirects_to=[THERE]) as it:
            assert [await body(it), await body(it, "/y")] == [b"second", b"first"]
            assert (await it.ask("GET", "/z", ())).status == 404
        assert first.asked == ["GET /x", "GET /y", "GET /z"]
        assert second.asked == ["GET /f/x", "GET /f/z"]


async def test_so_many_connections_are_opened_and_no_more() -> None:
    async def slow(_: Server, __: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)
        writer.write(answer(200, b"slow"))

    async with serving() as server, asking(server.url(), connections=3) as it:
        server.said["/x"] = slow
        assert await asyncio.gather(*(body(it) for _ in range(12))) == [b"slow"] * 12
        assert server.open == [0, 3]


async def test_signatures_are_in_no_error_and_no_log() -> None:
    async with serving() as server, serving(THERE) as there:
        server.said["/x"] = leads_to(there.url("/p?sig=secret"))
        told = []
        for said in (b"", b"none\r\n\r\n", answer(200, b"1", length=5), answer(302), leads_to("ftp://secret/?secret")):
            there.said["/p"] = said
            with capture_logs() as logs:
                async with asking(server.url(), redirects_to=[THERE]) as it:
                    with pytest.raises(MusterError) as caught:
                        await body(it)
            told += [*traceback.format_exception(caught.value), str(logs)]
        assert there.asked[0] == "GET /p?sig=secret"
        assert "secret" not in "\n".join(told)


@pytest.fixture
def ca(tmp_path: Path) -> ClusterCA:
    return ClusterCA.create(tmp_path, "demo", now=NOW)


@pytest.fixture
def bundle(ca: ClusterCA, tmp_path: Path) -> BundlePaths:
    """The certificate of both servers."""
    return write(ca.issue(BundleRequest("member", "origin.example", ("cdn.example",)), now=NOW), tmp_path)


@pytest.fixture
def tls(bundle: BundlePaths) -> ssl.SSLContext:
    return server_context(bundle.certificate, bundle.key, [bundle.ca])


@pytest.fixture
def pair(tmp_path: Path, tls: ssl.SSLContext) -> Iterator[tuple[origins.Origin, origins.Origin]]:
    """An origin, and where it leads."""
    for name in ("here", "there"):
        origins.files(tmp_path / name, {"x": name.encode()})
    with (
        origins.served(tmp_path / "here", address=HERE, context=tls) as here,
        origins.served(tmp_path / "there", address=THERE, context=tls) as there,
    ):
        yield here, there


def shown(ca: ClusterCA, tmp_path: Path, name: str) -> BundlePaths:
    return write(ca.issue(BundleRequest("client", name), now=NOW), tmp_path)


async def test_the_certificate_is_shown_to_the_origin_and_not_to_where_it_leads(
    ca: ClusterCA, bundle: BundlePaths, pair: tuple[origins.Origin, origins.Origin], tmp_path: Path
) -> None:
    here, there = pair
    client = shown(ca, tmp_path, "m1.example")
    settings: dict[str, Any] = {"certificate": client.certificate, "key": client.key, "ca_file": bundle.ca}
    async with asking(here.url(name="origin.example"), redirects_to=["cdn.example"], **settings) as it:
        assert await body(it) == b"here"
        here.leads["^/moved$"] = there.url("x", name="cdn.example")
        assert await body(it, "/moved") == b"there"
        # And back again.
        there.leads["^/x$"] = here.url("x", name="origin.example")
        assert await body(it, "/moved") == b"here"
    assert (here.clients, there.clients) == (["m1.example"] * 4, ["", ""])


async def test_certificates_are_those_that_lie_there_now(
    ca: ClusterCA, bundle: BundlePaths, pair: tuple[origins.Origin, origins.Origin], tmp_path: Path
) -> None:
    here, _ = pair
    first, second = (shown(ca, tmp_path, name) for name in ("m1.example", "m2.example"))
    pem = tmp_path / "shown.pem"
    pem.write_bytes(first.certificate.read_bytes() + first.key.read_bytes())
    async with asking(here.url(name="origin.example"), certificate=pem, ca_file=bundle.ca) as it:
        await body(it)
        other = tmp_path / "other.pem"
        other.write_bytes(second.certificate.read_bytes() + second.key.read_bytes())
        other.replace(pem)
        await body(it)
    assert here.clients == ["m1.example", "m2.example"]


async def test_whom_nobody_vouches_for_is_not_asked(
    pair: tuple[origins.Origin, origins.Origin], bundle: BundlePaths, tmp_path: Path
) -> None:
    here, there = pair
    other = ClusterCA.create(tmp_path / "other", "other", now=NOW).directory / "ca.pem"
    for ca_file in (None, other):
        async with asking(here.url(name="origin.example"), ca_file=ca_file) as it:
            with pytest.raises(Unavailable, match="the certificate is not accepted"):
                await it.ask("GET", "/x", ())
    async with asking(f"https://{HERE}:{here.port}", ca_file=bundle.ca) as it:
        with pytest.raises(Unavailable, match="IP address mismatch"):
            await it.ask("GET", "/x", ())
    assert here.asked == there.asked == []


async def test_it_does_not_lead_away_from_tls(pair: tuple[origins.Origin, origins.Origin], bundle: BundlePaths) -> None:
    here, there = pair
    here.leads["^/x$"] = there.url("x", name="cdn.example").replace("https:", "http:")
    async with asking(here.url(name="origin.example"), ca_file=bundle.ca, redirects_to=["cdn.example"]) as it:
        with pytest.raises(BadGateway, match="away from TLS"):
            await it.ask("GET", "/x", ())
    async with serving() as plain:
        plain.said["/x"] = leads_to(there.url("x", name="cdn.example"))
        async with asking(plain.url(name="origin.example"), ca_file=bundle.ca, redirects_to=["cdn.example"]) as it:
            assert await body(it) == b"there"


async def tunnel(server: Server, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a proxy for what was asked."""
    method, target, _ = head.split(" ", 2)
    name, _, port = target.removeprefix("http://").partition("/")[0].rpartition(":")
    to_reader, to_writer = await asyncio.open_connection(NAMES[name][0][0] if name in NAMES else name, int(port))
    if method == "CONNECT":
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
    else:
        path = "/" + target.removeprefix("http://").partition("/")[2]
        to_writer.write(head.replace(target, path, 1).encode("latin-1"))

    async def along(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while some := await source.read(1 << 16):
                to.write(some)
                await to.drain()
        to.close()

    await asyncio.gather(along(reader, to_writer), along(to_reader, writer))


class _Proxy(dict[str, "bytes | Talk"]):
    def get(self, key: object, default: object = None) -> Any:
        return tunnel


async def test_through_a_proxy_both_are_asked_and_the_certificate_is_the_origins(
    ca: ClusterCA, bundle: BundlePaths, pair: tuple[origins.Origin, origins.Origin], tmp_path: Path
) -> None:
    here, there = pair
    client = shown(ca, tmp_path, "m1.example")
    names = Names({"proxy.example": [["127.0.0.73"]]})
    here.leads["^/moved$"] = there.url("x", name="cdn.example")
    async with serving("127.0.0.73") as proxy, serving() as plain:
        proxy.said = _Proxy()
        settings: dict[str, Any] = {"proxy": proxy.url(name="proxy.example"), "names": names}
        async with asking(
            here.url(name="origin.example"),
            ca_file=bundle.ca,
            certificate=client.certificate,
            key=client.key,
            **settings,
        ) as it:
            assert [await body(it), await body(it, "/moved")] == [b"here", b"there"]
        assert set(proxy.asked) == {f"CONNECT origin.example:{here.port}", f"CONNECT cdn.example:{there.port}"}
        assert (set(here.clients), there.clients) == ({"m1.example"}, [""])
        plain.said.update({"/x": answer(200, b"plain"), "/y": leads_to("http://127.1/p?secret")})
        async with asking(plain.url(name="origin.example"), **settings) as it:
            assert await body(it) == b"plain"
            with pytest.raises(BadGateway, match=r"127\.1 has the address 127\.0\.0\.1, which is not public"):
                await body(it, "/y")
        assert proxy.asked[-1] == f"GET {plain.url('/y', 'origin.example')}"
        # Names are the proxy's to look up.
        assert set(names.asked) == {"proxy.example"}


async def test_a_proxy_that_refuses_or_is_away_is_named(
    bundle: BundlePaths, pair: tuple[origins.Origin, origins.Origin]
) -> None:
    here, _ = pair
    async with serving("127.0.0.73") as proxy:
        proxy.said[f"origin.example:{here.port}"] = answer(407)
        async with asking(here.url(name="origin.example"), ca_file=bundle.ca, proxy=proxy.url()) as it:
            with pytest.raises(BadGateway, match="was not asked: the proxy answered 407"):
                await it.ask("GET", "/x", ())
    async with asking(here.url(name="origin.example"), ca_file=bundle.ca, proxy=proxy.url()) as it:
        with pytest.raises(
            Unavailable, match=r"the proxy to https://origin\.example:\d+ cannot be reached: Connection"
        ):
            await it.ask("GET", "/x", ())
    assert here.asked == []
