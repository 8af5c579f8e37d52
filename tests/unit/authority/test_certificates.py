from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from sqlalchemy import insert, select

from muster.authority import own
from muster.authority.authority import PuppetCA
from muster.authority.ledger.entries import serial_text
from muster.authority.ledger.ledger import Ledger
from muster.cluster.file import Authority
from muster.kernel.clock import FakeClock
from muster.kernel.errors import Rejected
from muster.store.engine import Store
from muster.store.tables import certificates, revocations
from tests.servers import puppetca
from tests.servers.puppetca import asked
from tests.unit.authority.hosts import V1, enrolled, imported, somebody

pytestmark = pytest.mark.anyio


async def test_a_host_renews_with_the_key_it_has(open_ca: PuppetCA) -> None:
    host, der = await enrolled(open_ca, "a.example.net", renews=True)
    answer = await asked(open_ca, "POST", f"{V1}/certificate_renewal", by=der)
    assert answer.status == 200
    new = x509.load_pem_x509_certificate(answer.body.encode())
    assert new.public_key() == host.key.public_key()
    assert new.serial_number != x509.load_der_x509_certificate(der).serial_number
    assert (await asked(open_ca, "GET", f"{V1}/certificate/a.example.net")).body == answer.body
    # The old one stays valid, and whoever lost the answer gets the same again.
    again = await asked(open_ca, "POST", f"{V1}/certificate_renewal", by=der)
    assert (again.status, again.body) == (200, answer.body)
    assert (await asked(open_ca, "GET", f"{V1}/expirations", by=der)).status == 200


async def test_an_answer_that_was_lost_until_its_certificate_ended_is_given_anew(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    clock = FakeClock(datetime.now(UTC))
    settings = Authority(autosign=("all",), allow_auto_renewal=True, auto_renewal_ttl_days=10, requests_per_minute=0)
    async with puppetca.member(store, home, settings, clock=clock) as ca:
        _, der = await enrolled(ca, "a.example.net")
        lost = await ca.certificates.renew(der)
        clock.advance(timedelta(days=9).total_seconds())
        assert await ca.certificates.renew(der) == lost
        clock.advance(timedelta(days=2).total_seconds())
        given = await ca.certificates.renew(der)
        assert given != lost
        assert x509.load_pem_x509_certificate(given.encode()).not_valid_after_utc > clock.now()
        assert await ca.certificates.pem("a.example.net") == given


async def test_a_certificate_replaced_for_another_key_is_not_given_to_the_old_ones_holder(open_ca: PuppetCA) -> None:
    _, der = await enrolled(open_ca, "a.example.net")
    await own.host_files(open_ca, "a.example.net", ["a.example.net"])
    answer = await asked(open_ca, "POST", f"{V1}/certificate_renewal", by=der)
    assert (answer.status, "replaced" in answer.body) == (403, True)


async def test_a_renewal_that_was_revoked_is_not_given_again(open_ca: PuppetCA, store: Store) -> None:
    _, der = await enrolled(open_ca, "a.example.net")
    await open_ca.certificates.renew(der)
    # Its own revocation alone, as an import may bring it; revoking the name revokes both.
    live = x509.load_pem_x509_certificate((await open_ca.certificates.pem("a.example.net")).encode())
    async with store.write() as uow:
        row = {"serial": serial_text(live.serial_number), "certname": "a.example.net", "revoked_at": 0.0}
        await uow.connection.execute(insert(revocations).values(**row))
    assert (await asked(open_ca, "POST", f"{V1}/certificate_renewal", by=der)).status == 403


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: rsa.generate_private_key(65537, 1024), "RSA keys must have 2048"),  # noqa: S505 - as puppetserver takes it
        (lambda: ec.generate_private_key(ec.SECP224R1()), "Curve secp224r1 is not accepted"),
        ("*.example.net", "a wildcard among its names"),
        (x509.RFC822Name("root@example.net"), "names other than DNS and IP: RFC822Name"),
    ],
    ids=["rsa-1024", "p-224", "wildcard", "e-mail"],
)
async def test_what_would_not_be_signed_is_not_renewed_and_that_is_written_down_once(
    open_ca: PuppetCA, store: Store, made: Any, said: str
) -> None:
    """Such certificates come by import: puppetserver signs them."""
    key = made() if callable(made) else ec.generate_private_key(ec.SECP256R1())
    extra = [] if callable(made) else [x509.DNSName(made) if isinstance(made, str) else made]
    der = await imported(store, "a.example.net", key, extra)
    for _ in range(2):
        answer = await asked(open_ca, "POST", f"{V1}/certificate_renewal", by=der)
        assert (answer.status, answer.content_type) == (400, "text/plain;charset=utf-8")
        assert said in answer.body
    with pytest.raises(Rejected, match="Clean it, and let the host ask anew"):
        await open_ca.certificates.renew_name("a.example.net", actor="test")
    async with store.read() as uow:
        live = select(certificates.c.serial).where(certificates.c.certname == "a.example.net")
        assert len((await uow.connection.execute(live)).all()) == 1
    history = await Ledger(store, "test").history("a.example.net", most=10)
    assert [(h["event"], h["actor"]) for h in history] == [("renewal refused", "a.example.net")]


async def test_renewal_that_is_off_is_not_found_which_agents_take_silently(ca: PuppetCA) -> None:
    answer = await asked(ca, "POST", f"{V1}/certificate_renewal", by=somebody())
    assert (answer.status, answer.body) == (404, "Not Found")


async def test_what_another_ca_issued_is_not_renewed(open_ca: PuppetCA) -> None:
    other = puppetca.certificate_of(puppetca.new_ca("Puppet CA: other"), "a.example.net")
    assert (await asked(open_ca, "POST", f"{V1}/certificate_renewal", by=other)).status == 403


async def test_agents_that_renew_get_the_shorter_time(open_ca: PuppetCA) -> None:
    _, long = await enrolled(open_ca, "a.example.net")
    _, short = await enrolled(open_ca, "b.example.net", renews=True)

    def days(der: bytes) -> int:
        found = x509.load_der_x509_certificate(der)
        return (found.not_valid_after_utc - found.not_valid_before_utc).days

    assert (days(long), days(short)) == (1826, 91)
