from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from muster.edge.feature import Surroundings
from muster.features.realm.providers.memory import MemoryRealm
from muster.features.realm.service import Realm, opened
from muster.features.realm.settings import RealmSettings
from muster.features.realm.turns import Turns
from muster.kernel.errors import Conflict, NotFound, Rejected, Unavailable
from muster.kernel.names import FQDN
from muster.policy.metered import OperationMetrics

pytestmark = pytest.mark.anyio
HOST = "web01.example.com"


@pytest.fixture
def realm() -> Realm:
    return Realm(MemoryRealm(), "EXAMPLE.COM", Turns(None, "proxy01.example.com", 25))


async def test_a_new_host_is_told_its_password(realm: Realm) -> None:
    told = await realm.enrol("example.com", HOST, "web", is_rebuilt=False, is_update=False)
    assert told["fqdn"] == HOST
    assert told["userclass"] == "web"
    assert len(told["randompassword"]) == 20
    assert json.dumps(told)


async def test_a_host_that_is_as_it_was_is_nothing_to_do(realm: Realm) -> None:
    await realm.enrol("EXAMPLE.COM", HOST, "web", is_rebuilt=False, is_update=False)
    for userclass in ("web", None, ""):
        told = await realm.enrol("EXAMPLE.COM", HOST, userclass, is_rebuilt=False, is_update=True)
        assert told == {"message": "nothing to do"}
    changed = await realm.enrol("EXAMPLE.COM", HOST, "db", is_rebuilt=False, is_update=True)
    assert changed == {"fqdn": HOST, "userclass": "db"}


@pytest.mark.parametrize("name", ["OTHER.COM", "", "EXAMPLE.COM\n", "x" * 300])
async def test_another_realm_is_refused_in_foremans_words(realm: Realm, name: str) -> None:
    with pytest.raises(Rejected, match=r"^Unknown realm ") as refusal:
        await realm.enrol(name, HOST, None, is_rebuilt=False, is_update=False)
    assert "\n" not in str(refusal.value)
    with pytest.raises(Rejected, match=r"^Unknown realm "):
        await realm.remove(name, HOST)


@pytest.mark.parametrize(
    ("hostname", "userclass"),
    [
        ("web01.example.com\nx", None),
        ("-web", None),
        ("web)(cn=*", None),
        ("a" * 300, None),
        (HOST, "a" * 256),
        (HOST, "a\nb"),
        (HOST, "a\0"),
    ],
)
async def test_what_is_malformed_reaches_no_realm(realm: Realm, hostname: str, userclass: str | None) -> None:
    with pytest.raises(Rejected, match="Invalid"):
        await realm.enrol("EXAMPLE.COM", hostname, userclass, is_rebuilt=False, is_update=False)


async def test_removing_what_is_not_there_is_said_in_foremans_words(realm: Realm) -> None:
    with pytest.raises(NotFound, match=f"^Host {HOST} not found in realm$"):
        await realm.remove("EXAMPLE.COM", HOST)


async def test_a_second_call_for_a_host_is_refused_while_the_first_runs(realm: Realm) -> None:
    async with realm.turns.turn(FQDN(HOST), is_patient=False):
        with pytest.raises(Conflict, match="nothing was changed"):
            await realm.enrol("EXAMPLE.COM", HOST.upper(), None, is_rebuilt=True, is_update=True)
        await realm.enrol("EXAMPLE.COM", "web02.example.com", None, is_rebuilt=True, is_update=False)


async def test_the_turn_ends_with_a_failure(realm: Realm) -> None:
    memory = realm.provider
    assert isinstance(memory, MemoryRealm)
    memory.failure = Unavailable("away")
    with pytest.raises(Unavailable):
        await realm.enrol("EXAMPLE.COM", HOST, None, is_rebuilt=False, is_update=False)
    memory.failure = None
    assert await realm.enrol("EXAMPLE.COM", HOST, None, is_rebuilt=False, is_update=False)


async def test_opening_wraps_the_provider_in_policies() -> None:
    around = Surroundings("m", OperationMetrics(CollectorRegistry()), Path("c"), Path("k"), Path("ca"))
    async with opened(RealmSettings.model_validate({"use_provider": "realm_memory"}), around) as realm:
        assert "policies around" in repr(realm.provider)
        assert realm.realm == "EXAMPLE.COM"
        await realm.reached()
