from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from muster.netboot.story.ledger import KEPT_OF_ONE, Found
from muster.netboot.story.told import machine_at, recent, story, what
from tests.unit.netboot.story.rows import IP, MAC, OTHER, Rows


def _nothing(_: Rows) -> None:
    return


def _built_then_again(rows: Rows) -> None:
    rows.whole_boot()
    rows.add("configured", MAC, variant="PXEGrub2", after_s=1)
    rows.add("tftp", "", IP, after_s=90, file="grub2/grubx64.efi", outcome="sent", bytes=7)
    rows.loaded(file="grub2/grub.cfg")


def _prepared_anew(rows: Rows) -> None:
    rows.whole_boot()
    rows.add("configured", MAC, variant="PXEGrub2", after_s=3600)


@pytest.mark.parametrize(
    ("does", "stage", "says"),
    [
        (_nothing, "prepared", "never asked for its loader"),
        (lambda r: r.add("proxydhcp", MAC, file="grub2/grubx64.efi", server="192.0.2.1"), "told", "never asked for it"),
        (lambda r: r.loaded(), "loader", "never asked for its menu"),
        (lambda r: r.loaded(file="grub2/grub.cfg"), "menu", "port 8000 of the balancer"),
        (lambda r: r.asked("iPXE"), "menu", "never asked for its kernel by HTTP"),
        (lambda r: r.fetched(), "kernel", "never asked Foreman for its template"),
        (lambda r: (r.fetched(), r.asked()), "template", "was not reported built"),
        (lambda r: r.whole_boot(), "built", "It was reported built, which is the end."),
        (_built_then_again, "menu", "It was reported built, and has its menu again since."),
        (_prepared_anew, "prepared", "never asked for its loader"),
        (lambda r: (r.whole_boot(), r.loaded()), "loader", "has its loader again since"),
        (lambda r: r.asked(status=404), "prepared", "asked Foreman for provision: it answered 404. Foreman knows the host"),
        (lambda r: r.fetched(cut=1, of=10), "prepared", "9 bytes of 10: cut off. Most loaders do not ask again"),
        (lambda r: r.loaded(outcome="silent"), "prepared", "TFTP grub2/grubx64.efi: silent, 7 bytes. Most machines"),
        (lambda r: (r.loaded(outcome="silent"), r.loaded()), "loader", "never asked for its menu"),
        (
            lambda r: (r.loaded(), r.loaded(file="grub2/grub.cfg-01-x", outcome="absent")), "loader",
            "The last that it asked for is not there: grub2/grub.cfg-01-x.",
        ),
        (lambda r: (r.fetched(), r.built(status=404)), "kernel", "reported built: it answered 404. The host stays"),
    ],
)  # fmt: skip
def test_a_story_ends_with_where_it_stops_and_what_is_usually_next(
    does: Callable[[Rows], object], stage: str, says: str
) -> None:
    rows = Rows()
    rows.prepared()
    does(rows)
    told = story(Found(rows.made, {}), mac=MAC)
    assert (told.stage, says in told.stops) == (stage, True), told.stops


def test_an_address_without_more_is_where_it_stops_too() -> None:
    rows = Rows()
    rows.add("offered", MAC, IP)
    assert "has Foreman saved the host" in story(Found(rows.made, {}), mac=MAC).stops
    rows = Rows()
    rows.add("offered", MAC, "", failed="none is free in 192.0.2.1 to 192.0.2.9")
    assert "no address was promised: none is free" in story(Found(rows.made, {}), mac=MAC).stops
    assert story(Found([], {}), mac=MAC).stops == "Nothing is told of it."


def test_every_kind_is_a_sentence_and_one_of_a_newer_version_its_word() -> None:
    rows = Rows()
    rows.prepared()
    rows.add("released", MAC, IP, provider="isc", failed="the server refuses it")
    rows.add("unconfigured", MAC, variant="PXELinux")
    rows.add("proxydhcp", MAC, file="grub2/grubx64.efi", server="192.0.2.1")
    rows.loaded(outcome="absent")
    rows.loaded(outcome="asked")
    rows.loaded(outcome="cancelled", why="TFTP Aborted")
    rows.whole_boot()
    rows.fetched(status=503, failed="boot/vmlinuz is not on this member yet")
    rows.add("discovered", MAC)
    assert [what(e) for e in rows.made] == [
        "address 192.0.2.10 promised (unused_ip)",
        "reserved 192.0.2.10 in DHCP (isc): grubx64.efi of 192.0.2.1",
        "PXEGrub2 menu written",
        "removing the reservation of 192.0.2.10 in DHCP (isc) failed: the server refuses it",
        "PXELinux menu deleted",
        "ProxyDHCP: told to load grub2/grubx64.efi of 192.0.2.1",
        "TFTP grub2/grubx64.efi: is not there",
        "TFTP grub2/grubx64.efi: asked for its size",
        "TFTP grub2/grubx64.efi: cancelled, 7 bytes (TFTP Aborted)",
        "TFTP grub2/grubx64.efi: sent, 7 bytes",
        "TFTP grub2/grub.cfg-01-52-54-00-aa-00-01: sent, 7 bytes",
        "HTTP GET /httpboot/boot/vmlinuz: 200, 9 bytes",
        "HTTP GET /httpboot/boot/initrd: 200, 9 bytes",
        "asked Foreman for provision: it answered 200",
        "reported built: it answered 201",
        "HTTP GET /httpboot/boot/vmlinuz: 503, boot/vmlinuz is not on this member yet",
        "discovered",
    ]


def test_it_is_one_json_document_with_its_times_in_utc() -> None:
    rows = Rows()
    rows.prepared()
    told = story(Found(rows.made, {"proxy02.example.com": 3}), mac=MAC).as_json()
    assert json.loads(json.dumps(told)) == told
    assert (told["mac"], told["names"], told["addresses"]) == (MAC, ["h1.example.com"], [IP])
    assert (told["lost"], told["cut"]) == ({"proxy02.example.com": 3}, False)
    assert told["happenings"][0]["at"] == "1970-01-12T13:46:41.000Z"
    assert told["happenings"][0]["ok"] is True


def test_what_is_older_is_left_out_and_that_much_is_gone_is_said() -> None:
    rows = Rows()
    rows.prepared()
    for _ in range(KEPT_OF_ONE):
        rows.fetched()
    whole = story(Found(rows.made, {}), mac=MAC)
    assert (len(whole.events), whole.is_cut) == (KEPT_OF_ONE, True)
    late = story(Found(rows.made, {}), mac=MAC, since=rows.made[-2].at)
    assert late.events == rows.made[-2:]


def test_of_an_address_whose_machine_nobody_knows_its_own_rows_are_told() -> None:
    rows = Rows()
    rows.fetched()
    found = Found(rows.made, {})
    assert machine_at(found, IP) == ""
    told = story(found, address=IP).as_json()
    assert (told["mac"], told["addresses"], len(told["happenings"])) == (None, [IP], 1)
    rows.prepared()
    assert machine_at(Found(rows.made, {}), IP) == MAC


def test_the_machines_that_booted_last_are_told_of_the_newest_first() -> None:
    rows = Rows()
    rows.prepared()
    rows.prepared(OTHER, "192.0.2.11")
    rows.fetched()
    rows.fetched(address="192.0.2.77")
    assert [(s.mac, s.stage, len(s.events)) for s in recent(rows.made)] == [(MAC, "kernel", 4), (OTHER, "prepared", 3)]


def test_machines_that_somebody_made_up_push_out_no_real_one() -> None:
    rows = Rows()
    rows.prepared()
    for n in range(30):
        rows.loaded(file="x", mac=f"52:54:00:bb:00:{n:02x}", address="192.0.2.66", mac_from="path")
    assert [s.mac for s in recent(rows.made)][-1] == MAC
    assert len(recent(rows.made)) == 20


def test_what_others_say_in_its_name_pushes_out_of_a_story_only_what_nobody_vouches_for() -> None:
    rows = Rows()
    rows.prepared()
    for _ in range(2 * KEPT_OF_ONE):
        rows.loaded(file="x", mac=MAC, address="192.0.2.66", mac_from="path")
    found = story(Found(rows.made, {}), mac=MAC)
    assert [e.kind for e in found.events[:4]] == ["offered", "reserved", "configured", "tftp"]
    assert (len(found.events), found.is_cut, found.events[-1]) == (KEPT_OF_ONE, True, rows.made[-1])


def test_the_list_and_the_story_of_a_machine_with_two_cards_are_the_same() -> None:
    rows = Rows()
    rows.loaded(file="grub2/grub.cfg-01-52-54-00-aa-00-01", mac=MAC, mac_from="path")
    rows.add("template", OTHER, IP, method="GET", template="provision", status=200, mac_from="header")
    listed = {s.mac: s.events for s in recent(rows.made)}
    assert listed == {m: story(Found(rows.made, {}), mac=m).events for m in (MAC, OTHER)}
