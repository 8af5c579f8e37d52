"""What the tools of IPMI print, read into values. Pure; every line that has another form is passed over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_DROPPED = re.compile(r"[().]")
_COLUMNS = ("value", "unit", "status", "lower_non_recoverable", "lower_critical", "lower_non_critical",
            "upper_non_critical", "upper_critical", "upper_non_recoverable")  # fmt: skip
_NONE = ("", "na")


def key(text: str) -> str:
    """Return a label as keys are written: ``802.1q VLAN ID`` is ``8021q_vlan_id``."""
    return _DROPPED.sub("", text.strip()).lower().replace(" ", "_")


def lan(text: str) -> dict[str, str]:
    """Return ``label : value`` lines; of lines without a label, which go on with the one above, the last stands under ""."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {key(label): value.strip() for label, colon, value in pairs if colon}


def info(text: str) -> dict[str, str | list[str]]:
    """Return ``label : value`` lines, labels as printed; a label without a value has the indented lines below it."""
    found: dict[str, str | list[str]] = {}
    below: list[str] | None = None
    for line in text.splitlines():
        label, colon, value = line.partition(":")
        if line.startswith(" ") and below is not None:
            below.append(line.strip())
        elif colon and value.strip():
            found[label.strip()], below = value.strip(), None
        elif colon:
            below = []
            found[label.strip()] = below
    return found


def frus(text: str, begins: str, labels: Mapping[str, str] = {}) -> dict[str, dict[str, str]]:
    """Return parts by name with their facts; a part begins with the label ``begins``.

    ``labels`` gives labels of a tool the names that ipmitool has for them, which are ours.
    """
    found: dict[str, dict[str, str]] = {}
    part: dict[str, str] | None = None
    for line in text.splitlines():
        label, colon, value = line.partition(":")
        if not colon:
            continue
        if label.strip() == begins:
            part = found.setdefault(key(value.partition("(")[0]), {})
        elif part is not None and value.strip():
            name = key(label)
            part.setdefault(labels.get(name, name), value.strip())
    return found


_FRU = {
    "serial": ("product_serial", "chassis_serial", "board_serial"),
    "manufacturer": ("product_manufacturer", "board_mfg"),
    "model": ("product_name", "board_product"),
    "asset_tag": ("product_asset_tag",),
}


def of_frus(found: Mapping[str, Mapping[str, str]], field: str) -> Any:
    """Return one fact, of the first part that has it; ``list``: all."""
    if field == "list":
        return found
    return next((part[name] for name in _FRU[field] for part in found.values() if name in part), None)


def sensors(text: str) -> dict[str, dict[str, Any]]:
    """Return the rows of ``ipmitool sensor``, columns between bars; what a sensor has not is None."""
    found = {}
    for line in text.splitlines():
        name, *columns = (c.strip() for c in line.split("|"))
        if len(columns) >= 3:
            values = {k: None if v in _NONE else v for k, v in zip(_COLUMNS, columns, strict=False)}
            found[key(name)] = {"name": key(name), **values}
    return found
