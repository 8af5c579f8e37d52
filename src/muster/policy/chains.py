"""What a member's features call their providers through, and how that is now: for people, readiness and metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from muster.policy.breaker import Breaker
from muster.policy.groups.grouped import Standing, Way

if TYPE_CHECKING:
    from muster.policy.chain import Policy
    from muster.policy.metered import OperationMetrics
    from muster.policy.settings import PolicySettings


@dataclass(frozen=True)
class Link:
    """One provider within its policies.

    Attributes:
        name: in its group; empty: it is the feature's only one.
        word: what kind it is, as settings say it: ``nsupdate``.
        breaker: None: its settings want none.
    """

    name: str
    word: str
    policies: PolicySettings
    breaker: Breaker | None

    def as_json(self, standing: Standing | None = None) -> dict[str, Any]:
        told: dict[str, Any] = {"name": self.name, "provider": self.word, "chain": _in_words(self.policies)}
        if self.breaker is not None:
            found = self.breaker.standing()
            told["breaker"] = {
                "state": found.state, "failures": found.failures, "why": found.why,
                "again_in_s": round(found.again_in_s, 1),
            }  # fmt: skip
        if standing is not None:
            told |= {"role": standing.role, "why": standing.why, "pending": standing.pending, "stuck": standing.stuck}
        if standing is not None and standing.led_since:
            told |= {"epoch": standing.epoch, "led_since": standing.led_since}
        return told


@dataclass
class Chain:
    """What one feature calls.

    Attributes:
        way: of its group; None: it has one provider.
    """

    links: dict[str, Link] = field(default_factory=dict)
    way: Way | None = None

    def standings(self) -> list[Standing]:
        """Return how each provider of the group is; without a group none."""
        return self.way.standings() if self.way is not None else []

    def as_json(self) -> dict[str, Any]:
        standings = {s.provider: s for s in self.standings()}
        return {
            "mode": self.way.mode if self.way is not None else None,
            "providers": [link.as_json(standings.get(name)) for name, link in self.links.items()],
            # Somebody took them out of the settings, and what they have not had is there still.
            "strangers": [
                {"name": s.provider, "pending": s.pending, "stuck": s.stuck}
                for s in standings.values()
                if s.provider not in self.links
            ],
        }


class Chains:
    """The chains of one member, by feature.

    Concurrency: one event loop.
    """

    def __init__(self) -> None:
        self.features: dict[str, Chain] = {}

    def built(
        self,
        feature: str,
        policies: PolicySettings,
        metrics: OperationMetrics,
        *,
        label: str,
        word: str,
        name: str = "",
    ) -> list[Policy]:
        """Return the policies around a provider, and remember them. ``label`` names the provider in metrics."""
        found = policies.built(metrics, label)
        breaker = next((p for p in found if isinstance(p, Breaker)), None)
        self.features.setdefault(feature, Chain()).links[name] = Link(name, word, policies, breaker)
        return found

    def know(self, feature: str, way: Way) -> None:
        """Remember the way of a feature's group."""
        self.features.setdefault(feature, Chain()).way = way

    def as_json(self) -> Mapping[str, Any]:
        return {name: chain.as_json() for name, chain in self.features.items()}

    def links(self) -> Iterable[tuple[str, Link]]:
        """Return all providers with their features."""
        return [(feature, link) for feature, chain in self.features.items() for link in chain.links.values()]


def _in_words(policies: PolicySettings) -> list[str]:
    """Return the policies outermost first, as a person reads them."""
    breaker, retry = policies.breaker, policies.retry
    opens = f"breaker (opens after {breaker.failures} failures, for {breaker.open_s:g} s to {breaker.most_s:g} s)"
    attempts = f"retry ({retry.attempts} attempts)" if retry.attempts > 1 else ""
    found = ["metered", opens if breaker.failures else "", f"deadline ({policies.deadline_s:g} s)", attempts]
    return [said for said in found if said]
