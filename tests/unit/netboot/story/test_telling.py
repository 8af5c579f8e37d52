from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from muster.kernel.errors import Unavailable
from muster.kernel.happenings import Happening
from muster.kernel.names import MACAddress
from muster.netboot.story.telling import Telling, mac_in, nobodys

pytestmark = pytest.mark.anyio

MAC = MACAddress.parse("52:54:00:aa:00:01")
OTHER = MACAddress.parse("52:54:00:aa:00:02")


class Written:
    """Stands in for the rows in the store."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, object]] = []
        self.is_away = False

    async def tell(self, rows: Sequence[Mapping[str, object]]) -> None:
        if self.is_away:
            raise Unavailable("the store did not answer")
        self.rows += rows


class Here:
    def __init__(self, **more: Any) -> None:
        self.now = 1000.0
        self.written = Written()
        self.registry = CollectorRegistry()
        written: Any = self.written
        self.telling = Telling(written, self.registry, now=lambda: self.now, **more)

    def dropped(self, why: str) -> float:
        return self.registry.get_sample_value("muster_boot_happenings_dropped_total", {"reason": why}) or 0.0


def asked(path: str = "/httpboot/boot/vmlinuz", address: str = "192.0.2.10") -> Happening:
    return Happening("http", None, address, {"method": "GET", "path": path, "status": 200})


async def test_what_happened_is_written_with_its_age() -> None:
    here = Here()
    here.telling(Happening("reserved", MAC, "192.0.2.10", {"provider": "isc", "server": None}))
    here.now += 0.4
    await here.telling.flush()
    (row,) = here.written.rows
    assert row == {
        "mac": MAC, "address": "192.0.2.10", "age_s": pytest.approx(0.4), "kind": "reserved", "detail": {"provider": "isc"},
    }  # fmt: skip
    await here.telling.flush()
    assert len(here.written.rows) == 1


async def test_a_store_that_is_away_costs_the_rows_and_the_story_says_how_many() -> None:
    here = Here()
    here.written.is_away = True
    for _ in range(3):
        here.telling(asked())
    await here.telling.flush()
    assert (here.telling.lost, here.dropped("store")) == (3, 3)
    here.written.is_away = False
    here.telling(asked())
    await here.telling.flush()
    assert [r["kind"] for r in here.written.rows] == ["http", "lost"]
    assert here.written.rows[1]["detail"] == {"count": 3}
    assert here.telling.lost == 0


async def test_that_some_were_lost_is_said_although_nothing_else_happens() -> None:
    here = Here()
    here.written.is_away = True
    here.telling(asked())
    await here.telling.flush()
    await here.telling.flush()
    here.written.is_away = False
    await here.telling.flush()
    assert [r["detail"] for r in here.written.rows] == [{"count": 1}]


async def test_one_that_asks_without_end_takes_nothing_from_others_nor_from_foreman() -> None:
    here = Here()
    for _ in range(1000):
        here.telling(asked())
    here.telling(asked(address="192.0.2.11"))
    here.telling(Happening("reserved", MAC, "192.0.2.10"))
    await here.telling.flush()
    by_address = [r["address"] for r in here.written.rows if r["kind"] == "http"]
    assert (by_address.count("192.0.2.10"), by_address.count("192.0.2.11")) == (150, 1)
    assert [r["kind"] for r in here.written.rows[-2:]] == ["reserved", "lost"]
    assert here.dropped("rate") == 850


async def test_what_waits_is_bounded() -> None:
    here = Here()
    for _ in range(2500):
        here.telling(Happening("configured", MAC, "", {"variant": "PXEGrub2"}))
    assert here.dropped("queue") == 500
    await here.telling.flush()
    assert len([r for r in here.written.rows if r["kind"] == "configured"]) == 2000


async def test_the_dhcp_server_says_whose_an_address_is_and_is_asked_once_in_a_while() -> None:
    questions: list[str] = []

    async def whose(address: str) -> MACAddress | None:
        questions.append(address)
        return MAC if address == "192.0.2.10" else None

    here = Here(whose=whose)
    for _ in range(2):
        here.telling(asked(f"/httpboot/pxelinux.cfg/01-{OTHER.replace(':', '-')}"))
        here.telling(asked(address="::ffff:192.0.2.11"))
        await here.telling.flush()
    assert questions == ["192.0.2.10", "192.0.2.11"]
    found = [(r["mac"], r["address"]) for r in here.written.rows]
    assert found == [(MAC, "192.0.2.10"), ("", "192.0.2.11")] * 2
    here.now += 11
    here.telling(asked(address="192.0.2.11"))
    here.telling(asked())
    await here.telling.flush()
    assert questions[2:] == ["192.0.2.10", "192.0.2.11"]


@pytest.mark.parametrize("kind", ["offered", "reserved", "released"])
async def test_what_dhcp_said_of_an_address_is_over_when_foreman_changes_whose_it_is(kind: Any) -> None:
    owner = [MAC]

    async def whose(_: str) -> MACAddress | None:
        return owner[0]

    here = Here(whose=whose)
    here.telling(asked())
    await here.telling.flush()
    owner[0] = OTHER
    here.telling(Happening(kind, OTHER, "192.0.2.10"))
    here.telling(asked())
    await here.telling.flush()
    assert [r["mac"] for r in here.written.rows if r["kind"] == "http"] == [MAC, OTHER]


async def test_one_that_changes_its_address_within_its_network_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Here()
    for n in range(300):
        here.telling(asked(address=f"2001:db8::{n:x}"))
    assert here.dropped("rate") == 150


async def test_no_token_nor_password_of_a_url_is_kept() -> None:
    here = Here()
    url = "http://boot:s3cret@proxy.example.com:8000/unattended/iPXE?token=s3cret&x=1"
    here.telling(Happening("reserved", MAC, "192.0.2.10", {"file": url, "failed": f"the server refuses {url} there"}))
    here.telling(Happening("tftp", None, "192.0.2.10", {"file": "unattended/iPXE?token=s3cret"}))
    here.telling(asked("/httpboot/iPXE%3ftoken=s3cret"))
    await here.telling.flush()
    details: list[Any] = [r["detail"] for r in here.written.rows]
    assert details[0] == {
        "file": "http://proxy.example.com:8000/unattended/iPXE",
        "failed": "the server refuses http://proxy.example.com:8000/unattended/iPXE there",
    }
    assert [d.get("file", d.get("path")) for d in details[1:]] == ["unattended/iPXE", "/httpboot/iPXE"]


async def test_a_dhcp_server_that_does_not_answer_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.netboot.story.telling._ASKED_WITHIN_S", 0.01)

    async def never(_: str) -> MACAddress | None:
        await asyncio.Event().wait()
        return None

    async def refused(_: str) -> MACAddress | None:
        raise Unavailable("dhcpd did not answer")

    for whose in (never, refused):
        here = Here(whose=whose)
        here.telling(asked())
        await here.telling.flush()
        assert [r["mac"] for r in here.written.rows] == [""]


async def test_what_a_machine_says_of_itself_is_kept_with_how_it_said_it() -> None:
    here = Here(whose=nobodys)
    here.telling(Happening("template", OTHER, "192.0.2.10", {"template": "provision"}))
    here.telling(asked(f"/httpboot/pxelinux.cfg/01-{MAC.replace(':', '-')}"))
    here.telling(asked())
    await here.telling.flush()
    details: list[Any] = [r["detail"] for r in here.written.rows]
    assert [(r["mac"], d.get("mac_from")) for r, d in zip(here.written.rows, details, strict=True)] == [
        (OTHER, "header"), (MAC, "path"), ("", None),
    ]  # fmt: skip


async def test_texts_of_others_are_bounded_and_of_one_line() -> None:
    here = Here()
    here.telling(asked("/httpboot/\0\n" + "x" * 5000))
    await here.telling.flush()
    detail: Any = here.written.rows[0]["detail"]
    assert detail["path"].isprintable()
    assert len(detail["path"]) < 400


@pytest.mark.parametrize(
    ("path", "mac"),
    [
        ("/grub2/grub.cfg-01-52-54-00-aa-00-01", MAC),
        ("pxelinux.cfg/01-52-54-00-AA-00-01.ipxe", MAC),
        ("host-config/52-54-00-aa-00-01/grub2/boot.efi", MAC),
        ("grub2/grub.cfg-52:54:00:aa:00:01", MAC),
        ("pxelinux.cfg/52-54:00-aa-00-01", None),
        ("boot/52-54-00-aa-00-01-02", None),
        ("pxelinux.cfg/default", None),
        ("-" * 100_000, None),
    ],
)
def test_a_hardware_address_is_found_in_a_path(path: str, mac: str | None) -> None:
    assert mac_in(path) == mac
