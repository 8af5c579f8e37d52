"""A real puppetserver's CA taken over, used, and given back: the same puppetserver starts from what was exported."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from bench.bootstraps import Requests

from muster.authority import transfer
from muster.authority.authority import opened as authority_opened
from muster.cluster.file import Authority
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from tests.servers import puppetserver
from tests.wire import golden as recordings

pytestmark = pytest.mark.anyio


async def test_what_a_puppetserver_gave_and_got_back_it_lists_revokes_and_signs_on_from(
    tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("puppetserver")
    golden = recordings.directory("puppet-ca")
    given = golden / "cadir-sample"
    settings = Authority(autosign=("all",), requests_per_minute=0)
    home = tmp_path / "home"
    home.mkdir()
    key_pem = (given / "ca_key.pem").read_bytes()
    (home / "ca_key.pem").write_bytes(key_pem)
    (home / "ca_key.pem").chmod(0o600)
    async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        found = transfer.read_directory(given, now=datetime.now(UTC))
        assert found.key is not None
        await transfer.take_over(store, found, member="here", key=found.key, crl_ttl_days=1825)
        async with authority_opened(store, settings, member="here", home=home) as ca:
            for name, pem in Requests("ours").take(3):
                assert await ca.submit(name, pem, source="127.0.0.1")
            await ca.revoke("ours000000.example.net", actor="test")
            ours = [json.loads(s) for s in await ca.statuses()]
        counts = await transfer.write_directory(store, tmp_path / "server" / "ca", key_pem=key_pem)
    assert counts == {"certificates": 12, "requests": 6, "revocations": 4}
    with puppetserver.running(tmp_path / "server", certname="proxy01.example.net") as server:
        context = ssl.create_default_context(cafile=str(golden / "tls" / "ca.pem"))
        context.check_hostname = False
        context.load_cert_chain(golden / "tls" / "cli.pem", golden / "tls" / "cli.key")
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
            for rows in (listed, ours)
        )
        assert told == kept
        assert ask("PUT", "certificate_status/ours000001.example.net", "revoked")[0] == 204
        assert ask("PUT", "certificate_status/pend-plain.example.net", "signed")[0] == 204
        assert ask("GET", "certificate_status/pend-plain.example.net")[1]["serial_number"] >= 13
        connection.close()
