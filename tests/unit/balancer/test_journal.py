from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.balancer.haproxy.journal import (
    FORMAT,
    Connection,
    Journal,
    Totals,
    asked_for,
    connections,
    files,
    found,
    parsed,
    socket_path,
    summed,
)
from muster.kernel.errors import Rejected, Unavailable

LINE = "muster 4711 12 192.0.2.7 50000 1700000000 250 smartproxy_in smartproxy p1.test 0 1 1500 300 4000 -- 0"


def line(**changed: object) -> str:
    """A line with some of its fields, by HAProxy's names, changed."""
    words = dict(zip((w.lstrip("%") for w in FORMAT.split()), LINE.split(), strict=True))
    return " ".join(str(changed.get(k, v)) for k, v in words.items())


def of(**changed: object) -> Connection:
    read = parsed(line(**changed))
    assert read is not None
    return read[1]


def until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.01)


def send(run: Path, *lines: str) -> None:
    """Say lines as HAProxy's workers do."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as worker:
        for text in lines:
            worker.sendto(text.encode("utf-8", "surrogateescape"), str(socket_path(run)))


def test_a_line_is_read_field_by_field() -> None:
    identity, connection = parsed(LINE) or ("", None)
    assert identity == "4711:12"
    assert connection == Connection(
        client="192.0.2.7", port=50000, at=1700000000.25, service="smartproxy", backend="smartproxy", server="p1.test",
        queued_ms=0, connected_ms=1, total_ms=1500, bytes_in=300, bytes_out=4000, state="--", retries=0,
        redispatched=False,
    )  # fmt: skip
    assert connection.sentence == (
        "2023-11-14 22:13:20.250Z 192.0.2.7:50000 smartproxy → p1.test: 1.500 s, 300 bytes in, 4000 out; ended normally"
    )
    shown = connection.as_json()
    assert (shown["server"], shown["failed"], shown["end"]) == ("p1.test", False, "ended normally")
    json.dumps(shown)


def test_a_connection_that_reached_nobody_was_moved_or_met_a_panic_says_so() -> None:
    nobody = of(s="<NOSRV>", Tw=-1, Tc=-1, ts="PR")
    assert (nobody.server, nobody.queued_ms, nobody.failed) == ("", -1, True)
    assert "smartproxy → no member:" in nobody.sentence
    moved = of(rc="+3", b="smartproxy_panic", f="smartproxy_in~")
    assert (moved.retries, moved.redispatched, moved.service) == (3, True, "smartproxy")
    assert "→ p1.test after another member refused, while every check failed:" in moved.sentence
    assert "4000 out, 3 failed tries to connect; ended normally" in moved.sentence


@pytest.mark.parametrize(
    ("state", "failed", "end"),
    [
        ("--", False, "ended normally"),
        ("CD", False, "the client closed it while data went to and fro"),
        ("cD", False, "the client was silent for too long while data went to and fro"),
        ("SC", True, "the member closed it or refused it while the balancer connected to the member"),
        ("sQ", True, "the member was silent for too long while it waited for a free place on a member"),
        ("PR", True, "the balancer refused it (a limit, or no TLS ClientHello) before it had said what it wants"),
        ("DD", True, "the member was found dead while data went to and fro"),
        ("K-", True, "an administrator or a stopping worker cut it"),
        ("zz", True, "ended as zz"),
    ],
)
def test_how_it_ended_is_said_in_words(state: str, failed: bool, end: str) -> None:
    assert (of(ts=state).failed, of(ts=state).end) == (failed, end)


@pytest.mark.parametrize(
    ("written", "client"),
    [
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::FFFF:C000:207", "192.0.2.7"),
        ("2001:DB8::7", "2001:db8::7"),
        ("::1", "::1"),
    ],
)
def test_a_client_is_written_as_people_write_it(written: str, client: str) -> None:
    assert of(ci=written).client == client


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "muster",
        LINE + " more",
        LINE.removesuffix(" 0"),
        LINE.replace("muster", "Muster"),
        LINE.replace("\n", " ") + "\n" + LINE,
        line(ci="proxy.example.com"),
        line(ci="192.0.2.7;x"),
        line(cp="x"),
        line(Ts="1e9"),
        line(Ts="9" * 400),
        line(U="1_000"),
        line(B="٣"),
        line(rc="++1"),
        line(s="\x1b[2Jp1.test"),
        line(s="p1.test\x00"),
        line(b="bäckend"),
        line(f="x" * 300),
        line(ts="\x1b["),
        line(ts="---"),
    ],
)
def test_a_hostile_line_is_no_line(hostile: str) -> None:
    assert parsed(hostile) is None


@given(st.one_of(st.text(), st.lists(st.text(st.characters(exclude_categories=["Z"])), min_size=16, max_size=16)))
def test_no_text_breaks_the_reader(text: str | list[str]) -> None:
    read = parsed(text if isinstance(text, str) else " ".join(["muster", *text]))
    if read is not None:
        assert read[1].sentence.isprintable()


def test_what_workers_say_is_counted_once_and_kept(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        assert socket_path(tmp_path).stat().st_mode & 0o777 == 0o600
        send(tmp_path, line(pid=1), "nonsense", line(pid=2, ts="SC", s="p2.test"), line(s="<NOSRV>"), line(pid=3))
        until(lambda: len(list(connections(tmp_path))) == 4)
        assert journal.totals == {"p1.test": Totals(2, 0, 600, 8000), "p2.test": Totals(1, 1, 300, 4000)}
        assert summed(journal.totals)["p2.test"] == {"connections": 1, "failed": 1, "bytes_in": 300, "bytes_out": 4000}
    assert not socket_path(tmp_path).exists()
    assert files(tmp_path)[0].stat().st_mode & 0o777 == 0o600


def test_totals_survive_a_restart_and_go_on(tmp_path: Path) -> None:
    for round_ in (1, 2):
        with Journal(tmp_path) as journal:
            send(tmp_path, LINE)
            until(lambda: journal.totals.get("p1.test", Totals()).connections == round_)  # noqa: B023 - waited for here
    assert Journal(tmp_path).totals == {"p1.test": Totals(2, 0, 600, 8000)}
    assert (tmp_path / "totals.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    ["", "{", "7", "[]", '{"p1.test": 7}', '{"p1.test": {"connections": "many"}}', '{"p1.test": {"failed": null}}'],
)
def test_damaged_totals_begin_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "totals.json").write_text(content)
    assert Journal(tmp_path).totals == {}


def test_totals_of_an_older_version_are_taken_as_far_as_they_go(tmp_path: Path) -> None:
    (tmp_path / "totals.json").write_text('{"p1.test": {"connections": 3, "colour": "red"}}')
    assert Journal(tmp_path).totals == {"p1.test": Totals(3)}


def test_files_rotate_and_the_oldest_lines_go(tmp_path: Path) -> None:
    count = 40
    with Journal(tmp_path, limit_bytes=5 * len(LINE)):
        for n in range(count):
            # One by one: the socket holds ten.
            send(tmp_path, line(cp=1000 + n))
            until(lambda: any(c.port == 1000 + n for c in connections(tmp_path)))  # noqa: B023 - waited for here
    kept = [c.port for c in connections(tmp_path)]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == 1000 + count - 1
    assert 5 <= len(kept) < count
    assert sorted(p.name for p in tmp_path.glob("connections*")) == [f"connections.{n}.log" for n in range(3)]
    assert all(f.stat().st_size <= 7 * len(LINE) for f in files(tmp_path))


def test_a_socket_left_behind_is_replaced_and_one_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(socket_path(tmp_path)))
    with Journal(tmp_path):
        send(tmp_path, LINE)
        until(lambda: len(list(connections(tmp_path))) == 1)
    with pytest.raises(Unavailable, match=r"missing/journal\.sock failed"), Journal(tmp_path / "missing"):
        pass


def test_a_full_disk_costs_what_is_kept_and_not_what_is_counted(tmp_path: Path) -> None:
    # A directory in the file's place refuses to be written, to root too.
    files(tmp_path)[0].mkdir()
    with Journal(tmp_path) as journal:
        send(tmp_path, LINE)
        until(lambda: journal.totals.get("p1.test", Totals()).connections == 1)
    assert list(connections(tmp_path)) == []


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.7", "192.0.2.7", None),
        ("192.0.2.7:50000", "192.0.2.7", 50000),
        ("::ffff:192.0.2.7", "192.0.2.7", None),
        ("2001:db8:0::7", "2001:db8::7", None),
        ("[2001:db8::7]", "2001:db8::7", None),
        ("[2001:db8::7]:50000", "2001:db8::7", 50000),
    ],
)
def test_a_client_or_one_connection_of_it_is_asked_for(text: str, host: str, port: int | None) -> None:
    wanted = asked_for(text)
    assert wanted(of(ci=host))
    assert not wanted(of(ci="198.51.100.1"))
    assert wanted(of(ci=host, cp=1)) == (port is None)


@pytest.mark.parametrize("text", ["", "p1.test", "192.0.2.7:x", "1.2.3", "[p1", "\x1b[2J", "::1:x"])
def test_what_is_no_client_cannot_be_asked_for(text: str) -> None:
    with pytest.raises(Rejected, match="neither a client's address nor ADDRESS:PORT") as raised:
        asked_for(text)
    assert str(raised.value).isprintable()


def test_the_newest_are_found_first_and_no_more_than_asked_for(tmp_path: Path) -> None:
    for number, file in enumerate(files(tmp_path)):
        file.write_text("".join(f"{line(cp=100 * (3 - number) + n)}\nnonsense\n" for n in range(3)) + "muster torn")
    (tmp_path / "connections.1.log").unlink()
    assert [c.port for c in found(tmp_path, "192.0.2.7", most=4)] == [302, 301, 300, 102]
    assert [c.port for c in found(tmp_path, "192.0.2.7:101", most=20)] == [101]
    assert found(tmp_path, "192.0.2.8", most=20) == []
    files(tmp_path)[0].unlink()
    assert len(found(tmp_path, "192.0.2.7", most=20)) == 3
