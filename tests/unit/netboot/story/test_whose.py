from __future__ import annotations

from typing import Any

from muster.netboot.story.whose import of, who_say, whose
from tests.unit.netboot.story.rows import IP, MAC, OTHER, Rows


def test_what_comes_from_an_address_is_of_the_machine_that_it_was_reserved_for() -> None:
    rows = Rows()
    rows.prepared()
    rows.whole_boot()
    rows.fetched(address="192.0.2.99")
    assert of(MAC, rows.made) == rows.made[:-1]
    assert of(OTHER, rows.made) == []


def test_an_address_that_changes_hands_is_the_later_ones_from_then_on() -> None:
    rows = Rows()
    rows.prepared()
    rows.fetched()
    rows.add("released", MAC, IP, provider="isc")
    rows.fetched("/httpboot/nobodys")
    rows.prepared(OTHER)
    rows.fetched("/httpboot/theirs")
    assert [e.detail["path"] for e in of(MAC, rows.made) if e.kind == "http"] == ["/httpboot/boot/vmlinuz"]
    assert [e.detail["path"] for e in of(OTHER, rows.made) if e.kind == "http"] == ["/httpboot/theirs"]


def test_a_reservation_that_failed_gives_nobody_an_address() -> None:
    rows = Rows()
    rows.prepared()
    rows.add("reserved", OTHER, IP, provider="isc", failed="Record 192.0.2.0/192.0.2.10 already exists")
    assert whose(IP, rows.made[-1].at, rows.made) == MAC


def test_where_dhcp_says_nothing_a_machine_that_names_its_own_menu_is_believed_for_one_boot() -> None:
    rows = Rows()
    rows.loaded()
    rows.loaded(file=f"pxelinux.cfg/01-{MAC.replace(':', '-')}", mac=MAC)
    rows.fetched()
    assert of(MAC, rows.made) == rows.made
    rows.add("http", "", IP, after_s=7200, method="GET", path="/httpboot/x", status=200)
    assert of(MAC, rows.made) == rows.made[:-1]


def test_what_somebody_writes_into_a_path_does_not_count_against_dhcp() -> None:
    rows = Rows()
    rows.prepared()
    rows.loaded(file=f"pxelinux.cfg/01-{OTHER.replace(':', '-')}", mac=OTHER, mac_from="path")
    rows.fetched()
    assert whose(IP, rows.made[-1].at, rows.made) == MAC
    assert of(OTHER, rows.made) == [rows.made[3]]


def test_a_lease_and_a_promise_hold_for_one_boot_and_a_reservation_until_it_is_removed() -> None:
    kinds: list[tuple[str, dict[str, Any], str]] = [
        ("tftp", {"file": "x", "outcome": "sent", "mac_from": "dhcp"}, ""),
        ("offered", {}, ""),
        ("reserved", {"provider": "isc"}, MAC),
    ]
    for kind, detail, later in kinds:
        rows = Rows()
        rows.add(kind, MAC, IP, **detail)
        rows.fetched()
        assert whose(IP, rows.made[-1].at, rows.made) == MAC
        rows.add("http", "", IP, after_s=7200, method="GET", path="/httpboot/x", status=200)
        assert whose(IP, rows.made[-1].at, rows.made) == later


def test_a_machine_that_dhcp_knows_by_reservation_is_not_known_by_a_lease_alone_afterwards() -> None:
    rows = Rows()
    rows.prepared()
    rows.add("tftp", MAC, IP, file="x", outcome="sent", mac_from="dhcp")
    rows.fetched()
    rows.add("http", "", IP, after_s=7200, method="GET", path="/httpboot/x", status=200)
    assert whose(IP, rows.made[-1].at, rows.made) == MAC


def test_an_installer_that_names_another_card_of_the_machine_is_still_the_one_that_booted() -> None:
    rows = Rows()
    rows.loaded(file=f"pxelinux.cfg/01-{MAC.replace(':', '-')}", mac=MAC, mac_from="path")
    rows.add("template", OTHER, IP, method="GET", template="provision", status=200, mac_from="header")
    rows.built()
    assert of(MAC, rows.made) == rows.made
    assert of(OTHER, rows.made) == [rows.made[1]]


def test_rows_that_say_nothing_of_an_address_are_not_gone_through_for_each_other() -> None:
    rows = Rows()
    rows.prepared()
    rows.whole_boot()
    assert who_say(rows.made) == {IP: rows.made[:2]}
