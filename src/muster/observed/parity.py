"""Parity: in which fields members differ that clients take for one. Pure: facts in, drifts out.

Facts are nested mappings; a field is the dotted path to a value: ``version``, ``dns.settings.use_provider``,
``certificate.smartproxy.names``, ``muster.cluster_file``. One cause makes one drift: what a feature says of itself is
compared among the members where it runs, and whether it runs is a field of its own (``dns.state``); certificates likewise,
and Puppet's code (``muster.puppet_code``, ``muster.puppet_code.production``).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from muster.cluster.file import ClusterFile, own_certname
from muster.cluster.sections import ExpectedDifference
from muster.kernel.names import shown
from muster.pki.facts import CertificateFacts

ABSENT = "(absent)"
PRESENTED = "presented"

_RUNNING = "running"
# Puppet's code on a member's host: what the members compare of it that have any and could read it.
_PUPPET_CODE = "muster.puppet_code"
_CODE_READ = "read"
_DISABLED = "disabled"
_CERTIFICATE = "certificate."
_NO_FEATURES = frozenset({"certificate", "muster"})
_OWN = "(its own name)"
_BRIEF = 64
_SECRET = re.compile(r"password|secret|passphrase")
_SET = "(set)"
_SOON = (timedelta(days=1), timedelta(days=7), timedelta(days=30))


@dataclass(frozen=True)
class Drift:
    """One field in which members differ.

    Attributes:
        values: by member, :data:`ABSENT` where a member should say something and does not.
        majority: the value most members have, those with a declared difference not counted.
        agreed: whether there is a majority; without one every member differs.
        differing: the members nobody expected to differ; empty when the cluster file declares all of it.
        expected: reason by member, for those that the cluster file declares.
        measure: what members are measured by, in the words before ``majority``.
        lasted_s: for how long members have differed in it at least, whoever of them; 0: nobody has seen it before.
    """

    field: str
    values: Mapping[str, Any]
    majority: Any
    agreed: bool
    differing: tuple[str, ...]
    expected: Mapping[str, str]
    measure: str = "most have"
    lasted_s: float = 0.0

    @property
    def sentence(self) -> str:
        """Who has what, as one sentence."""
        if not self.differing:
            return f"{', '.join(self.expected)}: {self.field} differs as expected ({'; '.join(set(self.expected.values()))})"
        if not self.agreed:
            said = ", ".join(f"{spoken(self.values[m])} on {m}" for m in self.differing)
            return f"Members disagree about {self.field}: {said}"
        said = ", ".join(f"{m} has {spoken(self.values[m])}" for m in self.differing)
        return f"{self.field} differs: {said}, {self.measure} {spoken(self.majority)}"

    def as_json(self) -> dict[str, Any]:
        said = {**asdict(self), "sentence": self.sentence}
        # Words, which the sentence has.
        del said["measure"]
        return said | {"lasted_s": round(self.lasted_s, 3)}


def compared(facts: Mapping[str, Mapping[str, Any]], expected: Sequence[ExpectedDifference] = ()) -> list[Drift]:
    """Return the fields in which the members differ, expected ones included, in order of their names.

    ``facts`` are nested, by member. A member that told no ``version`` did not answer, and is not held against features.
    """
    told = {member: dict(_flattened(f)) for member, f in facts.items()}
    groups = {member: {_group(field) for field in f} for member, f in told.items()}
    fields = sorted({field for f in told.values() for field in f})
    found = (_drift(field, _values(field, told, groups), expected) for field in fields)
    return [d for d in found if d is not None]


def measured(
    field: str, values: Mapping[str, Any], right: Any, measure: str, expected: Sequence[ExpectedDifference] = ()
) -> Drift | None:
    """Return how members differ from what is right, whatever most of them have; None: none does."""
    differing = [m for m, value in values.items() if _canonical(value) != _canonical(right)]
    declared = {m: e.reason for m in differing for e in expected if declares(e, field, m)}
    if not differing:
        return None
    return Drift(field, dict(values), right, True, tuple(m for m in differing if m not in declared), declared, measure)


def lasting(lasted_s: float) -> str:
    """Return for how long, as it stands behind a sentence; empty under a minute, which says nothing."""
    if lasted_s < 60:
        return ""
    amount, unit = next((s, u) for s, u in ((86_400, "day"), (3_600, "hour"), (60, "minute")) if lasted_s >= s)
    count = int(lasted_s // amount)
    return f", for {count} {unit}{'s' if count > 1 else ''} or longer"


def unneeded(drifts: Sequence[Drift], expected: Sequence[ExpectedDifference]) -> list[ExpectedDifference]:
    """Return the declared differences that no member shows: they would hide a drift one day."""
    return [e for e in expected if not any(declares(e, d.field, m) for d in drifts for m in d.expected)]


def fields_of(facts: Mapping[str, Mapping[str, Any]]) -> int:
    """Return how many different fields the members speak of."""
    return len({field for f in facts.values() for field, _ in _flattened(f)})


def of_wire(version: Mapping[str, Any], features: Mapping[str, Any], listed: Collection[str]) -> dict[str, Any]:
    """Return the facts in the answers to ``/version``, ``/v2/features`` and ``/features``.

    A feature that is disabled is as good as none, so what it says of its settings is no fact.
    """
    versions = version.get("modules")
    modules = versions if isinstance(versions, Mapping) else {}
    facts: dict[str, Any] = {"version": version.get("version")}
    for name in dict.fromkeys([*features, *listed]):
        entry = features.get(name) or {"state": _RUNNING}
        state = entry.get("state", ABSENT)
        if state == _DISABLED:
            continue
        told = {k: _hidden(v) if k == "settings" else v for k, v in entry.items()}
        if isinstance(entry.get("capabilities"), list):
            told["capabilities"] = sorted(str(c) for c in entry["capabilities"])
        facts[name] = {**told, "state": state, "listed": name in listed, "version": modules.get(name, ABSENT)}
    return facts


def _hidden(settings: Any) -> Any:
    """Return a feature's settings without its secrets, which proxies tell trusted hosts: whether there is one is enough."""
    if not isinstance(settings, Mapping):
        return settings
    return {k: _SET if v and _SECRET.search(str(k)) else v for k, v in settings.items()}


def openly(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts less what only trusted hosts are told: of a feature its state, version and that it is listed."""
    told = {"state", "listed", "version"}
    return {
        name: {k: v for k, v in entry.items() if k in told}
        if isinstance(entry, Mapping) and name not in _NO_FEATURES
        else entry
        for name, entry in facts.items()
    }


def of_certificate(facts: CertificateFacts, own_names: Collection[str], now: datetime) -> dict[str, Any]:
    """Return what members' certificates must have in common; a member's own names read the same on every member.

    Members are renewed one after another, so the end of the certificate counts by how near it is, not by the second.
    """
    own = {n.lower().removesuffix(".") for n in own_names}
    # What its Puppet CA issues to itself bears a name made from the member's.
    own |= {own_certname(n) for n in own}

    def levelled(name: str) -> str:
        return _OWN if name.lower() in own else name

    return {
        "state": PRESENTED,
        "subject": levelled(facts.subject_cn or ""),
        "names": sorted({levelled(n) for n in facts.names}),
        "issuer": facts.issuer,
        "key": facts.key,
        "expires": _nearness(facts.not_after - now),
    }


def of_muster(version: str, schema: int, cluster: ClusterFile) -> dict[str, Any]:
    """Return what only members of kind muster know of themselves.

    Of the cluster file counts what it means, not how it is written; what the store's URL hides does not count.
    """
    meant = cluster.model_dump(mode="json", exclude_defaults=True)
    return {"version": version, "schema": str(schema), "cluster_file": digest(meant)}


def of_another_file(cluster: ClusterFile, told: Mapping[str, Mapping[str, Any]], version: str) -> list[str]:
    """Return the members that run with another cluster file than this one, by what they told of themselves, flat.

    Only of members of this ``version``: another one may find other words for the same file.
    """
    ours = of_muster(version, 0, cluster)["cluster_file"]
    theirs = {
        m: facts.get("muster.cluster_file") for m, facts in told.items() if facts.get("muster.version") == version
    }
    return [name for m in cluster.members if (theirs.get(name := str(m.name)) or ours) != ours]


def brief(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts flat, a long value as its digest: equal values stay equal and a row in the store stays small."""
    return {field: value if len(_canonical(value)) <= _BRIEF else digest(value) for field, value in _flattened(facts)}


def digest(value: Any) -> str:
    """Return a short text that is the same for the same value."""
    return hashlib.sha256(_canonical(value).encode()).hexdigest()[:16]


def spoken(value: Any) -> str:
    """Return a value as a person reads it, safe on a terminal whoever said it."""
    if isinstance(value, list):
        return ", ".join(spoken(v) for v in value) or "nothing"
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else shown(str(value))


def _drift(field: str, values: Mapping[str, Any], expected: Sequence[ExpectedDifference]) -> Drift | None:
    excused = {m: e.reason for m in values for e in expected if declares(e, field, m)}
    judged = [m for m in values if m not in excused]
    counted = Counter(_canonical(values[m]) for m in judged or values)
    if not counted:
        return None
    (best, count), *others = counted.most_common()
    agreed = not others or others[0][1] < count

    def differs(member: str) -> bool:
        return not agreed or _canonical(values[member]) != best

    differing = tuple(m for m in judged if differs(m))
    declared = {m: reason for m, reason in excused.items() if differs(m)}
    if not differing and not declared:
        return None
    majority = next(v for v in values.values() if _canonical(v) == best)
    return Drift(field, dict(values), majority if agreed else None, agreed, differing, declared)


def _values(
    field: str, told: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Collection[str]]
) -> Mapping[str, Any]:
    """Return the field's value on every member that is expected to have one."""
    group = _group(field)
    is_code = group == _PUPPET_CODE
    state = group if is_code else f"{group}.state"
    well = (_CODE_READ,) if is_code else (_RUNNING, PRESENTED)
    has_state = any(state in f for f in told.values())
    found: dict[str, Any] = {}
    for member, facts in told.items():
        if has_state and state not in facts:
            if field == state and "version" in facts and not group.startswith(_CERTIFICATE) and not is_code:
                found[member] = _DISABLED
        elif field == state or (group in groups[member] and facts.get(state, well[0]) in well):
            found[member] = facts.get(field, ABSENT)
    return found


def _group(field: str) -> str:
    if field == _PUPPET_CODE or field.startswith(f"{_PUPPET_CODE}."):
        return _PUPPET_CODE
    parts = field.split(".")
    return ".".join(parts[:2]) if field.startswith(_CERTIFICATE) else parts[0]


def _flattened(facts: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in ((shown(str(k)), v) for k, v in facts.items()):
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def declares(one: ExpectedDifference, field: str, member: str) -> bool:
    """Whether the cluster file says that this member may differ in this field."""
    who = {m.lower() for m in one.members}
    return fnmatchcase(field, one.field) and (not who or member.lower() in who)


def _nearness(left: timedelta) -> str:
    if left < timedelta(0):
        return "expired"
    days = next((limit.days for limit in _SOON if left < limit), None)
    return "in more than 30 days" if days is None else f"within {days} day{'s' if days > 1 else ''}"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
