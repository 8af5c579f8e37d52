"""Both ways to read the store, the one a member keeps and the glance of a command, say the same: rows and refusals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import insert, text

from muster.authority.ledger.lookup import chain_in, known_in, published_in, waiting_in
from muster.cli.demo.bind import free_port
from muster.cluster.life import changed, life_of, lives_in
from muster.cluster.minutes import Minutes, is_there_in, minutes_in
from muster.cluster.observations import Observation, observations_in, told
from muster.cluster.roster import Report, Roster, seen_in, wishes_in
from muster.content.view import Decided, View
from muster.content.views import Told, Views, picture_in
from muster.kernel.errors import Misconfigured, MusterError, Unavailable
from muster.kernel.secrets import Secret
from muster.observed.statements import Statements, told_in
from muster.store.documents import Document, Documents, document_in
from muster.store.engine import Store, opened
from muster.store.glance import glanced
from muster.store.leases import Leases, held_in
from muster.store.place import Place
from muster.store.reading import Query, Readable, Reading
from muster.store.schema import HEAD, Unmade
from muster.store.tables import log_records
from tests.servers import puppetca
from tests.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.anyio

NOBODY = Query("SELECT member FROM wishes WHERE member = :member AND wanted = :wanted")


async def filled(store: Store, home: Path) -> None:
    """Write a row of everything that commands read."""
    report = Report(
        "p1.test", 1, "1", HEAD, "h", 7, "ready", "", {"dns": "running"}, {"dns": {"state": "ready"}}, {"a": 1}
    )
    await Roster(store).beat(report, first=True)
    await Roster(store).beat(replace(report, name="p2.test", member_id=2, reason="ü 'x'"), first=True)
    await Roster(store).wish("p2.test", "maintenance", reason="work", by="somebody", forced=True)
    await Statements(store).give("p1.test", {"version": "1", "deep": {"er": [1, 2]}})
    lease = await Leases(store).acquire("steward", "p1.test 7", 600)
    assert lease is not None
    said = {"sentence": "all is well", "by": "p1.test 7", "held": {"p2.test": "why"}, "waiting": {}}
    await Documents(store).replace(Document("steward"), said, by="p1.test")
    await Documents(store).replace(Document("number"), 7, by="p1.test")
    await Documents(store).replace(Document("text"), "7", by="p1.test")
    async with store.write() as uow:
        await changed(uow, "p1.test", "warming", reason="new", expected=0)
        await told(uow, Observation("lb1", "HAProxy", opinions={"p1.test": {"dns": "up"}}, held=["p2.test"]))
    await puppetca.begin(store, home / "key")
    views = Views(store)
    await views.ask({"/r": b"certificate", "/r2": None})
    await views.know("/r", [("a" * 64, 1, 1.5, "b" * 64), ("c" * 64, -1, 2.5, "d" * 64)])
    (row,) = [r for r in (await views.picture(60)).rows.values() if r.path == "/r"]
    assert await views.show(row, Decided(View(0, "a" * 64, 7.25, 8.25), None, "why"))
    await views.tell("p1.test", {"/r": Told(False, "a" * 64, frozenset(["a" * 64]), 9.5, "ü 'x'")})


async def everything(uow: Reading) -> dict[str, Any]:
    """Return all that commands read, less what time changes."""
    assert await uow.now() > 1.7e9
    ages = {n: s.age_s for n, s in (await seen_in(uow)).items()}
    assert all(0 <= age < 60 for age in ages.values())
    of = await picture_in(uow, 600)
    return {
        "content": (of.rows, of.versions, of.manifests, of.left, of.told, of.ready(["dns"])),
        "seen": {n: replace(s, age_s=0) for n, s in (await seen_in(uow)).items()},
        "wishes": await wishes_in(uow),
        "lives": {n: replace(life, age_s=0) for n, life in (await lives_in(uow)).items()},
        "life": (await life_of(uow, "p1.test"), await life_of(uow, "nobody")),
        "observed": {n: o.observation for n, o in (await observations_in(uow)).items()},
        "minutes": (await minutes_in(uow), await is_there_in(uow)),
        "lease": (await held_in(uow, "steward"), await held_in(uow, "nothing")),
        "told": await told_in(uow),
        "documents": [(await document_in(uow, name)).content for name in ("number", "text", "none")],
        "authority": (
            await chain_in(uow),
            await published_in(uow),
            await waiting_in(uow),
            await known_in(uow, "nobody"),
        ),
        "none": await uow.rows(NOBODY, member="p1.test' OR ''='", wanted="drain"),
    }


async def read_of(store: Readable) -> dict[str, Any]:
    async with store.read() as uow:
        return await everything(uow)


async def refusal(store: Readable) -> tuple[type[MusterError], str]:
    """Return the kind of a read's failure and its sentence."""
    with pytest.raises(MusterError) as raised:
        async with store.read() as uow:
            await uow.now()
    kind = Unavailable if isinstance(raised.value, Unmade) else type(raised.value)
    return kind, str(raised.value)


@contextlib.asynccontextmanager
async def both(
    url: str, connect_timeout_s: float = 2.0, statement_timeout_s: float = 5.0
) -> AsyncIterator[tuple[Readable, Readable]]:
    given = partial(opened, Secret(url), connect_timeout_s=connect_timeout_s, statement_timeout_s=statement_timeout_s)
    async with given(migrate=False) as store:
        yield store, glanced(*given.args, **given.keywords)


async def refused_alike(url: str, **limits: float) -> str:
    async with both(url, **limits) as (store, glance):
        said = await refusal(store)
        assert await refusal(glance) == said
        return said[1]


async def made(url: str, *statements: str) -> None:
    """Make the schema, then change it behind everybody's back."""
    async with opened(Secret(url)) as store:
        await store.ping()
        async with store.write() as uow:
            for statement in statements:
                await uow.connection.execute(text(statement))


async def test_both_ways_read_the_same(store: Store, url: str, tmp_path: Path) -> None:
    await filled(store, tmp_path)
    kept = await read_of(store)
    assert kept == await read_of(glanced(Secret(url)))
    assert (kept["minutes"][0].sentence, kept["minutes"][1]) == ("all is well", True)
    assert kept["wishes"]["p2.test"].forced is True
    assert kept["observed"]["lb1"].held == ["p2.test"]
    assert kept["authority"][0].startswith("-----BEGIN CERTIFICATE-----")
    assert kept["documents"] == [7, "7", None]
    assert kept["none"] == []


async def test_an_empty_store_reads_empty(store: Store, url: str) -> None:
    await store.ping()
    for way in (store, glanced(Secret(url))):
        async with way.read() as uow:
            assert (await seen_in(uow), await lives_in(uow), await minutes_in(uow)) == ({}, {}, Minutes())
            assert await chain_in(uow) is None
            with pytest.raises(Misconfigured, match="no Puppet CA"):
                await published_in(uow)


async def test_a_glance_sees_one_snapshot_and_the_next_what_came_after(store: Store, url: str) -> None:
    await store.ping()
    glance = glanced(Secret(url))
    counted = Query("SELECT count(*) AS number FROM log_records")
    async with glance.read() as uow:
        before = await uow.rows(counted)
        async with store.write() as writing:
            record = {"member": "p1", "timestamp": 1.0, "level": "INFO", "message": "new"}
            await writing.connection.execute(insert(log_records), [record])
        assert await uow.rows(counted) == before == [{"number": 0}]
    async with glance.read() as uow:
        assert await uow.rows(counted) == [{"number": 1}]


async def test_neither_way_of_reading_can_change_anything(store: Store, url: str) -> None:
    await store.ping()
    change = Query("INSERT INTO leases (name, holder, epoch, expires_at) VALUES ('a', 'b', 1, 1)")
    said = []
    for way in (store, glanced(Secret(url))):
        with pytest.raises(Unavailable, match="read-only") as raised:
            async with way.read() as uow:
                await uow.rows(change)
        said.append(str(raised.value))
    assert said[0] == said[1]


async def test_any_number_may_glance_at_once(store: Store, url: str, tmp_path: Path) -> None:
    await filled(store, tmp_path)
    glance = glanced(Secret(url))
    found = await asyncio.gather(*(read_of(glance) for _ in range(12)))
    assert all(f == found[0] for f in found)


async def test_a_store_without_a_schema_is_refused_alike_and_stays_as_it_is(empty_url: str) -> None:
    file = Path(empty_url.removeprefix("sqlite:///")) if empty_url.startswith("sqlite") else None
    if file is not None:
        file.touch(0o600)
    assert f"has no schema yet; this Muster needs {HEAD}" in await refused_alike(empty_url)


async def test_an_older_schema_is_refused_alike(url: str) -> None:
    await made(url, "UPDATE alembic_version SET version_num = '0003'")
    assert f"has schema 0003; this Muster needs {HEAD}" in await refused_alike(url)


async def test_a_newer_schema_is_read(url: str, tmp_path: Path) -> None:
    async with opened(Secret(url)) as store:
        await filled(store, tmp_path)
    await made(url, "UPDATE alembic_version SET version_num = '9999'", "ALTER TABLE wishes ADD COLUMN later TEXT")
    async with both(url) as (store, glance):
        assert await read_of(store) == await read_of(glance)


async def test_a_glance_never_makes_a_file(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/absent.db", f"sqlite:///{tmp_path}/absent/store.db"):
        with pytest.raises(Unmade, match="has no schema yet"):
            await read_of(glanced(Secret(url)))
    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_is_no_database_is_refused_alike(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"something else altogether" * 100)
    assert "damaged" in await refused_alike(f"sqlite:///{tmp_path}/store.db")


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[str]:
    url = f"sqlite:///{tmp_path}/store.db"
    asyncio.run(made(url))
    with contextlib.closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode=EXCLUSIVE")
        holder.execute("BEGIN IMMEDIATE")
        yield url


async def test_a_file_that_somebody_keeps_for_himself_is_refused_alike(locked: str) -> None:
    said = await refused_alike(locked, connect_timeout_s=5, statement_timeout_s=0.2)
    assert "the database was locked for too long by another writer" in said


async def test_a_glance_drops_no_lock_of_a_store_in_the_same_process(tmp_path: Path) -> None:
    file = tmp_path / "store.db"

    def locks() -> list[str]:
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        inode = f":{file.stat().st_ino}"
        return [" ".join(f) for f in lines if f[4] == str(os.getpid()) and f[5].endswith(inode)]

    async with opened(Secret(f"sqlite:///{file}")) as store:
        await filled(store, tmp_path)
        assert locks()
        for _ in range(3):
            await read_of(glanced(Secret(f"sqlite:///{file}")))
            assert locks()
        assert await read_of(store) == await read_of(glanced(Secret(f"sqlite:///{file}")))


async def test_a_path_may_hold_what_a_uri_may_not(tmp_path: Path) -> None:
    home = tmp_path / "a ?#%ü"
    home.mkdir()
    place = Place.parsed(Secret(f"sqlite:///{str(home).replace('%', '%25').replace('?', '%3F')}/store.db"))
    assert place.file == home / "store.db"
    url = f"sqlite:///{str(home).replace('%', '%25').replace('?', '%3F')}/store.db"
    await made(url)
    async with both(url) as (store, glance), store.read() as kept, glance.read() as seen:
        assert await seen_in(kept) == await seen_in(seen) == {}


async def test_a_stopped_postgresql_is_refused_alike(postgresql_server: PostgreSQL) -> None:
    url = postgresql_server.fresh_store()
    await made(url)
    postgresql_server.stop()
    try:
        assert "connection refused" in await refused_alike(url)
    finally:
        postgresql_server.start()


async def test_a_hung_postgresql_is_refused_alike_within_the_deadline(postgresql_server: PostgreSQL) -> None:
    url = postgresql_server.fresh_store()
    await made(url)
    with postgresql_server.paused():
        async with asyncio.timeout(19):
            said = await refused_alike(url, connect_timeout_s=0.5, statement_timeout_s=0.5)
    assert "no answer within 1 s" in said


async def hangs(way: Readable, hold: Callable[[], contextlib.AbstractContextManager[object]]) -> str:
    """Return what a read says whose server stops answering in the middle of it."""

    async def read(stack: contextlib.ExitStack) -> None:
        async with way.read() as uow:
            await uow.now()
            stack.enter_context(hold())
            await uow.now()

    with contextlib.ExitStack() as stack:
        async with asyncio.timeout(9.5):
            with pytest.raises(Unavailable) as raised:
                await read(stack)
    return str(raised.value)


async def test_a_read_caught_by_a_hung_postgresql_ends_alike(postgresql_server: PostgreSQL) -> None:
    url = postgresql_server.fresh_store()
    await made(url)
    async with both(url, connect_timeout_s=0.5, statement_timeout_s=0.5) as (store, glance):
        said = [await hangs(way, postgresql_server.paused) for way in (store, glance)]
    assert said[0] == said[1]
    assert "no answer within 1 s" in said[0]


async def test_a_statement_that_takes_too_long_is_refused_alike(postgresql_server: PostgreSQL) -> None:
    url = postgresql_server.fresh_store()
    await made(url)

    async def slow(way: Readable) -> str:
        with pytest.raises(Unavailable) as raised:
            async with way.read() as uow:
                await uow.rows(Query("SELECT pg_sleep(60)"))
        return str(raised.value)

    async with both(url, connect_timeout_s=30, statement_timeout_s=0.3) as (store, glance):
        said = [await slow(store), await slow(glance)]
    assert said[0] == said[1]
    assert "a statement took longer" in said[0]


async def test_a_table_that_is_locked_is_refused_alike(postgresql_server: PostgreSQL) -> None:
    url = postgresql_server.fresh_store()
    await made(url)

    async def stuck(way: Readable) -> str:
        with pytest.raises(Unavailable) as raised:
            async with way.read() as uow:
                await seen_in(uow)
        return str(raised.value)

    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE members IN ACCESS EXCLUSIVE MODE")
        async with both(url, connect_timeout_s=30, statement_timeout_s=0.3) as (store, glance):
            said = [await stuck(store), await stuck(glance)]
    assert said[0] == said[1]
    assert "a statement took longer" in said[0]


async def test_a_wrong_password_is_refused_alike_and_shows_nowhere(postgresql_server: PostgreSQL) -> None:
    wrong = "hunter2-hunter2"
    url = postgresql_server.url("postgres", password=wrong)
    said = await refused_alike(url)
    assert "password authentication failed" in said
    assert wrong not in f"{said} {glanced(Secret(url))!r}"


async def test_of_several_hosts_the_one_that_answers_is_read(postgresql_server: PostgreSQL) -> None:
    url = postgresql_server.fresh_store()
    await made(url)
    head, _, rest = url.partition("@")
    host, _, database = rest.partition("/")
    nobody_there = f"127.0.0.1:{free_port('127.0.0.1')}"
    several = f"{head}@{nobody_there},{host}/{database}?target_session_attrs=read-write&application_name=ours"
    name = Query(
        "SELECT current_setting('application_name') AS name, current_setting('transaction_isolation') AS level"
    )
    async with both(several) as (store, glance):
        for way in (store, glance):
            async with way.read() as uow:
                assert await uow.rows(name) == [{"name": "ours", "level": "repeatable read"}]
    nobody = several.replace("read-write", "standby")
    assert await refused_alike(nobody)


async def test_a_url_of_another_kind_is_refused_alike() -> None:
    for url in ("mysql://u@h/d", "nonsense", "postgresql://u@h"):
        with pytest.raises(Misconfigured) as theirs:
            async with opened(Secret(url)):
                pass
        with pytest.raises(Misconfigured) as ours:
            glanced(Secret(url))
        assert str(ours.value) == str(theirs.value)
