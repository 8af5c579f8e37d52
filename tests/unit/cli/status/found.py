"""What ``muster status`` found, as the tests would have it."""

from __future__ import annotations

from typing import Any

DRAINED = {"state": "drained", "reason": "drained by root: kernel update"}
RESTING = {"state": "maintenance", "reason": "put into maintenance by root: host is off"}


def member(name: str, **more: Any) -> dict[str, Any]:
    given = {"name": f"{name}.test", "stands": "ready", "sentence": "ready", "life": {"state": "ready", "reason": ""}}
    return {**given, **more}


def answered(name: str, service: str, state: str = "ready", reason: str = "") -> dict[str, Any]:
    return {"service": service, "member": f"{name}.test", "state": state, "reason": reason, "notes": []}


def found_of(*members: dict[str, Any], answers: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    names = dict.fromkeys(a["service"] for a in answers)
    services = [
        {
            "name": n,
            "listen_port": 1,
            "also_listen_ports": [],
            "balance": "random",
            "members": [a for a in answers if a["service"] == n],
        }
        for n in names
    ]
    return {
        "cluster": "demo", "address": "proxy.test", "members": list(members), "services": services, "nowhere": [],
        "store": {"ok": True, "trouble": None}, "steward": {"sentence": "", "by": "", "decides": True},
        "balancers": [], "balancer": None, **more,
    }  # fmt: skip
