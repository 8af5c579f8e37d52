"""The cluster's page of real members in Debian's Chromium: what it says, what it does when a member or the store goes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from playwright.async_api import Browser

from muster.cli.local.plan import FOREMAN
from tests.servers import browser as browsers
from tests.servers import local as clusters
from tests.servers import postgresql
from tests.servers.browser import Window, window
from tests.servers.local import Local, until
from tests.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.anyio
_NEVER_S = 60.0


@pytest.fixture(scope="module")
def server(needs: Callable[[str], None]) -> Iterator[PostgreSQL]:
    needs("haproxy")
    needs("postgresql")
    with postgresql.running() as found:
        yield found


@pytest.fixture
async def chromium(needs: Callable[[str], None]) -> AsyncIterator[Browser]:
    needs("chromium")
    async with browsers.browser() as opened:
        yield opened


@contextlib.contextmanager
def killed(local: Local, member: str) -> Iterator[None]:
    """Kill a member; nobody starts it again within the block."""
    pid = local.pid_of(member)
    assert pid is not None
    os.kill(local.supervisor, signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGKILL)
        yield
    finally:
        os.kill(local.supervisor, signal.SIGCONT)


@contextlib.asynccontextmanager
async def looking(chromium: Browser, local: Local, member: str, **more: Any) -> AsyncIterator[Window]:
    """Look at a member's page with Foreman's certificate, as an operator with his own would."""
    target = local.target(member=member)
    origin = f"https://{target.host}:{target.port}"
    bundle = local.pki / "clients" / FOREMAN
    async with window(chromium, certificate=(origin, bundle / "cert.pem", bundle / "key.pem"), **more) as seen:
        await seen.page.goto(f"{origin}/cluster/")
        yield seen


async def in_words(seen: Window, words: str) -> None:
    await seen.page.get_by_text(words).first.wait_for(timeout=_NEVER_S * 1000)


async def test_the_page_follows_the_cluster_and_says_what_the_commands_say(
    server: PostgreSQL, chromium: Browser
) -> None:
    with clusters.running(members=3, store_url=server.fresh_database()) as local:
        await until(local.is_steady, "every member is ready and up")
        first, second, third = local.names
        found = await local.cli("doctor", "--record", "--json")
        assert (await local.cli("drain", third, "--reason", "new disks")).code == 0
        await until(lambda: _stands(local, third, "drained"), "it is drained")
        async with looking(chromium, local, first) as seen, looking(chromium, local, first, scripts=False) as plain:
            await seen.page.wait_for_selector("#live[data-state=live]")
            await _says_what_status_says(local, plain)
            await in_words(seen, ": new disks")
            for finding in found.json["findings"]:
                assert finding["code"] in await seen.page.locator("#section-doctor").inner_text()
            assert await seen.examined() == []
            # Killed, with nobody to start it again: its row changes, and it is said, without a reload.
            await seen.page.evaluate("window.here = 1")
            row = seen.page.locator("#section-matrix tbody", has_text=_head(second))
            with killed(local, second):
                await row.locator("td.unreachable").first.wait_for(timeout=_NEVER_S * 1000)
                await in_words(seen, "Somebody is needed.")
                assert f"{_head(second)} is " in await seen.page.locator("#said").inner_text()
            await row.locator("td.unreachable").first.wait_for(state="detached", timeout=_NEVER_S * 1000)
            assert await seen.page.evaluate("window.here") == 1
            assert seen.said == []
            # The store goes: the page stays, says so, and shows what members answer.
            server.stop()
            try:
                await in_words(seen, "The store does not answer.")
                assert "ready" in await seen.page.locator("#section-matrix").inner_text()
                await plain.page.reload()
                assert "The store does not answer." in await plain.page.locator("main").inner_text()
                async with served(local, chromium) as elsewhere:
                    await in_words(elsewhere, "The store does not answer.")
            finally:
                server.start()
            await in_words(seen, "Who stands where")
            await seen.page.get_by_text("The store does not answer.").wait_for(state="detached", timeout=60_000)
        async with served(local, chromium) as elsewhere:
            await elsewhere.page.wait_for_selector("#live[data-state=live]")
            assert third in await elsewhere.page.locator("#section-members").inner_text()
            assert "never" not in await elsewhere.page.locator("#section-traffic").inner_text()
            assert elsewhere.said == []


async def test_a_member_that_stops_ends_its_viewers_streams_and_stops_in_time(chromium: Browser, local: Local) -> None:
    name = local.names[1]
    async with looking(chromium, local, name) as seen:
        await seen.page.wait_for_selector("#live[data-state=live]")
        assert (await local.cli("drain", name, "--reason", "looked at", "--wait", "60")).code == 0
        await seen.page.wait_for_selector("#live[data-state=lost]", timeout=60_000)
        assert (await local.cli("ready", name)).code == 0
        await until(local.is_steady, "it serves again")
        await seen.page.wait_for_selector("#live[data-state=live]", timeout=60_000)


@contextlib.asynccontextmanager
async def served(local: Local, chromium: Browser) -> AsyncIterator[Window]:
    """Look at the page of ``muster status --serve``."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "muster", "status", "--serve",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env=clusters.environment(local),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = ""
        while not address:
            line = (await asyncio.wait_for(process.stdout.readline(), _NEVER_S)).decode()
            assert line, "muster status --serve ended"
            address = line.strip() if line.strip().startswith("http://127.0.0.1:") else ""
        async with window(chromium) as seen:
            await seen.page.goto(address)
            assert seen.page.url.endswith("/cluster/")
            yield seen
    finally:
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), _NEVER_S) == 0


async def _stands(local: Local, member: str, where: str) -> bool:
    found = (await local.cli("status", "--json")).json
    return any(m["name"] == member and m["stands"] == where for m in found["members"])


async def _says_what_status_says(local: Local, plain: Window) -> None:
    """What stands in the tables of members is what the command prints at the same time."""
    status = (await local.cli("status", "--json")).json
    await plain.page.reload()
    rows = await plain.page.locator("#section-matrix tbody > tr:first-child").all_inner_texts()
    words = {"ready": "ready", "draining": "draining", "unready": "not ready", "unreachable": "no answer"}
    for member, row in zip(status["members"], rows, strict=True):
        cells = [re.sub(r"^\W+", "", c).strip() for c in row.split("\t")]
        assert cells[0].startswith(_head(member["name"]))
        answers = {
            s["name"]: a["state"] for s in status["services"] for a in s["members"] if a["member"] == member["name"]
        }
        assert cells[1:] == [words[answers[s["name"]]] for s in status["services"]]
    text = await plain.page.locator("#section-members").inner_text()
    for member in status["members"]:
        assert member["sentence"] in text


def _head(name: str) -> str:
    return name.split(".")[0]
