"""A machine's story from its rows: pure. Each row as a sentence, and where the story stops, with what is usually next."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from muster.kernel.happenings import FAILED
from muster.netboot.story import whose
from muster.netboot.story.ledger import KEPT_OF_ONE, Event, Found

MOST_MACHINES = 20
"""How many machines are told of where nobody is asked for."""

# Steps of a boot, in their order.
_NONE, _OFFERED, _PREPARED, _TOLD, _LOADER, _MENU, _KERNEL, _TEMPLATE, _BUILT = range(9)
STAGES = ("nothing", "offered", "prepared", "told", "loader", "menu", "kernel", "template", "built")
"""How far a boot came, by step."""

_KERNELS = re.compile(r"vmlinuz|initrd|initramfs")
_MENUS = re.compile(r"pxelinux\.cfg/|grub\.cfg|elilo\.conf|\.(?:ipxe|cfg|conf)\Z")
_LOADERS = re.compile(r"\.(?:efi|0|kpxe|kkpxe|pxe|lkrn|c32|mod|lst|signed)\Z")
# What firmware calls templates that are no installer's.
_MENU_TEMPLATES = frozenset({"ipxe", "gpxe", "pxegrub", "pxegrub2", "pxelinux", "httpboot"})
_WITHOUT_BYTES = {"absent": "is not there", "asked": "asked for its size"}
_WELL_SENT = frozenset({"sent", "asked", "superseded"})
# Foreman writes a menu when a machine is built, within seconds; later it is for the next boot.
_AFTERWARDS_S = 60.0
_PREPARING = frozenset({"reserved", "released", "configured", "unconfigured"})


@dataclass(frozen=True)
class Story:
    """What is told of one machine, or of an address whose machine nobody knows.

    Attributes:
        mac: empty: nobody knows the machine.
        names, addresses: all that it had, the newest last.
        events: ascending.
        stage: how far its last boot came, a word of :data:`STAGES`.
        stops: a sentence or two: where it stops, and what is usually next.
        is_cut: whether older rows were left out.
        lost: how many rows members could not write meanwhile, by member; of which machines nobody knows.
    """

    mac: str
    names: Sequence[str]
    addresses: Sequence[str]
    events: Sequence[Event]
    stage: str
    stops: str
    is_cut: bool = False
    lost: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as ``muster explain --json`` prints it."""
        return {
            "mac": self.mac or None,
            "names": list(self.names),
            "addresses": list(self.addresses),
            "happenings": [_as_json(e) for e in self.events],
            "stage": self.stage,
            "stops": self.stops,
            "cut": self.is_cut,
            "lost": dict(self.lost),
        }


def story(found: Found, *, mac: str = "", address: str = "", since: float = 0.0) -> Story:
    """Return the story of a machine by its hardware address, or of an address of which nobody knows whose it is.

    ``since``: store time; what is older is left out.
    """
    mine = whose.of(mac, found.events) if mac else [e for e in found.events if e.address == address and not e.mac]
    # So many are kept, and what was before them is gone.
    is_cut = len(mine) >= KEPT_OF_ONE
    mine = [e for e in mine if e.at >= since]
    return _told(mac, _newest(mine), is_cut=is_cut, lost=found.lost, address=address)


def machine_at(found: Found, address: str) -> str:
    """Return the hardware address of the machine that had an address last; empty: nobody knows."""
    last = found.events[-1].at if found.events else 0.0
    return whose.whose(address, last, found.events)


def recent(newest: Sequence[Event]) -> list[Story]:
    """Return the stories of the machines of which something happened last, the newest first, from these rows alone."""
    by_mac: dict[str, list[Event]] = {}
    saying = whose.who_say(newest)
    for event in newest:
        for mac in whose.machines(event, saying):
            by_mac.setdefault(mac, []).append(event)
    # Machines that somebody made up, in paths, take no place from those that there are.
    told = [_told(mac, _newest(events)) for mac, events in by_mac.items()]
    first = sorted(told, key=lambda s: (any(e.is_proven for e in s.events), *_last(s)), reverse=True)
    return sorted(first[:MOST_MACHINES], key=_last, reverse=True)


def _last(one: Story) -> tuple[float, int]:
    return one.events[-1].at, one.events[-1].id


def _newest(events: Sequence[Event]) -> Sequence[Event]:
    """Return so many as are told, the newest; of them half are proven where there are as many."""
    if len(events) <= KEPT_OF_ONE:
        return events
    proven = [e for e in events if e.is_proven]
    unproven = [e for e in events if not e.is_proven]
    unproven = unproven[-(KEPT_OF_ONE - min(len(proven), KEPT_OF_ONE // 2)) :]
    kept = {e.id for e in (*unproven, *proven[-(KEPT_OF_ONE - len(unproven)) :])}
    return [e for e in events if e.id in kept]


def what(event: Event) -> str:
    """Return a row as a sentence without a full stop, without its time, member and machine."""
    say = _SAID.get(event.kind)
    # Of a member of a newer version.
    return say(event, event.detail) if say is not None else event.kind


def went_well(event: Event) -> bool:
    """Whether what was tried came about."""
    detail = event.detail
    if FAILED in detail:
        return False
    if event.kind == "tftp":
        return detail.get("outcome") in _WELL_SENT
    return _status(detail) < 400 and not detail.get("cut")


def _told(
    mac: str, events: Sequence[Event], *, is_cut: bool = False, lost: Mapping[str, int] | None = None, address: str = ""
) -> Story:
    names = dict.fromkeys(str(e.detail["name"]) for e in events if e.kind == "reserved" and e.detail.get("name"))
    addresses = dict.fromkeys(e.address for e in events if e.address)
    stage, stops = _stop(events)
    return Story(
        mac, list(names), list(addresses) or [address] * bool(address), events, stage, stops, is_cut, lost or {}
    )


def _as_json(event: Event) -> dict[str, Any]:
    at = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds")
    return {
        "at": at.replace("+00:00", "Z"), "member": event.member, "kind": event.kind, "address": event.address or None,
        "what": what(event), "ok": went_well(event), "detail": dict(event.detail),
    }  # fmt: skip


def _stop(events: Sequence[Event]) -> tuple[str, str]:
    """Return how far the last boot came, and where the story stops."""
    stage, was_built, built_at = _NONE, False, 0.0
    wrong: Event | None = None
    absent: Event | None = None
    for event in events:
        if not went_well(event):
            is_absent = event.detail.get("outcome") == "absent" or (
                event.kind == "http" and _status(event.detail) == 404
            )
            # Firmware and loaders try a dozen names for each machine, which is no news.
            wrong, absent = (wrong, event) if is_absent else (event, None)
            continue
        step = _step(event)
        if step is None:
            continue
        is_anew = step in (_TOLD, _LOADER) and stage > _MENU
        if step <= _PREPARED < stage:
            # Foreman writes menus while a machine boots, too.
            if stage < _BUILT or event.at - built_at < _AFTERWARDS_S:
                continue
            is_anew = True
        if is_anew:
            was_built, stage = stage == _BUILT and step > _PREPARED, step
        built_at = event.at if step == _BUILT else built_at
        stage, wrong, absent = max(stage, step), None, None
    if not events:
        return STAGES[stage], "Nothing is told of it."
    if wrong is not None:
        return STAGES[stage], f"The last that was tried failed: {what(wrong)}. {_WRONG.get(wrong.kind, '')}".rstrip()
    said = _NEXT[stage]
    if stage in (_LOADER, _MENU) and was_built:
        said = (
            f"It was reported built, and has its {STAGES[stage]} again since. If its menu says that it boots from its "
            "disk, that is all."
        )
    elif absent is not None and stage < _TEMPLATE:
        said += f" The last that it asked for is not there: {_file(absent)}."
    return STAGES[stage], said


def _step(event: Event) -> int | None:
    """Return which step of a boot a row is, None for none."""
    kind, detail = event.kind, event.detail
    if kind in ("tftp", "http"):
        path = _file(event)
        if _KERNELS.search(path):
            return _KERNEL
        return _MENU if _MENUS.search(path) else _LOADER if _LOADERS.search(path) else _KERNEL
    if kind == "template":
        return _MENU if str(detail.get("template", "")).lower() in _MENU_TEMPLATES else _TEMPLATE
    return {"offered": _OFFERED, "proxydhcp": _TOLD, "built": _BUILT}.get(
        kind, _PREPARED if kind in _PREPARING else None
    )


def _file(event: Event) -> str:
    return str(event.detail.get("file") or event.detail.get("path") or "")


def _status(detail: Mapping[str, Any]) -> int:
    found = detail.get("status")
    return found if isinstance(found, int) else 0


_NEXT = {
    _NONE: "Nothing of a boot is told.",
    _OFFERED: "It was promised an address, and nothing was reserved: has Foreman saved the host?",
    _PREPARED: (
        "All is prepared, and it never asked for its loader. Is it on, and does it boot from the network? Does DHCP name "
        "a TFTP server of this cluster (next-server; UDP passes no balancer)?"
    ),
    _TOLD: (
        "It was told what to load, and never asked for it. Does UDP 69, or for firmware that boots by HTTP port 8000 of "
        "the balancer, reach it?"
    ),
    _LOADER: (
        "It has its loader and never asked for its menu, nor for its kernel. Is it the loader for this firmware, and may "
        "Secure Boot refuse it?"
    ),
    _MENU: (
        "It has its menu and never asked for its kernel by HTTP. Does port 8000 of the balancer reach it, and does the "
        "menu name it?"
    ),
    _KERNEL: (
        "It has its kernel or its initial RAM disk and never asked Foreman for its template. Does the kernel's line name "
        "the template's URL, and has the installer a driver for its network card?"
    ),
    _TEMPLATE: (
        "It has its template and was not reported built. It is being installed, or its installer stopped: look at it."
    ),
    _BUILT: "It was reported built, which is the end.",
}

_WRONG = {
    "offered": "See docs/admin/dhcp.md.",
    "reserved": "DHCP has no such reservation unless it had it before.",
    "configured": "The machine gets the menu that there was before, if any.",
    "tftp": "Most machines ask again by themselves a few times, then boot from the next device.",
    "http": "Most loaders do not ask again: boot it once more when the cause is gone.",
    "template": "Foreman knows the host by its address or token: is it in build mode, and has it a template of the kind?",
    "built": "The host stays in build mode: what the machine reports, Foreman did not take.",
}


def _failing(done: str, tried: str, detail: Mapping[str, Any]) -> str:
    return f"{tried} failed: {detail[FAILED]}" if FAILED in detail else done


def _offered(event: Event, detail: Mapping[str, Any]) -> str:
    if FAILED in detail:
        return f"no address was promised: {detail[FAILED]}"
    return f"address {event.address} promised (unused_ip)"


def _reserved(event: Event, detail: Mapping[str, Any]) -> str:
    at = f"{event.address} in DHCP ({detail.get('provider', '')})"
    loads = f": {detail['file']}" if detail.get("file") else ""
    loads += f" of {detail['server']}" if detail.get("server") else ""
    return _failing(f"reserved {at}{loads}", f"reserving {at}", detail)


def _released(event: Event, detail: Mapping[str, Any]) -> str:
    at = f"{event.address} in DHCP ({detail.get('provider', '')})"
    return _failing(f"reservation removed: {at}", f"removing the reservation of {at}", detail)


def _configured(_: Event, detail: Mapping[str, Any]) -> str:
    return _failing(
        f"{detail.get('variant', '')} menu written", f"writing the {detail.get('variant', '')} menu", detail
    )


def _unconfigured(_: Event, detail: Mapping[str, Any]) -> str:
    return _failing(
        f"{detail.get('variant', '')} menu deleted", f"deleting the {detail.get('variant', '')} menu", detail
    )


def _proxydhcp(_: Event, detail: Mapping[str, Any]) -> str:
    of = f" of {detail['server']}" if detail.get("server") else ""
    return f"ProxyDHCP: told to load {detail.get('file', '')}{of}"


def _tftp(event: Event, detail: Mapping[str, Any]) -> str:
    outcome = str(detail.get("outcome", ""))
    if outcome in _WITHOUT_BYTES:
        return f"TFTP {_file(event)}: {_WITHOUT_BYTES[outcome]}"
    why = f" ({detail['why']})" if detail.get("why") else ""
    return f"TFTP {_file(event)}: {outcome}, {detail.get('bytes', 0)} bytes{why}"


def _http(event: Event, detail: Mapping[str, Any]) -> str:
    if FAILED in detail:
        end = f"{detail.get('status', '')}, {detail[FAILED]}"
    else:
        end = f"{detail.get('status', '')}, {detail.get('bytes', 0)} bytes"
        end += f" of {detail['of']}: cut off" if detail.get("cut") else ""
    return f"HTTP {detail.get('method', '')} {_file(event)}: {end}"


def _template(_: Event, detail: Mapping[str, Any]) -> str:
    verb = "asked Foreman for" if detail.get("method", "GET") == "GET" else "told Foreman"
    return f"{verb} {detail.get('template', '')}: {_answer(detail)}"


def _built(_: Event, detail: Mapping[str, Any]) -> str:
    return f"reported built: {_answer(detail)}"


def _answer(detail: Mapping[str, Any]) -> str:
    return str(detail[FAILED]) if FAILED in detail else f"it answered {detail.get('status', '')}"


_SAID: Mapping[str, Callable[[Event, Mapping[str, Any]], str]] = {
    "offered": _offered,
    "reserved": _reserved,
    "released": _released,
    "configured": _configured,
    "unconfigured": _unconfigured,
    "proxydhcp": _proxydhcp,
    "tftp": _tftp,
    "http": _http,
    "template": _template,
    "built": _built,
}
