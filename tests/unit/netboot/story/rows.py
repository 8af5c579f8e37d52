"""Rows of boot events as a store gives them, for tests."""

from __future__ import annotations

from typing import Any

from muster.netboot.story.ledger import Event

MAC, OTHER = "52:54:00:aa:00:01", "52:54:00:aa:00:02"
IP = "192.0.2.10"


class Rows:
    """Makes rows, each a second after the last."""

    def __init__(self) -> None:
        self.made: list[Event] = []

    def add(self, kind: str, mac: str = "", address: str = "", *, after_s: float = 1.0, **detail: Any) -> Event:
        at = (self.made[-1].at if self.made else 1_000_000.0) + after_s
        number = len(self.made) + 1
        self.made.append(Event(number, mac, address, at, f"proxy0{1 + number % 3}.example.com", kind, detail))
        return self.made[-1]

    def prepared(self, mac: str = MAC, address: str = IP) -> None:
        self.add("offered", mac, address)
        self.add(
            "reserved", mac, address, name="h1.example.com", provider="isc", file="grubx64.efi", server="192.0.2.1"
        )
        self.add("configured", mac, variant="PXEGrub2")

    def loaded(self, address: str = IP, file: str = "grub2/grubx64.efi", mac: str = "", **detail: Any) -> None:
        self.add("tftp", mac, address, **{"file": file, "outcome": "sent", "bytes": 7, **detail})

    def fetched(
        self, path: str = "/httpboot/boot/vmlinuz", address: str = IP, status: int = 200, **detail: Any
    ) -> None:
        self.add("http", "", address, **{"method": "GET", "path": path, "status": status, "bytes": 9, **detail})

    def asked(self, template: str = "provision", status: int = 200, address: str = IP) -> None:
        self.add("template", "", address, method="GET", template=template, status=status)

    def built(self, status: int = 201, address: str = IP) -> None:
        self.add("built", "", address, method="POST", template="built", status=status)

    def whole_boot(self) -> None:
        self.loaded()
        self.loaded(file="grub2/grub.cfg-01-52-54-00-aa-00-01")
        self.fetched()
        self.fetched("/httpboot/boot/initrd")
        self.asked()
        self.built()
