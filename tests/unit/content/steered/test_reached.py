"""Where steered Pulps are asked, and what they are shown: what the register says, and nobody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from muster.app.settings import loaded
from muster.cluster.service import Change, Told
from muster.cluster.services import Services
from muster.cluster.steered import Steered
from muster.content.steered.reached import Reach
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from tests.servers import member
from tests.servers.member import Member

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(Secret(f"sqlite:///{tmp_path / 'store.db'}")) as it:
        yield it


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Member:
    content = {"pulp_content_url": None, "pulp_api_url": "http://{address}:24817"}
    (it,), _ = member.together(tmp_path_factory.mktemp("reach"), [lambda _: content], "https", "http")
    return it


async def reached(store: Store, one: Member, *names: str) -> tuple[dict[str, Any], dict[str, str]]:
    cluster = loaded(one.cluster_file)
    settings = Steered.model_validate({"pulps": names})
    reach = Reach(cluster, settings, store, one.other_member("proxy77.example.com"), one.pki)
    async with reach.opened() as found:
        return dict(found.pulps), dict(found.absent)


async def added(store: Store, name: str, url: str, credentials: str | None = None) -> None:
    change = Change(control_url=url, credentials=credentials)
    await Services(store).add(name, change, by="me", base={})


async def test_what_the_register_names_is_asked(store: Store, one: Member, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("word\n")
    await added(store, "pulp@a", "https://pulp.test", f"file:{tmp_path}/password")
    await added(store, "pulp@b", "https://pulp-b.test:8443/", "member")
    await added(store, "pulp@c", "http://127.0.0.1:24817")
    pulps, absent = await reached(store, one, "pulp@a", "pulp@b", "pulp@c")
    assert absent == {}
    assert {name: p._backend.url for name, p in pulps.items()} == {
        "pulp@a": "https://pulp.test", "pulp@b": "https://pulp-b.test:8443", "pulp@c": "http://127.0.0.1:24817",
    }  # fmt: skip
    assert [[header for header, _ in p._who] for p in pulps.values()] == [["Authorization"], [], ["Remote-User"]]
    assert "word" not in repr(pulps)


async def test_what_cannot_be_asked_says_why_and_the_others_are(store: Store, one: Member, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("word\n")
    await added(store, "pulp@a", "https://pulp.test")
    await added(store, "pulp@same", "https://pulp.test/")
    await added(store, "pulp@plain", "http://pulp.test", f"file:{tmp_path}/password")
    await added(store, "pulp@lost", "https://lost.test", f"file:{tmp_path}/none")
    await Services(store).tell(Told("ruby", "features of ruby", {"pulp@ruby": {"control_url": "https://katello.test"}}))
    names = ("pulp@a", "pulp@same", "pulp@plain", "pulp@lost", "pulp@ruby", "pulp@none", "pulp")
    pulps, absent = await reached(store, one, *names)
    assert [*pulps] == ["pulp@a"]
    assert {name: next(w for w in words if w in why) for name, why in absent.items()} == {
        "pulp@same": "are the same Pulp", "pulp@plain": "shown no password", "pulp@lost": "password file",
        "pulp@ruby": "that Katello drives is not steered", "pulp@none": "muster services add pulp@none",
        "pulp": "another Pulp on each member",
    }  # fmt: skip


words = (
    "are the same Pulp", "shown no password", "password file", "that Katello drives is not steered",
    "muster services add pulp@none", "another Pulp on each member",
)  # fmt: skip


async def test_one_that_katello_drives_is_steered_when_somebody_says_that_it_is_ours(store: Store, one: Member) -> None:
    await Services(store).tell(Told("ruby", "features of ruby", {"pulp@ruby": {"control_url": "https://ours.test"}}))
    await Services(store).set("pulp@ruby", Change(control_url="https://ours.test"), by="me", base={})
    pulps, absent = await reached(store, one, "pulp@ruby")
    assert ([*pulps], absent) == (["pulp@ruby"], {})
