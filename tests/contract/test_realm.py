"""What every realm provider promises (``features/realm/contract.py``), asked of each on the server it is meant for.

For Active Directory that is a Samba domain controller, and hosts join it by ``adcli`` with the password they were given.
Provider ``freeipa`` is asked on a stand-in, since no FreeIPA is to be had, which lets in whom a real KDC has given a ticket.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from muster.edge.another_proxy import SmartProxySettings
from muster.edge.feature import Surroundings
from muster.features.realm import checks
from muster.features.realm.contract import Account, RealmProvider, Wanted
from muster.features.realm.providers import ad, freeipa, smart_proxy
from muster.features.realm.providers.memory import MemoryRealm
from muster.features.realm.settings import ADSettings, FreeIPASettings, RealmSettings
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected, Unavailable, Unsupported
from muster.kernel.names import FQDN
from muster.policy.metered import OperationMetrics
from tests.servers import freeipa_stand_in, member, samba
from tests.servers.freeipa_stand_in import FreeIPA
from tests.servers.member import CLUSTER_ADDRESS, TRUSTED, Member
from tests.servers.samba import BASE, NOBODY, REALM, SambaServer

pytestmark = pytest.mark.anyio
CALLER = "proxy00.example.com"
ALIAS = "127.0.0.195"
_numbers = itertools.count(1)


def fresh(label: str = "host") -> FQDN:
    """Return a host's name that no other test of the run has used."""
    return FQDN(f"{label}{next(_numbers)}.ad.example.test")


def wanted(host: FQDN, **said: Any) -> Wanted:
    return Wanted(REALM, host, **said)


@dataclass
class Subject:
    """A provider under test.

    Attributes:
        counts: whether a host can log in with a password.
        stop, start: take the server away and bring it back.
    """

    provider: RealmProvider
    counts: Callable[[FQDN, str], bool]
    stop: Callable[[], object]
    start: Callable[[], object]
    looks_up: bool = True

    async def has(self, host: FQDN) -> bool:
        return await self.provider.lookup(host)


@pytest.fixture(scope="module")
def domain(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SambaServer]:
    needs("samba")
    with samba.running(tmp_path_factory.mktemp("samba")) as server:
        yield server


@pytest.fixture(scope="module")
def other_member(domain: SambaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    with member.running(
        tmp_path_factory.mktemp("member"),
        features={"realm": {"use_provider": "realm_ad", "ad": domain.settings}},
        foreman={"version": "5.0", "trusted_hosts": [TRUSTED, CALLER]},
    ) as running:
        yield running


@contextlib.asynccontextmanager
async def _domain(server: SambaServer, **change: Any) -> AsyncIterator[ad.ActiveDirectoryRealm]:
    settings = ADSettings.model_validate({**server.settings, "timeout_s": 5, **change})
    async with ad.opened(settings) as (provider, realm):
        assert realm == REALM
        yield provider


@pytest.fixture(params=["ad", "smart_proxy", "memory"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "memory":
        memory = MemoryRealm()

        def fail() -> None:
            memory.failure = Unavailable("memory was told to fail")

        def mend() -> None:
            memory.failure = None

        yield Subject(memory, lambda _host, _password: True, fail, mend)
        return
    server: SambaServer = request.getfixturevalue("domain")

    def counts(host: FQDN, password: str) -> bool:
        return server.logs_in(f"{host.partition('.')[0].upper()}$", password)

    if request.param == "ad":
        async with _domain(server) as provider:
            yield Subject(provider, counts, server.stop, server.start)
        return
    other: Member = request.getfixturevalue("other_member")
    mine = other.other_member(CALLER)
    around = Surroundings(CALLER, OperationMetrics(CollectorRegistry()), mine.certificate, mine.key, mine.ca)
    url = f"https://{other.https.address}:{other.https.port}"
    settings = SmartProxySettings(url=url, server_name=FQDN.parse(CLUSTER_ADDRESS), timeout_s=20)
    async with smart_proxy.opened(settings, around) as there:
        yield Subject(there, counts, other.stop, other.start, looks_up=False)


def revealed(account: Account) -> str:
    assert account.password is not None
    assert account.password.reveal() not in repr(account)
    return account.password.reveal()


async def test_a_new_host_gets_a_password_that_counts(subject: Subject) -> None:
    host = fresh()
    password = revealed(await subject.provider.enrol(wanted(host)))
    assert len(password) == 20
    assert subject.counts(host, password)


async def test_a_host_that_is_there_keeps_its_password(subject: Subject) -> None:
    host = fresh()
    password = revealed(await subject.provider.enrol(wanted(host)))
    assert await subject.provider.enrol(wanted(host, is_update=True)) == Account()
    assert await subject.provider.enrol(wanted(host)) == Account()
    assert subject.counts(host, password)


async def test_a_host_that_is_rebuilt_gets_another_password_and_the_first_counts_no_more(subject: Subject) -> None:
    host = fresh()
    first = revealed(await subject.provider.enrol(wanted(host)))
    second = revealed(await subject.provider.enrol(wanted(host, is_rebuilt=True)))
    assert first != second
    assert subject.counts(host, second)
    assert not subject.counts(host, first) or isinstance(subject.provider, MemoryRealm)


async def test_a_host_that_is_not_there_and_rebuilt_gets_a_password(subject: Subject) -> None:
    host = fresh()
    assert subject.counts(host, revealed(await subject.provider.enrol(wanted(host, is_rebuilt=True))))


async def test_a_removed_host_is_gone_and_can_come_again(subject: Subject) -> None:
    host = fresh()
    first = revealed(await subject.provider.enrol(wanted(host)))
    await subject.provider.remove(REALM, host)
    with pytest.raises(NotFound):
        await subject.provider.remove(REALM, host)
    if subject.looks_up:
        assert not await subject.provider.lookup(host)
    again = revealed(await subject.provider.enrol(wanted(host)))
    assert first != again
    if subject.looks_up:
        assert await subject.provider.lookup(host)


async def test_removing_nothing_is_said(subject: Subject) -> None:
    with pytest.raises(NotFound):
        await subject.provider.remove(REALM, fresh("nothing"))


async def test_of_many_hosts_at_once_each_has_its_own_password(subject: Subject) -> None:
    hosts = [fresh("many") for _ in range(4)]
    made = [revealed(a) for a in await asyncio.gather(*(subject.provider.enrol(wanted(h)) for h in hosts))]
    assert len(set(made)) == len(hosts)
    assert all(subject.counts(h, p) for h, p in zip(hosts, made, strict=True))


async def test_of_one_host_at_once_no_password_that_was_told_is_wrong(subject: Subject) -> None:
    host = fresh("race")
    said = await asyncio.gather(*(subject.provider.enrol(wanted(host)) for _ in range(3)), return_exceptions=True)
    told = [one for one in said if isinstance(one, Account) and one.password is not None]
    assert len(told) == 1
    assert subject.counts(host, revealed(told[0]))
    assert all(isinstance(one, Conflict) or one == Account() for one in said if one is not told[0])


async def test_a_server_that_is_away_is_said_and_nothing_is_lost(subject: Subject) -> None:
    host = fresh()
    await subject.provider.reached()
    password = revealed(await subject.provider.enrol(wanted(host)))
    # Not on a thread: what it starts would end with that.
    subject.stop()
    try:
        with pytest.raises(Unavailable):
            await subject.provider.reached()
        with pytest.raises(Unavailable):
            await subject.provider.enrol(wanted(host, is_rebuilt=True))
        with pytest.raises(Unavailable):
            await subject.provider.remove(REALM, host)
    finally:
        subject.start()
    await subject.provider.reached()
    assert subject.counts(host, password)


async def test_another_proxy_looks_no_host_up() -> None:
    with pytest.raises(Unsupported):
        await smart_proxy.SmartProxyRealm(None).lookup(fresh())  # type: ignore[arg-type]


# Active Directory.


async def test_a_host_joins_with_its_password_once(domain: SambaServer, tmp_path: Path) -> None:
    host = fresh("joins")
    async with _domain(domain) as provider:
        password = revealed(await provider.enrol(wanted(host)))
        joined = await asyncio.to_thread(domain.joined, host, password, tmp_path / "krb5.keytab")
        assert joined.returncode == 0, joined.stderr
        assert (tmp_path / "krb5.keytab").stat().st_size > 0
        # It has made one of its own.
        again = await asyncio.to_thread(domain.joined, host, password, tmp_path / "again.keytab")
        assert again.returncode != 0
        assert await provider.enrol(wanted(host)) == Account()
        # Installed anew, it joins the account that it had.
        password = revealed(await provider.enrol(wanted(host, is_rebuilt=True)))
        joined = await asyncio.to_thread(domain.joined, host, password, tmp_path / "rebuilt.keytab")
        assert joined.returncode == 0, joined.stderr


async def test_an_account_has_what_a_host_joins_with(domain: SambaServer) -> None:
    host = fresh("Shown")
    async with _domain(domain) as provider:
        await provider.enrol(wanted(host))
    name = host.partition(".")[0].upper()
    found = domain.found(f"{name}$")
    assert found["distinguishedName"] == [f"CN={name},{domain.place}"]
    assert found["dNSHostName"] == [host.lower()]
    assert found["userAccountControl"] == ["4096"]
    assert sorted(found["servicePrincipalName"]) == sorted([f"HOST/{name}", f"HOST/{host.lower()}"])
    assert found["msDS-SupportedEncryptionTypes"] == ["28"]


async def test_an_account_that_an_administrator_moved_is_found(domain: SambaServer) -> None:
    host = fresh("moved")
    name = host.partition(".")[0].upper()
    domain.changed(f"dn: OU=Racks,{domain.place}\nchangetype: add\nobjectClass: organizationalUnit\n")
    async with _domain(domain) as provider:
        await provider.enrol(wanted(host))
        where = f"CN={name},{domain.place}"
        domain.changed(
            f"dn: {where}\nchangetype: moddn\nnewrdn: CN={name}\ndeleteoldrdn: 1\nnewsuperior: OU=Racks,{domain.place}\n"
        )
        assert domain.logs_in(f"{name}$", revealed(await provider.enrol(wanted(host, is_rebuilt=True))))
        await provider.remove(REALM, host)
    assert domain.found(f"{name}$") == {}


async def test_what_stands_below_an_account_goes_with_it(domain: SambaServer) -> None:
    host = fresh("keys")
    name = host.partition(".")[0].upper()
    async with _domain(domain) as provider:
        await provider.enrol(wanted(host))
        domain.changed(f"dn: CN=key,CN={name},{domain.place}\nchangetype: add\nobjectClass: classStore\n")
        await provider.remove(REALM, host)
    assert domain.found(f"{name}$") == {}


async def test_an_account_of_another_host_is_left_alone(domain: SambaServer) -> None:
    one, other = FQDN("a-name-too-long-01.ad.example.test"), FQDN("a-name-too-long-02.ad.example.test")
    async with _domain(domain) as provider:
        password = revealed(await provider.enrol(wanted(one)))
        with pytest.raises(Conflict, match="computername_hash"):
            await provider.enrol(wanted(other, is_rebuilt=True))
        with pytest.raises(Conflict, match="computername_hash"):
            await provider.remove(REALM, other)
    assert domain.logs_in("A-NAME-TOO-LONG$", password)
    async with _domain(domain, computername_hash=True, computername_prefix="L-") as provider:
        alike = [FQDN(f"a-name-too-long-0{n}.ad.example.test") for n in (2, 3)]
        assert len({revealed(await provider.enrol(wanted(h))) for h in alike}) == 2
        # One name of a service is one account's alone.
        with pytest.raises(Rejected, match=f"HOST/{one}"):
            await provider.enrol(wanted(one))
    assert domain.found("A-NAME-TOO-LONG$", "dNSHostName")["dNSHostName"] == [one]


async def test_who_is_no_workstation_is_left_alone(domain: SambaServer) -> None:
    controller = FQDN("dc1.ad.example.test")
    async with _domain(domain) as provider:
        with pytest.raises(Rejected, match="no workstation"):
            await provider.enrol(wanted(controller, is_rebuilt=True))
        with pytest.raises(Rejected, match="no workstation"):
            await provider.remove(REALM, controller)
        # A person's account has no $ at its end.
        with pytest.raises(NotFound):
            await provider.remove(REALM, FQDN("muster.ad.example.test"))
    assert domain.found("DC1$", "dn")
    assert domain.found("muster", "dn")


async def test_no_password_is_told_of_an_account_that_is_disabled(domain: SambaServer) -> None:
    host = fresh("disabled")
    name = host.partition(".")[0].upper()
    async with _domain(domain) as provider:
        await provider.enrol(wanted(host))
        control = f"dn: CN={name},{domain.place}\nchangetype: modify\nreplace: userAccountControl\nuserAccountControl: "
        domain.changed(f"{control}4098\n")
        with pytest.raises(Rejected, match="disabled"):
            await provider.enrol(wanted(host, is_rebuilt=True))
        domain.changed(f"{control}4096\n")
        assert domain.logs_in(f"{name}$", revealed(await provider.enrol(wanted(host, is_rebuilt=True))))


async def test_of_two_hosts_that_would_have_an_account_that_is_nobodys_one_gets_it(
    domain: SambaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = fresh("nobodys")
    other, name = FQDN(f"{one.partition('.')[0]}.b.example.test"), one.partition(".")[0].upper()
    domain.changed(
        f"dn: CN={name},{domain.place}\nchangetype: add\nobjectClass: computer\nsAMAccountName: {name}$\n"
        "userAccountControl: 4096\n"
    )
    looked, both_looked = [], asyncio.Event()
    async with _domain(domain) as provider:
        search = provider._directory.search

        async def searched(*said: Any, **more: Any) -> Any:
            found = await search(*said, **more)
            looked.append(found)
            if len(looked) == 2:
                both_looked.set()
            await both_looked.wait()
            return found

        monkeypatch.setattr(provider._directory, "search", searched)
        said = await asyncio.gather(
            *(provider.enrol(wanted(h, is_rebuilt=True)) for h in (one, other)), return_exceptions=True
        )
    [told] = [a for a in said if isinstance(a, Account)]
    assert any(isinstance(a, Conflict) for a in said)
    assert domain.logs_in(f"{name}$", revealed(told))
    assert domain.found(f"{name}$", "dNSHostName")["dNSHostName"] == [(one, other)[said.index(told)]]


@pytest.mark.parametrize("made", [
    "objectClass: computer\nuserAccountControl: 67112960\n",
    "objectClass: msDS-ManagedServiceAccount\nuserAccountControl: 4096\n",
])  # fmt: skip
async def test_a_read_only_domain_controller_and_a_service_are_no_workstations(domain: SambaServer, made: str) -> None:
    host = fresh("service")
    name = host.partition(".")[0].upper()
    domain.changed(
        f"dn: CN={name},{domain.place}\nchangetype: add\nsAMAccountName: {name}$\ndNSHostName: {host}\n{made}"
    )
    async with _domain(domain) as provider:
        with pytest.raises(Rejected, match="no workstation"):
            await provider.enrol(wanted(host, is_rebuilt=True))
        with pytest.raises(Rejected, match="no workstation"):
            await provider.remove(REALM, host)
    assert domain.found(f"{name}$", "dn")


async def test_a_domain_that_is_not_there_is_no_host_that_is_not_there(domain: SambaServer) -> None:
    host = fresh("there")
    async with _domain(domain) as provider:
        await provider.enrol(wanted(host))
    settings = ADSettings.model_validate(
        {**domain.settings, "realm": "sub.ad.example.test", "principal": f"muster@{REALM}"}
    )
    async with ad.opened(settings) as (elsewhere, _):
        with pytest.raises(Misconfigured, match="No such object"):
            await elsewhere.remove("sub.ad.example.test", host)
        with pytest.raises(Misconfigured, match="No such object"):
            await elsewhere.enrol(wanted(host))


async def test_who_lacks_the_right_changes_nothing(domain: SambaServer) -> None:
    host = fresh("lacks")
    stranger = {"keytab_path": str(domain.keytab("nobody")), "principal": f"nobody@{REALM}"}
    async with _domain(domain, **stranger) as provider:
        with pytest.raises(Misconfigured, match=r"refused, making an account"):
            await provider.enrol(wanted(host))
    assert domain.found(f"{host.partition('.')[0].upper()}$") == {}


async def test_the_next_domain_controller_is_asked_where_one_takes_no_connection(domain: SambaServer) -> None:
    async with _domain(domain, domain_controller=[NOBODY, samba.ADDRESS]) as provider:
        await provider.reached()
        assert revealed(await provider.enrol(wanted(fresh())))


async def test_a_domain_controller_that_took_no_connection_is_asked_last_for_a_while(domain: SambaServer) -> None:
    async with _domain(domain, domain_controller=[NOBODY, samba.ADDRESS]) as provider:
        directory, asked, now = provider._directory, list[str](), [0.0]
        of = directory._of

        async def noted(host: str, *said: Any) -> Any:
            asked.append(host)
            return await of(host, *said)

        directory._of = noted  # type: ignore[method-assign, assignment]
        directory._monotonic = lambda: now[0]
        await provider.reached()
        await provider.reached()
        assert asked == [NOBODY, samba.ADDRESS, samba.ADDRESS]
        now[0] = 61.0
        await provider.reached()
        assert asked[3:] == [NOBODY, samba.ADDRESS]


async def test_a_domain_controller_that_hangs_is_given_up(domain: SambaServer) -> None:
    async with _domain(domain, timeout_s=1) as provider:
        await provider.reached()
        with domain.hung(), pytest.raises(Unavailable, match="gave no answer within 1 s"):
            await provider.reached()
        await provider.reached()


async def test_a_new_place_for_computers_is_found_where_none_is_named(domain: SambaServer) -> None:
    async with _domain(domain, ou=None) as provider:
        assert await provider.place() == f"CN=Computers,{BASE}"


async def test_a_new_ticket_is_got_where_the_old_one_counts_no_more(domain: SambaServer) -> None:
    async with _domain(domain) as provider:
        await provider.reached()
        tickets = provider._directory._tickets
        first = (await tickets.environment())["KRB5CCNAME"]
        assert (await tickets.environment())["KRB5CCNAME"] == first
        tickets.forget({"KRB5CCNAME": first})
        await provider.reached()
        assert (await tickets.environment())["KRB5CCNAME"] != first


async def test_tickets_are_for_this_account_alone_and_go_with_the_provider(domain: SambaServer) -> None:
    async with _domain(domain) as provider:
        await provider.reached()
        file = Path((await provider._directory._tickets.environment())["KRB5CCNAME"].removeprefix("FILE:"))
        assert file.stat().st_mode & 0o077 == 0
        assert file.parent.stat().st_mode & 0o077 == 0
    assert not file.parent.exists()


async def test_no_password_stands_in_a_command_line(domain: SambaServer) -> None:
    host, seen = fresh("seen"), set[str]()

    async def look() -> None:
        while True:
            for one in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(one.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    async with _domain(domain) as provider:
        password = revealed(await provider.enrol(wanted(host)))
    looking.cancel()
    assert any("ldapmodify" in line for line in seen)
    assert not any(password in line for line in seen)


# What the doctor finds.


def found(settings: dict[str, Any], *, provider: str = "ad") -> list[str]:
    [check] = checks.checks(RealmSettings.model_validate({"provider": provider, provider: settings}), lambda: None)
    return [f.code for f in asyncio.run(_run(check.run))]


async def _run(run: Any) -> Any:
    return await run()


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("", {}),
        ("REALM-KEYTAB", {"principal": "somebody"}),
        ("REALM-KEY", {"keytab_path": "former", "principal": "former"}),
        ("REALM-KDC", {"krb5_config": "away"}),
        ("REALM-DOWN", {"domain_controller": NOBODY}),
        ("REALM-REFUSED", {"ou": f"OU=Nowhere,{BASE}"}),
        ("REALM-KEYTAB-ABSENT", {"keytab_path": "/nowhere/muster.keytab"}),
    ],
)
async def test_the_doctor_says_what_is_wrong(
    domain: SambaServer, tmp_path: Path, code: str, change: dict[str, str]
) -> None:
    (tmp_path / "krb5.conf").write_text(samba.krb5_conf(NOBODY))
    replaced = {"away": str(tmp_path / "krb5.conf")}
    if "keytab_path" in change and change["keytab_path"] == "former":
        change = {**change, "keytab_path": str(domain.keytab("former"))}
    settings = {**domain.settings, "timeout_s": 5, **{k: replaced.get(v, v) for k, v in change.items()}}
    assert await asyncio.to_thread(found, settings) == ([code] if code else [])


async def test_the_doctor_says_that_a_clock_is_wrong_where_kerberos_does_not_make_up_for_it(
    domain: SambaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{domain.wrong_clock()}:{os.environ['PATH']}")
    assert await asyncio.to_thread(found, domain.settings) == []
    exact = tmp_path / "krb5.conf"
    exact.write_text(samba.krb5_conf().replace("[libdefaults]\n", "[libdefaults]\n  kdc_timesync = 0\n"))
    assert await asyncio.to_thread(found, {**domain.settings, "krb5_config": str(exact)}) == ["REALM-CLOCK"]


async def test_the_doctor_says_that_the_realm_has_no_server_by_that_name(domain: SambaServer) -> None:
    # As an alias does: what answers there is asked by a name that the KDC does not know.
    with socket.create_server((ALIAS, 389)):
        assert await asyncio.to_thread(found, {**domain.settings, "domain_controller": ALIAS}) == ["REALM-SERVER"]


async def test_the_doctor_says_that_a_keytab_is_open(domain: SambaServer, tmp_path: Path) -> None:
    keytab = tmp_path / "muster.keytab"
    keytab.write_bytes(domain.keytab().read_bytes())
    keytab.chmod(0o644)
    assert await asyncio.to_thread(found, {**domain.settings, "keytab_path": str(keytab)}) == ["REALM-KEYTAB-OPEN"]


# Members.


async def test_a_member_tells_the_password_and_no_log_has_it(other_member: Member) -> None:
    host = fresh("wire")
    made = other_member.ask(
        "POST", f"/realm/{REALM.lower()}/", body=f"hostname={host}&userclass=web&rebuild=false".encode()
    )
    assert (made.status, made.headers["content-type"]) == (200, "application/json")
    password = json.loads(made.body)["randompassword"]
    assert made.body == f'{{\n  "randompassword": "{password}"\n}}'.encode()
    assert not any(password in line for line in other_member.access_lines)
    logs = other_member.ask("GET", "/logs/").body.decode()
    assert password not in logs
    again = other_member.ask("POST", f"/realm/{REALM}", body=f"hostname={host}&update=true".encode())
    assert (again.status, again.body) == (200, b'{\n  "message": "nothing to do"\n}')
    gone = other_member.ask("DELETE", f"/realm/{REALM}/{host}")
    assert (gone.status, gone.body) == (200, b"")
    absent = other_member.ask("DELETE", f"/realm/{REALM}/{host}/")
    assert (absent.status, absent.body.decode()) == (404, f"Host {host} not found in realm")


# FreeIPA, unproven.


@pytest.fixture(scope="module")
def ipa(domain: SambaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreeIPA]:
    with freeipa_stand_in.running(tmp_path_factory.mktemp("ipa"), domain) as server:
        yield server


@contextlib.asynccontextmanager
async def _ipa(server: FreeIPA, **change: Any) -> AsyncIterator[freeipa.FreeIPARealm]:
    settings = FreeIPASettings.model_validate({**server.settings, "timeout_s": 5, **change})
    async with freeipa.opened(settings) as (provider, realm):
        assert realm == REALM
        yield provider


async def test_freeipa_makes_changes_and_removes_a_host(ipa: FreeIPA) -> None:
    host = fresh("ipa")
    async with _ipa(ipa) as provider:
        await provider.reached()
        assert not await provider.lookup(host)
        made = await provider.enrol(wanted(host, userclass="web"))
        assert revealed(made) == ipa.hosts[host]["password"]
        assert made.told == {"fqdn": [host], "has_keytab": False, "has_password": True, "userclass": ["web"]}
        assert ipa.asked[-1] == (
            "host_add", [host], {"random": True, "force": True, "setattr": ["userclass=web"], "version": "2.230"}
        )  # fmt: skip
        assert await provider.enrol(wanted(host, userclass="web", is_update=True)) == Account()
        changed = await provider.enrol(wanted(host, userclass="db", is_update=True))
        assert (changed.password, changed.told["userclass"]) == (None, ["db"])
        assert await provider.enrol(wanted(host)) == Account()
        told = await provider.remove(REALM, host)
        assert told == {"result": {"failed": []}, "value": [host], "summary": f'Deleted host "{host}"'}
        with pytest.raises(NotFound):
            await provider.remove(REALM, host)


async def test_freeipa_takes_the_key_of_a_host_that_is_rebuilt(ipa: FreeIPA) -> None:
    host = fresh("ipa")
    async with _ipa(ipa) as provider:
        first = revealed(await provider.enrol(wanted(host)))
        ipa.hosts[host]["has_keytab"] = True
        assert revealed(await provider.enrol(wanted(host, is_rebuilt=True))) != first
        assert [method for method, names, _ in ipa.asked if names == [host]][-3:] == [
            "host_show",
            "host_disable",
            "host_mod",
        ]


async def test_freeipa_removes_a_host_whose_records_it_cannot(ipa: FreeIPA) -> None:
    host = fresh("ipa")
    ipa.has_dns = False
    try:
        async with _ipa(ipa) as provider:
            await provider.enrol(wanted(host))
            assert await provider.remove(REALM, host)
            assert host not in ipa.hosts
        async with _ipa(ipa, remove_dns=False) as provider:
            await provider.enrol(wanted(host))
            await provider.remove(REALM, host)
            assert ipa.asked[-1][2]["updatedns"] is False
    finally:
        ipa.has_dns = True


async def test_a_session_that_has_ended_is_made_anew(ipa: FreeIPA) -> None:
    async with _ipa(ipa) as provider:
        await provider.reached()
        ipa.sessions.clear()
        await provider.reached()
    assert set(ipa.sessions.values()) == {f"muster@{REALM}"}


async def test_freeipas_refusals_are_ours(ipa: FreeIPA) -> None:
    async with _ipa(ipa) as provider:
        ipa.refusal = (2100, "Insufficient access")
        with pytest.raises(Misconfigured, match="Insufficient access"):
            await provider.enrol(wanted(fresh()))
        ipa.refusal = (3009, "invalid 'hostname'")
        with pytest.raises(Rejected, match="invalid"):
            await provider.enrol(wanted(fresh()))
        ipa.refusal = None


async def test_a_freeipa_of_another_ca_or_away_is_said(ipa: FreeIPA, tmp_path: Path) -> None:
    wrong = tmp_path / "ca.crt"
    wrong.write_bytes(freeipa_stand_in.another_ca())
    async with _ipa(ipa, ca_file=str(wrong)) as provider:
        with pytest.raises(Misconfigured, match="certificate"):
            await provider.reached()
    async with _ipa(ipa, ca_file=str(wrong), verify_ca=False) as provider:
        await provider.reached()
    away = tmp_path / "default.conf"
    away.write_text(f"[global]\nrealm = {REALM}\nxmlrpc_uri = https://{NOBODY}/ipa/xml\n")
    async with _ipa(ipa, ipa_config=str(away)) as provider:
        with pytest.raises(Unavailable):
            await provider.reached()


async def test_the_doctor_says_that_freeipa_is_unproven(ipa: FreeIPA, domain: SambaServer) -> None:
    assert await asyncio.to_thread(found, ipa.settings, provider="freeipa") == ["REALM-UNPROVEN"]
    former = {**ipa.settings, "keytab_path": str(domain.keytab("former")), "principal": "former"}
    assert await asyncio.to_thread(found, former, provider="freeipa") == ["REALM-UNPROVEN", "REALM-KEY"]
