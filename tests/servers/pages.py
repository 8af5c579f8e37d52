"""The cluster's page of data that is made up, for clusters of any size: stand-ins, no members run.

What a page says of real members is asked of real members (tests/e2e/test_the_page.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from muster.web import served
from muster.web.model.page import Page

NOW = datetime(2026, 11, 30, 12, 0, 7, tzinfo=UTC)
SERVICES = (
    ("anaconda", 8000), ("https", 443), ("http", 80), ("puppet", 8140), ("puppetca", 8141), ("smartproxy", 9090),
)  # fmt: skip
SLOTS = 60
_BOUNDS = 10


def name(number: int) -> str:
    return f"proxy{number:02d}.example.com"


def page_of(members: int, *, troubled: bool = True, at: datetime = NOW, store: str = "", mark: str = "") -> Page:
    """Return a page of so many members; ``troubled``: some are out or do not answer. ``mark`` is added to every text."""
    out = (
        {2: "draining", members - 1: "unreachable", members // 2 + 4: "maintenance"} if troubled and members > 1 else {}
    )
    out = {n: s for n, s in out.items() if 0 < n <= members}
    status = _status(members, out, store, mark)
    return Page(
        at=at,
        by=name(1),
        status=status,
        parity=_parity(members, mark) if troubled else _alike(members),
        doctor=_doctor(mark, healthy=not troubled),
        certificates=_certificates(at, mark),
        puppet_ca={
            "signer": "any",
            "ca": {
                "name": f"Puppet CA of proxies{mark}",
                "not_before": (at - timedelta(days=600)).isoformat(),
                "not_after": (at + timedelta(days=5000)).isoformat(),
            },
            "list": {"number": 4711, "not_after": (at + timedelta(days=6)).isoformat()},
            "live": 12_408,
            "revoked": 311,
            "waiting": 3 if troubled else 0,
        },
        logs=_logs(members, at, mark),
        traffic=_traffic(members, at, out),
        boots=_boots(members, at, mark),
    )


def _status(members: int, out: dict[int, str], store: str, mark: str) -> dict[str, Any]:
    listed, answers = [], []
    for n in range(1, members + 1):
        stands = out.get(n, "ready")
        wished = stands in ("draining", "maintenance")
        sentence = {
            "ready": "ready",
            "draining": f"draining, by anna: kernel update{mark}",
            "maintenance": f"in maintenance, by ben: new disks{mark}",
            "unreachable": f"silent for 41 s{mark}",
        }[stands]
        verb = "put into maintenance" if stands == "maintenance" else "drained"
        reason = {"draining": f"{verb} by anna: kernel update", "maintenance": f"{verb} by ben: new disks"}.get(
            stands, ""
        )
        said = {
            "name": name(n), "member_id": n, "version": f"0.1.0{mark}", "schema_version": "0008", "host": name(n),
            "pid": 700 + n,
            "state": "ready", "reason": "", "features": {"dns": "running", "logs": "running"}, "readiness": {},
            "certificate": {
                "common_name": name(n), "names": [name(n)], "fingerprint_sha256": "00",
                "not_after": (NOW + timedelta(days=21 if n == 3 else 640)).timestamp(),
            },
            "started_at": 0.0, "age_s": 0.4, "silent": stands == "unreachable",
            "wish": {
                "wanted": "drain" if wished else "ready", "reason": reason.partition(": ")[2] + (mark if wished else ""),
                "by": ("anna" if stands == "draining" else "ben") + mark if wished else "", "version": 1, "goal": None,
                "forced": False,
            },
        }  # fmt: skip
        life = stands if wished else "ready"
        listed.append(
            {
                "name": name(n),
                "id": n,
                "address": f"192.0.2.{n}",
                "kind": "muster",
                "said": None if store else said,
                "life": None if store else {"state": life, "reason": reason, "version": 3, "age_s": 5400.0 * n},
                "stands": stands,
                "as_wished": stands != "unreachable",
                "has_this_file": n != 3,
                "sentence": sentence,
            }
        )
        for service, _ in SERVICES:
            state, why, notes = "ready", "", []
            if wished:
                state, why = "draining", reason + mark
            elif stands == "unreachable":
                state = "unreachable"
                why = f"GET https://192.0.2.{n}:9090/health/ready?service={service} failed: connection refused{mark}"
            elif n == 3 and service == "https" and out:
                state, why = "unready", f"repository rocky-9 is behind what others show{mark}"
            elif n == 3 and out:
                notes = [f"the certificate expires in 21 days{mark}"]
            answers.append({"service": service, "member": name(n), "state": state, "reason": why, "notes": notes})
    return {
        "cluster": f"proxies{mark}", "address": f"smartproxy.example.com{mark}",
        "ready": not out and not store, "members": listed,
        "services": [
            {
                "name": s, "listen_port": p, "also_listen_ports": [8443] if s == "smartproxy" else [], "balance": "random",
                "members": [a for a in answers if a["service"] == s],
            }
            for s, p in SERVICES
        ],
        "nowhere": [], "store": {"ok": not store, "trouble": store or None},
        "steward": {
            "sentence": "" if store else f"{members - len(out)} of {members} members are ready.{mark}",
            "by": "" if store else f"member {name(1)} 811.1", "decides": not store,
        },
        "balancers": [
            {
                "name": f"lb{n}{mark}", "address": f"192.0.2.{200 + n}",
                "said": None if store else {
                    "name": f"lb{n}", "engine": f"HAProxy 2.6.12{mark}", "generation": "5d41402a",
                    "opinions": {name(m): dict.fromkeys(dict(SERVICES), "down") for m, w in out.items() if w[0] == "u"},
                    "sessions": {name(m): 12 * m for m in range(1, members + 1)}, "trouble": "", "totals": {},
                    "blind": False, "refused": "", "held": [], "age_s": 0.3, "silent": False,
                },
                "unchecked": [],
            }
            for n in (1, 2)
        ],
        "balancer": None,
    }  # fmt: skip


def _alike(members: int) -> dict[str, Any]:
    found = {
        "members": [{"name": name(n), "kind": "muster"} for n in range(1, members + 1)], "alike": True, "fields": 48,
        "drifts": [], "unasked": {}, "notes": [], "unneeded": [],
    }  # fmt: skip
    return {"found": found, "age_s": 130.0, "by": f"member {name(1)}"}


def _parity(members: int, mark: str) -> dict[str, Any]:
    alike = _alike(members)
    drift = {
        "field": "dns.settings.dns_ttl", "values": {}, "majority": 86400, "agreed": True, "differing": [name(3)],
        "expected": {},
        "sentence": f"dns.settings.dns_ttl differs: {name(3)} has 3600, most have 86400{mark}",
    }  # fmt: skip
    expected = {
        **drift, "differing": [], "expected": {name(2): "other network"},
        "sentence": f"{name(2)}: httpboot.state differs as expected (other network){mark}",
    }  # fmt: skip
    more = {"alike": False, "drifts": [drift, expected], "unasked": {name(2): f"GET failed: timed out{mark}"}}
    return {**alike, "found": {**alike["found"], **more}, "by": f"member {name(1)}{mark}"}


def _doctor(mark: str, *, healthy: bool) -> dict[str, Any]:
    if healthy:
        return {"found": {"healthy": True, "findings": [], "causes": []}, "age_s": 3600.0, "by": "admin.example.com"}
    first = {
        "code": "MEMBER-DOWN", "place": name(2), "severity": "error", "sentence": f"{name(2)} answers on no port{mark}",
        "cause": f"Its process ended, or its host is off.{mark}", "remedy": f"systemctl status muster on {name(2)}{mark}",
        "because": None,
    }  # fmt: skip
    follows = {**first, "code": "SERVICE-SHORT", "because": "MEMBER-DOWN"}
    warning = {
        **first, "code": "CERT-ENDS", "severity": "warning", "place": name(3),
        "sentence": f"The certificate of {name(3)} ends in 21 days{mark}",
    }  # fmt: skip
    found = {
        "healthy": False,
        "findings": [first, follows, warning],
        "causes": [{"code": "MEMBER-DOWN", "findings": 2}, {"code": "CERT-ENDS", "findings": 1}],
    }
    return {"found": found, "age_s": 3600.0, "by": f"admin.example.com{mark}"}


def _certificates(at: datetime, mark: str) -> list[dict[str, Any]]:
    def one(kind: str, of: str, days: int) -> dict[str, Any]:
        return {
            "kind": kind, "name": of, "path": f"/etc/muster/pki/{kind}/{of}{mark}",
            "subject_cn": of or f"Muster cluster CA{mark}",
            "names": [of], "addresses": [], "issuer": "CN=Muster", "not_before": (at - timedelta(days=100)).isoformat(),
            "not_after": (at + timedelta(days=days)).isoformat(), "serial": "1", "fingerprint_sha256": "00",
            "is_ca": kind == "ca",
            "key": "EC secp256r1",
        }  # fmt: skip

    return [
        one("ca", "", 3400), one("member", name(1), 640), one("client", "foreman.example.com", 300),
        one("balancer", "balancer", 12),
    ]  # fmt: skip


def _logs(members: int, at: datetime, mark: str) -> dict[str, Any]:
    texts = (
        ("INFO", "Finished POST /dns/ with 200 (8.41 ms)"),
        ("INFO", "Certificate presented names=proxy expires=2028-09-01"),
        ("WARN", "The provider did not answer in time; tried again provider=nsupdate"),
        ("ERROR", "Feature dns: the server refused the update: NOTAUTH"),
    )
    records = []
    for n in range(160):
        level, text = texts[3 if n % 41 == 40 else 2 if n % 17 == 16 else n % 2]
        records.append(
            {
                "timestamp": (at - timedelta(seconds=7 * (160 - n))).timestamp(),
                "level": level,
                "message": f"{text} n={n}{mark}",
                "member": name(1 + n % members),
                **({"backtrace": f"Traceback{mark}\n  line"} if level == "ERROR" else {}),
                "request_id": f"{n:08x}",
            }
        )
    return {"info": {"size": 2000, "tail_size": 1000, "failed_modules": {}}, "logs": records}


def _boots(members: int, at: datetime, mark: str) -> list[dict[str, Any]]:
    said = (
        ("offered", "address 192.0.2.101 promised (unused_ip)", True),
        ("reserved", "reserved 192.0.2.101 in DHCP (isc): grub2/grubx64.efi of 192.0.2.1", True),
        ("configured", "PXEGrub2 menu written", True),
        ("tftp", "TFTP grub2/grubx64.efi: sent, 2638720 bytes", True),
        ("tftp", "TFTP grub2/x86_64-efi/command.lst: is not there", False),
        ("tftp", "TFTP grub2/grub.cfg-01-52-54-00-b0-07-02: sent, 388 bytes", True),
        ("http", "HTTP GET /httpboot/boot/vmlinuz: 200, 14190528 bytes", True),
        ("http", "HTTP GET /httpboot/boot/initrd: 200, 1149776 bytes", True),
        ("template", "asked Foreman for provision: it answered 200", True),
        ("built", "reported built: it answered 200", True),
    )

    def one(number: int, steps: int, stage: str, stops: str) -> dict[str, Any]:
        happenings = [
            {
                "at": (at - timedelta(seconds=60 * number + 3 * (steps - n))).isoformat(timespec="milliseconds"),
                "member": name(1 + n % members), "kind": kind, "address": "192.0.2.101", "what": f"{what}{mark}", "ok": ok,
                "detail": {},
            }
            for n, (kind, what, ok) in enumerate(said[:steps])
        ]  # fmt: skip
        return {
            "mac": f"52:54:00:b0:07:{number:02x}", "names": [f"host{number}.example.com{mark}"],
            "addresses": ["192.0.2.101"],
            "happenings": happenings, "stage": stage, "stops": f"{stops}{mark}", "cut": number == 2, "lost": {},
        }  # fmt: skip

    return [
        one(
            1,
            6,
            "menu",
            "It has its menu and never asked for its kernel by HTTP. Does port 8000 reach it?",
        ),
        one(2, len(said), "built", "It was reported built, which is the end."),
    ]


def _traffic(members: int, at: datetime, out: dict[int, str]) -> dict[str, Any]:
    def row(n: int, busy: int) -> dict[str, Any]:
        stands = out.get(n, "ready")
        calls, errors, buckets = [], [], []
        states = "r" * SLOTS
        for slot in range(SLOTS):
            load = busy * (1.3 + math.sin((slot + 7 * n) / 6)) * (1 + (slot * 37 + n * 11) % 10 / 10)
            if (stands == "unreachable" and slot > 48) or (stands != "ready" and slot > 55):
                load = 0
            count = int(load)
            wrong = count // 9 if n == 3 and 20 < slot < 26 else 0
            spread = [0] * _BOUNDS
            slow = 4 if n == 3 and 18 < slot < 28 else 2
            spread[1], spread[slow] = count - count // 8, count // 8
            calls.append(count)
            errors.append(wrong)
            buckets.append(spread if count else [])
        if stands == "unreachable":
            states = "r" * 49 + "-" * 11
        elif stands != "ready":
            states = "r" * 56 + "dddd"
        elif n == 3 and out:
            states = "r" * 20 + "uuuuuu" + "r" * 34
        return {"calls": calls, "errors": errors, "buckets": buckets, "states": states}

    return {
        "step_s": 60,
        "from": (int(at.timestamp()) // 60 - SLOTS + 1) * 60,
        "slots": SLOTS,
        "services": {
            s: {name(n): row(n, {"smartproxy": 20, "https": 60, "puppet": 9}.get(s, 0)) for n in range(1, members + 1)}
            for s, _ in SERVICES
        },
        "unasked": {
            name(n): "GET /cluster/rings.json failed: connection refused" for n, s in out.items() if s == "unreachable"
        },
    }


class StandIn:
    """Stands in for a watch: shows the page that it is given; a test turns it."""

    def __init__(self, page: Page) -> None:
        self.viewers = 0
        self._page = page
        self._turned = asyncio.Event()

    def show(self, page: Page) -> None:
        """Have viewers see another page; from the loop that serves."""
        self._page = page
        turned, self._turned = self._turned, asyncio.Event()
        turned.set()

    async def page(self) -> Page:
        return self._page

    async def turned(self, within_s: float) -> Page | None:
        try:
            async with asyncio.timeout(within_s):
                await self._turned.wait()
        except TimeoutError:
            return None
        return self._page

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        self.viewers += 1
        try:
            yield
        finally:
            self.viewers -= 1


@contextlib.asynccontextmanager
async def serving(page: Page) -> AsyncIterator[tuple[str, StandIn]]:
    """Yield the address that opens once, and what decides what is seen there."""
    watch = StandIn(replace(page))
    async with served.opened(watch) as address:
        yield address, watch
