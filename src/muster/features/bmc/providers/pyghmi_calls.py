"""One call of pyghmi's, in a process of its own: what is asked stands as JSON on its input, what was found on its output.

It knows nothing else of Muster, so that it begins fast (``pyghmi.py`` runs it).
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Mapping
from typing import Any

from pyghmi import exceptions
from pyghmi.ipmi import command

# A BMC that tells without end of sensors and parts takes no more of the host than this.
_MOST_BYTES = 1 << 30
_POWER = {"off": 0, "on": 1, "cycle": 2, "reset": 3, "soft": 5}
_BOOT = {"pxe": "network", "disk": "hd", "cdrom": "optical", "bios": "setup"}
_LIGHT = ("off", "on", "on", "off")
# IPMI 2.0, completion codes: invalid command, unspecified of this kind, not supported in this state.
_LACKS = (0xC1, 0xC2, 0xD6)
_FRU = {
    "Manufacturer": "product_manufacturer", "Product name": "product_name", "Serial Number": "product_serial",
    "Asset Number": "product_asset_tag", "Board manufacturer": "board_mfg", "Board product name": "board_product",
    "Board serial number": "board_serial", "Chassis serial number": "chassis_serial",
}  # fmt: skip

# The library has no types.
BMC = Any


def _power(bmc: BMC) -> str:
    return str(bmc.get_power()["powerstate"])


def _switch(bmc: BMC, action: str) -> None:
    is_off = action == "cycle" and _power(bmc) == "off"
    bmc.xraw_command(netfn=0, command=2, data=(_POWER["on" if is_off else action],))


def _identified(bmc: BMC) -> str:
    """IPMI 2.0, Get Chassis Status: the third byte says whether it knows, and if so, what the light does."""
    misc = bytearray(bmc.xraw_command(netfn=0, command=1)["data"])[2]
    if not misc & 0x40:
        raise exceptions.UnsupportedFunctionality("does not say whether its light is on")
    return _LIGHT[misc >> 4 & 3]


def _identify(bmc: BMC, lit: bool) -> None:
    bmc.xraw_command(netfn=0, command=4, data=(255 if lit else 0,))


def _boot(bmc: BMC, target: str, persistent: bool) -> None:
    bmc.set_bootdev(_BOOT[target], persist=persistent)


def _lan(bmc: BMC) -> dict[str, Any]:
    found: dict[str, Any] = bmc.get_net_configuration(gateway_macs=False)
    return found | {"vlan_id": None if found.get("vlan_id") == "off" else found.get("vlan_id")}


def _community(bmc: BMC) -> str:
    told = bytes(bmc.xraw_command(netfn=0xC, command=2, data=(bmc.get_network_channel(), 16, 0, 0))["data"])
    return told[1:].partition(b"\0")[0].decode("latin-1")


def _fru(bmc: BMC) -> dict[str, dict[str, str]]:
    found = {}
    for name, part in bmc.get_inventory():
        if part:
            known = {_FRU.get(k, k.lower().replace(" ", "_")): str(v) for k, v in part.items() if v is not None}
            found[str(name).lower().replace(" ", "_")] = known
    return found


def _info(bmc: BMC) -> dict[str, str]:
    d = bytearray(bmc.xraw_command(netfn=6, command=1)["data"])
    return {
        "Device ID": str(d[0]),
        "Device Revision": str(d[1] & 15),
        "Firmware Revision": f"{d[2] & 127}.{d[3]:02x}",
        "IPMI Version": f"{d[4] & 15}.{d[4] >> 4}",
        "Manufacturer ID": str(d[6] | d[7] << 8 | (d[8] & 15) << 16),
        "Product ID": str(d[9] | d[10] << 8),
    }


def _guid(bmc: BMC) -> str:
    from pyghmi.ipmi.private import util

    return str(util.decode_wireformat_uuid(bmc.xraw_command(netfn=6, command=0x37)["data"]))


def _reset(bmc: BMC, kind: str) -> None:
    told = bmc.raw_command(netfn=6, command=2 if kind == "cold" else 3, retry=False)
    # Most do not answer: they have begun anew.
    if told and "error" in told:
        raise exceptions.IpmiException(told["error"], code=told.get("code", 0))


def _sensors(bmc: BMC) -> list[dict[str, Any]]:
    return [
        {
            "name": reading.name,
            "type": reading.type,
            "value": None if reading.value is None else str(reading.value),
            "unit": (reading.units or "").strip() or None,
            "status": ", ".join(reading.states) or "ok",
        }
        for reading in bmc.get_sensor_data()
    ]


_CALLS: Mapping[str, Callable[..., Any]] = {
    "power": _power, "switch": _switch, "identified": _identified, "identify": _identify, "boot": _boot, "lan": _lan,
    "community": _community, "fru": _fru, "info": _info, "guid": _guid, "reset": _reset, "sensors": _sensors,
    "version": lambda bmc: _info(bmc)["Firmware Revision"],
}  # fmt: skip


def said(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one call found, or the kind of its failure and a text that goes on after the BMC's name."""
    try:
        bmc = command.Command(
            bmc=asked["host"], userid=asked["user"], password=asked["password"], port=asked["port"],
            privlevel=asked["level"],
        )  # fmt: skip
        return {"found": _CALLS[asked["call"]](bmc, *asked["arguments"])}
    except exceptions.UnsupportedFunctionality as e:
        return {"kind": "unsupported", "text": str(e)}
    except exceptions.IpmiException as e:
        text = str(e)
        if "timeout" in text.lower() or "no route" in text.lower():
            return {"kind": "unavailable", "text": f"did not answer: {text}"}
        return {"kind": "unsupported" if e.ipmicode in _LACKS else "rejected", "text": f"refuses this: {text}"}
    except OSError as e:
        return {"kind": "unavailable", "text": f"cannot be reached: {e}"}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    sys.stdout.write(json.dumps(said(json.load(sys.stdin))))


if __name__ == "__main__":
    main()
