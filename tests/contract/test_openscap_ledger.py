"""Compliance reports in the store, on both databases: who sends one, which are the same, how much there may be."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from muster.features.openscap.ledger import Arrival, Full, Ledger, Limits, Upload, counted, listed
from muster.kernel.errors import Conflict, NotFound, Unavailable
from muster.store.engine import Store
from muster.store.reading import Query
from muster.store.writing import Change

pytestmark = pytest.mark.anyio

HOST = "host01.example.com"
WIDE = Limits(1 << 30, 1 << 30)


async def accepted(
    ledger: Ledger, body: bytes = b"report", *, host: str = HOST, policy: int = 1, at: int | None = None
) -> Upload:
    digest = hashlib.sha256(body).hexdigest()
    return await ledger.accept(
        Arrival(host, policy), body, digest=digest, size=len(body), first_go_s=0.0, reported_at=at
    )  # fmt: skip


async def passed(store: Store, seconds: float) -> None:
    async with store.write() as uow:
        await uow.changed(
            Change(
                "UPDATE arf_uploads SET due_at = due_at - :s, claimed_until = claimed_until - :s,"
                " accepted_at = accepted_at - :s, ended_at = ended_at - :s"
            ),
            {"s": seconds},
        )


async def bytes_of(ledger: Ledger, upload: Upload) -> bytes:
    return b"".join([piece async for piece in ledger.pieces(upload)])


async def test_of_many_who_would_send_a_report_one_may_until_its_claim_has_ended(store: Store) -> None:
    ledger = Ledger(store, WIDE)
    upload = await accepted(ledger)
    assert await ledger.due(9) == [upload.id]
    claims = [c for c in await asyncio.gather(*(ledger.claim(upload.id, 60) for _ in range(8))) if c is not None]
    assert [(c.id, c.attempts, c.reported_at) for c in claims] == [(upload.id, 1, upload.reported_at)]
    assert await ledger.due(9) == []
    await passed(store, 61)
    late, (first,) = await ledger.claim(upload.id, 60), claims
    assert late is not None
    assert late.holder != first.holder
    # Who lost his claim says nothing any more, but that Foreman has it: so it is.
    await ledger.put_off(first, "why", 9.0)
    await ledger.refuse(first, "why")
    assert (await ledger.upload(upload.id)).state == "waiting"
    await ledger.sent(first, "7")
    await ledger.refuse(late, "taken")
    await ledger.sent(late, "")
    known = await ledger.upload(upload.id)
    assert (known.state, known.foreman_id, known.why) == ("sent", "7", "")
    assert await ledger.claim(upload.id, 60) is None


async def test_a_report_that_was_put_off_is_due_again_when_its_pause_is_over(store: Store) -> None:
    ledger = Ledger(store, WIDE)
    upload = await accepted(ledger)
    claim = await ledger.claim(upload.id, 60)
    assert claim is not None
    await ledger.put_off(claim, "Foreman is away", 30)
    assert await ledger.due(9) == []
    assert (await ledger.upload(upload.id)).why == "Foreman is away"
    await passed(store, 31)
    assert await ledger.due(9) == [upload.id]


async def test_the_same_report_handed_in_at_once_through_many_members_is_one(store: Store) -> None:
    found = await asyncio.gather(*(accepted(Ledger(store, WIDE)) for _ in range(6)))
    assert len({u.id for u in found}) == 1
    assert await bytes_of(Ledger(store), found[0]) == b"report"
    counts, _ = await counted(store)
    assert (counts["waiting"].reports, counts["waiting"].bytes, counts["waiting"].hosts) == (1, 6, 1)
    async with store.read() as uow:
        assert (await uow.rows(Query("SELECT count(*) AS n FROM arf_chunks")))[0]["n"] == 1


async def test_reports_of_a_host_at_one_moment_have_times_of_their_own(store: Store) -> None:
    found = await asyncio.gather(*(accepted(Ledger(store, WIDE), b"%d" % n, policy=n) for n in range(4)))
    assert len({u.reported_at for u in found}) == 4
    with pytest.raises(Conflict):
        await accepted(Ledger(store, WIDE), b"other", at=found[0].reported_at)


async def test_a_report_from_when_a_clock_was_far_ahead_is_no_measure_for_the_next(store: Store) -> None:
    ledger = Ledger(store, WIDE)
    async with store.read() as uow:
        now = int(await uow.now())
    await accepted(ledger, b"of an hour ahead", at=now + 3600)
    await accepted(ledger, b"of years ahead", at=now + 500_000_000)
    # After a clock went back a little, what comes later is later; after it went back far, it is of now.
    assert (await accepted(ledger, b"next")).reported_at == now + 3601
    assert (await accepted(ledger, b"after that")).reported_at == now + 3602


async def test_a_report_in_pieces_is_there_as_a_whole_or_not_at_all(store: Store) -> None:
    ledger = Ledger(store, WIDE)
    arrival = Arrival(HOST, 1)
    for piece in (b"one", b"two"):
        await ledger.arrived(arrival, piece)
    assert await ledger.due(9) == []
    assert await listed(store, ["waiting"], 9) == []
    digest = hashlib.sha256(b"onetwothree").hexdigest()
    upload = await ledger.accept(arrival, b"three", digest=digest, size=11, first_go_s=0.0)
    assert await bytes_of(ledger, upload) == b"onetwothree"
    # Handed in once more, nothing of the second is left.
    again = Arrival(HOST, 1)
    await ledger.arrived(again, b"onetwo")
    assert (await ledger.accept(again, b"three", digest=digest, size=11, first_go_s=0.0)).id == upload.id
    counts, _ = await counted(store)
    assert (counts["arriving"].reports, counts["waiting"].reports) == (0, 1)
    left = Arrival(HOST, 2)
    await ledger.arrived(left, b"never whole")
    assert await ledger.forget(kept_s=1e9, kept_bytes=1 << 40) == 0
    await passed(store, 3601)
    assert await ledger.forget(kept_s=1e9, kept_bytes=1 << 40) == 1


async def test_a_spool_has_bounds_for_one_host_and_for_all(store: Store) -> None:
    ledger = Ledger(store, Limits(spool_bytes=25, host_bytes=12))
    await accepted(ledger, b"0123456789")
    with pytest.raises(Full, match="Those of this host"):
        await accepted(ledger, b"abc", policy=2)
    with pytest.raises(Full, match="Those of this host"):
        await ledger.arrived(Arrival(HOST, 3), b"abc")
    await accepted(ledger, b"0123456789", host="host02.example.com")
    with pytest.raises(Full, match=r"features\.openscap\.spool_limit_bytes"):
        await accepted(ledger, b"0123456789", host="host03.example.com")
    # Acknowledged before, it is found again however full it is.
    upload = await accepted(ledger, b"0123456789")
    claim = await ledger.claim(upload.id, 60)
    assert claim is not None
    await ledger.sent(claim, "1")
    await accepted(ledger, b"0123456789", host="host03.example.com")


async def test_foreman_finds_a_report_by_its_id_or_by_its_time_and_digest(store: Store) -> None:
    ledger = Ledger(store, WIDE)
    upload = await accepted(ledger)
    claim = await ledger.claim(upload.id, 60)
    assert claim is not None

    async def found(id: str, host: str = HOST, digest: str = upload.digest) -> Upload | None:
        at = upload.reported_at
        assert at is not None
        return await ledger.of_foreman(foreman_id=id, cname=host, reported_at=at, digest=digest)

    # Whoever heard Foreman's first answer died: nobody knows its id.
    await ledger.sent(claim, "")
    assert await found("7") is not None
    assert await found("7", "host02.example.com") is None
    await ledger.sent(claim, "7")
    assert await found("7", digest="0" * 64) is not None
    assert await found("8", digest="0" * 64) is None
    assert await ledger.remove([upload.id, "none"]) == 1
    with pytest.raises(NotFound):
        await ledger.upload(upload.id)
    with pytest.raises(Unavailable, match="was removed while it was read"):
        await bytes_of(ledger, upload)


async def test_reports_that_foreman_has_are_kept_as_long_and_as_many_as_is_said(store: Store) -> None:
    ledger = Ledger(store, WIDE)
    for n in range(5):
        claim = await ledger.claim((await accepted(ledger, b"%04d" % n)).id, 60)
        assert claim is not None
        await ledger.sent(claim, str(n))
        await passed(store, 10)
    await accepted(ledger, b"waits")
    assert await ledger.forget(kept_s=45, kept_bytes=1 << 30) == 1
    assert await ledger.forget(kept_s=45, kept_bytes=9) == 2
    assert sorted(u.foreman_id for u in await listed(store, ["sent", "waiting"], 9)) == ["", "3", "4"]


async def test_what_was_refused_waits_again_when_somebody_says_so(store: Store) -> None:
    ledger = Ledger(store, WIDE)
    upload = await accepted(ledger)
    claim = await ledger.claim(upload.id, 60)
    assert claim is not None
    assert await ledger.retry([upload.id]) == 0
    await ledger.refuse(claim, "x" * 9999)
    refused = await ledger.upload(upload.id)
    assert (refused.state, len(refused.why)) == ("refused", 500)
    assert await ledger.retry([upload.id, "none"]) == 1
    assert await ledger.due(9) == [upload.id]


async def test_a_host_that_hands_in_the_most_loses_its_own_first(store: Store) -> None:
    ledger = Ledger(store, WIDE)
    for host, body in (("host02.example.com", b"0000"), *((HOST, b"%04d" % n) for n in range(1, 6))):
        claim = await ledger.claim((await accepted(ledger, body, host=host)).id, 60)
        assert claim is not None
        await ledger.sent(claim, body.decode())
        await passed(store, 10)
    assert await ledger.forget(kept_s=1e6, kept_bytes=12, host_bytes=8) == 3
    assert sorted(u.foreman_id for u in await listed(store, ["sent"], 9)) == ["0000", "0004", "0005"]
    assert await ledger.forget(kept_s=1e6, kept_bytes=8, host_bytes=8) == 1
    assert sorted(u.foreman_id for u in await listed(store, ["sent"], 9)) == ["0004", "0005"]


async def test_a_report_whose_pieces_were_dropped_while_it_came_is_not_acknowledged(store: Store) -> None:
    ledger = Ledger(store, WIDE)
    arrival = Arrival(HOST, 1)
    await ledger.arrived(arrival, b"one")
    await passed(store, 3601)
    assert await ledger.forget(kept_s=1e9, kept_bytes=1 << 40) == 1
    with pytest.raises(Unavailable, match="Pieces of the report were dropped"):
        await ledger.accept(arrival, b"two", digest="0" * 64, size=6, first_go_s=0.0)
    assert await listed(store, ["arriving", "waiting"], 9) == []


async def test_a_claim_and_a_pause_end_when_the_store_s_clock_is_set_back(store: Store) -> None:
    ledger = Ledger(store, WIDE)
    upload = await accepted(ledger)
    claim = await ledger.claim(upload.id, 720)
    assert claim is not None
    assert await ledger.claim(upload.id, 60) is None
    await passed(store, -86_400)
    assert await ledger.due(9) == [upload.id]
    again = await ledger.claim(upload.id, 60)
    assert again is not None
    await ledger.put_off(again, "Foreman is away", 300)
    assert await ledger.due(9) == []
    await passed(store, -86_400)
    assert await ledger.due(9) == [upload.id]
