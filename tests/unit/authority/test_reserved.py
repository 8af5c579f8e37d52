"""Whatever lets requests through, the cluster's own names are not given away."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from muster.authority.autosign import Autosign
from muster.authority.reserved import Reserved
from muster.authority.x509 import csr
from muster.cluster.file import Authority, ClusterFile
from muster.cluster.sections import Foreman
from muster.store.engine import Store
from tests.servers import puppetca

pytestmark = pytest.mark.anyio

NEVER = (
    "admin.example.net",
    "smartproxy.example.net",
    "smartproxy.example.net.",
    "alias.example.net",
    "puppetca.proxy01.example.net",
    "puppetca.anything",
)
NAMED = ("proxy01.example.net", "foreman.example.net", "infra.example.net")
FREE = "web01.example.net"


def cluster(**authority: Any) -> ClusterFile:
    return ClusterFile.model_validate(
        {
            "schema": 1,
            "cluster": "test",
            "address": "SmartProxy.example.net",
            "aliases": ["alias.example.net"],
            "store": {"url": "postgresql://db/muster"},
            "members": [{"name": "proxy01.example.net", "id": 1, "address": "192.0.2.11"}],
            "foreman": {"trusted_hosts": ["foreman.example.net"]},
            "authority": {
                "administrators": ["admin.example.net"],
                "infra_hosts": ["infra.example.net"],
                "allow_subject_alt_names": True,
                **authority,
            },
        }
    )


def autosign(store: Store, **authority: Any) -> Autosign:
    found = cluster(**authority)
    assert found.authority is not None
    return Autosign(store, found.authority, Reserved.of(found))


def asking(name: str, *alternatives: str, challenge: str | None = None) -> csr.CertificateRequest:
    names = tuple(x509.DNSName(n) for n in alternatives)
    return csr.read(puppetca.agent(name, alternatives=names, challenge=challenge).csr)


async def signs(rules: Autosign, *names: str, challenge: str | None = None) -> bool:
    return await rules.leave(asking(*names, challenge=challenge)) is not None


@pytest.mark.parametrize("way", ["all", "wildcard", "file", "policy"])
async def test_what_lets_many_through_lets_no_reserved_name_through(store: Store, tmp_path: Path, way: str) -> None:
    program = tmp_path / "yes"
    asked = tmp_path / "asked"
    program.write_text(f'#!/bin/sh\necho "$1" >> {asked}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "names").write_text("*\n")
    rules = {
        "all": autosign(store, autosign=["all"]),
        "wildcard": autosign(store, autosign=["hostnames"]),
        "file": autosign(store, autosign=["hostnames"], hostnames_file=tmp_path / "names"),
        "policy": autosign(store, autosign=["policy"], policy_executable=program),
    }[way]
    if way == "wildcard":
        await rules.add_host("*.example.net", by="Foreman")
        await rules.add_host("*", by="Foreman")
    assert await signs(rules, FREE)
    assert not [n for n in (*NEVER, *NAMED) if await signs(rules, n)]
    # Nor under another host's name.
    assert not [n for n in (*NEVER, *NAMED) if await signs(rules, FREE, n)]
    if way == "policy":
        assert asked.read_text().split() == [FREE]


@pytest.mark.parametrize("way", ["entry", "file", "token"])
async def test_its_own_entry_or_token_signs_a_named_one_and_never_the_others(
    store: Store, tmp_path: Path, way: str
) -> None:
    (tmp_path / "names").write_text("*\n" + "".join(f" {n}\n" for n in (*NEVER, *NAMED)))
    rules = {
        "entry": autosign(store, autosign=["all", "hostnames"]),
        "file": autosign(store, autosign=["all", "hostnames"], hostnames_file=tmp_path / "names"),
        "token": autosign(store, autosign=["all", "tokens"]),
    }[way]

    async def let(name: str) -> str | None:
        if way == "entry":
            await rules.add_host("*", by="Foreman")
            await rules.add_host(name, by="Foreman")
        return await rules.give_token(name, ttl_s=60) if way == "token" else None

    for name in NAMED:
        token = await let(name)
        assert await signs(rules, name, challenge=token)
        # Its entry is for its own name, not for others' beside it.
        assert not await signs(rules, name, "smartproxy.example.net", challenge=token)
        assert not await signs(rules, name, *(n for n in NAMED if n != name), challenge=token)
    for name in NEVER:
        token = await let(name)
        assert not await signs(rules, name, challenge=token)
        assert token is None or not await rules.takes_token(asking(name, challenge=token))


async def test_without_a_cluster_the_settings_names_are_reserved(store: Store) -> None:
    settings = Authority(autosign=("all",), administrators=("admin.example.net",), infra_hosts=("infra.example.net",))
    rules = Autosign(store, settings)
    assert not await signs(rules, "admin.example.net")
    assert not await signs(rules, "infra.example.net")
    assert await signs(rules, "smartproxy.example.net")


@pytest.mark.parametrize(
    ("entry", "given"),
    [
        ("*", "admin.example.net"),
        ("*.example.net", "admin.example.net"),
        ("*.NET", "admin.example.net"),
        ("*.infra.example.net", "infra.example.net"),
        ("*.web.example.net", ""),
        ("*.ple.net", ""),
        ("alias.example.net", "alias.example.net"),
        ("puppetca.x.example.net", "puppetca.x.example.net"),
        ("infra.example.net", ""),
        (FREE, ""),
    ],
)
def test_an_entry_somebody_else_reads_gives_away(entry: str, given: str) -> None:
    assert Reserved.of(cluster()).given_away(entry) == given


async def test_a_reserved_name_is_signed_by_an_administrator(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    async with puppetca.member(store, home, Authority(autosign=("all",), administrators=("admin.example.net",))) as ca:
        asks = puppetca.agent("admin.example.net").csr
        assert not await ca.requests.submit("admin.example.net", asks, source="192.0.2.1")
        await ca.requests.sign("admin.example.net", actor="test")
        made = x509.load_pem_x509_certificate((await ca.certificates.pem("admin.example.net")).encode())
        assert await ca.certificates.holds_authority(made.public_bytes(Encoding.DER))


async def test_foremans_host_is_reserved_where_its_url_alone_names_it(store: Store) -> None:
    found = cluster(autosign=["hostnames"]).model_copy(update={"foreman": Foreman(url="https://Foreman.example.net")})
    assert found.authority is not None
    rules = Autosign(store, found.authority, Reserved.of(found))
    await rules.add_host("*.example.net", by="test")
    assert not await signs(rules, "foreman.example.net")
    await rules.add_host("foreman.example.net", by="test")
    assert await signs(rules, "foreman.example.net")
