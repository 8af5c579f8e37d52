"""Everything that follows from the cluster file for other programs: what ``derived`` lists, and what features offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.derived.output import Output
from muster.derived.outputs import OUTPUTS
from muster.kernel.errors import Misconfigured

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile
    from muster.edge.feature import Feature

Manifests = Callable[[], Mapping[str, "Feature"]]


@dataclass(frozen=True)
class Offer:
    """An output, and the feature that offers it; None: it follows from the file without any."""

    output: Output
    feature: Feature | None = None

    def refuse_where_off(self, cluster: ClusterFile) -> None:
        """Refuse an output of a feature that the cluster file does not enable.

        Raises:
            Misconfigured: it does not.
        """
        if self.feature is None:
            return
        given = cluster.features.get(self.feature.name)
        if given is None or not self.feature.settings.model_validate(given).enabled:
            raise Misconfigured(
                f"{self.output.word} follows from the feature {self.feature.name}, which the cluster file does not enable: "
                f"set features.{self.feature.name}"
            )


def manifests() -> Mapping[str, Feature]:
    """Return the features' manifests, which bring with them what serves them."""
    from muster.features import manifests

    return manifests()


def offers(features: Manifests = manifests) -> tuple[Offer, ...]:
    """Return every output there is."""
    return (*_own(), *(Offer(output, f) for f in features().values() for output in f.outputs))


def offer(word: str, features: Manifests = manifests) -> Offer | None:
    """Return the output of that word; features are looked at only for what is not on our own list."""
    own = {one.output.word: one for one in _own()}
    return own[word] if word in own else {one.output.word: one for one in offers(features)}.get(word)


def _own() -> Iterator[Offer]:
    return (Offer(output) for output in OUTPUTS)
