from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import pytest

from muster.app.offers import modelled
from muster.balancer.haproxy.sockets import ServerState
from muster.balancer.model import Balancing
from muster.balancer.steering import Held, Order, Place, Steering, Verb, held_out, observation, opinion, orders
from muster.cluster.file import ClusterFile
from muster.cluster.life import OUT, STATES, Life, State
from muster.cluster.observations import Observation, Opinion
from muster.kernel.errors import Unavailable
from muster.kernel.settings import parse

PLACE = ("smartproxy", "p1.test")
# How HAProxy shows a server, and what that says of its administrative state.
STATUSES: Mapping[str, str] = {
    "UP": "in",
    "UP 1/2": "in",
    "no check": "in",
    "NOLB": "in",
    "DOWN": "in",
    "DOWN 1/2": "in",
    "DRAIN": "drain",
    "DRAIN 1/2": "drain",
    "MAINT": "maint",
    "MAINT (via p/q)": "maint",
}
HELD: tuple[Held | None, ...] = (None, "gate", "drain", "maint")


def state(status: str = "UP", check: str = "L7OK", *, backend: str = PLACE[0], server: str = PLACE[1]) -> ServerState:
    return ServerState(
        backend=backend, server=server, status=status, weight=100, sessions=0, total_sessions=0, check=check,
        check_code=None, last_check="", agent="", bytes_in=0, bytes_out=0, down_s=0, changed_s=0, address="",
    )  # fmt: skip


def told(
    states: list[ServerState], lives: Mapping[str, Life] | None, held: Mapping[Place, Held] | None = None
) -> list[tuple[Verb, str]]:
    return [(o.verb, o.backend) for o in orders(states, lives, held or {})]


def expected(life: State | None, status: str, held: Held | None) -> Verb | None:
    """What has to be said, told apart case by case; the function under test goes another way."""
    is_in, is_maint = STATUSES[status] == "in", STATUSES[status] == "maint"
    takes = status.startswith(("UP", "no check"))
    match life:
        case None:
            return "ready" if held == "gate" else None
        case "ready":
            return "ready" if held else None
        case "maintenance":
            return None if held == "maint" and is_maint else "maint"
        case _:
            if held in ("gate", "drain"):
                return "drain" if is_in and takes else None
            return "drain"


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("life", [None, *STATES])
def test_every_life_in_every_state_of_haproxy_gets_its_order(
    life: State | None, status: str, held: Held | None
) -> None:
    lives = {"p1.test": Life(life)} if life else {}
    said = told([state(status)], lives, {PLACE: held} if held else {})
    verb = expected(life, status, held)
    # What HAProxy shows is judged by its check, which has ended well here unless the server is half up.
    if life is None and held == "gate" and opinion(state(status)) == "unknown":
        verb = None
    assert said == ([(verb, "smartproxy")] if verb else [])


@pytest.mark.parametrize("status", ["DRAIN", "MAINT", "DOWN", "UP"])
def test_what_somebody_drained_on_haproxys_own_socket_is_left_alone(status: str) -> None:
    assert told([state(status)], {"p1.test": Life("ready")}) == []
    assert told([state(status)], {}) == told([state(status)], None) == []


@pytest.mark.parametrize(("status", "held"), [*product(STATUSES, ("drain", "maint", None))])
def test_while_the_store_is_down_nothing_that_holds_is_changed(status: str, held: Held | None) -> None:
    assert told([state(status)], None, {PLACE: held} if held else {}) == []


@pytest.mark.parametrize(("check", "verbs"), [("", []), ("INI", []), ("L7OK", ["ready"]), ("L4CON", ["ready"])])
def test_while_nobody_decides_a_server_added_lately_is_let_in_by_its_first_check(check: str, verbs: list[str]) -> None:
    server = [state("DRAIN", check)]
    held: dict[Place, Held] = {PLACE: "gate"}
    assert [v for v, _ in told(server, None, held)] == [v for v, _ in told(server, {}, held)] == verbs
    assert told([state("DRAIN", check)], {"p1.test": Life("warming")}, {PLACE: "gate"}) == []


def test_the_unchecked_twin_is_let_in_by_the_check_of_the_server_itself() -> None:
    twin = state("DRAIN", "", backend="smartproxy_panic")
    held: dict[Place, Held] = {PLACE: "gate", ("smartproxy_panic", "p1.test"): "gate"}
    assert told([state("DRAIN", "INI"), twin], None, held) == []
    assert told([state("DRAIN", "L7OK"), twin], None, held) == [("ready", "smartproxy"), ("ready", "smartproxy_panic")]
    assert told([twin], None, held) == []


def test_the_unchecked_twin_is_drained_with_its_server() -> None:
    twin = state("no check", "", backend="smartproxy_panic")
    for life in sorted(OUT - {"maintenance"}):
        assert told([state(), twin], {"p1.test": Life(life)}) == [
            ("drain", "smartproxy"),
            ("drain", "smartproxy_panic"),
        ]


def test_orders_once_carried_out_are_not_given_again() -> None:
    for life, status, held in (
        ("draining", "DRAIN", "drain"),
        ("removed", "DRAIN", "drain"),
        ("warming", "DOWN", "drain"),
        ("maintenance", "MAINT", "maint"),
        ("ready", "UP", None),
    ):
        assert told([state(status)], {"p1.test": Life(life)}, {PLACE: held} if held else {}) == []  # type: ignore[arg-type, dict-item]


def test_an_order_knows_its_place() -> None:
    assert Order("drain", *PLACE).place == PLACE


@pytest.mark.parametrize(
    ("status", "check", "said"),
    [
        ("UP", "L7OK", "up"),
        ("UP", "L4OK", "up"),
        ("UP", "L6OK", "up"),
        ("NOLB", "L7OKC", "up"),
        ("DRAIN", "L7OK", "up"),
        ("UP", "", "unknown"),
        ("UP 1/2", "INI", "unknown"),
        ("no check", "", "unknown"),
        ("DRAIN", "SOCKERR", "unknown"),
        # After maintenance HAProxy shows the check from before it.
        ("MAINT", "", "unknown"),
        ("DRAIN 1/2", "L7OK", "unknown"),
        ("UP 1/3", "L7OK", "unknown"),
        ("UP 1/2", "L4CON", "down"),
        ("DRAIN", "L7STS", "down"),
        ("DOWN", "L7OK", "down"),
        ("DOWN 1/2", "L7OK", "down"),
        ("DOWN", "", "down"),
        ("UP (via smartproxy_ready_probe/p1.test)", "", "up"),
        ("DOWN (via smartproxy_ready_probe/p1.test)", "", "down"),
    ],
)
def test_haproxys_words_become_an_opinion(status: str, check: str, said: Opinion) -> None:
    assert opinion(state(status, check)) == said


def balancing() -> Balancing:
    off = "".join(f"  {n}: {{enabled: false}}\n" for n in ("http", "https", "anaconda", "puppet", "puppetca"))
    text = f"""
schema: 1
cluster: demo
address: cluster.test
store: {{url: sqlite:////nowhere/x.db}}
members:
- {{id: 1, name: P1.test, address: 127.0.0.11}}
- {{id: 2, name: p2.test, address: 127.0.0.12}}
services:
{off}  smartproxy: {{listen_port: 9090}}
"""
    return modelled(parse(text).parsed(ClusterFile))


def test_an_observation_says_what_the_checks_say_wherever_a_server_is_asked() -> None:
    probe = "smartproxy_alive_probe"
    states = [
        state("UP", "L7OK"),
        state("UP", "", server="p2.test"),
        state("DOWN", "L4CON", backend=probe, server="p2.test"),
        state("no check", "", backend="smartproxy_panic"),
        state("UP", "L7OK", backend="puppet", server="p9.test"),
    ]
    seen = observation(
        "lb1", balancing(), states, {"p1.test": 3}, engine="HAProxy 2.6", generation="abc", trouble="x", totals={}
    )
    assert seen.opinions == {"p1.test": {"smartproxy": "up"}, "p2.test": {"smartproxy": "down"}}
    assert (seen.name, seen.engine, seen.generation, seen.sessions) == ("lb1", "HAProxy 2.6", "abc", {"p1.test": 3})
    none = observation("lb1", balancing(), [], {}, engine="", generation="", trouble="", totals={})
    assert none.opinions == {}


def test_what_is_held_out_is_remembered_over_a_restart(tmp_path: Path) -> None:
    Steering(tmp_path).gate([PLACE, ("smartproxy_panic", "p1.test")])
    file = tmp_path / "held.json"
    assert json.loads(file.read_text()) == [["smartproxy", "p1.test", "gate"], ["smartproxy_panic", "p1.test", "gate"]]
    assert file.stat().st_mode & 0o777 == 0o600
    Steering(tmp_path).gate([("puppet", "p1.test")])
    assert [row[0] for row in json.loads(file.read_text())] == ["puppet", "smartproxy", "smartproxy_panic"]
    assert held_out(tmp_path) == {PLACE, ("smartproxy_panic", "p1.test"), ("puppet", "p1.test")}
    assert held_out(tmp_path / "elsewhere") == frozenset()


@pytest.mark.parametrize("content", ["", "{", "7", "[1]", '["abc"]', '[["a", "b"]]', '[["a", "b", "kept"]]', "{}"])
def test_a_damaged_memory_of_what_is_held_out_is_no_memory(tmp_path: Path, content: str) -> None:
    (tmp_path / "held.json").write_text(content)
    Steering(tmp_path).gate([PLACE])
    assert json.loads((tmp_path / "held.json").read_text()) == [[*PLACE, "gate"]]


def test_a_memory_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    Steering(tmp_path / "missing").gate([PLACE])


@dataclass
class Words:
    """A listener in HAProxy's place: servers with a status and a check, and every order it was given.

    Attributes:
        answers: what it says to an order, instead of nothing.
    """

    shown: list[tuple[str, str, str]]
    orders: list[str] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = (await reader.read()).decode().strip()
        if "show stat" in command:
            rows = "".join(f"smartproxy,{name},{status},{check},2\n" for name, status, check in self.shown)
            answer = f"# pxname,svname,status,check_status,scur\n{rows}"
        elif command == "show proc":
            answer = (
                "#<PID> <type>\n1 master 0 0d 2.6\n# workers\n2 worker 0 0d 2.6\n# old workers\n3 worker 1 0d 2.6\n"
            )
        else:
            self.orders.append(command)
            answer = self.answers.get(command, "")
        writer.write(answer.encode())
        writer.close()


@asynccontextmanager
async def spoken_to(run: Path, *shown: tuple[str, str, str]) -> AsyncIterator[tuple[Words, Steering]]:
    words = Words(list(shown))
    async with (
        await asyncio.start_unix_server(words.listen, run / "runtime.sock"),
        await asyncio.start_unix_server(words.listen, run / "master.sock"),
    ):
        yield words, Steering(run)


async def beat(steering: Steering, **lives: State) -> Observation:
    told = {f"{n.upper()}.test": Life(s) for n, s in lives.items()}
    return await steering.beat("lb1", balancing(), told, engine="", generation="", trouble="", totals={})


async def test_no_order_opens_a_server_for_a_moment_on_its_way_from_maintenance_to_drained(tmp_path: Path) -> None:
    async with spoken_to(tmp_path, ("p1.test", "UP", "L7OK")) as (words, steering):
        for life, status in (
            ("draining", "DRAIN"),
            ("maintenance", "MAINT"),
            ("warming", "DRAIN 1/2"),
            ("ready", "UP"),
        ):
            await beat(steering, p1=life)  # type: ignore[arg-type]
            words.shown = [("p1.test", status, "L7OK")]
            await beat(steering, p1=life)  # type: ignore[arg-type]
    states = ["drain", "maint", "drain", "ready"]
    assert words.orders == [f"set server smartproxy/p1.test state {s}" for s in states]


async def test_a_balancer_says_whom_it_holds_out_until_it_has_let_them_in(tmp_path: Path) -> None:
    async with spoken_to(tmp_path, ("p1.test", "UP", "L7OK"), ("p2.test", "UP", "L7OK")) as (words, steering):
        assert (await beat(steering, p1="draining", p2="ready")).held == ["p1.test"]
        words.shown[0] = ("p1.test", "DRAIN", "L7OK")
        assert (await beat(steering, p1="warming", p2="ready")).held == ["p1.test"]
        assert (await beat(steering, p1="ready", p2="ready")).held == []
        assert words.orders[-1] == "set server smartproxy/p1.test state ready"


async def test_who_was_let_in_is_held_until_that_outlives_a_killed_haproxy(tmp_path: Path) -> None:
    async with spoken_to(tmp_path, ("p1.test", "DRAIN", "L7OK")) as (words, _):
        answers = [True, False, True]

        async def remember() -> bool:
            return answers.pop(0)

        steering = Steering(tmp_path, remember)
        await beat(steering, p1="draining")
        assert (await beat(steering, p1="ready")).held == ["p1.test"]
        assert held_out(tmp_path) == {PLACE}
        assert (await beat(steering, p1="ready")).held == []
        assert held_out(tmp_path) == frozenset()
    assert [o.rpartition(" ")[2] for o in words.orders] == ["drain", "ready", "ready"]


async def test_connections_of_old_workers_count(tmp_path: Path) -> None:
    async with spoken_to(tmp_path, ("p1.test", "UP", "L7OK"), ("p2.test", "DOWN", "L4CON")) as (_, steering):
        seen = await beat(steering)
    assert seen.sessions == {"p1.test": 4, "p2.test": 4}
    assert seen.opinions == {"p1.test": {"smartproxy": "up"}, "p2.test": {"smartproxy": "down"}}


async def test_an_order_for_a_server_that_went_meanwhile_hinders_no_other_and_is_not_held(tmp_path: Path) -> None:
    async with spoken_to(tmp_path, ("p1.test", "UP", "L7OK"), ("p2.test", "UP", "L7OK")) as (words, steering):
        words.answers = {"set server smartproxy/p1.test state drain": "No such server.\n"}
        await beat(steering, p1="draining", p2="draining")
    assert len(words.orders) == 2
    assert json.loads((tmp_path / "held.json").read_text()) == [["smartproxy", "p2.test", "drain"]]


async def test_without_haproxy_a_beat_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await Steering(tmp_path).beat("lb1", balancing(), {}, engine="", generation="", trouble="", totals={})
