"""Hosts' compliance reports in the store: which there are, how each stands, and their bytes.

============== =========================================================================================
state          means
============== =========================================================================================
``arriving``   pieces of a long one have come; nobody was told that it is there
``waiting``    it was acknowledged; Foreman does not have it yet, as far as anybody knows
``sent``       Foreman has it, and may ask for it
``refused``    Foreman will never take it, or it cannot be read
============== =========================================================================================

Who sends one has claimed it, until a time by the store's clock; then another member may. What Foreman has is written down by
whoever heard of it, also when his claim has ended: it is so. Everything else counts only of the one who has the claim.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from muster.kernel.errors import Conflict, MusterError, NotFound, Unavailable
from muster.store.engine import Store
from muster.store.reading import Query, Readable
from muster.store.writing import Change, Writing

CHUNK_BYTES = 1 << 20
STATES = ("arriving", "waiting", "sent", "refused")

# The rest of one that nobody goes on with for so long does not come.
_ARRIVES_WITHIN_S = 3600.0
# No claim is longer, nor a pause; what ends later was said before the store's clock was set back, and holds no longer.
_LONGEST_S = 900.0
_LONGEST_WHY = 500
_AT_ONCE = 100
_TRIES = 4
# Reports come after each other in Foreman even where a clock goes back a little. One from when it was far ahead is no
# measure for those to come: they would all bear times that are not.
_AHEAD_S = 86_400

_COLUMNS = (
    "id, cname, policy, digest, size, reported_at, state, foreman_id, holder, claimed_until, attempts, due_at, why,"
    " accepted_at, ended_at"
)
_UPLOAD = Query(f"SELECT {_COLUMNS} FROM arf_uploads WHERE id = :id")  # noqa: S608 - names of columns alone
_SAME = Query("SELECT id, state FROM arf_uploads WHERE cname = :cname AND policy = :policy AND digest = :digest")
_LAST = Query("SELECT max(reported_at) AS at FROM arf_uploads WHERE cname = :cname AND reported_at <= :latest")
_HELD = Query(
    "SELECT coalesce(sum(size), 0) AS everybody, coalesce(sum(CASE WHEN cname = :cname THEN size ELSE 0 END), 0) AS host"
    " FROM arf_uploads WHERE state <> 'sent'"
)
_DUE = Query(
    "SELECT id FROM arf_uploads WHERE state = 'waiting' AND (due_at <= :now OR due_at > :now + :longest_s)"
    " AND (claimed_until <= :now OR claimed_until > :now + :longest_s)"
    " ORDER BY due_at, id LIMIT :most"
)
_OF_FOREMAN = Query(
    f"SELECT {_COLUMNS} FROM arf_uploads WHERE cname = :cname"  # noqa: S608 - names of columns alone
    " AND (foreman_id = :foreman_id OR (reported_at = :reported_at AND digest = :digest)) AND state <> 'arriving'"
    " ORDER BY foreman_id DESC, id LIMIT 1"
)
_LISTED = Query(
    f"SELECT {_COLUMNS} FROM arf_uploads WHERE state = :state ORDER BY accepted_at DESC, id LIMIT :most"  # noqa: S608
)
_COUNTED = Query(
    "SELECT state, count(*) AS reports, coalesce(sum(size), 0) AS bytes, min(accepted_at) AS oldest_at,"
    " count(DISTINCT cname) AS hosts FROM arf_uploads GROUP BY state"
)
_CHUNK = Query("SELECT content FROM arf_chunks WHERE upload = :upload AND number = :number")
_OLD = Query(
    "SELECT id FROM arf_uploads WHERE (state IN ('sent', 'refused') AND ended_at < :before)"
    " OR (state = 'arriving' AND accepted_at < :begun) ORDER BY accepted_at, id LIMIT :most"
)
_OLDEST_SENT = Query("SELECT id, size FROM arf_uploads WHERE state = 'sent' ORDER BY ended_at, id LIMIT :most")
_KEPT_CHUNKS = Query("SELECT count(*) AS chunks FROM arf_chunks WHERE upload = :id")
# Whoever hands in the most loses his own first.
_OLDEST_OF_THE_LARGEST = Query(
    "SELECT id, size FROM arf_uploads WHERE state = 'sent' AND cname = (SELECT cname FROM arf_uploads WHERE state = 'sent'"
    " GROUP BY cname HAVING sum(size) > :host_bytes ORDER BY sum(size) DESC, cname LIMIT 1)"
    " ORDER BY ended_at, id LIMIT 1"
)
_SENT_BYTES = Query("SELECT coalesce(sum(size), 0) AS bytes FROM arf_uploads WHERE state = 'sent'")

_BEGUN = Change(
    "INSERT INTO arf_uploads (id, cname, policy, digest, size, state, accepted_at)"
    " VALUES (:id, :cname, :policy, :id, :size, 'arriving', {now})"
    " ON CONFLICT (id) DO UPDATE SET size = arf_uploads.size + excluded.size"
)
_ACCEPTED = Change(
    "INSERT INTO arf_uploads (id, cname, policy, digest, size, reported_at, state, due_at, accepted_at)"
    " VALUES (:id, :cname, :policy, :digest, :size, :reported_at, 'waiting', {now} + :in_s, {now})"
    " ON CONFLICT (id) DO UPDATE SET digest = excluded.digest, size = excluded.size, reported_at = excluded.reported_at,"
    " state = 'waiting', due_at = excluded.due_at, accepted_at = excluded.accepted_at"
)
_ANEW = Change(
    "UPDATE arf_uploads SET state = 'waiting', why = '', attempts = 0, due_at = {now} + :in_s, ended_at = NULL"
    " WHERE id = :id AND state = 'refused'"
)
_PUT = Change("INSERT INTO arf_chunks (upload, number, content) VALUES (:upload, :number, :content)")
_CLAIMED = Change(
    "UPDATE arf_uploads SET holder = :holder, claimed_until = {now} + :for_s, attempts = attempts + 1"
    " WHERE id = :id AND state = 'waiting' AND (claimed_until <= {now} OR claimed_until > {now} + :longest_s)"
)
_SENT = Change(
    "UPDATE arf_uploads SET state = 'sent', foreman_id = CASE WHEN foreman_id = '' THEN :foreman_id ELSE foreman_id END,"
    " why = '', holder = '', claimed_until = 0, ended_at = {now} WHERE id = :id AND (state = 'waiting' OR foreman_id = '')"
)
_PUT_OFF = Change(
    "UPDATE arf_uploads SET why = :why, holder = '', claimed_until = 0, due_at = {now} + :in_s"
    " WHERE id = :id AND holder = :holder AND state = 'waiting'"
)
_REFUSED = Change(
    "UPDATE arf_uploads SET state = 'refused', why = :why, holder = '', claimed_until = 0, ended_at = {now}"
    " WHERE id = :id AND holder = :holder AND state = 'waiting'"
)
# One that is being sent just now stays so: what comes of it is known soon.
_RETRIED = Change(
    "UPDATE arf_uploads SET state = 'waiting', due_at = 0, ended_at = NULL, attempts = 0"
    " WHERE id = :id AND (state = 'refused' OR (state = 'waiting' AND claimed_until <= {now}))"
)
_REMOVED = Change("DELETE FROM arf_uploads WHERE id = :id")
_REMOVED_CHUNKS = Change("DELETE FROM arf_chunks WHERE upload = :id")


class Full(MusterError):
    """The store holds as much as it may of what Foreman does not have; nothing was kept."""

    status = 507
    retryable = True


@dataclass(frozen=True)
class Limits:
    """What reports that Foreman does not have may take: of all hosts together, and of one."""

    spool_bytes: int
    host_bytes: int


@dataclass
class Arrival:
    """A report that is arriving.

    Attributes:
        chunks: how many pieces are kept already.
    """

    cname: str
    policy: int
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    chunks: int = 0


@dataclass(frozen=True)
class Upload:
    """A report.

    Attributes:
        cname: the host's name, or its UUID, as its certificate has it.
        digest: SHA-256 of the report as it was sent, in hexadecimal digits.
        reported_at: seconds since the epoch, of one host all different: by it Foreman tells them apart.
        foreman_id: how Foreman calls it; empty: not known.
        attempts: how often it was begun to be sent.
        why: what Foreman said, where it has it not; empty: nothing yet.
        accepted_at, due_at, ended_at: in store time.
    """

    id: str
    cname: str
    policy: int
    digest: str
    size: int
    reported_at: int | None
    state: str
    foreman_id: str
    holder: str
    claimed_until: float
    attempts: int
    due_at: float
    why: str
    accepted_at: float
    ended_at: float | None


@dataclass(frozen=True)
class Count:
    """How many reports are in one state. ``oldest_at``: when the oldest was accepted, in store time."""

    reports: int = 0
    bytes: int = 0
    hosts: int = 0
    oldest_at: float | None = None


class Ledger:
    """The rows. Concurrency: any number of calls of any number of members."""

    def __init__(self, store: Store, limits: Limits | None = None) -> None:
        """``limits``: None where nothing is accepted, as in commands."""
        self._store = store
        self._limits = limits

    async def arrived(self, arrival: Arrival, content: bytes) -> None:
        """Keep a piece of a report that comes in several.

        Raises:
            Full: there is no room; what is kept of it stays until :meth:`remove`.
            Unavailable: the store did not answer.
        """
        row = {"id": arrival.id, "cname": arrival.cname, "policy": arrival.policy, "size": len(content)}
        chunk = _chunk(arrival, content)

        async def work(uow: Writing) -> None:
            await self._refuse_full(uow, arrival.cname, len(content))
            await uow.changed(_BEGUN, row)
            await uow.changed(_PUT, chunk)

        await self._store.carry_out("arf-arrived", work)
        arrival.chunks += 1

    async def accept(
        self,
        arrival: Arrival,
        rest: bytes,
        *,
        digest: str,
        size: int,
        first_go_s: float,
        reported_at: int | None = None,
    ) -> Upload:
        """Keep the last piece, and with it the report; return it, or the same one that the host handed in before.

        One that was refused waits anew. For ``first_go_s`` only who says so sends it. ``reported_at``: by default now, or
        later, so that it is the host's only one at that time.

        Raises:
            Full: there is no room; what is kept of it stays until :meth:`remove`.
            Conflict: the host has another one of that ``reported_at``.
            Unavailable: pieces of it were dropped since they came; or the store did not answer: if it did not hear the
                answer, a repetition finds it.
        """
        row = {
            "id": arrival.id, "cname": arrival.cname, "policy": arrival.policy, "digest": digest, "size": size,
            "in_s": first_go_s,
        }  # fmt: skip

        async def work(uow: Writing) -> str:
            same = await uow.rows(_SAME, cname=arrival.cname, policy=arrival.policy, digest=digest)
            if same:
                for change in (_REMOVED_CHUNKS, _REMOVED):
                    await uow.changed(change, {"id": arrival.id})
                await uow.changed(_ANEW, {"id": same[0]["id"], "in_s": first_go_s})
                return str(same[0]["id"])
            if (await uow.rows(_KEPT_CHUNKS, id=arrival.id))[0]["chunks"] != arrival.chunks:
                # It took too long, or the store's clock was set forward: what is acknowledged is whole.
                raise Unavailable("Pieces of the report were dropped before it had come; it has to be sent again")
            await self._refuse_full(uow, arrival.cname, len(rest))
            at = reported_at
            if at is None:
                now = int(await uow.now())
                last = (await uow.rows(_LAST, cname=arrival.cname, latest=now + _AHEAD_S))[0]["at"]
                at = max(now, int(last or 0) + 1)
            await uow.changed(_ACCEPTED, {**row, "reported_at": at})
            await uow.changed(_PUT, _chunk(arrival, rest))
            return arrival.id

        id = await self._store_accepted(work, reported_at)
        return await self.upload(id)

    async def _store_accepted(self, work: Any, reported_at: int | None) -> str:
        tries = _TRIES if reported_at is None else 1
        while True:
            tries -= 1
            try:
                return str(await self._store.carry_out("arf-accepted", work))
            except Conflict:
                # Another report of the same host was accepted at the same moment by another member.
                if tries <= 0:
                    raise

    async def claim(self, id: str, for_s: float) -> Upload | None:
        """Return a report that the caller alone sends from now on, for so long; None: it is no matter of his."""
        holder = secrets.token_hex(8)

        async def work(uow: Writing) -> Upload | None:
            if not await uow.changed(_CLAIMED, {"id": id, "holder": holder, "for_s": for_s, "longest_s": _LONGEST_S}):
                return None
            return Upload(**(await uow.rows(_UPLOAD, id=id))[0])

        return await self._store.carry_out("arf-claimed", work)

    async def sent(self, upload: Upload, foreman_id: str) -> None:
        """Note that Foreman has it; ``foreman_id`` empty: how it calls it was not said."""

        async def work(uow: Writing) -> None:
            await uow.changed(_SENT, {"id": upload.id, "foreman_id": foreman_id})

        await self._store.carry_out("arf-sent", work)

    async def put_off(self, upload: Upload, why: str, in_s: float) -> None:
        """Have it sent again later, unless the claim is lost."""
        row = {"id": upload.id, "holder": upload.holder, "why": why[:_LONGEST_WHY], "in_s": in_s}

        async def work(uow: Writing) -> None:
            await uow.changed(_PUT_OFF, row)

        await self._store.carry_out("arf-put-off", work)

    async def refuse(self, upload: Upload, why: str) -> None:
        """Note that Foreman will not take it, unless the claim is lost."""
        row = {"id": upload.id, "holder": upload.holder, "why": why[:_LONGEST_WHY]}

        async def work(uow: Writing) -> None:
            await uow.changed(_REFUSED, row)

        await self._store.carry_out("arf-refused", work)

    async def retry(self, ids: Sequence[str]) -> int:
        """Have reports sent again at once, as if for the first time; return how many were not under way."""

        async def work(uow: Writing) -> int:
            return sum([await uow.changed(_RETRIED, {"id": id}) for id in ids])

        return await self._store.carry_out("arf-retried", work)

    async def remove(self, ids: Sequence[str]) -> int:
        """Remove reports with their bytes; return how many there were."""

        async def work(uow: Writing) -> int:
            found = 0
            for id in ids:
                await uow.changed(_REMOVED_CHUNKS, {"id": id})
                found += await uow.changed(_REMOVED, {"id": id})
            return found

        return await self._store.carry_out("arf-removed", work)

    async def forget(self, *, kept_s: float, kept_bytes: int, host_bytes: int = 1 << 62) -> int:
        """Drop what ended so long ago, the oldest that Foreman has beyond so many bytes, and what never came whole.

        Beyond those bytes hosts whose reports take more than ``host_bytes`` lose theirs first.
        """
        dropped = 0
        while True:

            async def work(uow: Writing) -> int:
                now = await uow.now()
                found = await uow.rows(
                    _OLD, before=now - kept_s, begun=now - _ARRIVES_WITHIN_S, most=_AT_ONCE
                )  # fmt: skip
                ids = [str(r["id"]) for r in found]
                too_much = int((await uow.rows(_SENT_BYTES))[0]["bytes"]) - kept_bytes
                largest = (
                    await uow.rows(_OLDEST_OF_THE_LARGEST, host_bytes=host_bytes) if too_much > 0 and not ids else ()
                )
                for row in largest or (await uow.rows(_OLDEST_SENT, most=_AT_ONCE) if too_much > 0 and not ids else ()):
                    if too_much <= 0:
                        break
                    ids.append(str(row["id"]))
                    too_much -= int(row["size"])
                for id in ids:
                    await uow.changed(_REMOVED_CHUNKS, {"id": id})
                    await uow.changed(_REMOVED, {"id": id})
                return len(ids)

            found = await self._store.carry_out("arf-forgotten", work)
            if not found:
                return dropped
            dropped += found

    async def upload(self, id: str) -> Upload:
        """Return a report.

        Raises:
            NotFound: there is none by that id.
        """
        found = await self._store.ask(_UPLOAD, id=id)
        if not found:
            raise NotFound(f"There is no compliance report {id}")
        return Upload(**found[0])

    async def due(self, most: int) -> Sequence[str]:
        """Return reports that anybody may send now, those that have waited longest first."""
        async with self._store.read() as uow:
            return [str(r["id"]) for r in await uow.rows(_DUE, now=await uow.now(), longest_s=_LONGEST_S, most=most)]

    async def of_foreman(self, *, foreman_id: str, cname: str, reported_at: int, digest: str) -> Upload | None:
        """Return the report that Foreman means; None: it is not there."""
        found = await self._store.ask(
            _OF_FOREMAN, foreman_id=foreman_id, cname=cname, reported_at=reported_at, digest=digest
        )
        return Upload(**found[0]) if found else None

    async def pieces(self, upload: Upload) -> AsyncGenerator[bytes, None]:
        """Yield a report's bytes as they were sent.

        Raises:
            Unavailable: the store did not answer, or the report was removed meanwhile.
        """
        left, number = upload.size, 0
        while left > 0:
            found = await self._store.ask(_CHUNK, upload=upload.id, number=number)
            if not found:
                raise Unavailable(f"Compliance report {upload.id} was removed while it was read")
            content = base64.b64decode(found[0]["content"])
            left -= len(content)
            number += 1
            yield content

    async def _refuse_full(self, uow: Writing, cname: str, more: int) -> None:
        limits = self._limits
        if limits is None:
            return
        held = (await uow.rows(_HELD, cname=cname))[0]
        if int(held["everybody"]) + more > limits.spool_bytes:
            raise Full(
                f"Compliance reports that Foreman does not have take {_mib(held['everybody'])} of"
                f" {_mib(limits.spool_bytes)} MiB (features.openscap.spool_limit_bytes); the report was not kept"
            )
        if int(held["host"]) + more > limits.host_bytes:
            raise Full(
                f"Those of this host that Foreman does not have take {_mib(held['host'])} of {_mib(limits.host_bytes)} MiB"
                " (features.openscap.host_limit_bytes); the report was not kept"
            )


async def listed(store: Readable, states: Sequence[str], most: int) -> list[Upload]:
    """Return reports in these states, the latest first; at most so many of each."""
    async with store.read() as uow:
        return [Upload(**r) for s in states for r in await uow.rows(_LISTED, state=s, most=most)]


async def counted(store: Readable) -> tuple[dict[str, Count], float]:
    """Return how many reports are in each state, and the store's clock."""
    async with store.read() as uow:
        found = {
            str(r["state"]): Count(int(r["reports"]), int(r["bytes"]), int(r["hosts"]), r["oldest_at"])
            for r in await uow.rows(_COUNTED)
        }
        return {s: found.get(s, Count()) for s in STATES}, await uow.now()


def _chunk(arrival: Arrival, content: bytes) -> dict[str, Any]:
    return {"upload": arrival.id, "number": arrival.chunks, "content": base64.b64encode(content).decode("ascii")}


def _mib(size: Any) -> int:
    return int(size) >> 20
