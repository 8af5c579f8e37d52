"""Where a Pulp is asked: also at a socket of this host; a real Pulp answers in ``tests/contract/test_pulpcore.py``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from muster.cluster.file import ClusterFile
from muster.edge.feature import Surroundings
from muster.features.pulpcore.providers import pulp
from muster.features.pulpcore.service import whereabouts
from muster.features.pulpcore.settings import PulpcoreSettings
from muster.kernel.errors import Unavailable
from muster.pki import bundles
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest
from muster.policy.metered import OperationMetrics
from tests.unit.cluster.written import SMALL, parsed

WHERE = {"pulp_url": "https://{member}", "content_app_url": "https://smartproxy.test/pulp/content"}


@contextlib.asynccontextmanager
async def answering(path: Path, asked: list[bytes]) -> AsyncIterator[None]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{" + b'"versions":[]}')
        writer.close()

    async with await asyncio.start_unix_server(answer, path):
        yield


def around(directory: Path, cluster: ClusterFile | None = None) -> Surroundings:
    """What a member would give, with a CA and a bundle of its own."""
    ca = ClusterCA.create(directory / "ca", "pulp", now=datetime.now(UTC))
    bundle = ca.issue(BundleRequest("member", "proxy01.example.com"), now=datetime.now(UTC))
    place = bundles.write(bundle, directory / "pki")
    return Surroundings(
        "proxy01.example.com", OperationMetrics(CollectorRegistry()), place.certificate, place.key, place.ca,
        cluster=cluster,
    )  # fmt: skip


async def test_a_socket_of_this_host_is_asked_as_a_port_is(tmp_path: Path) -> None:
    asked: list[bytes] = []
    socket = tmp_path / "api.sock"
    async with pulp.opened(PulpcoreSettings.model_validate(WHERE), around(tmp_path)) as provider:
        with pytest.raises(Unavailable, match=f"unix:{socket}/pulp/api/v3/status/ failed: .*[Nn]o such file"):
            await provider.status(f"unix:{socket}")
        async with answering(socket, asked):
            said = await provider.status(f"unix:{socket}")
    assert (said.status, said.text) == (200, '{"versions":[]}')
    assert asked[0].startswith(b"GET /pulp/api/v3/status/ HTTP/1.1\r\n")
    assert b"uthorization" not in asked[0]


@pytest.mark.parametrize(
    ("settings", "content", "asked"),
    [
        ({}, "", "https://proxy01.example.com"),
        ({}, "content: {pulp_api_url: 'http://{address}:24817'}", "http://127.0.0.11:24817"),
        ({"status_url": "unix:/run/api.sock"}, "content: {pulp_api_url: 'http://x.test'}", "unix:/run/api.sock"),
    ],
)
def test_members_ask_where_the_settings_say(tmp_path: Path, settings: dict[str, str], content: str, asked: str) -> None:
    given = PulpcoreSettings.model_validate({**WHERE, **settings})
    where = whereabouts(given, around(tmp_path, parsed(f"{SMALL}{content}\n")))
    assert (where.asked, where.pulp_url) == (asked, "https://proxy01.example.com")
