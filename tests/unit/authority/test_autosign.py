from __future__ import annotations

import asyncio
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import select

from muster.authority.autosign import Autosign, Leave, _digest, matches
from muster.authority.ledger.entries import entry_of
from muster.authority.ledger.ledger import Ledger
from muster.authority.x509 import csr
from muster.authority.x509.csr import CertificateRequest
from muster.cluster.file import Authority
from muster.kernel.errors import Conflict, NotFound, Rejected
from muster.store.engine import Store
from muster.store.tables import autosign_tokens
from tests.servers import puppetca

pytestmark = pytest.mark.anyio

NODE = "node.example.net"


def asking(name: str = NODE, challenge: str | None = None) -> CertificateRequest:
    return csr.read(puppetca.agent(name, challenge=challenge).csr)


def script(path: Path, content: str) -> Path:
    path.write_text(f"#!/bin/sh\n{content}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


# ------------------------------------------------------------------ lists

LIST = [
    "# a comment",
    "exact.example.net",
    "*.listed.example.net",
    "  spaced.example.net  ",
    "",
    "two words.example.net",
    "half.example.net # comment",
    "*bad.example.org",
    "a.*.example.org",
]


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("exact.example.net", True),
        ("sub.exact.example.net", False),
        ("node.listed.example.net", True),
        ("node.sub.listed.example.net", True),
        ("listed.example.net", True),
        ("nodelisted.example.net", False),
        ("spaced.example.net", True),
        ("half.example.net", False),
        ("words.example.net", False),
        ("xbad.example.org", False),
        ("a.b.example.org", False),
        ("comment", False),
        ("other.example.com", False),
    ],
)
def test_a_list_is_read_as_autosign_conf_is(name: str, listed: bool) -> None:
    assert matches(name, LIST) is listed


def test_a_star_lets_everybody_through() -> None:
    assert matches("any.example.com", ["*"])
    assert not matches("any.example.com", [])


async def test_without_a_way_nobody_is_signed(store: Store) -> None:
    assert await Autosign(store, Authority()).leave(asking()) is None


async def test_all_means_all(store: Store) -> None:
    assert await Autosign(store, Authority(autosign=("all",))).leave(asking()) == Leave("autosign all")


@pytest.mark.parametrize(
    ("entry", "name", "listed"),
    [
        (NODE, NODE, True),
        (NODE, f"sub.{NODE}", False),
        ("*.example.net", NODE, True),
        ("*.example.net", "a.b.example.net", True),
        ("*.example.net", "example.net", True),
        ("*.example.net", "nexample.net", False),
        ("*", "any.example.com", True),
    ],
)
async def test_foremans_list_lets_through_what_stands_on_it(store: Store, entry: str, name: str, listed: bool) -> None:
    autosign = Autosign(store, Authority(autosign=("hostnames",)))
    await autosign.add_host(entry, by="foreman")
    await autosign.add_host(entry, by="foreman")
    assert await autosign.hosts() == [entry]
    assert (await autosign.leave(asking(name)) is not None) is listed
    # Another way of autosigning does not look at the list.
    assert await Autosign(store, Authority(autosign=("tokens",))).leave(asking(name)) is None
    await autosign.remove_host(entry)
    assert await autosign.leave(asking(name)) is None
    with pytest.raises(NotFound, match="not on the autosign list"):
        await autosign.remove_host(entry)


@pytest.mark.parametrize(
    "entry", ["", "**", "*x", "a b", "a\nb", "UPPER.example.net", "*.", "a.*.net", "ca", "#", "x" * 300]
)
async def test_what_is_no_entry_is_refused(store: Store, entry: str) -> None:
    with pytest.raises(Rejected):
        await Autosign(store, Authority()).add_host(entry, by="foreman")


@pytest.mark.parametrize("name", ["a\udcff", "a\0b"])
async def test_what_no_database_holds_is_neither_taken_off_the_list_nor_loses_a_token(store: Store, name: str) -> None:
    autosign = Autosign(store, Authority())
    with pytest.raises(Rejected, match="is no certname"):
        await autosign.remove_host(name)
    with pytest.raises(Rejected, match="is no certname"):
        await autosign.withdraw_token(name)


async def test_a_file_of_names_is_read_each_time_and_counts_as_empty_when_it_is_gone(
    store: Store, tmp_path: Path
) -> None:
    names = tmp_path / "autosign.conf"
    autosign = Autosign(store, Authority(autosign=("hostnames",), hostnames_file=names))
    assert await autosign.leave(asking()) is None
    names.write_text("*.example.net\n")
    assert await autosign.leave(asking()) == Leave("autosign hostnames")
    names.write_bytes(b"\xff\xfe junk\n")
    assert await autosign.leave(asking()) is None
    names.unlink()
    assert await autosign.leave(asking()) is None


# ------------------------------------------------------------------ tokens


def tokens(store: Store) -> Autosign:
    return Autosign(store, Authority(autosign=("tokens",)))


async def test_a_token_lets_its_own_name_through_and_no_other(store: Store) -> None:
    autosign = tokens(store)
    token = await autosign.give_token(NODE, ttl_s=60)
    leave = await autosign.leave(asking(challenge=token))
    assert leave is not None
    assert (leave.why, leave.token is not None) == ("autosign token", True)
    assert await autosign.leave(asking("other.example.net", token)) is None
    assert await autosign.leave(asking()) is None
    assert await autosign.leave(asking(challenge="")) is None
    assert await autosign.leave(asking(challenge=token + "x")) is None
    assert await autosign.leave(asking(challenge="x" * 5000)) is None


async def test_a_token_can_be_taken_for_a_puppetserver_that_asks_and_then_it_is_gone(store: Store) -> None:
    autosign = tokens(store)
    token = await autosign.give_token(NODE, ttl_s=60)
    assert not await autosign.takes_token(asking("other.example.net", token))
    assert not await autosign.takes_token(asking())
    assert await autosign.takes_token(asking(challenge=token))
    assert not await autosign.takes_token(asking(challenge=token))
    assert await autosign.leave(asking(challenge=token)) is None


async def test_a_token_given_by_one_member_is_known_on_another(store: Store) -> None:
    token = await tokens(store).give_token(NODE, ttl_s=60)
    other = tokens(store)
    assert await other.tokens() == [NODE]
    assert await other.leave(asking(challenge=token)) is not None


async def test_a_token_signs_once(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    settings = Authority(autosign=("tokens",), requests_per_minute=0)
    async with puppetca.member(store, home, settings) as ca:
        token = await ca.autosign.give_token(NODE, ttl_s=60)
        assert await ca.requests.submit(NODE, puppetca.agent(NODE, challenge=token).csr, source="192.0.2.1")
        await ca.certificates.clean([NODE], actor="test")
        assert not await ca.requests.submit(NODE, puppetca.agent(NODE, challenge=token).csr, source="192.0.2.1")
        assert await ca.autosign.tokens() == []
        with pytest.raises(NotFound):
            await ca.autosign.withdraw_token(NODE)


async def test_a_token_asked_for_with_too_much_is_not_used_up(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    settings = Authority(autosign=("tokens",), requests_per_minute=0)
    async with puppetca.member(store, home, settings) as ca:
        token = await ca.autosign.give_token(NODE, ttl_s=60)
        greedy = puppetca.agent(NODE, challenge=token, extensions=(("1.3.6.1.4.1.34380.1.3.39", b"\x0c\x04true"),))
        with pytest.raises(Rejected, match="authorization extension"):
            await ca.requests.submit(NODE, greedy.csr, source="192.0.2.1")
        assert await ca.requests.submit(NODE, puppetca.agent(NODE, challenge=token).csr, source="192.0.2.1")


async def test_an_expired_token_lets_nobody_through(store: Store) -> None:
    autosign = tokens(store)
    token = await autosign.give_token(NODE, ttl_s=-1)
    assert await autosign.tokens() == []
    assert await autosign.leave(asking(challenge=token)) is None


async def test_a_withdrawn_token_lets_nobody_through(store: Store) -> None:
    autosign = tokens(store)
    token = await autosign.give_token(NODE, ttl_s=60)
    await autosign.withdraw_token(NODE)
    assert await autosign.leave(asking(challenge=token)) is None
    with pytest.raises(NotFound, match="has no token"):
        await autosign.withdraw_token(NODE)


async def test_a_new_token_voids_the_earlier_one(store: Store) -> None:
    autosign = tokens(store)
    first = await autosign.give_token(NODE, ttl_s=60)
    second = await autosign.give_token(NODE, ttl_s=60)
    assert first != second
    assert await autosign.leave(asking(challenge=first)) is None
    assert await autosign.leave(asking(challenge=second)) is not None


async def test_a_forged_token_lets_nobody_through_even_with_a_row_of_its_own(store: Store) -> None:
    autosign = tokens(store)
    await autosign.give_token("other.example.net", ttl_s=60)
    later = datetime.now(UTC) + timedelta(hours=1)
    claims = {"certname": NODE, "exp": int(later.timestamp()), "jti": "x"}
    mine = rsa.generate_private_key(65537, 2048)
    forgeries = [
        jwt.encode(claims, mine, algorithm="RS512"),
        jwt.encode(claims, "secret-secret-secret-secret-secret-secret-secret-secret-secret-secret", algorithm="HS512"),
        jwt.encode(claims, "", algorithm="none"),
        "a.b.c",
        "no token",
    ]
    async with store.write() as uow:
        for forged in forgeries:
            row = {"id": _digest(forged), "certname": NODE, "expires_at": later.timestamp()}
            await uow.connection.execute(autosign_tokens.insert().values(**row))
    for forged in forgeries:
        assert await autosign.leave(asking(challenge=forged)) is None


async def test_a_copy_of_the_store_holds_no_token(store: Store, tmp_path: Path) -> None:
    token = await tokens(store).give_token(NODE, ttl_s=60)
    async with store.read() as uow:
        rows = (await uow.connection.execute(select(autosign_tokens))).mappings().all()
    assert token not in json.dumps([dict(r) for r in rows])
    assert all(token.encode() not in p.read_bytes() for p in tmp_path.glob("store.db*"))


async def test_no_token_for_what_is_no_name(store: Store) -> None:
    for name in ("UPPER.example.net", "*", "a b", "", "ca"):
        with pytest.raises(Rejected):
            await tokens(store).give_token(name, ttl_s=60)


async def test_using_a_token_that_is_gone_issues_nothing(store: Store, home: Path) -> None:
    """The ledger looks again, in the transaction that writes the certificate."""
    await puppetca.begin(store, home)
    settings = Authority(autosign=("tokens",), requests_per_minute=0)
    async with puppetca.member(store, home, settings) as ca:
        token = await ca.autosign.give_token(NODE, ttl_s=60)
        leave = await ca.autosign.leave(asking(challenge=token))
        assert leave is not None
        await ca.autosign.withdraw_token(NODE)
        made = x509.load_der_x509_certificate(puppetca.certificate_of(puppetca.new_ca(), NODE))
        with pytest.raises(Conflict, match="used, withdrawn or has expired"):
            await Ledger(store, "proxy01").issue(entry_of(made), actor="test", token=leave.token)
        assert await ca.certificates.status(NODE) is None


# ------------------------------------------------------------------ policy


def policy(store: Store, program: Path, *, timeout_s: float = 10.0) -> Autosign:
    return Autosign(store, Authority(autosign=("policy",), policy_executable=program, policy_timeout_s=timeout_s))


async def test_a_policy_gets_name_and_request_and_decides_with_its_status(store: Store, tmp_path: Path) -> None:
    said = tmp_path / "said"
    yes = script(tmp_path / "yes", f'echo "$# $1" > {said}; cat >> {said}')
    request = asking()
    assert await policy(store, yes).leave(request) == Leave("autosign policy")
    assert said.read_text() == f"1 {NODE}\n{request.pem}"
    assert await policy(store, script(tmp_path / "no", "exit 1")).leave(request) is None


@pytest.mark.parametrize("content", ["exit 2", "exit 127", "kill -9 $$", "echo no >&2; exit 3"])
async def test_a_policy_that_fails_lets_nobody_through(store: Store, tmp_path: Path, content: str) -> None:
    assert await policy(store, script(tmp_path / "fails", content)).leave(asking()) is None


async def test_a_policy_that_hangs_is_ended_and_lets_nobody_through(store: Store, tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    hangs = script(tmp_path / "hangs", f"sleep 60; touch {alive}")
    assert await policy(store, hangs, timeout_s=0.2).leave(asking()) is None
    assert not alive.exists()


async def test_no_more_of_a_policy_run_at_once_than_the_settings_say(store: Store, tmp_path: Path) -> None:
    running = tmp_path / "running"
    running.mkdir()
    counts = script(
        tmp_path / "counts", f"touch {running}/$1; ls {running} | wc -l >> {tmp_path}/most; sleep 0.1; rm {running}/$1"
    )
    few = Autosign(store, Authority(autosign=("policy",), policy_executable=counts, policy_at_once=2))
    names = [f"web{n:02d}.example.net" for n in range(8)]
    left = await asyncio.gather(*(few.leave(asking(name)) for name in names))
    assert left == [Leave("autosign policy")] * len(names)
    assert max(map(int, (tmp_path / "most").read_text().split())) == 2


async def test_a_request_that_gets_no_turn_at_the_policy_waits_and_the_next_is_asked_about(
    store: Store, tmp_path: Path
) -> None:
    gate = tmp_path / "open"
    waits = script(tmp_path / "waits", f"touch {tmp_path}/asked-$1; while [ ! -e {gate} ]; do sleep 0.02; done")
    one = Autosign(
        store, Authority(autosign=("policy",), policy_executable=waits, policy_timeout_s=1.0, policy_at_once=1)
    )
    first = asyncio.create_task(one.leave(asking("web01.example.net")))
    await asyncio.sleep(0.1)
    late = await asyncio.gather(*(one.leave(asking(f"web{n:02d}.example.net")) for n in range(2, 5)))
    assert late == [None] * 3
    await first
    assert len(list(tmp_path.glob("asked-*"))) < 4, "who had no turn was not asked about"
    gate.touch()
    assert await one.leave(asking("web09.example.net")) == Leave("autosign policy")


async def test_a_policy_that_is_missing_or_may_not_be_run_lets_nobody_through(store: Store, tmp_path: Path) -> None:
    assert await policy(store, tmp_path / "absent").leave(asking()) is None
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\nexit 0\n")
    plain.chmod(0o600)
    assert await policy(store, plain).leave(asking()) is None


async def test_a_policy_that_says_much_and_reads_nothing_still_decides(store: Store, tmp_path: Path) -> None:
    loud = script(tmp_path / "loud", "head -c 3000000 /dev/zero; exit 0")
    assert await policy(store, loud).leave(asking()) == Leave("autosign policy")


async def test_one_yes_is_enough_and_a_token_is_not_used_for_a_name_on_the_list(store: Store, tmp_path: Path) -> None:
    no = script(tmp_path / "no", "exit 1")
    every = Authority(autosign=("hostnames", "tokens", "policy"), policy_executable=no)
    autosign = Autosign(store, every)
    token = await autosign.give_token(NODE, ttl_s=60)
    assert await autosign.leave(asking("other.example.net")) is None
    assert (await autosign.leave(asking(challenge=token))) != Leave("autosign hostnames")
    await autosign.add_host(NODE, by="foreman")
    assert await autosign.leave(asking(challenge=token)) == Leave("autosign hostnames", named=True)
    assert await autosign.tokens() == [NODE]
