"""What Foreman should know of a cluster, and in what it is mistaken: the cluster as one Smart Proxy, or each member."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from muster.balancer.model import Balancing
from muster.balancer.words import url
from muster.cluster.file import ClusterFile
from muster.foreman.records import Record
from muster.kernel.errors import Misconfigured
from muster.kernel.names import STANDARD_PORTS
from muster.observed.features import PULP_PROXY

Standing = Literal["absent", "elsewhere", "outdated", "well", "unknown"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A Smart Proxy that Foreman should know.

    Attributes:
        host: where it is asked from here, which need not resolve the name; ``port`` likewise.
        below: path of what it answers.
    """

    name: str
    url: str
    host: str
    port: int
    below: str = ""


@dataclass(frozen=True, slots=True)
class Live:
    """What a Smart Proxy says of itself now.

    Attributes:
        features: capabilities by feature; None: only trusted hosts are told them.
        digest: over features, capabilities and settings; empty when they are not told.
    """

    features: Mapping[str, frozenset[str] | None]
    digest: str = ""


@dataclass(frozen=True)
class Verdict:
    """What Foreman knows of one, beside what is."""

    wanted: Wanted
    standing: Standing
    sentence: str
    record: Record | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.wanted.name,
            "url": self.wanted.url,
            "standing": self.standing,
            "sentence": self.sentence,
            "id": self.record.id if self.record is not None else None,
            "features": sorted(self.record.features) if self.record is not None else [],
        }


def wanted(cluster: ClusterFile, balancing: Balancing) -> tuple[Wanted, ...]:
    """Return the Smart Proxies that Foreman should know, by ``foreman.registration``.

    Raises:
        Misconfigured: the balancer does not offer the Smart Proxy.
    """
    service = balancing.service("smartproxy")
    if service is None:
        raise Misconfigured("Service smartproxy is disabled, so there is no Smart Proxy that Foreman could know")
    if registration(cluster) == "cluster":
        name, port = str(cluster.address), service.listen_port
        return (Wanted(name, f"https://{name}:{port:d}", name, port),)
    found = []
    for member in cluster.members:
        name, port = str(member.name).lower(), service.port_on(str(member.name))
        found.append(Wanted(name, f"https://{name}:{port:d}", member.address, port))
        # In containers Pulp is a Smart Proxy of its own (docs/facts/deployment.md §5).
        if cluster.generation == "foremanctl" and member.kind == "foreman":
            https = balancing.service("https")
            at = https.port_on(str(member.name)) if https is not None else STANDARD_PORTS["https"]
            there = url("https", name, at, PULP_PROXY)
            found.append(Wanted(f"{name}-pulp", there, member.address, at, PULP_PROXY))
    return tuple(found)


def registration(cluster: ClusterFile) -> Literal["cluster", "members"]:
    """Return which Smart Proxies Foreman knows, as the file says it or leaves it."""
    ours = all(m.kind == "muster" for m in cluster.members)
    return cluster.foreman.registration or ("cluster" if ours else "members")


def live_of(features: Mapping[str, Any]) -> Live:
    """Return what ``/v2/features`` says: features that run, with their capabilities."""
    running = {n: f for n, f in features.items() if isinstance(f, dict) and f.get("state") == "running"}
    text = json.dumps(
        {n: {k: f.get(k) for k in ("capabilities", "settings")} for n, f in running.items()},
        sort_keys=True,
        default=str,
    )
    found = {
        n: frozenset(map(str, c)) if isinstance(c := f.get("capabilities"), list) else frozenset()
        for n, f in running.items()
    }
    return Live(found, hashlib.sha256(text.encode()).hexdigest())


def judged(one: Wanted, records: Sequence[Record], live: Live | None, refreshed: str | None) -> Verdict:
    """Return in what Foreman is mistaken about one Smart Proxy.

    ``live`` is None where it could not be asked; ``refreshed`` is its digest when Foreman was last refreshed from here.
    """
    there = [r for r in records if _place(r.url) == _place(one.url)]
    record = next((r for r in there if r.name.lower() == one.name.lower()), there[0] if there else None)
    named = next((r for r in records if r.name.lower() == one.name.lower()), None)
    if record is None and named is not None:
        return Verdict(one, "elsewhere", f"Foreman has {one.name} at {named.url}, and it is at {one.url}", named)
    if record is None:
        return Verdict(one, "absent", f"Foreman does not know {one.url}, or its user may not see it")
    if live is None:
        return Verdict(one, "unknown", "it could not be asked for its features", record)
    mistakes = [*_features(record, live), *_settings(live, refreshed)]
    twice = "".join(f"; it has {one.url} a second time, as {r.name}" for r in there if r is not record)
    if mistakes:
        return Verdict(one, "outdated", "; ".join(mistakes) + twice, record)
    return Verdict(one, "well", f"Foreman knows its {len(record.features)} features{twice}", record)


def _place(of: str) -> tuple[str, str, int | None, str] | str:
    """Return a URL as it is the same however it is written: in capitals, with a slash at its end, without its port."""
    try:
        parts = urlsplit(of)
        port = parts.port or STANDARD_PORTS.get(parts.scheme)
        return parts.scheme, parts.hostname or "", port, parts.path.rstrip("/").lower()
    except ValueError:
        return of


def _features(record: Record, live: Live) -> Iterator[str]:
    known = {_folded(name): (name, capabilities) for name, capabilities in record.features.items()}
    there = {_folded(name): (name, capabilities) for name, capabilities in live.features.items()}
    if missing := [there[f][0] for f in sorted(there.keys() - known.keys())]:
        yield f"Foreman does not know of {', '.join(missing)}"
    if gone := [known[f][0] for f in sorted(known.keys() - there.keys())]:
        yield f"Foreman believes in {', '.join(gone)}, which it has not"
    for name in sorted(known.keys() & there.keys()):
        before, now = known[name][1], there[name][1]
        if before is not None and now is not None and before != now:
            said, had = ", ".join(sorted(now)) or "nothing more", ", ".join(sorted(before)) or "nothing"
            yield f"{known[name][0]} can {said}, and Foreman has {had}"


def _settings(live: Live, refreshed: str | None) -> Iterator[str]:
    """Foreman tells nobody which settings it keeps, so only what was refreshed from here is known."""
    if refreshed is not None and live.digest and live.digest != refreshed:
        yield "its settings or capabilities changed since Foreman was refreshed"


def _folded(name: str) -> str:
    """Foreman calls a feature ``Puppet CA``, the wire ``puppetca``."""
    return name.lower().replace(" ", "").replace("_", "")
