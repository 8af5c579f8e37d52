from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product

import pytest

from muster.app.offers import modelled
from muster.balancer import watch
from muster.balancer.model import Balancing
from muster.balancer.watch import Order, State, Thought, Watched, is_needed, judged, said, watched
from muster.cluster.file import Balancer, ClusterFile
from muster.edge.proxy_protocol import parsed
from muster.foreman import questions
from muster.foreman.answers import Answer
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.settings import parse

HEAD = """\
schema: 1
cluster: demo
address: cluster.test
store: {{url: sqlite:////nowhere/x.db}}
members:
- {{id: 11, name: Proxy01.test, address: 10.0.0.1}}
- {{id: 12, name: proxy02.test, address: 10.0.0.2{kind}}}
signer: proxy01.test
edge: {{proxy_protocol: "{proxy}"}}
"""


def file(*, kind: str = "", proxy: str = "off", rest: str = "") -> ClusterFile:
    return parse(HEAD.format(kind=kind, proxy=proxy) + rest).parsed(ClusterFile)


def of(cluster: ClusterFile, address: str = "10.0.0.9") -> dict[str, Watched]:
    return {w.name: w for w in watched(modelled(cluster), Balancer(name="lb1", address=address))}


def many(members: int) -> Balancing:
    lines = [f"- {{id: {n}, name: p{n}.test, address: 10.0.1.{n}}}\n" for n in range(1, members + 1)]
    head = HEAD.partition("members:")[0].format()
    return modelled(parse(f"{head}members:\n{''.join(lines)}signer: p1.test\ngeneration: seed\n").parsed(ClusterFile))


@pytest.mark.parametrize("members", [1, 3, 5, 6, 7, 8, 13, 20, 50, 200])
def test_what_hangs_is_found_within_four_seconds_by_haproxy_or_by_the_watch(members: int) -> None:
    balancing = many(members)
    check = balancing.services[0].check
    # A pause that HAProxy draws a fifth longer, two answers that do not come within a second, a short pause between.
    alone_s = 1.2 * check.watched_s + 2 * 1.0 + check.doubting_s
    assert is_needed(balancing) == (alone_s > 4.0)
    # The watch itself asks at a pace of its own.
    assert watch._EVERY_S + 2 * watch._TIMEOUT_S + watch._DOUBTING_S < 4.0


@pytest.mark.parametrize("members", [5, 6, 7, 13, 20, 50, 60])
def test_haproxy_asks_at_most_forty_times_a_second(members: int) -> None:
    balancing = many(members)
    # The signer's one service is the only one that is not on every member.
    assert balancing.servers == 8 * members + 1
    assert balancing.servers / balancing.services[0].check.watched_s <= 40


def test_a_member_of_ours_is_asked_once_for_all_of_its_services() -> None:
    found = of(file())
    assert found["proxy01.test"] == Watched(
        "proxy01.test", "cluster.test", "https://10.0.0.1:9090", "/health/ready?services=all", False, False, None,
        tuple((n, n) for n in ("http", "https", "anaconda", "puppet", "puppetca", "smartproxy")),
    )  # fmt: skip
    assert [n for n, _ in found["proxy02.test"].services] == ["http", "https", "anaconda", "puppet", "smartproxy"]


def test_a_ruby_member_is_asked_for_its_smart_proxy_and_told_where_haproxy_checks_it() -> None:
    found = of(file(kind=", kind: foreman"))["proxy02.test"]
    assert (found.path, found.services) == ("/version", (("smartproxy", "smartproxy_alive_probe"),))


def test_services_whose_checks_stand_elsewhere_are_told_there() -> None:
    places = dict(of(file(proxy="required"))["proxy01.test"].services)
    assert (places["smartproxy"], places["https"]) == ("smartproxy", "https_ready_probe")


@pytest.mark.parametrize(("proxy", "proxied"), [("off", False), ("accepted", False), ("required", True)])
def test_a_header_is_sent_only_where_it_may_not_be_left_out(proxy: str, proxied: bool) -> None:
    assert of(file(proxy=proxy))["proxy01.test"].proxied == proxied


def test_the_header_is_a_balancers_own_question() -> None:
    assert (len(watch.LOCAL), parsed(watch.LOCAL, b"")) == (16, None)


@pytest.mark.parametrize(("address", "source"), [("127.0.0.10", "127.0.0.10"), ("127.0.0.1", None), ("lb.test", None)])
def test_members_are_asked_from_the_address_they_know_the_balancer_by(address: str, source: str | None) -> None:
    assert of(file(), address)["proxy01.test"].source == source


OURS = of(file())["proxy02.test"]
RUBY = of(file(kind=", kind: foreman"))["proxy02.test"]
NAMES = [n for n, _ in OURS.services]


def whole(status: int, services: Mapping[str, object] | None = None) -> Answer:
    return Answer(status, json.dumps({"member": "x", **({"services": services} if services is not None else {})}))


@pytest.mark.parametrize(
    ("answer", "meant"),
    [
        (whole(200, {n: {"state": "ready"} for n in NAMES}), {}),
        (whole(200, {n: {"state": "unready" if n == "https" else "ready"} for n in NAMES}), {"https": "unready"}),
        (whole(200, {n: {"state": "draining"} for n in NAMES[:1]}), {NAMES[0]: "draining"}),
        # A service that a member does not know of yet, and words of a later version.
        (whole(200, {"https": {"state": "resting"}, "nosuch": {"state": "unready"}}), {}),
        # Older members speak of themselves only.
        (whole(200), {}),
        (whole(404), dict.fromkeys(NAMES, "draining")),
        (whole(503), dict.fromkeys(NAMES, "unready")),
        (whole(404, {n: {"state": "ready"} for n in NAMES}), dict.fromkeys(NAMES, "draining")),
        (whole(500), dict.fromkeys(NAMES, "unready")),
        (Answer(200, "<html>"), {}),
        (Answer(200, "[1]"), {}),
        (Answer(200, '{"services": [1]}'), {}),
        (Answer(200, '{"services": {"https": 1}}'), {}),
        (Answer(200, "[" * 2000), {}),
    ],
)
def test_what_an_answer_means_for_each_service(answer: Answer, meant: Mapping[str, State]) -> None:
    assert said(answer, OURS) == {**dict.fromkeys(NAMES, "ready"), **meant}


@pytest.mark.parametrize(("status", "meant"), [(200, "ready"), (404, "unready"), (503, "unready"), (403, "unready")])
def test_a_ruby_member_cannot_drain_by_its_answer(status: int, meant: State) -> None:
    assert said(Answer(status, '{"version": "3.5"}'), RUBY) == {"smartproxy": meant}


def heard(answers: Sequence[State | None]) -> list[Order | None]:
    thoughts, out = {"https": Thought()}, []
    for answer in answers:
        thoughts, told = judged(thoughts, {"https": answer} if answer else None)
        out.append(told.get("https"))
    return out


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([None], [None]),
        ([None, None, None, None], [None, "down", None, None]),
        ([None, "unready"], [None, "down"]),
        ([None, "ready", None], [None, None, None]),
        ([None, None, "ready", None, None], [None, "down", None, None, "down"]),
        (["draining", "draining"], ["stopping", None]),
        (["draining", "ready", "draining"], ["stopping", None, "stopping"]),
        (["draining", None, None, "draining"], ["stopping", None, "down", "stopping"]),
    ],
)
def test_twice_is_down_and_once_is_draining_and_each_is_told_once(
    answers: list[State | None], told: list[Order | None]
) -> None:
    assert heard(answers) == told


@pytest.mark.parametrize("answers", list(product(["ready", "draining", "unready", None], repeat=5)))
def test_nothing_is_told_after_a_good_answer_and_nothing_twice_in_a_row(answers: tuple[State | None, ...]) -> None:
    told = heard(answers)
    for at, order in enumerate(told):
        if answers[at] == "ready":
            assert order is None
        if order == "down":
            # Exactly the second bad answer in a row.
            assert answers[at] in ("unready", None)
            assert at > 0
            assert answers[at - 1] in ("unready", None)
            assert at < 2 or answers[at - 2] in ("ready", "draining")
    spoken = [(at, o) for at, o in enumerate(told) if o]
    for (first, one), (second, other) in pairwise(spoken):
        assert one != other or "ready" in answers[first:second] or "draining" in answers[first:second]


def test_services_are_judged_apart() -> None:
    thoughts = {"https": Thought(1), "puppet": Thought(1)}
    after, told = judged(thoughts, {"https": "unready", "puppet": "ready"})
    assert (after, told) == ({"https": Thought(2), "puppet": Thought()}, {"https": "down"})


class Telling:
    """In place of HAProxy's socket: keeps what it is told, and is away as often as it shall be."""

    def __init__(self, away: int = 0) -> None:
        self.told: list[dict[tuple[str, str], str]] = []
        self.away = away

    async def health(self, found: Mapping[tuple[str, str], str]) -> None:
        if self.away:
            self.away -= 1
            raise Unavailable("HAProxy is being reloaded")
        self.told.append(dict(found))


class Proxy:
    """In place of a member: answers in turn, and is silent at the end."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)

    async def ask(self, _path: str) -> Answer:
        answer = self.answers.pop(0) if self.answers else Unavailable("no answer in time")
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_EVERY_S", 0.001)
    monkeypatch.setattr(watch, "_DOUBTING_S", 0.001)


async def watching(
    monkeypatch: pytest.MonkeyPatch,
    proxy: Proxy,
    telling: Telling,
    clock: Clock | None = None,
    *,
    host: str = "10.0.0.2",
    is_changing: Callable[[], bool] = lambda: False,
    times: int = 1,
) -> None:
    """Watch the proxy until HAProxy was told about it so many times."""

    class Opened:
        async def __aenter__(self) -> Proxy:
            return proxy

        async def __aexit__(self, *_: object) -> None: ...

    class Shown:
        def ours(self) -> None: ...

        rubys = ours

    monkeypatch.setattr(questions, "opened", lambda *_a, **_k: Opened())
    it = watch.Watch(telling, is_changing, clock=clock)  # type: ignore[arg-type]
    one = replace(OURS, url=f"https://{host}:9090", services=(("https", "https_ready_probe"),))
    await it.follow((one,), Shown(), 1)  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(10):
            while len(telling.told) < times:
                await asyncio.sleep(0.001)
    finally:
        await it.close()


@pytest.mark.anyio
async def test_haproxy_is_told_at_the_place_of_its_check(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    telling = Telling()
    await watching(monkeypatch, Proxy(), telling)
    assert telling.told == [{("https_ready_probe", "proxy02.test"): "down"}]


@pytest.mark.anyio
async def test_what_haproxy_could_not_be_told_is_told_later(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    telling = Telling(away=3)
    await watching(monkeypatch, Proxy(), telling)
    assert telling.told == [{("https_ready_probe", "proxy02.test"): "down"}]


@pytest.mark.anyio
async def test_a_certificate_that_is_not_believed_and_a_fault_of_ours_blame_nobody(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling = Telling()
    mine = [Misconfigured("another CA"), RuntimeError("a bug")] * 3
    await watching(monkeypatch, Proxy(*mine, Answer(404, "")), telling)
    assert telling.told == [{("https_ready_probe", "proxy02.test"): "stopping"}]


@pytest.mark.anyio
async def test_who_was_held_up_itself_blames_nobody(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Jumping(SystemClock):
        at = 0.0

        def monotonic(self) -> float:
            self.at += 10
            return self.at

    telling = Telling()
    silent = [Unavailable("no answer in time")] * 4
    await watching(monkeypatch, Proxy(*silent, Answer(404, "")), telling, Jumping())
    assert telling.told == [{("https_ready_probe", "proxy02.test"): "stopping"}]


def because(cause: OSError | None) -> Unavailable:
    error = Unavailable("GET it failed")
    error.__cause__ = cause
    return error


@pytest.mark.anyio
@pytest.mark.parametrize(
    "cause",
    [
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENFILE, "Too many open files in system"),
        OSError(errno.ENOBUFS, "No buffer space available"),
        OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"),
        OSError(errno.EPERM, "Operation not permitted"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    ],
    ids=str,
)
async def test_what_this_host_lacks_is_no_members_fault(
    quick: None, monkeypatch: pytest.MonkeyPatch, cause: OSError
) -> None:
    telling = Telling()
    await watching(monkeypatch, Proxy(*[because(cause)] * 4, Answer(404, "")), telling)
    assert telling.told == [{("https_ready_probe", "proxy02.test"): "stopping"}]


@pytest.mark.anyio
@pytest.mark.parametrize("known", [True, False])
async def test_a_name_nobody_resolves_now_is_no_members_fault(
    quick: None, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    async def found(*_a: object, **_k: object) -> list[object]:
        if known:
            return []
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
    telling = Telling()
    # No word of the name: looking it up took all of the time.
    await watching(monkeypatch, Proxy(*[because(None)] * 4, Answer(404, "")), telling, host="proxy02.test")
    assert telling.told == [{("https_ready_probe", "proxy02.test"): "down" if known else "stopping"}]


@pytest.mark.anyio
async def test_what_an_old_worker_may_have_heard_is_told_the_new_one(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling = Telling()
    # First not at all, then to a worker that was replaced meanwhile.
    changes = iter([True, False, True])
    await watching(monkeypatch, Proxy(), telling, is_changing=lambda: next(changes, False), times=2)
    assert telling.told == [{("https_ready_probe", "proxy02.test"): "down"}] * 2


@pytest.mark.anyio
async def test_a_member_that_flaps_fills_no_log(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Log:
        def warning(self, sentence: str, **_: object) -> None:
            said.append(sentence)

        info = warning

    monkeypatch.setattr(watch, "_log", Log())
    telling = Telling()
    flapping = [Answer(404, ""), Answer(200, "")] * 50
    await watching(monkeypatch, Proxy(*flapping), telling, times=51)
    assert said == ["HAProxy is told before its checks find it"] * 3


@pytest.mark.anyio
async def test_where_all_are_silent_nobody_is_blamed_until_one_speaks(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Member:
        speaks, asked = False, 0

        async def ask(self, _path: str) -> Answer:
            self.asked += 1
            if self.speaks:
                return Answer(200, "")
            raise Unavailable("no answer in time")

    found = {f"https://10.0.0.{n}:9090": Member() for n in (2, 3, 4)}

    class Opened:
        def __init__(self, url: str, **_: object) -> None:
            self.url = url

        async def __aenter__(self) -> Member:
            return found[self.url]

        async def __aexit__(self, *_: object) -> None: ...

    class Shown:
        def ours(self) -> None: ...

    monkeypatch.setattr(questions, "opened", Opened)
    telling = Telling()
    it = watch.Watch(telling)  # type: ignore[arg-type]
    services = (("https", "https"),)
    all_of_them = tuple(replace(OURS, name=f"p{url[15]}.test", url=url, services=services) for url in found)
    await it.follow(all_of_them, Shown(), 1)  # type: ignore[arg-type]
    first, *others = found.values()
    try:
        async with asyncio.timeout(10):
            while any(one.asked < 10 for one in found.values()):
                await asyncio.sleep(0.001)
            assert telling.told == []
            first.speaks = True
            while len(telling.told) < len(others):
                await asyncio.sleep(0.001)
            before = [one.asked for one in found.values()]
            while any(one.asked < 10 + was for one, was in zip(found.values(), before, strict=True)):
                await asyncio.sleep(0.001)
    finally:
        await it.close()
    told = sorted(place for one in telling.told for place in one.items())
    assert told == [(("https", "p3.test"), "down"), (("https", "p4.test"), "down")]
