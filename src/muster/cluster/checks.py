"""What the doctor can find out about the cluster's names, and about what members report of themselves."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from muster.cluster.file import ClusterFile, Member
from muster.cluster.foreman import api_opened, heard_in, is_asked, is_named
from muster.cluster.life import Life, Lives, spoken
from muster.cluster.observations import observations_in
from muster.cluster.roster import Seen, seen_in
from muster.cluster.service import FREE, TOTAL, Register
from muster.cluster.services import register_in
from muster.foreman.version import asked, warns
from muster.kernel.errors import Denied, Misconfigured, MusterError, Unavailable
from muster.kernel.findings import Check, Finding
from muster.kernel.names import shown
from muster.store.reading import Readable

# The answer decides who is asked at all, so everybody waits for it.
_LIVES_WITHIN_S = 5.0
_DRAINED = ("draining", "drained")
# Members say it once a minute; of what is older nobody knows whether it is so.
_LASTS_S = 900.0
# Below the first is time to make room, below the second there is none.
_SHORT_PERCENT, _ALMOST_PERCENT = 10, 3
# HOST_NOT_FOUND and NO_DATA of netdb.h; the others mean that the server was not reached, or failed.
_NO_NAME = (1, 4)
_NAMES_WITHIN_S = 5.0
# Cause and remedy of the two ways in which Foreman does not say its version.
_REFUSED_API = (
    "The token is not api_user's, has expired or was revoked; or Foreman is asked by a name that it does not take for its "
    "own, which in a container it answers with 403.",
    "Foreman: Users, that one, Personal Access Tokens; the new one is the first line of foreman.api_token_file, on every "
    "member. foreman.url must have Foreman's own host name, or an alias that it knows.",
)
_SILENT_API = (
    "Foreman is stopped, is elsewhere, or cannot be believed from here.",
    "Start it; foreman.url; of TLS: foreman.ca_file must have the CA of Foreman's certificate. Members ask again by "
    "themselves.",
)
_NOTHING_NEW = "Balancers send it nothing new."

Resolve = Callable[[str], Awaitable[frozenset[str]]]
Name = Callable[[str], Awaitable[frozenset[str]]]


async def resolved(name: str) -> frozenset[str]:
    """Return the addresses this host finds for a name.

    Raises:
        OSError: none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return frozenset(str(f[4][0]) for f in found)


async def named(address: str) -> frozenset[str]:
    """Return the names that reverse DNS, or this host's own list, has for an address, as they stand there.

    Raises:
        LookupError: it has none.
        OSError: nobody could be asked.
    """
    try:
        name, further, _ = await asyncio.get_running_loop().run_in_executor(None, socket.gethostbyaddr, address)
    except socket.herror as e:
        if e.errno in _NO_NAME:
            raise LookupError(f"{address} has no name") from e
        raise
    return frozenset((name, *further))


async def known_lives(store: Callable[[], AbstractAsyncContextManager[Readable]]) -> dict[str, Life] | None:
    """Return the members' lives, None when the store does not say: its own check names why."""
    try:
        async with asyncio.timeout(_LIVES_WITHIN_S), store() as opened:
            return await Lives(opened).all()
    except (MusterError, TimeoutError):
        return None


def resting(cluster: ClusterFile, lives: Mapping[str, Life]) -> list[Finding]:
    """Return who is out because somebody wants it, who that is and why; of members in maintenance nothing else is said.

    A member of ours that is drained says so itself; a Ruby one does not know. Of the only signer it is said what that stops.
    """
    found = []
    for member in cluster.members:
        life = lives.get(str(member.name))
        if life is None or not (life.state == "maintenance" or (member.kind == "foreman" and life.state in _DRAINED)):
            continue
        rests = life.state == "maintenance"
        found.append(
            Finding(
                "MEMBER-MAINTENANCE" if rests else "MEMBER-DRAINING",
                str(member.name),
                f"{member.name} is {spoken(life.state, life.reason)}{unsigned(cluster, str(member.name))}",
                "Somebody asked for it. "
                + ("Balancers do not check it, and nothing else is said about it here." if rests else _NOTHING_NEW),
                f"muster ready {member.name} when the work is done.",
                "warning",
            )
        )
    return found


def unsigned(cluster: ClusterFile, member: str) -> str:
    """Return what stops while this member is out, as the end of a sentence; empty unless it is the only signer."""
    puppetca = cluster.services.get("puppetca")
    signs = cluster.signer == member and (puppetca is None or puppetca.enabled)
    return "; no Puppet certificate can be signed until it is back" if signs else ""


def of_refusal(balancer: str, why: str) -> Finding:
    """Return what it means that a balancer did not put its configuration in force."""
    return Finding(
        "BALANCER-REFUSED",
        balancer,
        f"Balancer {balancer} did not put its configuration in force: {why}",
        "HAProxy, or Muster before it, refused what follows from the cluster file and the files it names. An earlier "
        "configuration serves at best, and a restart may end even that.",
        "Mend what the sentence names (for a file that cannot be opened: muster certs verify). The balancer tries again by "
        "itself, at once with: systemctl reload muster-balancer.",
    )


def checks(
    cluster: ClusterFile,
    store: Callable[[], AbstractAsyncContextManager[Readable]],
    resolve: Resolve = resolved,
    name: Name = named,
) -> list[Check]:
    """Return the checks of a cluster's names and of its members' reports."""

    async def addresses() -> Sequence[Finding]:
        found = await asyncio.gather(*(_of_name(cluster, str(n), resolve) for n in cluster.names))
        return [f for one in found for f in one]

    async def members() -> Sequence[Finding]:
        found = await asyncio.gather(*(_of_member(m, resolve, name) for m in cluster.members))
        return [f for one in found for f in one]

    async def reports() -> Sequence[Finding]:
        try:
            async with store() as opened, opened.read() as uow:
                seen = await seen_in(uow)
                observed = await observations_in(uow)
                services = await register_in(uow, {})
        except (Unavailable, Misconfigured):
            # The store's own check names it.
            return []
        refused = [
            of_refusal(name, o.observation.refused)
            for name, o in observed.items()
            if o.observation.refused and not o.silent
        ]
        return [*_silent(cluster, seen), *_versions(cluster, seen), *refused, *short_of_room(services)]

    return [Check("address", addresses), Check("member names", members), Check("reports", reports)]


def of_foreman(
    cluster: ClusterFile, ca: Callable[[], Path | None], store: Callable[[], AbstractAsyncContextManager[Readable]]
) -> list[Check]:
    """Return the check of the version that members say beside Foreman's own.

    Foreman is asked where this host has the token; where it has not, what members heard counts. ``ca`` returns the
    cluster's CA file, None when it is no use.
    """
    if all(m.kind != "muster" for m in cluster.members):
        return []

    async def version() -> Sequence[Finding]:
        said, trouble = "", None
        token, believed = cluster.foreman.api_token_file, ca()
        if is_asked(cluster) and token is not None and believed is not None and os.access(token, os.R_OK):
            try:
                async with api_opened(cluster, believed) as api:
                    said = await asked(api)
            except MusterError as e:
                trouble = e
        heard = None
        try:
            async with store() as opened, opened.read() as uow:
                heard = await heard_in(uow)
        except (Unavailable, Misconfigured):
            # The store's own check names it.
            if not said:
                return _of_version(cluster, None, trouble) if trouble is not None else []
        return _of_version(cluster, said or (heard.version if heard is not None else None), trouble)

    return [Check("foreman's version", version)]


def _of_version(cluster: ClusterFile, said: str | None, trouble: MusterError | None) -> list[Finding]:
    """Return what is wrong with what members say; ``said``: by Foreman, now or when it was last heard."""
    settings, found = cluster.foreman, []
    told = said if settings.version is None and said is not None else settings.told_version
    if trouble is not None:
        why, remedy = _REFUSED_API if isinstance(trouble, Denied) else _SILENT_API
        sentence = f"Foreman does not say its version, and members say {told}: {trouble}"
        found.append(Finding("FOREMAN-API", "Foreman", sentence, why, remedy, "warning"))
    elif settings.version is None and not is_asked(cluster) and (said is not None or is_named(cluster)):
        so = (
            "as was last heard; nobody asks Foreman any more" if said is not None else "which nobody heard from Foreman"
        )
        found.append(
            Finding(
                "FOREMAN-VERSION-UNKNOWN",
                "Foreman",
                f"Members say that Foreman is {told}, {so}",
                "foreman.version is not written, and neither is how to ask Foreman. Up to 5.0.0 it warns of Smart Proxies "
                "of other versions.",
                "Write foreman.version, or foreman.url, api_user and api_token_file (docs/admin/first-cluster.md).",
                "warning",
            )
        )
    if settings.version is not None and said is not None and warns(said, told):
        found.append(
            Finding(
                "FOREMAN-VERSION",
                "Foreman",
                f"foreman.version is {settings.version}, and Foreman says {said}: it warns of every Smart Proxy that "
                f"says {told}",
                "Foreman was upgraded and the cluster file was not, or the reverse.",
                "Take foreman.version out, so that members follow Foreman; or write what Foreman says. Then restart them.",
                "warning",
            )
        )
    return found


def short_of_room(found: Register) -> list[Finding]:
    """Return which services say that the disk they keep their content on is nearly full; who does not say is passed over."""
    facts: dict[tuple[str, str], dict[str, int]] = {}
    for one in found.services.values():
        for fact in one.facts:
            if fact.name in (TOTAL, FREE) and isinstance(fact.value, int) and fact.age_s < _LASTS_S:
                facts.setdefault((one.kind, fact.member), {})[fact.name] = fact.value
    short = {
        who: said for who, said in facts.items() if len(said) == 2 and said[FREE] * 100 < said[TOTAL] * _SHORT_PERCENT
    }
    return [
        Finding(
            "SERVICE-STORAGE",
            f"{kind} of {member}",
            f"The {kind} of {member} has {said[FREE] / (1 << 30):.1f} of {said[TOTAL] / (1 << 30):.1f} GiB left, "
            f"{said[FREE] * 100 // said[TOTAL]} %",
            "What it keeps has grown, or a synchronisation is under way that needs room for old and new.",
            "Make room there (Foreman: Reclaim Space of the Smart Proxy) before a synchronisation fails half way.",
            "error" if said[FREE] * 100 < said[TOTAL] * _ALMOST_PERCENT else "warning",
        )
        for (kind, member), said in short.items()
    ]


async def _of_name(cluster: ClusterFile, name: str, resolve: Resolve) -> Sequence[Finding]:
    try:
        addresses = await resolve(name)
    except OSError as e:
        # A cluster on loopback is a trial; nobody gives it a DNS name. An alias may be for clients of another network.
        mild = all(_is_loopback(m.address) for m in cluster.members) or name != cluster.address
        return [
            Finding(
                "ADDRESS-UNKNOWN",
                name,
                f"{name} does not resolve here: {e.strerror or e}",
                "The cluster's address has no DNS record, or this host asks another DNS server.",
                "Give it an A or AAAA record that points to the balancer.",
                "warning" if mild else "error",
            )
        ]
    balancers = {b.address for b in cluster.balancers} | {b.bind for b in cluster.balancers}
    members = {m.address: m for m in cluster.members}
    past = [a for a in sorted(addresses & members.keys()) if a not in balancers]
    if past:
        return [
            Finding(
                "ADDRESS-IS-MEMBER",
                name,
                f"{name} resolves to {a}, which is member {members[a].name}",
                "The DNS record points past the balancer: every client lands on one member.",
                "Point the record to the balancer.",
            )
            for a in past
        ]
    # An address shared by balancers is in no setting unless they bind it; only then is another one wrong for sure.
    if cluster.balancers and all(b.bind != "*" for b in cluster.balancers) and not addresses & balancers:
        where = ", ".join(str(b.bind) for b in cluster.balancers)
        return [
            Finding(
                "ADDRESS-ELSEWHERE",
                name,
                f"{name} resolves to {', '.join(sorted(addresses))}; the balancer listens on {where}",
                "The DNS record is from before a move; or an address translation lies between, then all is well.",
                "Point the record to the balancer.",
                "warning",
            )
        ]
    return []


async def _of_member(member: Member, resolve: Resolve, named: Name) -> Sequence[Finding]:
    name = str(member.name)
    if _is_loopback(member.address):
        return []
    try:
        addresses = await resolve(name)
    except OSError as e:
        return [
            Finding(
                "MEMBER-UNRESOLVED",
                name,
                f"Member {name} does not resolve here: {e.strerror or e}",
                "It has no DNS record, or this host asks another DNS server.",
                f"Give it an A or AAAA record with {member.address}.",
                "error" if member.address == name else "warning",
            )
        ]
    if not _is_address(member.address) or member.address in addresses:
        asked = [member.address] if _is_address(member.address) else sorted(addresses)
        return [f for address in asked for f in await _of_address(member, address, named)]
    return [
        Finding(
            "MEMBER-ELSEWHERE",
            name,
            f"Member {name} resolves to {', '.join(sorted(addresses))}; the cluster file says {member.address}",
            "The host moved and one of the two was not changed, or it has two networks and balancers use the other.",
            "Correct the DNS record, or the member's address in the cluster file.",
            "warning",
        )
    ]


async def _of_address(member: Member, address: str, named: Name) -> Sequence[Finding]:
    """Say whether reverse DNS leads back to the member's name; of who cannot be asked nothing is known."""
    try:
        async with asyncio.timeout(_NAMES_WITHIN_S):
            names = await named(address)
    except LookupError:
        names = frozenset()
    except (OSError, TimeoutError):
        return []
    own = str(member.name)
    if own.lower() in names or (not names and member.kind == "muster"):
        # Nothing of ours asks for a name that is not there; the Ruby proxy's installer does.
        return []
    spelled = next((n for n in sorted(names) if n.lower().removesuffix(".") == own.lower()), None)
    if spelled is not None and spelled.islower():
        return []
    told = f"is {shown(', '.join(sorted(names)))} in reverse DNS" if names else "has no name in reverse DNS"
    return [
        Finding(
            "MEMBER-REVERSE",
            own,
            f"The address {address} of {own} {told}{', not in lower case' if spelled is not None else ''}",
            "The PTR record is missing, or of before a move. foreman-installer refuses a host whose forward and reverse DNS "
            "differ, and over plain HTTP Ruby proxies know a caller by its reverse name.",
            f"Give {address} the PTR record {own.lower()} and no other.",
            "warning",
        )
    ]


def _silent(cluster: ClusterFile, seen: dict[str, Seen]) -> list[Finding]:
    found = []
    for member in cluster.members:
        said = seen.get(str(member.name))
        if member.kind == "muster" and (said is None or said.silent):
            since = "never reported" if said is None else f"is silent for {said.age_s:.0f} s"
            found.append(
                Finding(
                    "MEMBER-SILENT",
                    str(member.name),
                    f"{member.name} {since}",
                    "Its process is not running, or it cannot reach the store.",
                    f"On that host: muster serve --member {member.name}; then look at its log.",
                )
            )
    return found


def _versions(cluster: ClusterFile, seen: dict[str, Seen]) -> list[Finding]:
    reporting = {n: s.report.version for m in cluster.members if (s := seen.get(n := str(m.name))) and not s.silent}
    if len(set(reporting.values())) < 2:
        return []
    return [
        Finding(
            "MEMBER-VERSIONS",
            cluster.cluster,
            f"Members run different versions: {', '.join(f'{n} {v}' for n, v in sorted(reporting.items()))}",
            "An upgrade is under way, or stopped half way.",
            "Upgrade the rest; drain one member at a time.",
            "warning",
        )
    ]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(address: str) -> bool:
    return _is_address(address) and ipaddress.ip_address(address).is_loopback
