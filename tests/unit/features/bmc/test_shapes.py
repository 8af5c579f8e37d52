from __future__ import annotations

from muster.features.bmc import shapes


def test_labels_become_keys() -> None:
    assert shapes.lan("802.1q VLAN ID  : Disabled\nnothing\n   : O=OEM\nMAC Address : 00:11\n") == {
        "8021q_vlan_id": "Disabled",
        "": "O=OEM",
        "mac_address": "00:11",
    }


def test_a_label_without_a_value_has_the_lines_below_it() -> None:
    text = "Device ID : 0\nAdditional Device Support :\n    Sensor Device\n    SEL Device\nEnd : x\n  odd\n"
    assert shapes.info(text) == {
        "Device ID": "0",
        "Additional Device Support": ["Sensor Device", "SEL Device"],
        "End": "x",
    }


def test_parts_are_read_and_the_first_that_says_it_is_believed() -> None:
    text = (
        "junk : 1\nFRU Device Description : Board (ID 1)\n Board Mfg : B\n\n"
        "FRU Device Description : Box (ID 2)\n Product Serial : S\n"
    )
    found = shapes.frus(text, "FRU Device Description")
    assert found == {"board": {"board_mfg": "B"}, "box": {"product_serial": "S"}}
    assert shapes.of_frus(found, "serial") == "S"
    assert shapes.of_frus(found, "manufacturer") == "B"
    assert shapes.of_frus(found, "model") is None
    assert shapes.of_frus(found, "list") is found


def test_what_is_no_row_of_sensors_is_none() -> None:
    found = shapes.sensors("Get SDR 0000 command failed\nCPU Temp | 40.000 | degrees C | ok | na\nFan | na | | na\n")
    assert found["cpu_temp"] == {
        "name": "cpu_temp", "value": "40.000", "unit": "degrees C", "status": "ok", "lower_non_recoverable": None,
    }  # fmt: skip
    assert found["fan"]["value"] is None
    assert len(found) == 2
