from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from muster.authority import own
from muster.authority.authority import PuppetCA
from muster.authority.own import OwnFiles
from muster.cluster.file import Authority, own_certname
from muster.kernel.errors import Rejected
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from tests.servers import puppetca

pytestmark = pytest.mark.anyio

MEMBER = "proxy01.example.net"
NAMES = ["puppet.example.net"]


@pytest.fixture
def files(tmp_path: Path) -> OwnFiles:
    return OwnFiles(tmp_path / "own")


@pytest.fixture
async def short_lived(store: Store, home: Path) -> AsyncIterator[PuppetCA]:
    await puppetca.begin(store, home)
    async with puppetca.member(store, home, Authority(cert_ttl_days=10, requests_per_minute=0)) as ca:
        yield ca


def shown(files: OwnFiles) -> x509.Certificate:
    return x509.load_pem_x509_certificate(files.certificate.read_bytes())


async def test_a_revoked_certificate_is_replaced_and_the_new_one_kept(ca: PuppetCA, files: OwnFiles) -> None:
    assert await own.ensured(ca, files, member=MEMBER, names=NAMES)
    before = shown(files).serial_number
    await ca.certificates.revoke(own_certname(MEMBER), actor="test")
    assert await own.ensured(ca, files, member=MEMBER, names=NAMES)
    assert shown(files).serial_number != before
    assert not await ca.certificates.is_revoked(shown(files).serial_number, leniently=False)
    assert not await own.ensured(ca, files, member=MEMBER, names=NAMES)


async def test_a_cleaned_certificate_is_replaced_too(ca: PuppetCA, files: OwnFiles) -> None:
    assert await own.ensured(ca, files, member=MEMBER, names=NAMES)
    assert await ca.certificates.clean([own_certname(MEMBER)], actor="test") == []
    assert await own.ensured(ca, files, member=MEMBER, names=NAMES)


async def test_a_short_life_is_not_spent_on_new_certificates(short_lived: PuppetCA, files: OwnFiles) -> None:
    assert await own.ensured(short_lived, files, member=MEMBER, names=NAMES)
    assert not await own.ensured(short_lived, files, member=MEMBER, names=NAMES)


async def test_a_certificate_that_ends_soon_for_its_life_is_made_anew(
    store: Store, home: Path, short_lived: PuppetCA, files: OwnFiles
) -> None:
    """Of ten days the last two are the end."""
    for days, is_new in ((1, True), (3, False)):
        files.certificate.unlink(missing_ok=True)
        async with puppetca.member(store, home, Authority(cert_ttl_days=days)) as earlier:
            assert await own.ensured(earlier, files, member=MEMBER, names=NAMES)
        left = shown(files).not_valid_after_utc - datetime.now(UTC)
        assert left > timedelta(days=days) - timedelta(minutes=1)
        assert await own.ensured(short_lived, files, member=MEMBER, names=NAMES) is is_new


async def test_without_the_store_a_good_certificate_stays_and_none_is_made(home: Path, files: OwnFiles) -> None:
    url = Secret(f"sqlite:///{home.parent}/gone/store.db")
    (home.parent / "gone").mkdir()
    async with opened(url, statement_timeout_s=1) as store:
        await puppetca.begin(store, home)
        async with puppetca.member(store, home) as ca:
            assert await own.ensured(ca, files, member=MEMBER, names=NAMES)
            await ca.follow()
    (home.parent / "gone").rename(home.parent / "away")
    async with opened(url, statement_timeout_s=1) as store, puppetca.member(store, home) as ca:
        assert not await own.ensured(ca, files, member=MEMBER, names=NAMES)
        (home / "lists.json").unlink()
    async with opened(url, statement_timeout_s=1) as store, puppetca.member(store, home) as ca:
        # Neither store nor list: nothing says that it is revoked.
        assert ca.list_now is None
        assert not await own.ensured(ca, files, member=MEMBER, names=NAMES)


async def test_a_name_too_long_for_a_certificate_is_refused_and_never_cut(ca: PuppetCA) -> None:
    longest = f"{'a' * 60}.net"
    made = await own.host_files(ca, longest, [longest])
    subject = x509.load_pem_x509_certificate(made.certificate_pem.encode()).subject
    assert subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == longest
    too_long = f"{'b' * 60}.nets"
    with pytest.raises(Rejected, match=f"{too_long} has 65 characters"):
        await own.host_files(ca, too_long, [too_long])
    assert await ca.certificates.status(too_long[:64]) is None


async def test_members_with_long_names_have_certnames_of_their_own(ca: PuppetCA, tmp_path: Path) -> None:
    label = "a" * 55
    first, second = f"{label}.example.net", f"{label}.example.org"
    assert own_certname(MEMBER) == f"puppetca.{MEMBER}"
    assert own_certname(first) != own_certname(second)
    for name in (first, second):
        assert await own.ensured(ca, OwnFiles(tmp_path / name), member=name, names=NAMES)
        status = await ca.certificates.status(own_certname(name))
        assert status is not None
        assert status.state == "signed"
    assert not await own.ensured(ca, OwnFiles(tmp_path / first), member=first, names=NAMES)
