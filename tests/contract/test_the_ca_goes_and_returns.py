"""A real puppetserver's CA taken over, used, and given back; and the same puppetserver as a provider of the feature."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from bench.bootstraps import Requests

from muster.authority.authority import opened as authority_opened
from muster.authority.moves import transfer
from muster.authority.moves.directory import read_directory
from muster.cluster.file import Authority
from muster.features.puppetca.providers import puppetserver as provider
from muster.features.puppetca.settings import PuppetserverSettings
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Unavailable
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from tests.servers import puppetserver
from tests.servers.puppetserver import Puppetserver
from tests.wire import golden as recordings

pytestmark = pytest.mark.anyio

SETTINGS = Authority(autosign=("all",), requests_per_minute=0)


@dataclass(frozen=True)
class Returned:
    """A puppetserver that runs from what was exported.

    Attributes:
        ours: what the ledger said of every certificate before.
        counts: what the export said it wrote.
    """

    server: Puppetserver
    ours: list[dict[str, Any]]
    counts: dict[str, int]
    tls: Path


@pytest.fixture(scope="module")
def returned(tmp_path_factory: pytest.TempPathFactory, needs: Callable[[str], None]) -> Iterator[Returned]:
    needs("puppetserver")
    golden = recordings.directory("puppet-ca")
    home = tmp_path_factory.mktemp("ca")
    ours, counts = asyncio.run(_taken_and_given_back(golden / "cadir-sample", home))
    with puppetserver.running(home / "server", certname="proxy01.example.net") as server:
        yield Returned(server, ours, counts, golden / "tls")


async def _taken_and_given_back(given: Path, home: Path) -> tuple[list[dict[str, Any]], dict[str, int]]:
    key_pem = (given / "ca_key.pem").read_bytes()
    (home / "ca_key.pem").write_bytes(key_pem)
    (home / "ca_key.pem").chmod(0o600)
    async with opened(Secret(f"sqlite:///{home}/store.db")) as store:
        found = read_directory(given, now=datetime.now(UTC))
        assert found.key is not None
        await transfer.take_over(store, found, member="here", key=found.key, crl_ttl_days=1825)
        async with authority_opened(store, SETTINGS, member="here", home=home) as ca:
            for name, pem in Requests("ours").take(3):
                assert await ca.requests.submit(name, pem, source="127.0.0.1")
            await ca.certificates.revoke("ours000000.example.net", actor="test")
            ours = [json.loads(s) for s in await ca.certificates.statuses()]
        return ours, await transfer.write_directory(store, home / "server" / "ca", key_pem=key_pem)


async def test_it_lists_revokes_and_signs_on_from_what_it_got_back(returned: Returned) -> None:
    assert returned.counts == {"certificates": 12, "requests": 6, "revocations": 4}
    context = ssl.create_default_context(cafile=str(returned.tls / "ca.pem"))
    context.check_hostname = False
    context.load_cert_chain(returned.tls / "cli.pem", returned.tls / "cli.key")
    server = returned.server
    connection = HTTPSConnection(server.address, server.port, timeout=30, context=context)

    def ask(method: str, path: str, wish: str | None = None) -> tuple[int, Any]:
        body = json.dumps({"desired_state": wish}) if wish else None
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        connection.request(method, f"/puppet-ca/v1/{path}", body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        return answer.status, json.loads(text) if text.startswith(("[", "{")) else text

    status, listed = ask("GET", "certificate_statuses/all")
    assert status == 200
    # Without files of its own the server had its CA issue it a new certificate at the start.
    told, kept = (
        {(r["name"], r["state"], r["fingerprint"]) for r in rows if r["name"] != server.certname}
        for rows in (listed, returned.ours)
    )
    assert told == kept
    assert ask("PUT", "certificate_status/ours000001.example.net", "revoked")[0] == 204
    assert ask("PUT", "certificate_status/pend-plain.example.net", "signed")[0] == 204
    assert ask("GET", "certificate_status/pend-plain.example.net")[1]["serial_number"] >= 13
    connection.close()


def settings(returned: Returned, who: str = "cli", port: int | None = None) -> PuppetserverSettings:
    tls = returned.tls
    server = returned.server
    return PuppetserverSettings.model_validate(
        {
            "url": f"https://{server.address}:{port or server.port}",
            "server_name": server.certname,
            "certificate": tls / f"{who}.pem",
            "key": tls / f"{who}.key",
            "ca": tls / "ca.pem",
        }
    )


async def test_foreman_lists_signs_and_cleans_on_a_real_puppetserver(returned: Returned) -> None:
    async with provider.opened(settings(returned)) as ca:
        await ca.reached()
        before = {c.name: c for c in await ca.list()}
        assert (before["pend-ec.example.net"].state, before["pend-ec.example.net"].serial) == ("pending", None)
        assert before["short01.example.net"].state == "revoked", "it has ended"
        await ca.sign("pend-ec.example.net")
        with pytest.raises(Conflict, match="409 Cannot sign certificate"):
            await ca.sign("pend-ec.example.net")
        with pytest.raises(NotFound, match="404 Invalid certificate subject"):
            await ca.sign("nobody.example.net")
        assert {c.name: c.state for c in await ca.list()}["pend-ec.example.net"] == "valid"
        for _ in range(2):
            await ca.clean("pend-ec.example.net")
        await ca.clean("nobody.example.net")
        await ca.clean("pend-oid.example.net")
        left = {c.name for c in await ca.list()}
        assert not left & {"pend-ec.example.net", "pend-oid.example.net"}


async def test_a_puppetserver_that_does_not_let_us_or_is_gone_is_named(returned: Returned) -> None:
    async with provider.opened(settings(returned, "agent")) as ca:
        with pytest.raises(Misconfigured, match=r"auth\.conf must let that certname in"):
            await ca.list()
    async with provider.opened(settings(returned, port=1)) as ca:
        for call in (ca.list(), ca.reached(), ca.sign("x.example.net"), ca.clean("x.example.net")):
            with pytest.raises(Unavailable):
                await call
