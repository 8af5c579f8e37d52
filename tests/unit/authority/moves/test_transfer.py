from __future__ import annotations

import json
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from muster.authority.ledger.ledger import Ledger
from muster.authority.moves import transfer
from muster.authority.x509 import profile
from muster.authority.x509.profile import crls_in
from muster.cluster.file import Authority
from muster.kernel.errors import Conflict, Misconfigured
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from muster.store.tables import certificates, crls, requests, revocations
from tests.servers import puppetca
from tests.unit.authority.moves.samples import NOW, expected, read, sample_key

pytestmark = pytest.mark.anyio


async def test_the_sample_is_taken_over_whole(store: Store, cadir: Path, home: Path) -> None:
    await puppetca.take_over(store, home, cadir)
    facts = expected()
    async with puppetca.member(store, home) as ca:
        lists = await ca.lists.served()
        assert puppetca.revoked_in(lists.pem) == {5, 0xB, 0xC}
        assert (lists.number, puppetca.number_in(lists.pem)) == (3, 3)
        assert lists.pem == (cadir / "ca_crl.pem").read_text()
        assert ca.chain_pem == (cadir / "ca_crt.pem").read_text()
        signed = [json.loads(s)["name"] for s in await ca.certificates.statuses("signed")]
        revoked = [json.loads(s)["name"] for s in await ca.certificates.statuses("revoked")]
        pending = [json.loads(s)["name"] for s in await ca.certificates.statuses("requested")]
        assert (signed, revoked, pending) == (facts["live_names"], ["revoked01.example.net"], facts["pending"])
        await ca.certificates.revoke("twice01.example.net", actor="test")
        # The one that was deleted without a revocation still counts, and is revoked with its successor.
        assert puppetca.revoked_in((await ca.lists.served()).pem) == {5, 9, 0xA, 0xB, 0xC}
        assert (await ca.lists.served()).number == 4


async def test_a_second_import_changes_nothing(store: Store, cadir: Path, home: Path) -> None:
    await puppetca.take_over(store, home, cadir)
    with pytest.raises(Conflict, match="holds a Puppet CA already; nothing was changed"):
        await puppetca.take_over(store, home, cadir)


async def test_a_list_that_has_ended_is_made_anew_with_all_its_entries(store: Store, cadir: Path, home: Path) -> None:
    found = read(cadir)
    revoked = [(s, at) for s, at in found.revoked.items()]
    ended = profile.signed_list(
        found.issuer, sample_key(), revoked, number=3, now=NOW - timedelta(days=100), ttl=timedelta(days=1)
    )
    (cadir / "ca_crl.pem").write_text(profile.pem_of(ended) + found.ancestors_pem)
    assert read(cadir).notes == ["The revocation list has ended; it is made anew"]
    await puppetca.take_over(store, home, cadir)
    published = await Ledger(store, "test").published()
    assert puppetca.revoked_in(published.own_pem) == {5, 0xB, 0xC}
    assert (published.number, puppetca.number_in(published.own_pem)) == (4, 4)
    assert published.next_update > NOW.timestamp()


async def test_the_key_of_the_root_is_left_where_it_is(store: Store, cadir: Path, home: Path, tmp_path: Path) -> None:
    await puppetca.take_over(store, home, cadir)
    root_key = (cadir / "root_key.pem").read_text().splitlines()[1]
    await transfer.write_directory(store, tmp_path / "out", key_pem=(home / "ca_key.pem").read_bytes())
    for path in [*home.rglob("*"), *(tmp_path / "out").rglob("*"), *tmp_path.glob("store.db*")]:
        if path.is_file():
            assert root_key.encode() not in path.read_bytes()


async def test_the_row_of_the_ca_itself_comes_back_with_an_export(store: Store, cadir: Path, tmp_path: Path) -> None:
    line = "0x0099 2026-11-21T07:05:17UTC 2041-11-18T07:05:19UTC /CN=Puppet CA: puppet01.example.net\n"
    with (cadir / "inventory.txt").open("a") as f:
        f.write(line)
    await puppetca.take_over(store, tmp_path / "home", cadir)
    await transfer.write_directory(store, tmp_path / "out", key_pem=None)
    assert line in (tmp_path / "out" / "inventory.txt").read_text()


async def test_without_a_list_nothing_is_revoked_and_that_is_wrong(store: Store, cadir: Path, home: Path) -> None:
    (cadir / "ca_crl.pem").unlink()
    found = read(cadir)
    assert found.problems[0] == "ca_crl.pem is missing: revocations are not known"
    assert "lacks the revocation list of Puppet Root CA" in found.problems[1]
    assert len(found.problems) == 2
    await puppetca.take_over(store, home, cadir)
    published = await Ledger(store, "test").published()
    assert puppetca.revoked_in(published.own_pem) == set()


async def test_infra_hosts_have_their_short_list_from_the_first_moment(store: Store, cadir: Path, home: Path) -> None:
    (cadir / "infra_inventory.txt").write_text("twice01.example.net\n\nrevoked01.example.net\n")
    found = read(cadir)
    assert found.infra == ("twice01.example.net", "revoked01.example.net")
    assert found.summary()["infra_hosts"] == list(found.infra)
    assert found.key is not None
    puppetca.put_key(home, (cadir / "ca_key.pem").read_bytes())
    await transfer.take_over(
        store, found, member="here", key=found.key, crl_ttl_days=1825, infra_hosts=("revoked01.example.net",)
    )
    serial = next(e.serial for e in found.live.values() if e.certname == "revoked01.example.net")
    settings = Authority(infra_hosts=("revoked01.example.net",), requests_per_minute=0)
    async with puppetca.member(store, home, settings) as ca:
        short = await ca.lists.served()
        assert puppetca.revoked_in(short.pem) == {serial}
        assert (puppetca.number_in(short.pem), len(crls_in(short.pem))) == (3, 2)
        assert puppetca.revoked_in((await ca.lists.served(whole=True)).pem) == {5, 0xB, 0xC}


async def test_infra_hosts_are_exported_with_their_serials(
    store: Store, cadir: Path, home: Path, tmp_path: Path
) -> None:
    await puppetca.take_over(store, home, cadir)
    hosts = ("agent01.example.net", "absent.example.net", "agent02.example.net")
    await transfer.write_directory(store, tmp_path / "out", key_pem=None, infra_hosts=hosts)
    assert (tmp_path / "out" / "infra_inventory.txt").read_text() == "".join(f"{h}\n" for h in hosts)
    found = read(cadir)
    serials = {e.certname: e.serial for e in found.live.values()}
    lines = (tmp_path / "out" / "infra_serials").read_text().splitlines()
    # In decimal: puppetserver reads them so.
    assert sorted(map(int, lines)) == sorted(serials[h] for h in hosts if h in serials)
    assert read(tmp_path / "out").infra == hosts


async def _ledger(store: Store) -> dict[str, Any]:
    """Return everything an export has to bring back, in comparable form."""
    async with store.read() as uow:
        certs = (await uow.connection.execute(select(certificates))).mappings().all()
        pending = (await uow.connection.execute(select(requests))).mappings().all()
        gone = (await uow.connection.execute(select(revocations))).mappings().all()
        lists = (await uow.connection.execute(select(crls))).mappings().one()
    # A list holds whole seconds, and a directory no file of what was cleaned.
    kept = ("serial", "certname", "state", "not_before", "not_after")
    whole = ("pem", "status")
    return {
        "certificates": sorted(tuple(c[k] for k in (*kept, *(whole if c["state"] == "live" else ()))) for c in certs),
        "requests": sorted((r["certname"], r["pem"], r["sha256"], r["flaw"]) for r in pending),
        "revocations": sorted((r["serial"], r["certname"], int(r["revoked_at"])) for r in gone),
        "lists": (lists["number"], lists["own_pem"], lists["ancestors_pem"]),
    }


async def test_export_and_import_give_the_same_ledger(store: Store, cadir: Path, home: Path, tmp_path: Path) -> None:
    await puppetca.take_over(store, home, cadir)
    async with puppetca.member(store, home) as ca:
        await ca.requests.submit("new.example.net", puppetca.agent("new.example.net").csr, source="192.0.2.1")
        await ca.requests.sign("new.example.net", actor="test")
        await ca.requests.submit("waits.example.net", puppetca.agent("waits.example.net").csr, source="192.0.2.1")
        await ca.certificates.clean(["agent02.example.net"], actor="test")
    out = tmp_path / "out"
    counts = await transfer.write_directory(store, out, key_pem=(home / "ca_key.pem").read_bytes())
    assert counts == {"certificates": 9, "requests": 7, "revocations": 4}
    async with opened(Secret(f"sqlite:///{tmp_path}/second.db")) as second:
        await puppetca.take_over(second, tmp_path / "second", out)
        assert await _ledger(second) == await _ledger(store)


async def test_the_exported_directory_is_a_puppetservers(store: Store, cadir: Path, home: Path, tmp_path: Path) -> None:
    await puppetca.take_over(store, home, cadir)
    out = tmp_path / "out"
    await transfer.write_directory(store, out, key_pem=(home / "ca_key.pem").read_bytes())
    for name in ("ca_crt.pem", "ca_crl.pem", "ca_key.pem", "ca_pub.pem", "serial"):
        assert (out / name).read_text() == (cadir / name).read_text(), name
    for place in ("signed", "requests"):
        ours = {p.name: p.read_text() for p in (out / place).iterdir()}
        assert ours == {p.name: p.read_text() for p in (cadir / place).iterdir()}
    # Ours lists what was signed offline, too, which puppetserver's own inventory lacks.
    lines = set((out / "inventory.txt").read_text().splitlines())
    theirs = set((cadir / "inventory.txt").read_text().splitlines())
    assert theirs <= lines
    assert [line.rpartition("=")[2] for line in lines - theirs] == ["admin.example.net"]
    modes = {name: oct((out / name).stat().st_mode & 0o777) for name in ("ca_key.pem", "serial", "signed")}
    assert modes == {"ca_key.pem": "0o600", "serial": "0o644", "signed": "0o750"}


async def test_random_serials_do_not_reach_the_counter(store: Store, cadir: Path, home: Path, tmp_path: Path) -> None:
    await puppetca.take_over(store, home, cadir)
    async with puppetca.member(store, home) as ca:
        await ca.requests.submit("new.example.net", puppetca.agent("new.example.net").csr, source="192.0.2.1")
        await ca.requests.sign("new.example.net", actor="test")
    await transfer.write_directory(store, tmp_path / "out", key_pem=None)
    assert (tmp_path / "out" / "serial").read_text() == "000D"
    assert not (tmp_path / "out" / "ca_key.pem").exists()


async def test_a_directory_with_something_in_it_is_not_written_to(store: Store, home: Path, tmp_path: Path) -> None:
    await puppetca.begin(store, home)
    out = tmp_path / "out"
    out.mkdir()
    (out / "note").write_text("mine")
    with pytest.raises(Conflict, match="is not empty; nothing was written"):
        await transfer.write_directory(store, out, key_pem=None)
    assert [p.name for p in out.iterdir()] == ["note"]


async def test_without_a_ca_there_is_nothing_to_export(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="nothing to export"):
        await transfer.write_directory(store, tmp_path / "out", key_pem=None)


async def test_openssl_verifies_an_exported_certificate(store: Store, home: Path, tmp_path: Path) -> None:
    """With the list: that is what an agent does (certificate_revocation = chain)."""
    await puppetca.begin(store, home)
    async with puppetca.member(store, home) as ca:
        for name in ("good.example.net", "bad.example.net"):
            await ca.requests.submit(name, puppetca.agent(name).csr, source="192.0.2.1")
            await ca.requests.sign(name, actor="test")
        await ca.certificates.revoke("bad.example.net", actor="test")
    out = tmp_path / "out"
    await transfer.write_directory(store, out, key_pem=None)

    def verified(name: str) -> str:
        lists = ("-crl_check_all", "-CAfile", str(out / "ca_crt.pem"), "-CRLfile", str(out / "ca_crl.pem"))
        command = ["openssl", "verify", *lists, str(out / "signed" / f"{name}.example.net.pem")]
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        return f"{said.stdout} {said.stderr}"

    assert "good.example.net.pem: OK" in verified("good")
    assert "certificate revoked" in verified("bad")
