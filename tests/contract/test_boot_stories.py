"""Stories of machines that boot (``netboot/story``): rows on both databases, and what a real member tells."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from prometheus_client import CollectorRegistry

from muster.kernel.errors import Unavailable
from muster.kernel.happenings import Happening
from muster.kernel.names import MACAddress
from muster.netboot.story import ledger, told
from muster.netboot.story.ledger import KEPT_OF_ONE, BootEvents, Found
from muster.netboot.story.telling import Telling
from muster.store.engine import Store
from muster.store.writing import Change
from tests.servers import member
from tests.servers.client import ask
from tests.servers.local import muster
from tests.servers.member import Member

MAC, OTHER = "52:54:00:aa:00:01", "52:54:00:aa:00:02"
IP = "192.0.2.10"


def row(kind: str = "http", mac: str = "", address: str = IP, age_s: float = 0.0, **detail: Any) -> dict[str, object]:
    return {"kind": kind, "mac": mac, "address": address, "age_s": age_s, "detail": detail}


async def of_mac(store: Store, mac: str = MAC) -> Found:
    async with store.read() as uow:
        return await ledger.of_mac(uow, mac)


@pytest.mark.anyio
async def test_what_several_members_wrote_is_one_time_line_by_the_stores_clock(store: Store) -> None:
    one, two = BootEvents(store, "proxy01.example.com"), BootEvents(store, "proxy02.example.com")
    await two.tell([row(path="/httpboot/boot/vmlinuz", method="GET", status=200)])
    # It happened before, and is written later.
    await one.tell([row("reserved", MAC, age_s=5.0, name="h1.example.com", provider="isc")])
    await one.tell([row("reserved", OTHER, "192.0.2.11", name="h2.example.com", provider="isc")])
    found = told.story(await of_mac(store), mac=MAC)
    assert [(e.member, e.kind) for e in found.events] == [
        ("proxy01.example.com", "reserved"), ("proxy02.example.com", "http"),
    ]  # fmt: skip
    async with store.read() as uow:
        assert await uow.now() - found.events[0].at == pytest.approx(5.0, abs=3.0)
        assert await ledger.named(uow, "H1") == MAC
        assert await ledger.named(uow, "h2.example.com.") == OTHER
        assert await ledger.named(uow, "h3") is None
        assert told.machine_at(await ledger.of_address(uow, IP), IP) == MAC
        assert [s.mac for s in told.recent(await ledger.newest(uow))] == [OTHER, MAC]


@pytest.mark.anyio
async def test_so_many_of_one_machine_are_kept_and_none_for_longer_than_a_week(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = BootEvents(store, "proxy01.example.com")
    await events.tell([row("configured", MAC, "", number=n) for n in range(KEPT_OF_ONE + 30)])
    await events.tell([row(number=n) for n in range(KEPT_OF_ONE + 30)])
    await events.tell([row("configured", OTHER, ""), row("configured", OTHER, "", age_s=8 * 86_400.0)])
    await events.forget()
    async with store.read() as uow:
        mine = await ledger.of_mac(uow, MAC)
        assert [e.detail["number"] for e in mine.events] == list(range(30, KEPT_OF_ONE + 30))
        assert len((await ledger.of_address(uow, IP)).events) == KEPT_OF_ONE
        assert len((await ledger.of_mac(uow, OTHER)).events) == 1
    monkeypatch.setattr(ledger, "KEPT_OF_ALL", 10)
    await events.forget()
    async with store.read() as uow:
        assert len(await ledger.newest(uow)) == 10
        # The newest of all.
        assert len((await ledger.of_mac(uow, OTHER)).events) == 1


@pytest.mark.anyio
async def test_who_asks_in_the_name_of_machines_pushes_out_nothing_that_foreman_or_dhcp_vouches_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = BootEvents(store, "proxy01.example.com")
    await events.tell([row("reserved", MAC, provider="isc"), row("tftp", MAC, file="loader", mac_from="dhcp")])
    stranger: dict[str, Any] = {"mac": MAC, "address": "192.0.2.66"}
    # What is no word of the member's own: a path may hold it.
    said = '"mac_from": "dhcp"'
    await events.tell([row(**stranger, path=f"{said}{n}", mac_from="path") for n in range(1100)])
    async with store.read() as uow:
        assert [e.kind for e in (await ledger.newest(uow))[:2]] == ["reserved", "tftp"]
    assert [e.kind for e in (await of_mac(store)).events[:2]] == ["reserved", "tftp"]
    await events.forget()
    monkeypatch.setattr(ledger, "KEPT_UNPROVEN", 10)
    assert len((await of_mac(store)).events) == 2 + KEPT_OF_ONE
    await events.forget()
    left = (await of_mac(store)).events
    assert [e.kind for e in left] == ["reserved", "tftp"] + 10 * ["http"]
    assert left[-1].detail["path"].endswith("1099")


@pytest.mark.anyio
async def test_the_newest_come_by_the_stores_clock_whichever_member_wrote_first(store: Store) -> None:
    events = BootEvents(store, "proxy01.example.com")
    await events.tell([row("configured", MAC)])
    await events.tell([row("reserved", MAC, age_s=5.0)])
    async with store.read() as uow:
        assert [e.kind for e in await ledger.newest(uow)] == ["reserved", "configured"]


@pytest.mark.anyio
async def test_that_a_member_could_not_write_is_part_of_the_story(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = BootEvents(store, "proxy01.example.com")
    telling = Telling(events, CollectorRegistry())
    whole = MACAddress.parse(MAC)
    telling(Happening("reserved", whole, IP, {"provider": "isc"}))
    await telling.flush()
    with monkeypatch.context() as away:

        async def refused(_: object) -> None:
            raise Unavailable("the store did not answer")

        away.setattr(events, "tell", refused)
        telling(Happening("configured", whole, "", {"variant": "PXEGrub2"}))
        await telling.flush()
    telling(Happening("http", None, IP, {"method": "GET", "path": "/httpboot/\x00\ud800", "status": 200}))
    await telling.flush()
    found = await of_mac(store)
    assert [e.kind for e in told.story(found, mac=MAC).events] == ["reserved", "http"]
    assert found.lost == {"proxy01.example.com": 1}


@pytest.mark.anyio
async def test_two_members_may_drop_the_same(store: Store) -> None:
    events = BootEvents(store, "proxy01.example.com")
    await events.tell([row("configured", MAC, "") for _ in range(KEPT_OF_ONE + 1)])
    await events.forget()
    await events.forget()
    async with store.write() as uow:
        assert await uow.changed(Change("DELETE FROM boot_events WHERE mac = :mac"), {"mac": MAC}) == KEPT_OF_ONE


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    root = tmp_path_factory.mktemp("boot") / "tftpboot"
    features: dict[str, Any] = {
        "tftp": {"tftproot": str(root)}, "httpboot": {"root_dir": str(root)}, "dhcp": {"provider": "memory"},
    }  # fmt: skip
    with member.running(tmp_path_factory.mktemp("proxy"), features=features) as running:
        yield running


def _until_told(proxy: Member, kind: str) -> None:
    limit = time.monotonic() + 20
    store = yaml.safe_load(proxy.cluster_file.read_text())["store"]["url"].removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(store)) as connection:
        while not connection.execute("SELECT 1 FROM boot_events WHERE kind = ?", (kind,)).fetchone():
            assert time.monotonic() < limit
            time.sleep(0.05)


def explained(proxy: Member, *what: str, code: int = 0) -> Any:
    said = muster("explain", *what, "--cluster", str(proxy.cluster_file), "--json")
    assert said.code == code, said
    return said.json if code == 0 else said.err


def test_a_member_tells_what_foreman_prepared_and_what_firmware_asked_for(proxy: Member) -> None:
    assert proxy.ask("POST", f"/tftp/PXEGrub2/{MAC}", body=urlencode({"pxeconfig": "menu"}).encode()).status == 200
    assert proxy.ask("POST", f"/tftp/PXEGrub2/{OTHER}", body=b"").status == 400
    menu = f"grub2/grub.cfg-01-{MAC.replace(':', '-')}"
    for path in (menu, f"{menu}?token=t0k3n", f"grub2/{MAC}", "boot/vmlinuz"):
        ask(proxy.http, "GET", f"/httpboot/{path}")
    assert proxy.ask("DELETE", f"/tftp/PXEGrub2/{MAC}").status == 200
    _until_told(proxy, "unconfigured")
    story = explained(proxy, MAC)
    assert [(h["kind"], h["ok"], h["detail"].get("path")) for h in story["happenings"]] == [
        ("configured", True, None), ("http", True, f"/httpboot/{menu}"), ("http", True, f"/httpboot/{menu}"),
        ("http", False, f"/httpboot/grub2/{MAC}"), ("http", False, "/httpboot/boot/vmlinuz"), ("unconfigured", True, None),
    ]  # fmt: skip
    assert [h["detail"].get("bytes") for h in story["happenings"]][1] == len("menu")
    assert "t0k3n" not in json.dumps(story)
    assert story["stage"] == "menu"
    failed = explained(proxy, OTHER.replace(":", "-").upper())
    assert failed["stops"].startswith("The last that was tried failed: writing the PXEGrub2 menu failed: TFTP: ")
    boots = muster("netboot", "boots", "--cluster", str(proxy.cluster_file), "--json").json
    assert {b["mac"]: b["stops"] for b in boots} == {MAC: story["stops"], OTHER: failed["stops"]}


def test_the_whole_of_a_long_path_is_told_and_an_address_in_any_spelling_is_one(proxy: Member) -> None:
    path = f"/httpboot/boot/{'long-name-' * 12}vmlinuz"
    ask(proxy.http, "GET", path)
    ask(proxy.http, "GET", "/httpboot/boot/after")
    limit = time.monotonic() + 20
    spelt = "::ffff:127.0.0.1"
    while True:
        found = {h["detail"].get("path"): h["what"] for h in explained(proxy, "--boot", spelt)["happenings"]}
        if "/httpboot/boot/after" in found or time.monotonic() > limit:
            break
        time.sleep(0.05)
    assert found[path].startswith(f"HTTP GET {path}: 404")


def test_a_name_that_nobody_reserved_is_an_error_that_says_what_to_ask_for(proxy: Member) -> None:
    assert "No reservation by the name nobody.example.com" in explained(proxy, "nobody.example.com", code=4)
