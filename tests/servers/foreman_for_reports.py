"""What a Foreman answers to Smart Proxies that bring compliance reports and ask for contents.

A stand-in, made after what its plugin foreman_openscap 12.1.2 does (docs/facts/openscap.md §4): a host has one report of
each time, a second one is refused with its words; hosts that it does not know are refused, too.
"""

from __future__ import annotations

import itertools
import json
import threading
from dataclasses import dataclass, field
from typing import Any

from tests.servers.foreman_for_hosts import Asked, ForemanForHosts

_REPORTS = "/api/v2/compliance/arf_reports/"
_POLICIES = "/api/v2/compliance/policies/"


@dataclass
class ComplianceOfForeman:
    """Put before a :class:`ForemanForHosts` with :meth:`answer`.

    Attributes:
        reports: by host, policy and time, what it was told of each and its id.
        contents: by policy and kind.
        posted: how often it was brought a report, whatever it answered.
        status: what it answers to reports; None: as Foreman does.
        unknown: hosts that it does not know.
    """

    reports: dict[tuple[str, str, str], tuple[int, dict[str, Any]]] = field(default_factory=dict)
    contents: dict[tuple[str, str], bytes] = field(default_factory=dict)
    posted: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    status: int | None = None
    unknown: set[str] = field(default_factory=set)
    _ids: Any = field(default_factory=lambda: itertools.count(101))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, foreman: ForemanForHosts) -> None:
        foreman.answers = {_REPORTS: self._report, _POLICIES: self._content}

    def of(self, host: str) -> list[dict[str, Any]]:
        """Return what it was told of a host's reports."""
        return [told for (name, _, _), (_, told) in self.reports.items() if name == host]

    def _report(self, asked: Asked) -> tuple[int, bytes, str]:
        if asked.method != "POST" or asked.client is None:
            return self._said(401, {"error": {"message": "Unable to authenticate user"}})
        host, policy, date = asked.path.removeprefix(_REPORTS).split("/")
        with self._lock:
            self.posted.append(host)
            if self.status is not None:
                return self._said(self.status, {"error": {"message": "as it was told"}})
            if host in self.unknown:
                words = f"Could not find host identified by: {host}"
                return self._said(422, {"result": "fail", "errors": words})
            if any((name, at) == (host, date) for name, _, at in self.reports):
                return self._said(422, {"result": "fail", "errors": "Reported at has already been taken"})
            id = next(self._ids)
            self.reports[host, policy, date] = (id, json.loads(asked.body))
            return self._said(200, {"result": "ok", "id": str(id)})

    def _content(self, asked: Asked) -> tuple[int, bytes, str]:
        policy, kind = asked.path.removeprefix(_POLICIES).split("/")
        self.asked.append(f"{policy} {kind}")
        found = self.contents.get((policy, kind))
        if found is None:
            return self._said(404, {"error": {"message": "not found"}})
        return 200, found, "application/xml"

    def _said(self, status: int, content: Any) -> tuple[int, bytes, str]:
        return status, json.dumps(content).encode(), "application/json; charset=utf-8"
