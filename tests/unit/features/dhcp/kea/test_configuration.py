from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from muster.features.dhcp.contract import Reservation, Subnet
from muster.features.dhcp.kea.configuration import Draft, read
from muster.kernel.errors import Conflict, NotFound, Rejected, Unavailable
from muster.kernel.names import MACAddress

NETWORK = IPv4Network("192.0.2.0/24")
THERE: dict[str, Any] = {"hw-address": "52:54:00:00:00:01", "ip-address": "192.0.2.5", "hostname": "there.test"}
OURS = {
    **THERE,
    "hw-address": "52:54:00:00:00:02",
    "ip-address": "192.0.2.6",
    "user-context": {"muster": {"name": "ours.test"}},
}


def content(**subnet: Any) -> dict[str, Any]:
    return {"subnet4": [{"id": 1, "subnet": str(NETWORK), **subnet}], "unread": {"kept": True}}


def wanted(**change: Any) -> Reservation:
    mac = MACAddress.parse("52:54:00:00:00:09")
    one = Reservation(
        "new.test", NETWORK[9], mac, Subnet(NETWORK), {"hardware_type": "ethernet", "hostname": "new.test"}
    )
    return replace(one, **change)


def option(code: int | None, data: str, **more: Any) -> dict[str, Any]:
    return {"code": code, "data": data, "space": "dhcp4", "csv-format": True, **more}


def test_options_are_told_by_foremans_names_in_its_order_the_nearest_one_counts() -> None:
    given = {
        "option-data": [option(3, "10.0.0.1"), option(42, "10.0.0.2, 10.0.0.3"), option(15, "all.test")],
        "shared-networks": [
            {
                "option-data": [option(15, "shared.test"), option(26, "9000")],
                "subnet4": [
                    {
                        "id": 3,
                        "subnet": "10.3.0.0/16",
                        "pools": [{"pool": "10.3.1.0/24"}, {"pool": "10.3.9.1-10.3.9.2"}],
                        "option-data": [
                            option(None, "10.3.0.53,10.3.0.54", name="domain-name-servers"),
                            option(3, "0A030001", **{"csv-format": False}),
                            option(26, "1", space="another"),
                        ],
                    }
                ],
            }
        ],
        **content(pools=[{"pool": "192.0.2.10 - 192.0.2.20"}]),
    }
    given["subnet4"].append({"id": 2, "subnet": "198.51.100.0/24"})
    found = {str(s.subnet.network): s.subnet.options for s in read(given).subnets}
    assert list(found) == ["192.0.2.0/24", "198.51.100.0/24", "10.3.0.0/16"]
    assert list(found["10.3.0.0/16"].items()) == [
        ("routers", ["10.0.0.1"]),
        ("domain_name", [["shared.test"]]),
        ("domain_name_servers", ["10.3.0.53", "10.3.0.54"]),
        ("ntp_servers", [["10.0.0.2"], ["10.0.0.3"]]),
        ("interface_mtu", 9000),
        ("range", ["10.3.1.0", "10.3.1.255"]),
    ]
    assert found["192.0.2.0/24"]["range"] == ["192.0.2.10", "192.0.2.20"]


@pytest.mark.parametrize(
    "given",
    [
        None, [], {"subnet4": [{}]}, {"subnet4": [{"id": "x", "subnet": "192.0.2.0/24"}]}, content(subnet="192.0.2.x/24"),
        content(pools=[{"pool": "x"}]), content(reservations=[{"ip-address": "x"}]), content(reservations=["x"]),
        {"hosts-database": {"kind": "x"}},
    ],
)  # fmt: skip
def test_what_is_no_configuration_is_said(given: Any) -> None:
    with pytest.raises(Unavailable, match="no configuration of DHCPv4"):
        list(read(given).hosts)


def test_passwords_that_kea_tells_are_shown_nowhere() -> None:
    secret = {"lease-database": {"type": "postgresql", "password": "geheim"}, **content(reservations=[THERE])}
    found = read(secret)
    assert found.content["lease-database"]["password"] == "geheim"
    assert "geheim" not in repr(found)


def test_what_is_changed_leaves_all_else_as_it_was() -> None:
    given = content(reservations=[THERE, OURS])
    given["shared-networks"] = [
        {"name": "s", "subnet4": [{"id": 7, "subnet": "10.0.0.0/8", "reservations": [{"duid": "01"}]}]}
    ]
    before = json.dumps(given)
    draft = Draft(read(given))
    assert draft.is_empty
    draft.add(wanted())
    draft.remove(wanted(mac=MACAddress.parse(OURS["hw-address"]), ip=NETWORK[6]))
    in_another = wanted(name="b", ip=IPv4Address("10.0.0.1"), subnet=Subnet(IPv4Network("10.0.0.0/8")))
    draft.add(in_another)
    changed = json.loads(json.dumps(draft.content()))
    assert json.dumps(given) == before
    assert [r["ip-address"] for r in changed["subnet4"][0]["reservations"]] == ["192.0.2.5", "192.0.2.9"]
    assert changed["shared-networks"][0]["subnet4"][0]["reservations"][0] == {"duid": "01"}
    assert changed["shared-networks"][0]["subnet4"][0]["reservations"][1]["ip-address"] == "10.0.0.1"
    assert changed["unread"] == {"kept": True}
    assert draft.is_in(read(changed))
    assert not draft.is_in(read(given))
    # Nor where Kea had put something else in its place.
    changed["subnet4"][0]["reservations"][1]["hostname"] = "other.test"
    assert not draft.is_in(read(changed))


def test_changes_of_one_draft_see_each_other() -> None:
    draft = Draft(read(content(reservations=[OURS])))
    draft.add(wanted())
    draft.add(wanted())
    with pytest.raises(Conflict):
        draft.add(wanted(mac=MACAddress.parse("52:54:00:00:00:0a"), name="b"))
    with pytest.raises(Rejected, match="already exists"):
        draft.add(wanted(mac=MACAddress.parse("52:54:00:00:00:0a"), ip=NETWORK[10]))
    draft.remove(wanted())
    assert draft.is_empty
    ours = wanted(mac=MACAddress.parse(OURS["hw-address"]), ip=NETWORK[6])
    draft.remove(ours)
    with pytest.raises(NotFound):
        draft.remove(ours)
    draft.add(replace(ours, name="again.test"))
    after = read(draft.content())
    assert [h.name for h in after.hosts] == ["again.test"]
    assert draft.is_in(after)


def test_what_an_administrator_wrote_stays() -> None:
    draft = Draft(read({**content(reservations=[THERE]), "reservations": [{**OURS, "ip-address": "192.0.2.7"}]}))
    for mac, ip in ((THERE["hw-address"], NETWORK[5]), (OURS["hw-address"], NETWORK[7])):
        with pytest.raises(Rejected, match="static - unable to delete"):
            draft.remove(wanted(mac=MACAddress.parse(str(mac)), ip=ip))
    with pytest.raises(NotFound, match="no subnet"):
        draft.add(wanted(subnet=Subnet(IPv4Network("203.0.113.0/24"))))


def test_a_host_is_read_whatever_kea_knows_it_by() -> None:
    known = read(content(reservations=[
        {"client-id": "0102", "ip-address": "192.0.2.1"}, {"flex-id": "a", "hostname": "f.test"}, {"hw-address": "01:02"},
        {"hw-address": "52:54:00:00:00:01", "ip-address": "0.0.0.0", "user-context": {"muster": "x"}},
        {"hw-address": "52:54:00:00:00:03", "ip-address": "192.0.2.3", "next-server": "0.0.0.0", "boot-file-name": ""},
    ]))  # fmt: skip
    assert [(h.name, h.mac, None if h.ip is None else str(h.ip), h.removable) for h in known.hosts] == [
        ("0102", None, "192.0.2.1", False), ("f.test", None, None, False), ("01:02", None, None, False),
        ("52:54:00:00:00:01", "52:54:00:00:00:01", None, False),
        ("52:54:00:00:00:03", "52:54:00:00:00:03", "192.0.2.3", False),
    ]  # fmt: skip
    subnet = known.subnets[0].subnet
    (shown,) = [r for h in known.hosts if (r := h.reservation(subnet)) is not None]
    assert (shown.name, dict(shown.options)) == ("52:54:00:00:00:03", {"hardware_type": "ethernet"})
