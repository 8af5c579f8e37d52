"""dhcpd's files as they are followed (``features/dhcp/isc/followed.py``): written, replaced, torn, gone and back.

No dhcpd is needed: the files are written as it writes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from muster.features.dhcp.isc import appended
from muster.features.dhcp.isc import followed as room
from muster.features.dhcp.isc.followed import Followed
from muster.kernel.clock import FakeClock
from muster.kernel.errors import Unavailable
from tests.unit.features.dhcp.isc.written import NOW, host, lease

pytestmark = pytest.mark.anyio

CONF = "subnet 192.168.120.0 netmask 255.255.255.0 { option routers 192.168.120.1; }\n"
HEAD = "# This lease file was written by isc-dhcp-4.4.3-P1\n\n"
SECOND = lease("192.168.120.21", "52:54:00:00:00:21")


class Files:
    """dhcpd's two files, and what is known of them."""

    def __init__(self, directory: Path) -> None:
        self.conf, self.leases = directory / "dhcpd.conf", directory / "dhcpd.leases"
        self.conf.write_text(CONF)
        self.leases.write_text(HEAD + lease())

    def append(self, text: str) -> None:
        with self.leases.open("a") as f:
            f.write(text)

    def replace(self, text: str) -> None:
        """As dhcpd does each hour."""
        new = self.leases.with_name("dhcpd.leases.1")
        new.write_text(text)
        new.rename(self.leases)

    @asynccontextmanager
    async def followed(self, poll_s: float = 60.0) -> AsyncIterator[Followed]:
        """Follow them; by the clock only each minute, so that it is inotify that is examined."""
        async with room.opened(self.conf, self.leases, clock=FakeClock(NOW), poll_s=poll_s) as known:
            yield known


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def _open_files() -> set[str]:
    return {str(fd) for fd in Path("/proc/self/fd").iterdir()}


def ips(known: Followed) -> list[str]:
    return [str(one.ip) for subnet in known.subnets for one in known.records(subnet)]


async def comes(known: Followed, *wanted: str) -> None:
    """Wait, without asking for it, until exactly these are known."""
    async with asyncio.timeout(10):
        while ips(known) != list(wanted):
            await asyncio.sleep(0.01)


async def test_what_is_appended_is_known_without_asking(files: Files) -> None:
    async with files.followed() as known:
        assert ips(known) == ["192.168.120.20"]
        files.append(SECOND)
        await comes(known, "192.168.120.20", "192.168.120.21")
        files.append(host())
        await comes(known, "192.168.120.160", "192.168.120.20", "192.168.120.21")
        files.append(host(deleted=True))
        await comes(known, "192.168.120.20", "192.168.120.21")


async def test_who_wrote_something_can_wait_until_it_is_known(files: Files) -> None:
    async with files.followed() as known:
        subnet = known.subnets[0]
        for number in range(50):
            ip = IPv4Address(f"192.168.120.{100 + number}")
            files.append(host(f"h{number}", f"52:54:00:00:03:{number:02x}", str(ip)))
            assert await known.settled()
            (found,) = known.at(subnet, ip)
            assert known.of(subnet, found.mac) == found
            assert known.taken(subnet, [ip, IPv4Address("192.168.120.99")]) == {ip}


async def test_who_waits_for_what_is_written_later_has_it_then(files: Files) -> None:
    async with files.followed() as known, asyncio.TaskGroup() as group:
        waiting = group.create_task(known.settled(until=lambda: len(ips(known)) == 2, within_s=10))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        files.append(SECOND)
        assert await waiting
        assert not await known.settled(until=lambda: False, within_s=0.1)


async def test_half_a_block_is_none_until_the_rest_comes(files: Files) -> None:
    text = lease("192.168.120.21", "52:54:00:00:00:21", more='  client-hostname "münchen";\n')
    raw = text.encode()
    cut = raw.index("ü".encode()) + 1
    async with files.followed() as known:
        for piece in (raw[:10], raw[10:cut], raw[cut:-2]):
            with files.leases.open("ab") as f:
                f.write(piece)
            await known.settled()
            assert ips(known) == ["192.168.120.20"]
        with files.leases.open("ab") as f:
            f.write(raw[-2:])
        await known.settled()
        assert ips(known) == ["192.168.120.20", "192.168.120.21"]
        found = known.records(known.subnets[0]).leases[1]
        assert found.options["client_hostname"] == '"münchen"'


async def test_a_file_that_is_put_in_place_is_read_whole(files: Files) -> None:
    async with files.followed() as known:
        for number in range(3):
            files.replace(HEAD + lease(f"192.168.120.{30 + number}"))
            await comes(known, f"192.168.120.{30 + number}")
            files.append(SECOND)
            await comes(known, f"192.168.120.{30 + number}", "192.168.120.21")


async def test_a_file_with_the_same_size_in_its_place_is_another(files: Files) -> None:
    async with files.followed() as known:
        files.replace(files.leases.read_text().replace("120.20", "120.30"))
        await known.settled()
        assert ips(known) == ["192.168.120.30"]


@pytest.mark.parametrize("text", [HEAD + SECOND, HEAD + SECOND + host()], ids=["shorter or as long", "longer"])
async def test_a_file_that_is_written_anew_in_its_place_is_read_whole(files: Files, text: str) -> None:
    async with files.followed() as known:
        inode = files.leases.stat().st_ino
        files.leases.write_text(text)
        assert files.leases.stat().st_ino == inode
        await known.settled()
        assert "192.168.120.21" in ips(known)
        assert "192.168.120.20" not in ips(known)


async def test_while_a_file_is_written_anew_the_old_state_is_told(files: Files) -> None:
    async with files.followed() as known:
        seen = set()
        with files.leases.open("w") as f:
            for piece in (HEAD, SECOND[:40], SECOND[40:]):
                f.write(piece)
                f.flush()
                for _ in range(5):
                    await asyncio.sleep(0.01)
                    seen.add(tuple(ips(known)))
        assert seen == {("192.168.120.20",)}
        await comes(known, "192.168.120.21")


async def test_a_file_that_was_emptied_is_believed_after_a_while(files: Files) -> None:
    async with files.followed() as known:
        os.truncate(files.leases, 0)
        await asyncio.sleep(0.2)
        assert ips(known) == ["192.168.120.20"]
        await comes(known)


async def test_a_file_that_is_gone_is_a_trouble_and_what_it_said_is_told_until_it_is_back(files: Files) -> None:
    async with files.followed() as known:
        await known.reached()
        aside = files.leases.rename(files.leases.with_name("aside"))
        with pytest.raises(Unavailable, match=r"Reading dhcpd's leases .*dhcpd.leases failed: No such file"):
            await known.settled()
        with pytest.raises(Unavailable, match="No such file or directory"):
            await known.reached()
        assert ips(known) == ["192.168.120.20"]
        with aside.open("a") as f:
            f.write(SECOND)
        aside.rename(files.leases)
        await comes(known, "192.168.120.20", "192.168.120.21")
        await known.reached()


async def test_a_change_of_the_configuration_is_read_with_its_includes(files: Files) -> None:
    files.conf.write_text('include "hosts";\n' + CONF)
    async with files.followed() as known:
        assert [p.split(": ")[-1] for p in known.problems] == ["No such file or directory"]
        (files.conf.parent / "hosts").write_text(
            "host s { hardware ethernet 00:11:22:33:44:01; fixed-address 192.168.120.150; }"
        )
        await comes(known, "192.168.120.150", "192.168.120.20")
        assert not known.problems
        (files.conf.parent / "hosts").write_text(
            "host s { hardware ethernet 00:11:22:33:44:01; fixed-address 192.168.120.15; }"
        )
        await comes(known, "192.168.120.15", "192.168.120.20")
        new = files.conf.with_name("new")
        new.write_text(CONF.replace("120", "121"))
        new.rename(files.conf)
        await comes(known)
        assert [str(s) for s in known.subnets] == ["192.168.121.0/255.255.255.0"]
        files.append(lease("192.168.121.5"))
        await comes(known, "192.168.121.5")


async def test_a_configuration_that_is_gone_is_a_trouble(files: Files) -> None:
    async with files.followed() as known:
        files.conf.rename(files.conf.with_name("aside"))
        with pytest.raises(Unavailable, match=r"Reading dhcpd's file .*dhcpd.conf failed: No such file"):
            await known.settled()
        assert ips(known) == ["192.168.120.20"]
        files.conf.write_text(CONF)
        assert await known.settled()


async def test_without_inotify_the_files_are_looked_at_by_the_clock(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "watching", lambda _changed: nullcontext(None))
    async with files.followed(poll_s=0.05) as known:
        files.append(SECOND)
        await comes(known, "192.168.120.20", "192.168.120.21")
        files.replace(HEAD + SECOND)
        await comes(known, "192.168.120.21")


async def test_files_that_cannot_be_looked_at_any_more_are_a_trouble(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(room, "_HANGS_S", 0.1)
    async with files.followed(poll_s=0.05) as known:
        await known.settled()
        # As stat(2) does when an NFS server is gone.
        monkeypatch.setattr(appended, "seen", lambda _path: goes_on.wait(10) and None)
        await asyncio.sleep(0.4)
        with pytest.raises(Unavailable, match="has not ended for"):
            await known.reached()
        with pytest.raises(Unavailable, match="has not ended for"):
            await known.settled()
        monkeypatch.undo()
        goes_on.set()
        assert await known.settled()


@pytest.mark.parametrize("which", ["conf", "leases", "both", "directory"])
async def test_files_that_cannot_be_read_at_the_start_are_a_trouble_until_they_can(files: Files, which: str) -> None:
    home = files.conf.parent
    if which == "directory":
        home = files.conf.parent / "mounted"
        home.mkdir()
        files.conf, files.leases = (p.rename(home / p.name) for p in (files.conf, files.leases))
        home.rename(aside := home.with_name("aside"))
        gone: list[Path] = [files.conf]
    else:
        gone = {"conf": [files.conf], "leases": [files.leases], "both": [files.conf, files.leases]}[which]
        for path in gone:
            path.rename(path.with_name(f"{path.name}.aside"))
    async with files.followed(poll_s=0.1 if which == "directory" else 60.0) as known:
        for call in (known.reached, known.settled):
            with pytest.raises(
                Unavailable, match=rf"Reading dhcpd's .*{gone[0].name} failed: No such file or directory"
            ):
                await call()
        with pytest.raises(Unavailable, match="No such file"):
            _ = known.subnets
        known.may_be_believed()
        assert not known.problems
        if which == "directory":
            aside.rename(home)
        for path in gone if which != "directory" else ():
            path.with_name(f"{path.name}.aside").rename(path)
        async with asyncio.timeout(5):
            while True:
                with contextlib.suppress(Unavailable):
                    await known.reached()
                    break
                await asyncio.sleep(0.01)
        assert ips(known) == ["192.168.120.20"]
        files.append(SECOND)
        await comes(known, "192.168.120.20", "192.168.120.21")


async def test_a_directory_in_a_files_place_is_said(files: Files) -> None:
    files.leases.unlink()
    files.leases.mkdir()
    async with files.followed() as known:
        with pytest.raises(Unavailable, match="Is a directory"):
            await known.reached()


async def test_many_leases_at_once_leave_others_their_turns(files: Files) -> None:
    files.conf.write_text("subnet 10.20.0.0 netmask 255.255.0.0 { }")
    seen = set()
    async with files.followed() as known:

        async def others() -> None:
            while True:
                seen.add(len(ips(known)))
                await asyncio.sleep(0)

        files.append(
            "".join(
                lease(f"10.20.{n // 250}.{n % 250}", f"52:54:00:00:{n // 250:02x}:{n % 250:02x}") for n in range(5000)
            )
        )
        other = asyncio.create_task(others())
        await known.settled()
        other.cancel()
        assert len(ips(known)) == 5000
    # Once in each slice; were it read in one go, they would see none and all.
    assert len(seen) > 50


async def test_when_the_block_ends_nothing_is_left_open(files: Files) -> None:
    before = _open_files()
    async with files.followed() as known:
        files.replace(HEAD + SECOND)
        await known.settled()
    assert _open_files() <= before
    assert not [t for t in asyncio.all_tasks() if "dhcpd" in t.get_name() or "lease" in t.get_name()]


async def test_a_block_that_stays_unfinished_is_said_and_nothing_is_believed_until_the_file_is_whole(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_TORN_S", 0.1)
    async with files.followed() as known:
        known.may_be_believed()
        # As dhcpd leaves it whose disk was full, and goes on behind it.
        files.append("host h1 {\n  dynamic;\n  hard" + host("h2"))
        await known.settled()
        await asyncio.sleep(0.3)
        await known.settled()
        with pytest.raises(Unavailable, match="has ended in the middle of a block"):
            known.may_be_believed()
        assert ips(known) == ["192.168.120.20"]
        files.replace(HEAD + lease() + SECOND)
        await known.settled(until=lambda: len(ips(known)) == 2, within_s=10)
        known.may_be_believed()


async def test_how_old_it_is_what_is_known_is_said_with_its_reason_until_it_is_current(files: Files) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with files.followed(poll_s=0.1) as known:
        await known.settled()
        lag = known.lag()
        assert (lag.age_s < loop.time() - begun, lag.limit_s, lag.why) == (True, 10.1, "")
        # It is looked at by the clock when nothing is written, and nothing ages.
        looked = loop.time()
        await asyncio.sleep(0.5)
        await known.settled()
        assert known.lag().age_s < loop.time() - looked
        files.leases.rename(files.leases.with_name("gone"))
        async with asyncio.timeout(10):
            while not known.lag().why:
                await asyncio.sleep(0.01)
        since = known.lag()
        assert "No such file or directory" in since.why
        await asyncio.sleep(0.3)
        assert known.lag().age_s >= since.age_s + 0.2
        files.leases.with_name("gone").rename(files.leases)
        back = loop.time()
        async with asyncio.timeout(10):
            while known.lag().why:
                await asyncio.sleep(0.01)
        await known.settled()
        assert known.lag().age_s <= loop.time() - back


async def test_a_block_that_stays_unfinished_ages_what_is_known(files: Files) -> None:
    loop = asyncio.get_running_loop()
    async with files.followed(poll_s=0.1) as known:
        files.append(SECOND[: len(SECOND) // 2])
        await known.settled()
        torn = loop.time()
        await asyncio.sleep(0.5)
        await known.settled()
        assert known.lag().age_s >= 0.4
        files.append(SECOND[len(SECOND) // 2 :])
        await known.settled()
        assert known.lag().age_s < loop.time() - torn


async def test_files_that_were_never_read_age_from_the_start(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with room.opened(tmp_path / "dhcpd.conf", tmp_path / "dhcpd.leases", poll_s=0.1) as known:
        await asyncio.sleep(0.3)
        lag = known.lag()
        assert 0.3 <= lag.age_s <= loop.time() - begun
        assert "No such file or directory" in lag.why
