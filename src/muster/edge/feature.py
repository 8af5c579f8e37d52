"""A feature as the edge serves it: its manifest, its state, and Foreman's words for that state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import ValidationError, model_validator

from muster.cluster.sections import Foreman
from muster.cluster.service import Seen, Service
from muster.derived.output import Output
from muster.edge.lags import Lags
from muster.edge.ports import Port
from muster.kernel.errors import Misconfigured, MusterError, NotAcceptable, Unavailable
from muster.kernel.happenings import Tell, untold
from muster.kernel.secrets import Secret
from muster.kernel.settings import Settings
from muster.policy.chains import Chains
from muster.policy.settings import GroupSettings, PolicySettings

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    # Settings of features stand below this; whoever reads a cluster file needs nothing of what serves them.
    from muster.cluster.file import ClusterFile
    from muster.edge.routes import Mount
    from muster.policy.metered import OperationMetrics
    from muster.store.engine import Store


class State(Enum):
    """``disabled → starting → running → draining → stopped``, or ``failed``."""

    DISABLED = "disabled"
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


_ANSWERS = (State.RUNNING, State.DRAINING)

# Foreman reads three words and drops every feature that is not "running" at its next refresh, so a draining member,
# whose features still answer, must keep saying so.
WIRE_STATE = {
    State.DISABLED: "disabled",
    State.STARTING: "starting",
    State.RUNNING: "running",
    State.DRAINING: "running",
    State.STOPPED: "disabled",
    State.FAILED: "failed",
}

# Every prefix Foreman or a host may call (docs/facts/smart-proxy-protocol.md §4, §18; for Pulp's own record
# docs/facts/foreman-and-katello.md §5), so that a member that lacks the
# feature says 503: Foreman takes 404 on a delete for success (docs/facts/smart-proxy-protocol.md §19.2).
FOREMAN_PREFIXES: Mapping[str, str] = {
    "/dns": "dns",
    "/dhcp": "dhcp",
    "/tftp": "tftp",
    "/httpboot": "httpboot",
    "/EFI": "httpboot",
    "/facts": "facts",
    "/puppet": "puppet",
    "/puppet/ca": "puppetca",
    "/bmc": "bmc",
    "/realm": "realm",
    "/logs": "logs",
    "/unattended": "templates",
    "/userdata": "templates",
    "/register": "registration",
    "/ipam": "externalipam",
    "/pulpcore": "pulpcore",
    "/pulp/api/v3/smart_proxy": "pulpcore",
    "/dynflow": "dynflow",
    "/ssh": "script",
    "/job": "script",
    "/ansible": "ansible",
    "/compliance": "openscap",
    "/compliance-importer": "openscap",
    "/discovery": "discovery",
    "/shellhook": "shellhooks",
    "/container_gateway": "container_gateway",
}


class FeatureSettings(Settings):
    """What every feature's settings have."""

    # Listeners of the feature's own, which its members have beside the two that Foreman calls; ``Feature.on_ports`` says
    # what is there.
    ports: ClassVar[tuple[Port, ...]] = ()
    # What follows from the settings for other programs; ``muster render`` writes it.
    outputs: ClassVar[tuple[Output, ...]] = ()
    # Whether all its calls are for everybody, so that plain HTTP takes nobody's protection away.
    is_open: ClassVar[bool] = False

    enabled: Literal["http", "https"] | bool = "https"
    """``https`` or ``http``: that listener only; ``true``: both; ``false``: off. Over plain HTTP nobody shows a certificate:
    protected calls are taken there only from hosts that ``foreman.trusted_hosts`` names, by their address' name."""

    def on(self, scheme: str) -> bool:
        return self.enabled is True or self.enabled == scheme

    def registered(self) -> tuple[Service, ...]:
        """Return the services behind the feature, for the register."""
        return ()

    def doubts(self, _cluster: ClusterFile) -> tuple[str, ...]:
        """Return why the feature will fail on members, as far as the cluster file says it, in sentences without its name."""
        return ()


class ProvidedFeatureSettings(FeatureSettings):
    """What the settings of a feature with providers have."""

    readiness: Literal["essential", "functional"] = "functional"
    """What an unreachable provider does: ``essential`` takes the member out of service, ``functional`` only shows."""
    policies: PolicySettings = PolicySettings()
    """Breaker, deadline and retries around the provider, in a group around each."""

    # What stands before a provider's word in Ruby's ``use_provider``, which is understood then; empty: it is not.
    rubys_prefixes: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _in_rubys_words(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not cls.rubys_prefixes:
            return given
        given = dict(given)
        if "use_provider" in given and "provider" not in given:
            given["provider"] = given.pop("use_provider")
        if isinstance(given.get("provider"), str):
            for prefix in cls.rubys_prefixes:
                given["provider"] = given["provider"].removeprefix(prefix)
        return given


class GroupedFeatureSettings(ProvidedFeatureSettings):
    """What the settings of a feature have whose providers can be called together."""

    group: GroupSettings | None = None
    """Several providers in place of one (docs/admin/groups.md)."""

    def each(self) -> Mapping[str, Self]:
        """Return the settings of every provider of the group, by its name; without a group none."""
        if self.group is None:
            return {}
        own = self.model_dump(exclude={"group"}, exclude_unset=True)
        return {name: type(self).model_validate({**own, **given}) for name, given in self.group.providers.items()}

    def every(self) -> Mapping[str, Self]:
        """Return the settings of every provider: of the group by its name, or these alone by none."""
        return self.each() or {"": self}

    @model_validator(mode="after")
    def _group_has_settings(self) -> Self:
        if self.group is None:
            return self
        for name, given in self.group.providers.items():
            strange = sorted(given.keys() & {"group", "enabled", "readiness"})
            if strange:
                raise ValueError(f"group.providers.{name}: {', '.join(strange)} is the feature's, and the same for all")
        try:
            self.each()
        except ValidationError as e:
            first = e.errors(include_url=False, include_input=False)[0]
            where = ".".join(["group.providers", *map(str, first["loc"])])
            raise ValueError(f"{where}: {first['msg']}") from None
        return self


def services_of(settings: FeatureSettings) -> tuple[Service, ...]:
    """Return the services behind a feature, for the register: of a group those of each provider, ``dns@ns1``."""
    each = settings.each() if isinstance(settings, GroupedFeatureSettings) else {}
    if not each:
        return settings.registered()
    found = ((name, service) for name, own in each.items() for service in own.registered())
    return tuple(replace(service, name=f"{service.name}@{name}") for name, service in found)


@dataclass(frozen=True)
class Surroundings:
    """What a feature may use of the member that opens it.

    Attributes:
        certificate, key, ca: this member's own TLS files, for calls to other servers.
        store: the cluster's store; None in tests that need none.
        authority: returns this member's Puppet CA, None while it is not open; None: members are no CA.
        cluster: the cluster file; None in tests that need none.
        is_revoked: whether the lists of ``foreman.crl_file``, as they are now, name a certificate.
        version: returns the Smart Proxy version that this member says now, ``x.y.z``.
        boot: the cluster's tree of boot files (``netboot/contract.py: BootFiles``); None: no feature needs one.
        state: where the member keeps what it writes itself; None in tests that need none.
        closing: whether the member drains or ends, so that answers that last should end.
        tell: hears what happens to machines that boot.
        provider: in a group the name of the provider that is opened.
        chains: what the member's features call their providers through; whoever opens a provider enters it there.
        lags: how old what providers know is; one that follows its server enters itself there.
    """

    member: str
    operations: OperationMetrics
    certificate: Path
    key: Path
    ca: Path
    store: Store | None = None
    authority: Callable[[], Any] | None = None
    cluster: ClusterFile | None = None
    is_revoked: Callable[[Certificate], bool] = lambda _: False
    version: Callable[[], str] = lambda: Foreman().told_version
    boot: Any = None
    state: Path | None = None
    closing: Callable[[], bool] = lambda: False
    tell: Tell = untold
    provider: str = ""
    chains: Chains = field(default_factory=Chains)
    lags: Lags = field(default_factory=Lags)


@dataclass(frozen=True)
class Told:
    """What a service that runs says of itself to Foreman.

    Attributes:
        settings: in the Ruby plugin's order. A ``Secret`` goes to those who may know it (``edge/root.py: secrets_for``).
    """

    settings: Mapping[str, Any]
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Feature:
    """A feature's manifest.

    Attributes:
        name: the plugin name on the wire (``dns``).
        label: Foreman's own name of the feature (``DNS``).
        exposed: the settings shown in ``/v2/features``, from the feature's settings; None asks for their names with null
            values, which is what a disabled feature shows (docs/facts/smart-proxy-protocol.md §5).
        opened: opens the provider and yields the service that the routes' endpoints get.
        reached: asks the service's provider whether its server answers, raising an error that says why not; None for
            features without one.
        refreshed: brings what the service tells up to date before Foreman hears it; bounded in time, and raises nothing.
        told: what the running service tells, instead of ``exposed`` and ``capabilities``.
        is_essential: whether the member leaves the balancer while the provider is away, where the running service knows it
            better than its settings.
        observed: what the running service has found out about the services behind it, for the register.
        is_plugin: whether the Ruby proxy has it as a plugin, which nobody hears of before it is installed.
        on_ports: what it answers on ports of its own, by listener. Here, because settings, which offer the ports, stand
            below the routes.
    """

    name: str
    label: str
    settings: type[FeatureSettings]
    mounts: tuple[Mount, ...]
    exposed: Callable[[Any], dict[str, Any]]
    opened: Callable[[Any, Surroundings], AbstractAsyncContextManager[Any]]
    capabilities: tuple[str, ...] = ()
    reached: Callable[[Any], Awaitable[None]] | None = None
    refreshed: Callable[[Any], Awaitable[None]] | None = None
    told: Callable[[Any], Told] | None = None
    is_essential: Callable[[Any], bool] | None = None
    observed: Callable[[Any], tuple[Seen, ...]] | None = None
    is_plugin: bool = False
    on_ports: Mapping[str, tuple[Mount, ...]] = field(default_factory=dict)


def entry(
    told: Told, settings: FeatureSettings, state: State, secrets: Callable[[Secret], str | None]
) -> dict[str, Any]:
    """Return one feature's entry of ``/v2/features``, keys in the Ruby proxy's order."""
    answers = state in _ANSWERS
    return {
        "http_enabled": answers and settings.on("http"),
        "https_enabled": answers and settings.on("https"),
        "settings": {k: secrets(v) if isinstance(v, Secret) else v for k, v in told.settings.items()},
        "state": WIRE_STATE[state],
        "capabilities": sorted(told.capabilities),
    }


@dataclass
class Served:
    """A feature on this member.

    ``reason`` says in one sentence why it is not running.
    """

    feature: Feature
    settings: FeatureSettings
    state: State = State.DISABLED
    reason: str | None = None
    service: Any = None

    @property
    def answers(self) -> bool:
        return self.state in _ANSWERS

    def on(self, scheme: str) -> bool:
        return self.settings.on(scheme)

    async def refresh(self) -> None:
        """Bring what the feature tells up to date."""
        if self.feature.refreshed is not None and self.answers:
            await self.feature.refreshed(self.service)

    def as_json(self, secrets: Callable[[Secret], str | None] = lambda _: None) -> dict[str, Any]:
        """Return the entry of ``/v2/features``.

        ``secrets`` says what stands for a setting that is one: nothing, unless the caller may know it.
        """
        if self.feature.told is not None and self.answers:
            told = self.feature.told(self.service)
        else:
            shown = self.feature.exposed(self.settings if self.state is not State.DISABLED else None)
            told = Told(shown, self.feature.capabilities)
        return entry(told, self.settings, self.state, secrets)


@dataclass
class Features:
    """The features of this member, in load order.

    Attributes:
        version: the Smart Proxy version this member says it is, ``x.y.z``; it follows Foreman's.
    """

    served: dict[str, Served] = field(default_factory=dict)
    version: str = Foreman().told_version

    def running(self) -> list[str]:
        return [name for name, s in self.served.items() if s.answers]

    def failed(self) -> dict[str, str]:
        return {name: s.reason or "failed" for name, s in self.served.items() if s.state is State.FAILED}

    def why_absent(self, name: str, scheme: str) -> str | None:
        """Return why the feature cannot answer on this listener, or None when it can."""
        served = self.served.get(name)
        if served is None:
            return f"Feature {name} is not configured on this member"
        if served.state is State.FAILED:
            return f"Feature {name} failed on this member: {served.reason}"
        if not served.answers:
            return f"Feature {name} is {served.state.value} on this member"
        if not served.on(scheme):
            return f"Feature {name} is served over {served.settings.enabled} only"
        return None


def said(what: str, error: MusterError) -> MusterError:
    """Return a failure in Foreman's words: 406, but 503 where trying again may help, and 500 where it will not."""
    kind = type(error) if isinstance(error, Unavailable | Misconfigured) else NotAcceptable
    return kind(f"{what}: {error}")
