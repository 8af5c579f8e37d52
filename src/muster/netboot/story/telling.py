"""One member's part in the stories: what happened waits here for a second at most, then it is written; nobody waits for it.

Whoever asks for boot files shows nothing, so how much is told of one and of all is bounded; what is too much is dropped,
counted, and said in the story.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter

from muster.kernel import log
from muster.kernel.errors import MusterError, Rejected
from muster.kernel.happenings import Detail, Happening
from muster.kernel.names import MACAddress, shown, source_of, unmapped
from muster.netboot.buckets import Buckets
from muster.netboot.story.ledger import LOST, OF_MACHINES, BootEvents

_log = log.logger("netboot")

_WAITING: Final = 2000
_AT_ONCE: Final = 500
_LAST_S: Final = 2.0
# What a machine does by itself; the rest is Foreman's doing, who shows a certificate.
_OF_MACHINES: Final = OF_MACHINES | {"proxydhcp"}
# What changes whose an address is.
_OF_FOREMAN: Final = frozenset({"offered", "reserved", "released"})
# A boot asks for some thirty files, and firmware for a dozen that are not there, within seconds.
_EACH, _TOGETHER = (2.0, 150.0), (100.0, 1000.0)
_LONGEST: Final = 300
_LOOKED_AT: Final = 4096
# Whatever server takes a name with a query for a file's, or a name with it is reserved: hosts' tokens stand there.
_SECRETS = re.compile(r"(?:\?|%3[Ff])\S*|(?<=//)[^/@\s]{1,500}@")

# As boot loaders write it into names of files: grub.cfg-01-52-54-00-12-34-56, host-config/52-54-00-12-34-56/grub2.
_MAC_IN_PATH = re.compile(r"(?<![0-9A-Fa-f])((?:[0-9A-Fa-f]{2}[-:]){5,6}[0-9A-Fa-f]{2})(?![0-9A-Fa-f]|[-:][0-9A-Fa-f])")
# The type of hardware before the address: Ethernet.
_ETHERNET = "01-"
_MAC_CHARACTERS: Final = 17

# Whose an address is, is asked of the DHCP server again after a while: no machine boots as fast with one that was another's.
_KNOWN_S = 10.0
_KNOWN: Final = 2048
_ASKED_AT_ONCE: Final = 8
_ASKED_WITHIN_S: Final = 1.0

Whose = Callable[[str], Awaitable[MACAddress | None]]
"""Returns to whom the DHCP server gave an address; None: to nobody that it knows."""


async def nobodys(_: str) -> MACAddress | None:
    """Know of no address whose it is."""
    return None


@dataclass(frozen=True, slots=True)
class _Waiting:
    one: Happening
    at: float


class Telling:
    """What a member tells. Call it with what happened; :meth:`flush` writes.

    Args:
        whose: asks the DHCP server; bounded in number and time here.
        now: a clock that only goes forward.

    Attributes:
        lost: what was dropped and not told of yet.

    Concurrency: one loop; one :meth:`flush` at a time.
    """

    def __init__(
        self,
        events: BootEvents,
        registry: CollectorRegistry,
        *,
        whose: Whose = nobodys,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lost = 0
        self._events = events
        self._whose = whose
        self._now = now
        self._waiting: deque[_Waiting] = deque()
        self._buckets = Buckets(_EACH, _TOGETHER, now())
        self._known: OrderedDict[str, tuple[MACAddress | None, float]] = OrderedDict()
        self._seldom = log.Seldom(1)
        self._told = Counter("muster_boot_happenings_told", "What was told of machines that boot", registry=registry)
        self._dropped = Counter(
            "muster_boot_happenings_dropped", "What was not told of machines that boot, by why", ("reason",),
            registry=registry,
        )  # fmt: skip

    def __call__(self, one: Happening, /) -> None:
        """Note what happened; dropped, and counted, when there is too much."""
        now = self._now()
        if one.kind in _OF_FOREMAN and one.address:
            # What was known of the address is over, and a machine may come with it within seconds.
            self._known.pop(one.address, None)
        if one.kind in _OF_MACHINES and self._buckets.full(source_of(one.address) or one.mac, now) is not None:
            self._drop("rate", 1)
        elif len(self._waiting) >= _WAITING:
            self._drop("queue", 1)
        else:
            self._waiting.append(_Waiting(one, now))

    async def flush(self) -> None:
        """Write what waits. What the store does not take is dropped: later boots are worth more than a queue of old ones."""
        while self._waiting or self.lost:
            some = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            await self._ask({unmapped(w.one.address) for w in some if w.one.kind in _OF_MACHINES and w.one.address})
            now, lost = self._now(), self.lost
            rows = [self._row(w, now) for w in some]
            if lost:
                rows.append({"mac": "", "address": "", "age_s": 0.0, "kind": LOST, "detail": {"count": lost}})
            try:
                await self._events.tell(rows)
            except MusterError as e:
                if some:
                    self._drop("store", len(some))
                if (held := self._seldom.held_back("store")) is not None:
                    _log.warning(f"What happened to machines that boot was not told: {e}{log.and_more(held)}")
                return
            self._told.inc(len(some))
            self.lost -= lost

    async def close(self) -> None:
        """Write what still waits, if that does not take long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_S):
                await self.flush()

    def _drop(self, why: str, count: int) -> None:
        self.lost += count
        self._dropped.labels(why).inc(count)

    async def _ask(self, addresses: set[str]) -> None:
        """Find out whose addresses are that are not known, as many as can be asked for in a moment."""
        now = self._now()
        unknown = [a for a in sorted(addresses) if self._known.get(a, (None, 0.0))[1] <= now][:_ASKED_AT_ONCE]
        if not unknown:
            return

        async def ask(address: str) -> None:
            try:
                mac = await self._whose(address)
            except MusterError:
                mac = None
            self._known[address] = (mac, now + _KNOWN_S)
            self._known.move_to_end(address)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ASKED_WITHIN_S):
                await asyncio.gather(*(ask(a) for a in unknown))
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)

    def _row(self, waiting: _Waiting, now: float) -> dict[str, object]:
        one = waiting.one
        address = unmapped(one.address) if one.address else ""
        detail: dict[str, Detail] = {k: _fit(v) for k, v in one.detail.items() if v is not None}
        mac = one.mac
        if one.kind in _OF_MACHINES and one.kind != "proxydhcp":
            # What the DHCP server says counts before what anybody may write into a path or a header.
            mac, detail["mac_from"] = self._machine(one, address)
            if mac is None:
                del detail["mac_from"]
        row: dict[str, object] = {"mac": str(mac or ""), "address": address, "age_s": max(0.0, now - waiting.at)}
        return {**row, "kind": one.kind, "detail": detail}

    def _machine(self, one: Happening, address: str) -> tuple[MACAddress | None, str]:
        leased = self._known.get(address, (None, 0.0))[0]
        if leased is not None:
            return leased, "dhcp"
        if one.mac is not None:
            return one.mac, "header"
        return mac_in(str(one.detail.get("file") or one.detail.get("path") or "")), "path"


def mac_in(path: str) -> MACAddress | None:
    """Return the hardware address that stands in the path of a boot file; None: none does."""
    found = _MAC_IN_PATH.search(path)
    if found is None:
        return None
    text = found[1]
    if len(text) > _MAC_CHARACTERS and not text.startswith(_ETHERNET):
        return None
    try:
        return MACAddress.parse(text[-_MAC_CHARACTERS:])
    except Rejected:
        # Of hyphens and colons in one.
        return None


def _fit(value: Detail) -> Detail:
    """Return a value bounded, of one line, and without what may be a secret in a URL: its query, its password."""
    return shown(_SECRETS.sub("", value[:_LOOKED_AT]), _LONGEST) if isinstance(value, str) else value
