"""Two members and a report: one is killed at each of its durable steps, the other brings to Foreman what was acknowledged.

Before Foreman has answered, and the answer is written down, it is asked once more: then it says that it has the report, and
that is what is counted here as the one window in which a report is brought twice. It is never there twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from muster.features.openscap.ledger import Upload, listed
from muster.kernel.files import write_atomically
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from muster.store.writing import Change
from tests import scale
from tests.contract.test_openscap import HOST, handed_in, until
from tests.servers import foreman_for_hosts, scap
from tests.servers import member as members
from tests.servers.foreman_for_hosts import ForemanForHosts
from tests.servers.foreman_for_reports import ComplianceOfForeman
from tests.servers.member import Member
from tests.servers.processes import Process, serving

LONG = bytes(range(256)) * (5 * 1024)


@dataclass
class Two:
    """The one that dies, as a process, and the one that stays."""

    mortal: Process
    other: Member
    https: ForemanForHosts
    url: str

    async def _reports(self, change: str = "") -> list[Upload]:
        async with opened(Secret(self.url)) as store:
            if change:
                async with store.write() as uow:
                    await uow.changed(Change(change), {})
            return await listed(store, ["arriving", "waiting", "sent", "refused"], 99)

    def reports(self) -> list[Upload]:
        return asyncio.run(self._reports())

    def let_claims_end(self) -> None:
        """Let the dead one's claim, and the pause until others begin, be over."""
        asyncio.run(self._reports("UPDATE arf_uploads SET due_at = 0, claimed_until = 0 WHERE state = 'waiting'"))

    def empty(self) -> None:
        asyncio.run(self._reports("DELETE FROM arf_chunks"))
        asyncio.run(self._reports("DELETE FROM arf_uploads"))


@pytest.fixture(scope="module")
def two(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    needs("oscap")
    home = tmp_path_factory.mktemp("two")
    with foreman_for_hosts.running(home / "foreman") as https:
        said = {"url": https.url, "ca_file": str(https.ca_file)}
        found, _ = members.together(home, [lambda _: None, lambda _: None], foreman=said)
        https.believe(found[0].ca)
        for one in found:
            content = yaml.safe_load(one.cluster_file.read_text())
            content |= {"features": {"openscap": {"timeout": 5}}}
            write_atomically(one.cluster_file, yaml.safe_dump(content))
        other, mortal = found
        other.start()
        try:
            with serving() as processes:
                processes.append(process := Process(mortal))
                yield Two(process, other, https, content["store"]["url"])
        finally:
            other.stop()


def start(process: Process, armed: str) -> None:
    process.begin(armed)
    until(lambda: bool(process.readiness("smartproxy")["ready"]))


# The step, and how often Foreman is brought the report: twice where it had answered, and nobody knew. Those that say most
# stand first.
POINTS = {
    "arf-sent.before-commit": 2,
    "arf-accepted.after-commit": 1,
    "arf-arrived.after-commit": 1,
    "arf-accepted.before-commit": 1,
    "arf-claimed.before-commit": 1,
    "arf-claimed.after-commit": 1,
    "arf-sent.after-commit": 1,
    "arf-arrived.before-commit": 1,
}


@pytest.mark.proof
@pytest.mark.parametrize("point", list(POINTS)[: scale.REPORT_KILLS])
def test_a_report_is_with_foreman_once_wherever_the_member_dies_that_took_it(two: Two, point: str) -> None:
    foreman = ComplianceOfForeman()
    foreman.answer(two.https)
    two.empty()
    body = scap.report(point) + LONG
    start(two.mortal, f"{point}=kill")
    is_acknowledged = False
    try:
        is_acknowledged = handed_in(two.mortal.member, body).status == 200
    except OSError:
        # The host does not know, and hands it in again when it is measured next.
        assert handed_in(two.other, body).status == 200
    assert not is_acknowledged
    two.mortal.died()
    two.let_claims_end()
    until(lambda: [u.state for u in two.reports() if u.state != "arriving"] == ["sent"])
    assert len(foreman.of(HOST)) == 1
    assert len(foreman.posted) == POINTS[point]
    (upload,) = [u for u in two.reports() if u.state == "sent"]
    ((_, _, date), (id, _)), *_ = foreman.reports.items()
    assert int(date) == upload.reported_at
    # Its id is known, but where the one who heard it died; it is found all the same.
    got = two.other.ask("GET", f"/compliance/arf/{id}/{HOST}/{date}/{upload.digest}/xml")
    assert (got.status, got.body == body) == (200, True)


REFUSALS = [
    ("arf-refused.before-commit", 400), ("arf-put-off.after-commit", 503),
    ("arf-put-off.before-commit", 503), ("arf-refused.after-commit", 400),
]  # fmt: skip


@pytest.mark.proof
@pytest.mark.parametrize(("point", "status"), REFUSALS[: scale.REFUSED_KILLS])
def test_what_was_acknowledged_by_nobody_yet_is_there_all_the_same(two: Two, point: str, status: int) -> None:
    foreman = ComplianceOfForeman(status=status)
    foreman.answer(two.https)
    two.empty()
    start(two.mortal, f"{point}=kill")
    with pytest.raises(OSError):
        handed_in(two.mortal.member, scap.report(point))
    two.mortal.died()
    assert [u.state for u in two.reports()] == ["refused" if point == "arf-refused.after-commit" else "waiting"]
    foreman.status = None
    asyncio.run(retried(two))
    until(lambda: [u.state for u in two.reports()] == ["sent"])
    assert len(foreman.of(HOST)) == 1


async def retried(two: Two) -> None:
    from muster.features.openscap.ledger import Ledger

    await two._reports("UPDATE arf_uploads SET due_at = 0, claimed_until = 0 WHERE state = 'waiting'")
    async with opened(Secret(two.url)) as store:
        await Ledger(store).retry([u.id for u in await listed(store, ["refused"], 9)])


def test_a_report_that_its_member_dies_with_is_sent_by_the_other_without_its_host(two: Two, tmp_path: Path) -> None:
    foreman = ComplianceOfForeman()
    foreman.answer(two.https)
    two.empty()
    two.https.stop()
    try:
        start(two.mortal, "")
        bodies = [scap.report(f"left {n}") for n in range(3)]
        for body in bodies:
            got = handed_in(two.mortal.member, body)
            assert (got.status, list(json.loads(got.body))) == (200, ["result"])
        two.mortal.kill()
    finally:
        two.https.start()
    two.let_claims_end()
    until(lambda: [u.state for u in two.reports()] == ["sent"] * 3)
    assert {told["digest"] for told in foreman.of(HOST)} == {u.digest for u in two.reports()}
    assert len(foreman.posted) == 3
