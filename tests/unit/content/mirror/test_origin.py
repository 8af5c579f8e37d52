from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from muster.cluster.mirror import Mirror, Mirrored
from muster.content.backend import Answer, BadGateway, GatewayTimeout, once
from muster.content.mirror import origin
from muster.content.mirror.origin import Origin
from muster.content.mirror.targets import Target
from muster.kernel.clock import FakeClock
from muster.kernel.errors import Misconfigured, MusterError, Rejected, Unavailable
from muster.kernel.pace import Pace
from muster.version import VERSION
from tests.servers.resolver import Names

pytestmark = pytest.mark.anyio

LIST = "http://list.example/mirrors"
A, B, C = "http://a.example", "http://b.example/f", "http://c.example"
Said = int | bytes | MusterError | tuple[int, bytes, dict[str, str]] | AsyncGenerator[bytes, None]


class Servers:
    """All servers there are, by the URL that is asked; what is not named is not there."""

    def __init__(self, said: dict[str, Said]) -> None:
        self.said = said
        self.asked: list[str] = []
        self.sent: list[Sequence[tuple[str, str]]] = []
        self.ended = 0

    def of(self, base: str) -> Callable[..., Any]:
        async def ask(method: str, path: str, headers: Sequence[tuple[str, str]]) -> Answer:
            url = f"{base}{path}"
            self.asked.append(url)
            self.sent.append(headers)
            said = self.said.get(url, 404)
            if isinstance(said, MusterError):
                raise said
            if isinstance(said, AsyncGenerator):
                return Answer(base, 200, (), said, lambda: None)
            status, body, more = (
                (200, said, {}) if isinstance(said, bytes) else (said, b"", {}) if isinstance(said, int) else said
            )
            fields = {"Content-Length": str(len(body)), **more}

            def end() -> None:
                self.ended += 1

            return Answer(base, status, tuple(fields.items()), once(b"" if method == "HEAD" else body), end)

        return ask


@contextlib.asynccontextmanager
async def asking(
    monkeypatch: pytest.MonkeyPatch,
    said: dict[str, Said],
    *,
    clock: FakeClock | None = None,
    pace: Pace | None = None,
    connections: int = 8,
    **settings: Any,
) -> AsyncIterator[tuple[Origin, Servers]]:
    servers = Servers(said)

    class Instead:
        def __init__(self, session: object, name: str, url: str, *_: object, **__: object) -> None:
            self.ask = servers.of(url)

    monkeypatch.setattr(origin, "Backend", Instead)
    mirrored = Mirrored.model_validate(
        {"kind": "yum", **({"url": A} if "mirror_list" not in settings else {}), **settings}
    )
    mirror = Mirror(connections=connections)
    async with origin.opened("r", mirrored, mirror, resolver=Names(), clock=clock or FakeClock(), pace=pace) as it:
        yield it, servers


async def body(it: Origin, path: str = "/x", method: str = "GET", headers: Sequence[tuple[str, str]] = ()) -> bytes:
    answer = await it.ask(method, path, headers)
    assert answer.status in (200, 206), answer
    whole = await answer.whole(1 << 20)
    assert whole is not None
    return whole


async def test_what_goes_on_of_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking(monkeypatch, {f"{A}/x": b"1"}) as (it, servers):
        assert (it.name, it.url) == ("origin r", A)
        ours = [("User-Agent", f"Muster/{VERSION}"), ("Accept-Encoding", "identity")]
        await body(it, headers=[("Host", "me"), ("Cookie", "c"), ("If-Range", '"e"'), ("Accept-Encoding", "gzip")])
        await body(it, headers=[("range", "bytes=5-"), ("if-range", '"e"'), ("If-None-Match", '"e"')])
        await body(it, headers=[("Range", "bytes=0-1,3-4")])
        assert servers.sent == [ours, [*ours, ("Range", "bytes=5-"), ("If-Range", '"e"')], ours]


async def test_what_is_wanted_and_who_asks_go_on_where_they_are_well_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking(monkeypatch, {f"{A}/x": b"1"}) as (it, servers):
        said = [("accept", "application/a+json, b/c"), ("authorization", "Bearer abc"), ("Range", "bytes=0-")]
        await body(it, headers=said)
        await body(it, headers=[("Accept", "a\r\nb"), ("Authorization", "Digest x"), ("Authorization", "Bearer a b")])
        sent = [("Accept", said[0][1]), ("Authorization", "Bearer abc"), ("Range", "bytes=0-")]
        assert [list(one[2:]) for one in servers.sent] == [sent, []]


@pytest.mark.parametrize(
    ("leads", "knows"),
    [
        ((f"{A}/y",), [True, True]), ((B,), [True, False]), (("http://a.example:81/y",), [True, False]),
        (("http://b.example/back", f"{A}/z"), [True, False, False]),
    ],
)  # fmt: skip
async def test_who_asks_is_told_to_the_origins_own_server_alone(
    monkeypatch: pytest.MonkeyPatch, leads: Sequence[str], knows: Sequence[bool]
) -> None:
    said: dict[str, Said] = {}
    for at, to in itertools.pairwise((f"{A}/x", *leads)):
        said[at] = (302, b"", {"Location": to})
    said[leads[-1]] = b"1"
    async with asking(monkeypatch, said) as (it, servers):
        await body(it, headers=[("Authorization", "Basic abc"), ("Accept", "a/b")])
        assert [("Authorization", "Basic abc") in one for one in servers.sent] == list(knows)
        assert all(("Accept", "a/b") in one for one in servers.sent)


@pytest.mark.parametrize(("leads", "says_it"), [(f"{A}/y", True), (B, False), ("http://a.example:81/y", False)])
async def test_the_origins_own_server_alone_says_what_is_to_be_shown(
    monkeypatch: pytest.MonkeyPatch, leads: str, says_it: bool
) -> None:
    said: dict[str, Said] = {
        f"{A}/x": (302, b"", {"Location": leads}),
        leads: (401, b"", {"WWW-Authenticate": "Basic"}),
    }
    async with asking(monkeypatch, said) as (it, _):
        answer = await it.ask("GET", "/x", ())
        assert (answer.status, ("WWW-Authenticate", "Basic") in answer.headers) == (401, says_it)
        answer.end()


async def test_no_mirror_is_told_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking(monkeypatch, {LIST: A.encode(), f"{A}/x": b"1"}, mirror_list=LIST) as (it, servers):
        await body(it, headers=[("Authorization", "Basic abc")])
        assert not [one for one in servers.sent if "Authorization" in dict(one)]


async def test_an_address_that_the_origin_names_is_asked_as_where_it_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Said] = {
        "https://auth.example/t?a=b": b"1", "https://auth.example/away": (302, b"", {"Location": f"{C}/y"}), f"{C}/y": b"2",
    }  # fmt: skip
    told = [("Authorization", "Basic abc")]
    async with asking(monkeypatch, said, redirects_to=["10.0.0.7"]) as (it, servers):
        answer = await it.ask_at(Target.of("https://auth.example/t?a=b"), told, "it says so")
        assert (await answer.whole(9), servers.sent[0][-1]) == (b"1", told[0])
        with pytest.raises(BadGateway, match="away from TLS"):
            await it.ask_at(Target.of("https://auth.example/away"), told, "it says so")
        with pytest.raises(BadGateway, match=r"it says so, and 127\.0\.0\.1 is not public.*redirects_to"):
            await it.ask_at(Target.of("https://127.0.0.1/t?secret"), told, "it says so")
        assert (await it.ask_at(Target.of("https://10.0.0.7/t"), told, "it says so")).status == 404


async def test_only_what_reads_below_the_origin_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking(monkeypatch, {}) as (it, servers):
        for method, path in (("POST", "/x"), ("GET", "x"), ("GET", "/../x"), ("GET", "/x?y"), ("GET", "/x\r\ny")):
            with pytest.raises(Rejected):
                await it.ask(method, path, ())
        assert servers.asked == []


@pytest.mark.parametrize("status", [401, 403, 404, 416, 500, 503])
async def test_what_the_only_place_answers_is_the_answer(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    async with asking(monkeypatch, {f"{A}/x": (status, b"why", {})}) as (it, _):
        answer = await it.ask("GET", "/x", ())
        assert (answer.status, await answer.whole(100), answer.of) == (status, b"why", "origin r")


@pytest.mark.parametrize(
    "said",
    [Unavailable("a hung up"), GatewayTimeout("a was late"), BadGateway("a is none"), 500, 503, 403, 404, 401, 429],
)
async def test_the_next_mirror_is_asked(monkeypatch: pytest.MonkeyPatch, said: Said) -> None:
    lists = {LIST: f"{A}\n{B}\n".encode(), f"{B}/x": b"2"}
    async with asking(monkeypatch, {**lists, f"{A}/x": said}, mirror_list=LIST) as (it, servers):
        assert await body(it) == b"2"
        assert servers.asked == [LIST, f"{A}/x", f"{B}/x"]
        # Whose fault it was is asked last; who only has not this file is not at fault.
        servers.asked.clear()
        assert await body(it) == b"2"
        is_blamed = not isinstance(said, int) or said >= 429
        assert servers.asked == ([f"{B}/x"] if is_blamed else [f"{A}/x", f"{B}/x"])
    assert servers.ended >= 2


async def test_a_mirror_that_failed_is_asked_last_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    said: dict[str, Said] = {LIST: f"{A}\n{B}\n{C}\n".encode(), f"{A}/x": 500, f"{B}/x": 500, f"{C}/x": b"3"}
    async with asking(monkeypatch, said, clock=clock, mirror_list=LIST) as (it, servers):
        assert await body(it) == b"3"
        servers.said.update({f"{A}/x": b"1", f"{C}/x": 500})
        clock.advance(1)
        servers.asked.clear()
        assert await body(it) == b"1"
        assert servers.asked == [f"{C}/x", f"{A}/x"]
        clock.advance(300)
        servers.asked.clear()
        assert await body(it) == b"1"
        assert servers.asked == [f"{A}/x"]


async def test_only_what_most_say_is_absent_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Said] = {LIST: f"{A}\n{B}\n".encode(), f"{B}/y": 403, f"{B}/z": 410}
    async with asking(monkeypatch, said, mirror_list=LIST) as (it, servers):
        for path in ("/x", "/z"):
            answer = await it.ask("GET", path, ())
            assert (answer.status, await answer.whole(10)) == (404, b"")
        why = f"Fetching /y from origin r failed: no mirror gave it: {A} has it not; {B} answered 403"
        with pytest.raises(Unavailable, match=f"^{re.escape(why)}$"):
            await it.ask("GET", "/y", ())
        assert servers.asked.count(LIST) == 1


async def test_the_list_is_read_again_each_hour_and_when_all_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    said: dict[str, Said] = {LIST: f"{A}\n".encode(), f"{A}/x": b"1", f"{B}/x": b"2", f"{C}/x": b"3"}
    async with asking(monkeypatch, said, clock=clock, mirror_list=LIST) as (it, servers):
        assert [await body(it), await body(it)] == [b"1", b"1"]
        servers.said[LIST] = f"{B}\n".encode()
        clock.advance(3599)
        assert await body(it) == b"1"
        clock.advance(1)
        assert await body(it) == b"2"
        servers.said.update({LIST: f"{B}\n{C}\n".encode(), f"{B}/x": Unavailable("b is away")})
        # It was read just now.
        with pytest.raises(Unavailable, match="b is away"):
            await body(it)
        clock.advance(60)
        assert await body(it) == b"3"
        assert servers.asked.count(LIST) == 3
        # A list that is away keeps nobody from what was in it.
        servers.said[LIST] = 503
        clock.advance(3600)
        assert [await body(it), await body(it)] == [b"3", b"3"]
        assert servers.asked.count(LIST) == 4
        clock.advance(60)
        await body(it)
        assert servers.asked.count(LIST) == 5


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (404, "the list http://list.example/mirrors is not there: 404 was answered"),
        (b"<html/>", "Reading the list http://list.example/mirrors failed: its root is not metalink"),
        (b"x" * (2 << 20), "larger than 1048576 bytes"),
        (Unavailable("it is away"), "it is away"),
        ((302, b"", {"Location": "http://127.0.0.1/"}), "leads on to http://127.0.0.1/, and 127.0.0.1 is not public"),
    ],
)
async def test_without_a_list_nothing_can_be_asked(monkeypatch: pytest.MonkeyPatch, said: Said, why: str) -> None:
    clock = FakeClock()
    async with asking(monkeypatch, {LIST: said, f"{A}/x": b"1"}, clock=clock, mirror_list=LIST) as (it, servers):
        for _ in range(2):
            with pytest.raises(MusterError, match=f"^Fetching /x from origin r failed: .*{why}"):
                await it.ask("GET", "/x", ())
        # Not asked by each who comes.
        assert servers.asked == [LIST]
        servers.said[LIST] = A.encode()
        clock.advance(5)
        assert await body(it) == b"1"


async def test_a_list_has_a_query_that_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://list.example/metalink?repo=r&key=secret"
    async with asking(monkeypatch, {}, mirror_list=url) as (it, servers):
        with pytest.raises(MusterError) as caught:
            await it.ask("GET", "/x", ())
        assert servers.asked == [url]
        assert "secret" not in f"{caught.value} {it.url} {it.name}"


@pytest.mark.parametrize("named", ["http://127.0.0.1:1", "http://localhost", "http://[::1]", "http://0x7f.1/f"])
async def test_a_list_may_not_name_private_addresses(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    said: dict[str, Said] = {LIST: f"{named}\n".encode()}
    async with asking(monkeypatch, said, mirror_list=LIST) as (it, servers):
        with pytest.raises(
            Unavailable, match=r"the list http://list.example/mirrors names .* not public.*redirects_to$"
        ):
            await it.ask("GET", "/x", ())
        assert servers.asked == [LIST]


async def test_the_lists_own_host_may_be_a_mirror_and_those_that_settings_name(monkeypatch: pytest.MonkeyPatch) -> None:
    at = "http://10.0.0.1/mirrors"
    said: dict[str, Said] = {
        at: b"http://10.0.0.3/\nhttp://10.0.0.1:8080/f\nhttp://10.0.0.2/\n",
        "http://10.0.0.2/x": 500,
    }
    async with asking(monkeypatch, said, mirror_list=at, redirects_to=["10.0.0.2"]) as (it, servers):
        with pytest.raises(Unavailable, match=r"10.0.0.3 is not public"):
            await it.ask("GET", "/x", ())
        assert servers.asked == [at, "http://10.0.0.1:8080/f/x", "http://10.0.0.2/x"]


async def test_redirects_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Said] = {
        f"{A}/x": (301, b"moved", {"Location": "/1"}),
        f"{A}/1": (302, b"", {"location": "https://b.example/2?s=1"}),
        "https://b.example/2?s=1": (303, b"", {"Location": "3"}),
        "https://b.example/3": (307, b"", {"Location": "//c.example/4"}),
        "https://c.example/4": (308, b"", {"Location": "https://8.8.8.8/5"}),
        "https://8.8.8.8/5": (206, b"six", {"Content-Range": "bytes 0-2/9"}),
    }
    async with asking(monkeypatch, said) as (it, servers):
        assert await body(it, headers=[("Range", "bytes=0-2")]) == b"six"
        assert servers.asked == [*said]
        assert all(("Range", "bytes=0-2") in sent for sent in servers.sent)
        assert await body(it, method="HEAD", headers=[("Range", "bytes=0-2")]) == b""
    assert servers.ended >= 12


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ((302, b"", {"Location": "/x"}), "leads on more than 5 times, at last to http://a.example/x"),
        ((302, b"", {}), "answered 302 without saying where"),
        (
            (302, b"", {"Location": "http://10.0.0.1/p?secret"}),
            "leads on to http://10.0.0.1/p, and 10.0.0.1 is not public",
        ),
        ((302, b"", {"Location": "http://[::ffff:10.0.0.1]/?secret"}), "is not public"),
        (
            (302, b"", {"Location": "http://localhost/?secret"}),
            "localhost has the address 127.0.0.1, which is not public",
        ),
        ((302, b"", {"Location": "http://u:secret@b.example/"}), "credentials"),
        ((302, b"", {"Location": "file:///secret"}), "neither HTTP nor HTTPS"),
        ((200, b"x", {"Content-Encoding": "gzip"}), "answered in the content coding gzip"),
        ((206, b"x", {"Content-Range": "bytes 0-0/2"}), "a part that was not asked for"),
        (BadGateway("it sent no HTTP"), "it sent no HTTP"),
    ],
)
async def test_what_is_not_followed_or_read_is_said(monkeypatch: pytest.MonkeyPatch, said: Said, why: str) -> None:
    async with asking(monkeypatch, {f"{A}/x": said}, connections=1) as (it, servers):
        for _ in range(2):
            with pytest.raises(BadGateway, match=f"^Fetching /x from origin r failed: .*{why}") as caught:
                await it.ask("GET", "/x", ())
            assert "secret" not in str(caught.value)
        assert set(servers.asked) == {f"{A}/x"}


async def test_a_private_host_is_allowed_by_the_setting_that_the_error_names(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Said] = {f"{A}/x": (302, b"", {"Location": "http://10.0.0.1/p"}), "http://10.0.0.1/p": b"1"}
    async with asking(monkeypatch, said) as (it, _):
        with pytest.raises(BadGateway, match=r"are named in content\.mirror\.repositories\.r\.redirects_to$"):
            await it.ask("GET", "/x", ())
    async with asking(monkeypatch, said, redirects_to=["10.0.0.1"]) as (it, _):
        assert await body(it) == b"1"


async def test_through_a_proxy_addresses_are_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Said] = {f"{A}/x": (302, b"", {"Location": "http://2130706433/p"})}
    async with asking(monkeypatch, said, proxy="http://proxy.example:3128") as (it, _):
        with pytest.raises(BadGateway, match=r"2130706433 has the address 127\.0\.0\.1, which is not public"):
            await it.ask("GET", "/x", ())


async def test_of_what_is_packed_and_no_file_the_status_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking(monkeypatch, {f"{A}/x": (404, b"packed", {"Content-Encoding": "gzip"})}) as (it, _):
        answer = await it.ask("GET", "/x", ())
        assert (answer.status, answer.headers, await answer.whole(9)) == (404, (("Content-Length", "0"),), b"")


async def test_more_than_was_said_is_cut_off_and_less_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Said] = {
        f"{A}/x": (200, b"body", {"Content-Length": "3"}),
        f"{A}/y": (200, b"body", {"Content-Length": "5"}),
    }
    async with asking(monkeypatch, said, connections=1) as (it, _):
        with pytest.raises(
            BadGateway, match=r"^Fetching /x from origin r failed: http://a\.example gives more than the 3 bytes"
        ):
            await body(it)
        with pytest.raises(
            Unavailable, match=r"^Fetching /y from origin r failed: http://a\.example ended its answer after 4 of 5"
        ):
            await body(it, "/y")


async def test_a_mirror_that_breaks_off_is_asked_last(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Said] = {
        LIST: f"{A}\n{B}\n".encode(),
        f"{A}/x": (200, b"b", {"Content-Length": "5"}),
        f"{B}/x": b"2",
    }
    async with asking(monkeypatch, said, mirror_list=LIST) as (it, _):
        with pytest.raises(Unavailable, match="after 1 of 5"):
            await body(it)
        assert await body(it) == b"2"


async def test_so_many_are_answered_at_once_and_rooms_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Said] = {f"{A}/x": b"1", f"{A}/y": Unavailable("it is away")}
    async with asking(monkeypatch, said, connections=2) as (it, servers):
        one, two = await it.ask("GET", "/x", ()), await it.ask("GET", "/x", ())
        three = asyncio.create_task(it.ask("GET", "/x", ()))
        four = asyncio.create_task(it.ask("GET", "/x", ()))
        await asyncio.sleep(0.01)
        assert (len(servers.asked), three.done()) == (2, False)
        # Who waits and goes away takes nothing along.
        three.cancel()
        with pytest.raises(asyncio.CancelledError):
            await three
        one.end()
        one.end()
        await (await four).whole(10)
        # Its pieces have ended; nobody called end.
        assert [piece async for piece in two.pieces] == [b"1"]
        for _ in range(5):
            with pytest.raises(Unavailable):
                await it.ask("GET", "/y", ())
            assert await body(it) == b"1"
        both = [await it.ask("GET", "/x", ()) for _ in range(2)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await it.ask("GET", "/x", ())
        for answer in both:
            answer.end()


async def test_who_is_cancelled_while_it_is_asked_gives_its_room_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking(monkeypatch, {f"{A}/x": b"1"}, connections=1) as (it, servers):
        hangs = asyncio.Event()
        of = servers.of

        def hanging(base: str) -> Callable[..., Any]:
            async def ask(*_: object) -> Answer:
                await hangs.wait()
                raise AssertionError

            return ask

        monkeypatch.setattr(servers, "of", hanging)
        asked = asyncio.create_task(it.ask("GET", "/x", ()))
        await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        monkeypatch.setattr(servers, "of", of)
        assert await body(it) == b"1"
        # While it waits for its turn to go on, too.
        slow = Pace(1)
        monkeypatch.setattr(it, "_pace", slow)
        reading = asyncio.create_task(body(it))
        await asyncio.sleep(0.01)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        monkeypatch.setattr(it, "_pace", None)
        assert await body(it) == b"1"


async def test_bodies_come_at_a_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    async with asking(monkeypatch, {f"{A}/x": b"x" * 1000}, pace=Pace(1000, clock=clock)) as (it, _):
        for _ in range(5):
            await body(it)
        assert clock.ticks == pytest.approx(5)


def trickling(clock: FakeClock) -> AsyncGenerator[bytes, None]:
    async def given() -> AsyncGenerator[bytes, None]:
        for _ in range(100):
            clock.advance(7)
            yield b"x"

    return given()


async def test_an_origin_that_is_slow_for_a_minute_is_given_up_be_it_the_list_that_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    async with asking(monkeypatch, {f"{A}/x": trickling(clock)}, clock=clock) as (it, _):
        with pytest.raises(GatewayTimeout, match=r"^Fetching /x from origin r failed: http://a\.example/x is too slow"):
            await body(it)
    async with asking(monkeypatch, {LIST: trickling(clock)}, clock=clock, mirror_list=LIST) as (it, _):
        with pytest.raises(GatewayTimeout, match=f"{LIST} is too slow"):
            await body(it)


async def test_another_mirror_goes_on_where_one_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    said: dict[str, Said] = {LIST: f"{A}\n{B}\n".encode(), f"{A}/x": trickling(clock), f"{B}/x": b"2"}
    async with asking(monkeypatch, said, clock=clock, mirror_list=LIST) as (it, _):
        with pytest.raises(Unavailable, match="too slow"):
            await body(it)
        assert await body(it) == b"2"


async def test_what_most_mirrors_say_is_absent_is_though_one_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Said] = {LIST: f"{A}\n{B}\n{C}\n".encode(), f"{B}/x": Unavailable("b is away")}
    async with asking(monkeypatch, said, mirror_list=LIST) as (it, _):
        answer = await it.ask("GET", "/x", ())
        assert answer.status == 404


async def test_files_that_cannot_be_used_are_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for settings in ({"ca_file": tmp_path / "none"}, {"certificate": tmp_path / "none"}, {"url": "http://a:b:c"}):
        with pytest.raises(Misconfigured):
            async with asking(monkeypatch, {}, **settings):
                pass


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "http://u:p@a.example/"},
        {"url": "http://a.example/?q"},
        {"url": "ftp://a.example/"},
        {"mirror_list": "http://u:p@a.example/list"},
        {"mirror_list": "http://a.example/list?a b"},
        {"mirror_list": "http://a.example/list?a#b"},
        {"url": A, "proxy": "https://proxy.example:3128"},
        {"url": A, "proxy": "http://u:p@proxy.example:3128"},
        {"url": A, "proxy": "http://proxy.example:3128/path"},
    ],
)
def test_settings_that_say_something_else_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="String should match pattern"):
        Mirrored.model_validate({"kind": "file", **settings})
