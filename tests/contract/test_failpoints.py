"""A real process killed before and after the commit of its durable steps, on both stores.

Before the commit: nothing has happened, and nobody was told it had. After it: it has happened, though nobody was told, and
the same call again finds it so.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from sqlalchemy import inspect, update

from muster.authority.ledger.ledger import Ledger
from muster.cluster.life import Lives
from muster.cluster.roster import Roster, Target
from muster.features.externalipam.promises import Promises
from muster.features.externalipam.providers.claims import ClaimedIPAM
from muster.features.externalipam.service import ExternalIPAM
from muster.features.externalipam.settings import KeptSettings
from muster.kernel import failpoints
from muster.kernel.errors import Conflict, Unavailable
from muster.pki import bundles
from muster.store.engine import Store
from muster.store.leases import Leases
from muster.store.tables import leases, metadata
from tests.contract.test_life import plainly
from tests.servers import puppetca, served
from tests.servers.local import until
from tests.servers.served import FOREMAN, MEMBER, NoAnswer, Served

T = TypeVar("T")
HOST = "agent.kill.test"
BEFORE, AFTER = "before-commit", "after-commit"


@pytest.fixture
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm({})


def arm(text: str) -> None:
    failpoints.arm({failpoints.VARIABLE: text})


def killed_at(member: Served, point: str, call: Callable[[], Any]) -> None:
    """Have the member killed at a point of this call, which must not be answered; it runs again afterwards.

    Before a commit means that after it is next, so it is armed for that at once.
    """
    if member.armed != f"{point}=kill":
        member.kill()
        member.start(f"{point}=kill")
    with pytest.raises(NoAnswer):
        call()
    member.died()
    step, place = point.split(".")
    member.start(f"{step}.{AFTER}=kill" if place == BEFORE else "")


def token_of(answer: tuple[int, str]) -> str:
    assert answer[0] == 200, answer
    return str(json.loads(answer[1])["generated_token"])


# The Puppet CA


def test_a_certificate_is_given_from_its_commit_on_and_the_same_one_for_ever(tmp_path: Path, url: str) -> None:
    host = puppetca.agent(HOST)
    with served.made(tmp_path, url, authority={"autosign": ["all"]}) as member:
        killed_at(member, f"sign.{BEFORE}", lambda: member.submit(HOST, host.csr))
        assert (member.certificate(HOST), member.state(HOST)) == (None, None)
        killed_at(member, f"sign.{AFTER}", lambda: member.submit(HOST, host.csr))
        given = member.certificate(HOST)
        assert given is not None
        assert member.submit(HOST, host.csr) == (
            400,
            f"{HOST} already has a signed certificate; ignoring certificate request",
        )
        assert member.certificate(HOST) == given
        assert "This process may end or fail on purpose (MUSTER_FAILPOINTS)" in member.log


def test_a_request_waits_from_its_commit_on_and_is_signed_or_not(tmp_path: Path, url: str) -> None:
    host = puppetca.agent(HOST)
    with served.made(tmp_path, url) as member:
        killed_at(member, f"request.{BEFORE}", lambda: member.submit(HOST, host.csr))
        assert member.state(HOST) is None
        killed_at(member, f"request.{AFTER}", lambda: member.submit(HOST, host.csr))
        assert member.state(HOST) == "requested"
        again = (400, f"{HOST} already has a requested certificate; ignoring certificate request")
        assert member.submit(HOST, host.csr) == again
        killed_at(member, f"sign.{BEFORE}", lambda: member.change(HOST, "signed"))
        assert (member.state(HOST), member.certificate(HOST)) == ("requested", None)
        killed_at(member, f"sign.{AFTER}", lambda: member.change(HOST, "signed"))
        assert member.state(HOST) == "signed"
        assert member.change(HOST, "signed") == (
            409,
            f"Cannot sign certificate for host {HOST} without a certificate request",
        )


def test_a_request_gives_way_to_the_named_hosts_own_with_its_certificate_or_not_at_all(
    tmp_path: Path, url: str
) -> None:
    stranger, host = puppetca.agent(HOST), puppetca.agent(HOST)
    with served.made(tmp_path, url, authority={"autosign": ["hostnames"]}, features={"puppetca": {}}) as member:
        member.start()
        assert member.submit(HOST, stranger.csr)[0] == 200
        assert member.ask_as_foreman("POST", f"/puppet/ca/autosign/{HOST}")[0] == 200
        killed_at(member, f"sign.{BEFORE}", lambda: member.submit(HOST, host.csr))
        assert member.state(HOST) == "requested"
        assert member.ask("GET", f"certificate_request/{HOST}") == (200, stranger.csr.decode())
        killed_at(member, f"sign.{AFTER}", lambda: member.submit(HOST, host.csr))
        assert member.state(HOST) == "signed"
        status, pem = member.ask("GET", f"certificate/{HOST}")
        assert status == 200
        assert x509.load_pem_x509_certificate(pem.encode()).public_key() == host.key.public_key()
        told = json.loads(member.command("ca", "audit", "--certname", HOST, "--json").out)
        assert [entry["event"] for entry in told] == ["signed", "superseded", "requested"]


def test_a_revocation_holds_from_its_commit_on_and_can_be_repeated(tmp_path: Path, url: str) -> None:
    host = puppetca.agent(HOST)
    with served.made(tmp_path, url, authority={"autosign": ["all"]}) as member:
        member.start()
        assert member.submit(HOST, host.csr)[0] == 200
        serial = member.certificate(HOST)
        killed_at(member, f"revoke.{BEFORE}", lambda: member.change(HOST, "revoked"))
        assert (member.state(HOST), serial in member.listed()) == ("signed", False)
        killed_at(member, f"revoke.{AFTER}", lambda: member.change(HOST, "revoked"))
        assert (member.state(HOST), serial in member.listed()) == ("revoked", True)
        assert member.change(HOST, "revoked")[0] == 204


def test_a_cleaned_name_is_revoked_and_free_at_once_or_neither(tmp_path: Path, url: str) -> None:
    host = puppetca.agent(HOST)
    with served.made(tmp_path, url, authority={"autosign": ["all"]}) as member:
        member.start()
        assert member.submit(HOST, host.csr)[0] == 200
        serial = member.certificate(HOST)

        def cleaned() -> tuple[int, str]:
            body = json.dumps({"certnames": [HOST]}).encode()
            return member.ask("PUT", "clean", body=body, by=member.administrator)

        killed_at(member, f"revoke.{BEFORE}", cleaned)
        assert (member.certificate(HOST), serial in member.listed()) == (serial, False)
        killed_at(member, f"revoke.{AFTER}", cleaned)
        assert (member.certificate(HOST), serial in member.listed()) == (None, True)
        assert cleaned() == (200, f'The following certs do not exist and cannot be revoked: ["{HOST}"]')
        assert member.submit(HOST, host.csr)[0] == 200


def test_a_renewal_whose_answer_was_lost_is_given_again(tmp_path: Path, url: str) -> None:
    host = puppetca.agent(HOST)
    own = tmp_path / "agent.pem"
    with served.made(tmp_path, url, authority={"autosign": ["all"], "allow_auto_renewal": True}) as member:
        member.start()
        assert member.submit(HOST, host.csr)[0] == 200
        first = member.certificate(HOST)
        own.write_bytes(member.ask("GET", f"certificate/{HOST}")[1].encode() + puppetca.key_pem(host.key))

        def renewed() -> tuple[int, str]:
            return member.ask("POST", "certificate_renewal", by=own)

        killed_at(member, f"renew.{BEFORE}", renewed)
        assert member.certificate(HOST) == first
        killed_at(member, f"renew.{AFTER}", renewed)
        second = member.certificate(HOST)
        assert second not in (None, first)
        status, pem = renewed()
        assert (status, x509.load_pem_x509_certificate(pem.encode()).serial_number) == (200, second)
        assert member.certificate(HOST) == second


def test_a_rejection_by_a_command_that_dies_happened_or_not(tmp_path: Path, url: str) -> None:
    host = puppetca.agent(HOST)
    with served.made(tmp_path, url) as member:
        member.start()
        assert member.submit(HOST, host.csr)[0] == 200
        for place, left in ((BEFORE, "requested"), (AFTER, None)):
            said = member.command("ca", "reject", HOST, armed=f"reject.{place}=kill")
            assert (said.code, said.out) == (-signal.SIGKILL, "")
            assert member.state(HOST) == left
        assert f"{HOST} has no certificate request" in member.command("ca", "reject", HOST).err


def test_a_token_is_used_up_with_the_certificate_it_gave_and_not_without(tmp_path: Path, url: str) -> None:
    settings: dict[str, Any] = {
        "authority": {"autosign": ["tokens"]},
        "features": {"puppetca": {"autosigner": "tokens"}},
    }
    with served.made(tmp_path, url, **settings) as member:

        def made() -> tuple[int, str]:
            return member.ask_as_foreman("POST", f"/puppet/ca/autosign/{HOST}")

        def waiting() -> Any:
            return json.loads(member.ask_as_foreman("GET", "/puppet/ca/autosign")[1])

        killed_at(member, f"token.{BEFORE}", made)
        assert waiting() == []
        killed_at(member, f"token.{AFTER}", made)
        assert waiting() == [HOST]
        host = puppetca.agent(HOST, challenge=token_of(made()))
        killed_at(member, f"sign.{BEFORE}", lambda: member.submit(HOST, host.csr))
        assert (member.state(HOST), waiting()) == (None, [HOST])
        killed_at(member, f"sign.{AFTER}", lambda: member.submit(HOST, host.csr))
        assert (member.state(HOST), waiting()) == ("signed", [])


def test_a_token_that_a_puppetserver_asked_about_is_used_up_from_its_commit_on(tmp_path: Path, url: str) -> None:
    settings: dict[str, Any] = {
        "authority": {"autosign": ["tokens"]},
        "features": {"puppetca": {"autosigner": "tokens"}},
    }
    with served.made(tmp_path, url, **settings) as member:
        member.start()
        token = token_of(member.ask_as_foreman("POST", f"/puppet/ca/autosign/{HOST}"))
        host = puppetca.agent(HOST, challenge=token)

        def validated() -> tuple[int, str]:
            return member.ask_as_foreman("POST", "/puppet/ca/validate", host.csr)

        killed_at(member, f"token-use.{BEFORE}", validated)
        assert json.loads(member.ask_as_foreman("GET", "/puppet/ca/autosign")[1]) == [HOST]
        killed_at(member, f"token-use.{AFTER}", validated)
        # Nobody heard the yes, and nobody will: the host needs a new token.
        assert validated()[0] == 404


# Lives


def asked(member: Served, question: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
    async def answered() -> T:
        async with member.store() as store:
            return await question(store)

    return asyncio.run(answered())


def state(member: Served) -> str | None:
    lives = asked(member, lambda store: Lives(store).all())
    return lives[MEMBER].state if MEMBER in lives else None


def becomes(member: Served, wanted: str) -> None:
    async def is_so() -> bool:
        return await asyncio.to_thread(state, member) == wanted

    asyncio.run(until(is_so, f"the member is {wanted}"))


def wish(member: Served, target: Target) -> None:
    asked(member, lambda s: Roster(s).wish(MEMBER, target, reason="", by="test", forced=target != "ready"))


def let_lease_end(member: Served) -> None:
    """Make the steward that was killed stop being it, which would take five seconds."""

    async def ended(store: Store) -> None:
        async with store.write() as uow:
            await uow.connection.execute(update(leases).values(expires_at=0))

    asked(member, ended)


@pytest.mark.parametrize(
    ("target", "first", "last"),
    [
        ("maintenance", "draining", "maintenance"),
        ("removed", "draining", "removed"),
        ("ready", "warming", "ready"),
    ],
)
def test_a_life_changes_with_its_commit_and_the_next_steward_goes_on_from_there(
    tmp_path: Path, url: str, target: Target, first: str, last: str
) -> None:
    with served.made(tmp_path, url) as member:
        member.start()
        becomes(member, "ready")
        before = "ready"
        if target == "ready":
            wish(member, "drain")
            becomes(member, "drained")
            before = "drained"
        member.kill()
        wish(member, target)
        for place, stands in ((BEFORE, before), (AFTER, first)):
            let_lease_end(member)
            member.begin(f"life.{place}=kill")
            member.died()
            assert state(member) == stands
        let_lease_end(member)
        member.start()
        becomes(member, last)


def test_a_wish_whose_command_dies_stands_or_not_and_can_be_made_again(tmp_path: Path, url: str) -> None:
    with served.made(tmp_path, url) as member:
        member.start()
        becomes(member, "ready")
        for place, standing in ((BEFORE, None), (AFTER, "drain")):
            said = member.command("drain", MEMBER, "--force", armed=f"wish.{place}=kill")
            assert (said.code, said.out) == (-signal.SIGKILL, "")
            wished = asked(member, lambda store: Roster(store).wishes()).get(MEMBER)
            assert (wished.target if wished else None) == standing
        becomes(member, "drained")
        again = member.command("drain", MEMBER, "--force")
        assert (again.code, again.out) == (0, f"{MEMBER} is drained.\n")


# Roles, plans, the schema, files


@pytest.mark.anyio
async def test_a_role_is_taken_kept_and_given_up_with_its_commit(store: Store, disarmed: None) -> None:
    roles = Leases(store)
    arm(f"lease.{BEFORE}=error")
    with pytest.raises(Unavailable):
        await roles.acquire("steward", "one", 60.0)
    assert await roles.held("steward") is None
    arm(f"lease.{AFTER}=error")
    with pytest.raises(Unavailable):
        await roles.acquire("steward", "one", 60.0)
    failpoints.arm({})
    assert await roles.acquire("steward", "other", 60.0) is None
    mine = await roles.acquire("steward", "one", 60.0)
    assert mine is not None
    assert mine.epoch == 1, "it was the holder's already"
    for place, grows in ((BEFORE, False), (AFTER, True)):
        arm(f"lease-renewed.{place}=error")
        with pytest.raises(Unavailable):
            await roles.renew(mine, 120.0)
        found = await roles.held("steward")
        assert found is not None
        assert (found.expires_at > mine.expires_at + 30, found.epoch) == (grows, 1)
    for place, held in ((BEFORE, True), (AFTER, False)):
        arm(f"lease-resigned.{place}=error")
        with pytest.raises(Unavailable):
            await roles.release(mine)
        assert (await roles.held("steward") is not None) is held
    failpoints.arm({})
    with pytest.raises(Conflict):
        await roles.renew(mine, 60.0)


def test_a_schema_is_made_whole_or_not_at_all(tmp_path: Path, empty_url: str) -> None:
    member = Served(tmp_path, empty_url)
    member.write_files()
    for place, tables in ((BEFORE, set[str]()), (AFTER, set(metadata.tables))):
        said = member.command("ca", "init", "--key", "ec-p256", armed=f"migration.{place}=kill")
        assert said.code == -signal.SIGKILL, said
        with plainly(empty_url) as connection:
            assert set(inspect(connection).get_table_names()) - {"alembic_version"} == tables
    assert member.command("ca", "init", "--key", "ec-p256").code == 0


def test_a_ca_is_made_whole_and_a_command_that_died_says_what_it_left(tmp_path: Path, url: str) -> None:
    with served.made(tmp_path, url, founded=False) as member:
        key = member.pki / "puppet-ca" / "ca_key.pem"
        said = member.command("ca", "init", "--key", "ec-p256", armed=f"found.{BEFORE}=kill")
        assert said.code == -signal.SIGKILL, said
        refused = member.command("ca", "init", "--key", "ec-p256")
        assert refused.code == 4
        assert (
            f"{key} exists; a new CA would overwrite another one's key; nothing was changed. If it is no CA's"
            in refused.err
        )
        key.unlink()
        said = member.command("ca", "init", "--key", "ec-p256", armed=f"found.{AFTER}=kill")
        assert said.code == -signal.SIGKILL, said
        again = member.command("ca", "init", "--key", "ec-p256")
        assert (again.code, again.err) == (4, "Error: The store holds a Puppet CA already; nothing was changed\n")
        member.bundle.write_text(asked(member, lambda store: Ledger(store, "test").chain()) or "")
        member.start()


def test_a_bundle_is_the_old_one_or_the_new_one_with_its_key(tmp_path: Path) -> None:
    member = Served(tmp_path, f"sqlite:///{tmp_path}/store.db")
    member.write_files()
    at = bundles.paths(member.pki, "client", FOREMAN)

    def serial() -> str:
        own = x509.load_pem_x509_certificate(at.certificate.read_bytes())
        key = load_pem_private_key(at.key.read_bytes(), None)
        assert own.public_key() == key.public_key()
        return f"{own.serial_number:x}"

    found = [serial()]
    for place in (BEFORE, AFTER):
        said = member.command("certs", "issue", "--client", FOREMAN, armed=f"bundle.{place}=kill")
        assert said.code == -signal.SIGKILL, said
        found.append(serial())
    assert found[0] == found[1] != found[2]
    assert member.command("certs", "issue", "--client", FOREMAN).code == 0
    assert serial() not in found


@pytest.mark.anyio
async def test_an_address_of_an_ipam_is_promised_and_in_use_from_its_commit_on(store: Store, disarmed: None) -> None:
    kept = ClaimedIPAM(store, KeptSettings.model_validate({"subnets": [{"network": "192.0.2.0/29"}]}))
    ipam, at, ip = ExternalIPAM(kept, "claims", Promises(store, held_s=600)), ("192.0.2.0", "29"), "192.0.2.2"
    # What was promised and not heard of is nobody's until its time is up.
    for place, following in ((BEFORE, "192.0.2.1"), (AFTER, "192.0.2.3")):
        arm(f"ipam-promised.{place}=error")
        with pytest.raises(Unavailable):
            await ipam.next_ip(*at, None, None)
        failpoints.arm({})
        assert str(await ipam.next_ip(*at, None, None)) == following
    for place, is_done in ((BEFORE, False), (AFTER, True)):
        arm(f"ipam-added.{place}=error")
        with pytest.raises(Unavailable):
            await ipam.add(*at, ip, None)
        assert await ipam.holds(*at, ip, None) is is_done
    for place, is_done in ((BEFORE, True), (AFTER, False)):
        arm(f"ipam-removed.{place}=error")
        with pytest.raises(Unavailable):
            await ipam.remove(*at, ip, None)
        assert await ipam.holds(*at, ip, None) is is_done
    # A call that could not end its change in the store has made it all the same.
    arm(f"ipam-change-ended.{BEFORE}=error")
    await ipam.add(*at, ip, None)
    failpoints.arm({})
    assert await ipam.holds(*at, ip, None)
