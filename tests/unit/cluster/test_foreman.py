"""What members share of Foreman's version, and how the cluster file says that it is asked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from muster.cluster.file import ClusterFile
from muster.cluster.foreman import DOCUMENT, HEARD, Heard, api_opened, heard_in, is_asked, is_named, keep, trust_of
from muster.foreman.version import asked
from muster.kernel.errors import Misconfigured, Unavailable
from muster.pki.authority import ca_paths
from muster.store.documents import Documents
from muster.store.engine import Store
from tests.servers import foreman as servers
from tests.servers.foreman import TOKEN

pytestmark = pytest.mark.anyio


def cluster(**foreman: Any) -> ClusterFile:
    return ClusterFile.model_validate(
        {
            "schema": 1,
            "cluster": "t",
            "address": "proxy.example.com",
            "store": {"url": "sqlite:///x.db"},
            "members": [{"id": 1, "name": "proxy01.example.com", "address": "192.0.2.11"}],
            "foreman": foreman,
        }
    )


async def last(store: Store) -> Heard | None:
    async with store.read() as uow:
        return await heard_in(uow)


async def test_what_was_heard_first_is_kept_for_all(store: Store) -> None:
    assert await last(store) is None
    kept = await keep(store, "3.19.0", age_s=0, by="p1")
    assert await last(store) == kept == Heard("3.19.0", kept.at, "p1")


async def test_the_latest_question_counts_and_not_the_latest_write(store: Store) -> None:
    await keep(store, "3.19.0", age_s=60, by="p1")
    new = await keep(store, "5.0.0", age_s=5, by="p2")
    # It was asked before, and its answer took longer.
    assert await keep(store, "3.19.0", age_s=30, by="p1") == new
    assert await last(store) == new
    # Foreman really is an older one again.
    assert (await keep(store, "3.19.0", age_s=0, by="p1")).version == "3.19.0"


async def test_an_answer_from_the_future_does_not_count_for_ever(store: Store) -> None:
    await keep(store, "3.19.0", age_s=-3600, by="p1")
    assert (await keep(store, "5.0.0", age_s=0, by="p2")).version == "5.0.0"


async def test_of_many_who_heard_at_once_one_counts_for_all(store: Store) -> None:
    found = await asyncio.gather(*(keep(store, f"3.{n}.0", age_s=n, by=f"p{n}") for n in range(8)))
    now = await last(store)
    assert now is not None
    assert now.version == "3.0.0"
    assert found[0] == now


@pytest.mark.parametrize(
    "content",
    [[], "5.0.0", {}, {"version": "5.0.0"}, {"version": 5, "heard_at": 1}, {"version": "latest", "heard_at": 1.0}],
)
async def test_what_is_no_version_in_the_store_is_as_if_nothing_was_heard(store: Store, content: Any) -> None:
    documents = Documents(store)
    await documents.replace(await documents.read(DOCUMENT), content, by="p1")
    assert await last(store) is None
    assert Heard.read(await store.ask(HEARD, name=DOCUMENT)) is None
    assert (await keep(store, "5.0.0", age_s=0, by="p2")).by == "p2"
    assert (await last(store) or Heard("", 0, "")).version == "5.0.0"


async def test_a_store_that_does_not_answer_says_so(dead_store: Store) -> None:
    with pytest.raises(Unavailable):
        await keep(dead_store, "5.0.0", age_s=0, by="p1")


async def test_foreman_is_asked_as_the_file_says_it(tmp_path: Path) -> None:
    with servers.running(tmp_path / "foreman") as foreman:
        own, other = ca_paths(foreman.ca.directory)[0], tmp_path / "absent.pem"
        for ca, more in ((own, {}), (own, {"ca_file": own})):
            async with api_opened(cluster(**foreman.settings(), **more), ca) as api:
                assert await asked(api) == "3.19.0"
        with pytest.raises(Misconfigured, match=str(other)):
            async with api_opened(cluster(**foreman.settings()), other):
                pass


@pytest.mark.parametrize(
    "held", [b"", b"\n", b"  \nsecond", b"two words", "schlüssel".encode(), b"\xff\xfe", b"a\tb", b"x" * 1001]
)
async def test_what_is_no_token_is_refused_without_showing_it(tmp_path: Path, held: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(held)
    it = cluster(url="https://f.test", api_user="muster", api_token_file=str(file))
    with pytest.raises(Misconfigured, match=f"first line of foreman.api_token_file {file} is no personal") as refused:
        async with api_opened(it, tmp_path / "ca.pem"):
            pass
    assert "two words" not in str(refused.value)


async def test_a_token_file_that_is_absent_or_endless_is_named(tmp_path: Path) -> None:
    file = tmp_path / "token"
    it = cluster(url="https://f.test", api_user="muster", api_token_file=str(file))
    for why in ("No such file", "larger than 4096 bytes"):
        with pytest.raises(Misconfigured, match=f"Reading token of Foreman's API {file} failed: {why}"):
            async with api_opened(it, tmp_path / "ca.pem"):
                pass
        file.write_text(TOKEN * 300)


def test_what_the_file_says_of_foreman() -> None:
    assert not is_asked(cluster())
    assert not is_named(cluster())
    assert not is_named(cluster(trusted_hosts=[]))
    assert is_named(cluster(url="https://f.test"))
    assert is_named(cluster(trusted_hosts=["f.test"]))
    assert is_asked(cluster(url="https://f.test", api_user="muster", api_token_file="/t"))
    assert trust_of(cluster(ca_file="/a")) == (Path("/a"),)
    assert trust_of(cluster()) == ()
