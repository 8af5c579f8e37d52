from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from muster.app.duties.consumer import ConsumerPackage
from muster.cluster.file import ClusterFile
from muster.content.consumer.given import LATEST_RPM, Given
from muster.content.consumer.ledger import Packages
from muster.content.joining import Joining
from muster.kernel.errors import Unavailable
from muster.kernel.secrets import Secret
from muster.kernel.settings import parse
from muster.pki.authority import ClusterCA, ca_paths
from muster.store.engine import Store, opened
from tests.unit.balancer.test_model import HEAD

pytestmark = pytest.mark.anyio


async def test_members_give_the_same_bytes_follow_a_new_ca_and_go_on_without_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = tmp_path / "ca.pem"

    def new_ca(name: str) -> None:
        made = ClusterCA.create(tmp_path / name, name, now=datetime.now(UTC))
        ca.write_bytes(ca_paths(made.directory)[0].read_bytes())

    def member(number: int, store: Store, told: str = "{}\n") -> tuple[ConsumerPackage, Joining]:
        given = Given(tmp_path / f"state{number}" / "consumer.json")
        joining = Joining({"muster-client.json": told}, (ca,), given)
        cluster = parse(HEAD).parsed(ClusterFile)
        return ConsumerPackage(cluster, f"p{number}.test", joining, given, store), joining

    new_ca("one")
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        one, other = member(1, store), member(2, store)
        for duty, _ in (one, other):
            await duty.beat()
        first = one[1].body(LATEST_RPM)
        assert first == other[1].body(LATEST_RPM)
        new_ca("two")
        for duty, _ in (other, one):
            await duty.beat()
        second = one[1].body(LATEST_RPM)
        assert first != second == other[1].body(LATEST_RPM)
        address = parse(HEAD).parsed(ClusterFile).address
        assert one[1].text(f"katello-ca-consumer-{address}-1.2-1.noarch.rpm") is not None
        # Another file of the cluster, which only one has yet.
        newer, joining = member(1, store, "{ }\n")
        for duty in (newer, other[0], newer, other[0]):
            await duty.beat()
        third = joining.body(LATEST_RPM)
        assert second != third == other[1].body(LATEST_RPM)
        assert other[1].text(f"katello-ca-consumer-{address}-1.3-1.noarch.rpm") is not None

    async def gone(*_: object) -> bool:
        raise Unavailable("The store does not answer")

    monkeypatch.setattr(Packages, "is_settled", gone)
    new_ca("three")
    await other[0].beat()
    assert other[1].body(LATEST_RPM) == third
    # Started anew, too.
    again = member(2, store)
    await again[0].beat()
    assert again[1].body(LATEST_RPM) == third


async def test_without_the_ca_nothing_is_made_and_hosts_hear_that(tmp_path: Path) -> None:
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        given = Given(tmp_path / "state" / "consumer.json")
        joining = Joining({"muster-client.json": "{}\n"}, (tmp_path / "none",), given)
        await ConsumerPackage(parse(HEAD).parsed(ClusterFile), "p1.test", joining, given, store).beat()
        with pytest.raises(Unavailable, match="ask again soon"):
            joining.text(LATEST_RPM)


async def test_who_cannot_say_what_its_own_would_be_gives_what_the_others_do(tmp_path: Path) -> None:
    ca = ca_paths(ClusterCA.create(tmp_path / "ca", "one", now=datetime.now(UTC)).directory)[0]
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        found = []
        for name, file in (("p1.test", ca), ("p2.test", tmp_path / "none")):
            given = Given(tmp_path / name / "consumer.json")
            joining = Joining({"muster-client.json": "{}\n"}, (file,), given)
            await ConsumerPackage(parse(HEAD).parsed(ClusterFile), name, joining, given, store).beat()
            found.append(joining.body(LATEST_RPM))
        assert found[0] == found[1]


async def test_a_disk_that_refuses_is_said(tmp_path: Path) -> None:
    ca = ca_paths(ClusterCA.create(tmp_path / "ca", "one", now=datetime.now(UTC)).directory)[0]
    (tmp_path / "state").write_text("no directory")
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        given = Given(tmp_path / "state" / "consumer.json")
        joining = Joining({"muster-client.json": "{}\n"}, (ca,), given)
        duty = ConsumerPackage(parse(HEAD).parsed(ClusterFile), "p1.test", joining, given, store)
        await duty.beat()
        (note,) = duty.found().notes
        assert note.startswith("The package katello-ca-consumer-")
        assert str(tmp_path / "state") in note
