"""Whether members send clients to the cluster, by the URLs that they tell Foreman. Pure.

Foreman and Katello know no group of proxies. Who belongs together they conclude from ``registration_url``, and the names
that hosts get are those that proxies tell (docs/facts/deployment.md §3.4, §4.5). So each member has to tell the cluster's
own, and where its Pulp is, its own name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile, Member
from muster.cluster.values import address_of
from muster.kernel.findings import Finding
from muster.kernel.names import STANDARD_PORTS, shown
from muster.observed.features import Running
from muster.observed.parity import declares

_REFRESH = "then refresh that Smart Proxy's features in Foreman, which remembers what it was told."


@dataclass(frozen=True, slots=True)
class _Setting:
    """A URL that a feature tells Foreman.

    Attributes:
        follows: what comes of one that leads past the cluster, or is absent.
        where: where a Ruby proxy has it.
    """

    feature: str
    name: str
    follows: str
    where: str

    @property
    def field(self) -> str:
        """Its name for ``muster parity`` and ``expected_differences``."""
        return f"{self.feature}.settings.{self.name}"


_REGISTRATION = _Setting(
    "registration",
    "registration_url",
    "Hosts that are registered through this member are bound to it alone, and Katello counts it to no group.",
    "registration_url in settings.d/registration.yml (foreman-installer --foreman-proxy-registration-url)",
)
_TEMPLATES = _Setting(
    "templates",
    "template_url",
    "Hosts that are installed fetch their templates past the balancer.",
    "template_url in settings.d/templates.yml (foreman-installer --foreman-proxy-template-url)",
)
_FOR_CLIENTS = (
    _REGISTRATION,
    _TEMPLATES,
    _Setting(
        "pulpcore",
        "content_app_url",
        "Hosts that are registered through this member fetch content past the balancer.",
        "content_app_url in settings.d/pulpcore.yml, which foreman-installer makes from the registration URL; of a Pulp "
        "that answers Foreman itself its CONTENT_ORIGIN",
    ),
    _Setting(
        "pulpcore",
        "rhsm_url",
        "Hosts that are registered through this member ask for their subscriptions past the balancer.",
        "rhsm_url in settings.d/pulpcore.yml, which foreman-installer makes from the registration URL; of a Pulp that "
        "answers Foreman itself its SMART_PROXY_RHSM_URL",
    ),
    # No gateway up to 4.0 tells Foreman any setting; one that does is taken at its word.
    _Setting(
        "container_gateway",
        "client_endpoint",
        "Clients of images are led past the balancer.",
        "client_endpoint in settings.d/container_gateway.yml",
    ),
)
_OWN = (
    _Setting(
        "pulpcore",
        "pulp_url",
        "Foreman synchronises each member's Pulp by this name: it would reach another one, and this one stays as it is.",
        "pulp_url in settings.d/pulpcore.yml; of a Pulp that answers Foreman itself its SMART_PROXY_PULP_URL",
    ),
    _Setting(
        "container_gateway",
        "pulp_endpoint",
        "The gateway asks another Pulp than the one that Foreman synchronises for this member.",
        "pulp_endpoint in settings.d/container_gateway.yml",
    ),
)
_TELLING = frozenset(s.feature for s in (*_FOR_CLIENTS, *_OWN))


def misled(cluster: ClusterFile, balancing: Balancing, running: Mapping[str, Running]) -> list[Finding]:
    """Return which URLs lead clients past the cluster, or Foreman past a member's own Pulp.

    ``running`` is by member; who did not answer is not in it. A difference that the cluster file declares is none.
    """
    members = [m for m in cluster.members if str(m.name) in running]
    return [
        *_unseen(members, running),
        *_ungrouped(cluster, members, running),
        *(f for s in _FOR_CLIENTS for f in _elsewhere(cluster, balancing, s, _told(cluster, members, running, s))),
        *(f for s in (_REGISTRATION, _TEMPLATES) for f in _different(cluster, s, _told(cluster, members, running, s))),
        *(f for s in _OWN for f in _not_own(cluster, s, _told(cluster, members, running, s))),
    ]


def _told(
    cluster: ClusterFile, members: list[Member], running: Mapping[str, Running], setting: _Setting
) -> list[tuple[Member, Any]]:
    """Return what the members that tell the setting's feature say; None of one that says nothing."""
    return [
        (m, settings.get(setting.name))
        for m in members
        if (settings := running[str(m.name)].settings.get(setting.feature)) is not None
        and not any(declares(e, setting.field, str(m.name)) for e in cluster.expected_differences)
    ]


def _unseen(members: list[Member], running: Mapping[str, Running]) -> Iterator[Finding]:
    reasons: dict[str, list[str]] = {}
    for member in members:
        one = running[str(member.name)]
        if one.unseen and (one.features | one.unknown) & _TELLING:
            reasons.setdefault(one.unseen, []).append(str(member.name))
    for why, names in reasons.items():
        yield Finding(
            "MEMBER-URLS-UNSEEN",
            ", ".join(names),
            f"Which URLs {', '.join(names)} tell{'s' if len(names) == 1 else ''} Foreman was not looked at: {why}",
            "This host has no certificate of a host they trust, as Foreman's is, or shows another one.",
            "Run muster doctor where a trusted host's bundle lies (muster certs issue --client NAME); --client shows it.",
            "warning",
        )


def _ungrouped(cluster: ClusterFile, members: list[Member], running: Mapping[str, Running]) -> Iterator[Finding]:
    for setting in (_REGISTRATION, _TEMPLATES):
        told = _told(cluster, members, running, setting)
        others = [f"{_seen(url)} by {m.name}" for m, url in told if url]
        for member, url in told:
            # One of ours that is known to Foreman by the cluster's address needs none; a Ruby one puts its own name there.
            if url or (member.kind == "muster" and not others):
                continue
            besides = f", which is told {others[0]}" if others else ""
            yield Finding(
                "MEMBER-UNGROUPED",
                f"{setting.name} on {member.name}",
                f"{member.name} tells Foreman no {setting.name}{besides}",
                f"It was never set there, or got lost with an upgrade. {setting.follows}",
                _remedy(member, setting, f"{setting.name} with the host {cluster.address}"),
                "error" if others else "warning",
            )


def _elsewhere(
    cluster: ClusterFile, balancing: Balancing, setting: _Setting, told: Sequence[tuple[Member, Any]]
) -> Iterator[Finding]:
    names = _names(cluster)
    for member, url in told:
        if not url:
            continue
        parts = _parts(url)
        if parts is None or _host(parts) not in names:
            besides = f" nor {', '.join(sorted(names - {str(cluster.address).lower()}))}" if cluster.aliases else ""
            yield Finding(
                "MEMBER-URL",
                f"{setting.name} on {member.name}",
                f"{member.name} tells Foreman {setting.name} {_seen(url)}, whose host is not {cluster.address}{besides}",
                f"It was installed to stand alone, or under another name. {setting.follows}",
                _remedy(member, setting, f"the host {cluster.address}"),
            )
        elif why := _unoffered(parts, balancing):
            yield Finding(
                "MEMBER-URL-PORT",
                f"{setting.name} on {member.name}",
                f"{member.name} tells Foreman {setting.name} {_seen(url)}, and {why}",
                "It names the member's own port, or one of another generation; the balancer answers no client there.",
                _remedy(member, setting, "a port that the balancer offers") + " Or offer that port (services:).",
            )


def _unoffered(parts: SplitResult, balancing: Balancing) -> str:
    """Return why no service of the balancer answers there; empty when one does."""
    port = _port(parts)
    service = next((s for s in balancing.services if port in s.listen_ports), None)
    if service is None:
        offered = ", ".join(str(p) for s in balancing.services for p in s.listen_ports)
        return f"balancers offer no port {port}; they offer {offered}"
    if (parts.scheme == "http") != (service.traffic == "plain"):
        return f"balancers offer {service.name} there, which is {'no TLS' if service.traffic == 'plain' else 'TLS'}"
    return ""


def _different(cluster: ClusterFile, setting: _Setting, told: Sequence[tuple[Member, Any]]) -> Iterator[Finding]:
    """Two that both lead to the cluster and are not the same."""
    names = _names(cluster)
    by_url: dict[tuple[str, str, int, str], list[str]] = {}
    said: dict[tuple[str, str, int, str], str] = {}
    for member, url in told:
        parts = _parts(url) if url else None
        if parts is None or _host(parts) not in names:
            continue
        key = (_host(parts), parts.scheme, _port(parts), parts.path.rstrip("/"))
        by_url.setdefault(key, []).append(str(member.name))
        said.setdefault(key, _seen(url))
    if len(by_url) < 2:
        return
    listed = "; ".join(f"{said[key]} on {', '.join(members)}" for key, members in by_url.items())
    groups = len({key[0] for key in by_url})
    apart = setting is _REGISTRATION and groups > 1
    yield Finding(
        "MEMBER-URLS-DIFFER",
        setting.name,
        f"Members tell Foreman different {setting.name}: {listed}",
        f"Katello counts members with the same host there to one group: these are {groups}."
        if apart
        else "Which one a host gets depends on the member that it happens to ask.",
        f"Set the same {setting.name} on every member, {_REFRESH}",
        "error" if apart else "warning",
    )


def _not_own(cluster: ClusterFile, setting: _Setting, told: Sequence[tuple[Member, Any]]) -> Iterator[Finding]:
    others = {str(m.name).lower(): m for m in cluster.members}
    for member, url in told:
        parts = _parts(url) if url else None
        host = _host(parts) if parts is not None else ""
        if not url or host in (str(member.name).lower(), member.address.lower()):
            continue
        if host in _names(cluster):
            if member.kind == "muster" and _is_one_pulp(cluster):
                continue
            whose = "the cluster's, behind which is now this member's Pulp and now another's"
        elif host in others:
            whose = f"member {others[host].name}'s"
        elif member.kind == "muster":
            # A Pulp on a host of its own, which all of ours may share.
            continue
        else:
            whose = "none of this member's"
        yield Finding(
            "MEMBER-PULP-URL",
            f"{setting.name} on {member.name}",
            f"{member.name} tells Foreman {setting.name} {_seen(url)}, whose host is {whose}",
            f"It was set to the name that clients use, or copied from another member. {setting.follows}",
            _remedy(member, setting, f"the host {member.name}"),
        )


def _is_one_pulp(cluster: ClusterFile) -> bool:
    """Whether all members lead to the same Pulp, so that the cluster's own name is as good as its."""
    url = str(cluster.content.pulp_api_url or "") if cluster.content is not None else ""
    parts = _parts(url)
    if parts is None or "{" in url:
        return False
    address = address_of(_host(parts))
    return _host(parts) != "localhost" and (address is None or not address.is_loopback)


def _remedy(member: Member, setting: _Setting, what: str) -> str:
    if member.kind == "muster":
        return f"Give it {what} (features: {setting.feature}: {setting.name} in the cluster file); {_REFRESH}"
    return f"Give it {what}: {setting.where}; {_REFRESH}"


def _names(cluster: ClusterFile) -> frozenset[str]:
    return frozenset(str(n).lower() for n in cluster.names)


def _parts(url: Any) -> SplitResult | None:
    """Return the parts of a URL of the web; None when it is none."""
    if not isinstance(url, str) or not url.isprintable():
        return None
    try:
        parts = urlsplit(url)
        if parts.scheme not in STANDARD_PORTS:
            return None
        # Raises for one that is no number up to 65535.
        _port(parts)
    except ValueError:
        return None
    return parts if parts.hostname else None


def _port(parts: SplitResult) -> int:
    return STANDARD_PORTS[parts.scheme] if parts.port is None else parts.port


def _host(parts: SplitResult) -> str:
    return (parts.hostname or "").removesuffix(".")


def _seen(url: Any) -> str:
    """Return a URL as it may stand in a sentence: without a name and password that somebody put into it."""
    if not isinstance(url, str):
        return shown(url)
    before, at, after = url.rpartition("@")
    scheme, sep, _ = before.partition("://")
    return shown(f"{scheme}{sep}…@{after}" if at and sep else after if at else url)
