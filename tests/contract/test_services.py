"""The services register on both stores: who typed what, in which version, and how old facts are."""

from __future__ import annotations

import asyncio

import pytest

from muster.cluster.service import ADMINISTRATOR, ANY, FREE, Change, Told, of_settings
from muster.cluster.services import Outdated, Services, register
from muster.kernel.errors import Conflict, NotFound, Rejected
from muster.store.documents import Documents
from muster.store.engine import Store

pytestmark = pytest.mark.anyio

BASE = {"pulp": of_settings("pulp", "https://{member}", {ANY: "https://smartproxy.test/pulp/content"})}
MOVED = Change(control_url="https://pulp.dmz.test")


async def test_an_entry_is_typed_in_changed_and_taken_out(store: Store) -> None:
    services = Services(store)
    first = await services.set("pulp", MOVED, by="anna", base=BASE)
    assert (first.version, first.control_url, first.changed_by) == (1, "https://pulp.dmz.test", "anna")
    second = await services.set("pulp", Change(weight="essential"), by="bert", base=BASE, expected=1)
    assert (second.version, second.control_url, second.weight) == (2, "https://pulp.dmz.test", "essential")
    found = (await register(store, BASE)).services["pulp"]
    assert found == second
    left = await services.remove("pulp", by="anna", base=BASE, expected=2)
    assert left == (await register(store, BASE)).services["pulp"]
    assert left is not None
    assert (left.control_url, left.source, left.version) == ("https://{member}", "settings", 0)
    with pytest.raises(NotFound, match="what there is comes from settings"):
        await services.remove("pulp", by="anna", base=BASE)
    changes = (await register(store, BASE)).changes
    assert [(c["event"], c["by"], c["name"]) for c in changes] == [
        ("removed", "anna", "pulp"), ("set", "bert", "pulp"), ("set", "anna", "pulp"),
    ]  # fmt: skip
    assert changes[0]["at"] >= changes[-1]["at"] > 0


async def test_a_version_never_comes_again(store: Store) -> None:
    services = Services(store)
    first = await services.add("pulp@dmz", MOVED, by="anna", base={})
    assert await services.remove("pulp@dmz", by="anna", base={}) is None
    again = await services.add("pulp@dmz", MOVED, by="anna", base={})
    assert again.version > first.version
    with pytest.raises(Outdated, match="has version 3 now, not 1"):
        await services.set("pulp@dmz", Change(weight="essential"), by="bert", base={}, expected=first.version)


async def test_adding_is_repeatable_and_conflicts_on_difference(store: Store) -> None:
    services = Services(store)
    first = await services.add("registry", Change(control_url="https://r.test"), by="anna", base=BASE)
    assert await services.add("registry", Change(control_url="https://r.test"), by="bert", base=BASE) == first
    with pytest.raises(Conflict, match="which says otherwise; nothing was changed"):
        await services.add("registry", Change(control_url="https://other.test"), by="bert", base=BASE)
    with pytest.raises(Conflict, match="from settings"):
        await services.add("pulp", MOVED, by="anna", base=BASE)
    assert await services.add("pulp", Change(control_url="https://{member}"), by="anna", base=BASE) == BASE["pulp"]
    with pytest.raises(NotFound):
        await services.set("dns", Change(control_url="dns://h.test"), by="anna", base=BASE)
    with pytest.raises(Rejected, match="nothing to find"):
        await services.add("dns", Change(weight="essential"), by="anna", base=BASE)


async def test_of_two_who_read_the_same_version_one_hears_of_it(store: Store) -> None:
    services = Services(store)
    done = await asyncio.gather(
        *(
            services.set("pulp", Change(control_url=f"https://p{n}.test"), by=str(n), base=BASE, expected=0)
            for n in range(4)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(d, Outdated) for d in done) == 3
    # Whoever changes another entry is not in the way.
    at_once = await asyncio.gather(
        *(services.add(f"pulp@x{n}", MOVED, by="anna", base=BASE) for n in range(5)),
    )
    assert len({one.version for one in at_once}) == 5
    assert len((await register(store, BASE)).services) == 6


async def test_an_entry_and_the_list_of_changes_are_bounded(store: Store) -> None:
    services = Services(store)
    many = {f"n{n}": "https://h.test" for n in range(50)}
    await services.set("pulp", Change(client_urls=many), by="anna", base=BASE)
    with pytest.raises(Rejected, match="at most 50 networks"):
        await services.set("pulp", Change(client_urls={"one-more": "https://h.test"}), by="anna", base=BASE)
    await services.set("pulp", Change(client_urls={"n0": "", "one-more": "https://h.test"}), by="anna", base=BASE)
    for n in range(100):
        await services.set("pulp", Change(control_url=f"https://p{n}.test"), by="anna", base=BASE)
    changes = (await register(store, BASE)).changes
    assert (len(changes), changes[0]["version"], changes[-1]["version"]) == (100, 102, 3)


async def test_a_dry_run_says_what_would_be_and_changes_nothing(store: Store) -> None:
    services = Services(store)
    would = await services.set("pulp", MOVED, by="anna", base=BASE, dry=True)
    assert would.control_url == "https://pulp.dmz.test"
    assert (await register(store, BASE)).services == BASE
    await services.set("pulp", MOVED, by="anna", base=BASE)
    left = await services.remove("pulp", by="anna", base=BASE, dry=True)
    assert left is not None
    assert left.source == "settings"
    assert (await register(store, BASE)).services["pulp"].source == ADMINISTRATOR


async def test_facts_have_an_age_in_store_time_and_go_with_their_member(store: Store) -> None:
    services = Services(store)
    for free in (1, 2):
        await services.tell(Told("p1.test", "asked by p1.test", {"pulp": {"facts": {FREE: free}}}))
    await services.tell(Told("gone.test", "asked by gone.test", {"pulp": {"facts": {FREE: 3}}}))
    facts = (await register(store, BASE)).services["pulp"].facts
    assert [(f.member, f.value) for f in facts] == [("gone.test", 3), ("p1.test", 2)]
    assert all(0 <= f.age_s < 60 for f in facts)
    await services.forget(["p1.test"])
    assert [f.member for f in (await register(store, BASE)).services["pulp"].facts] == ["p1.test"]


async def test_what_somebody_else_wrote_there_breaks_nothing(store: Store) -> None:
    kept = Documents(store)
    await kept.replace(await kept.read("services/odd"), {"services": {"frob": {"control_url": "x"}}}, by="later")
    await kept.replace(await kept.read("services/odder"), [1], by="later")
    assert (await register(store, BASE)).services == BASE
