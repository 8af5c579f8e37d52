"""Everything that follows from the cluster file for other programs: what ``derived`` lists, and what features offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.derived.output import Output
from muster.derived.outputs import output, outputs
from muster.features import settings_models
from muster.kernel.errors import Misconfigured

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile
    from muster.edge.feature import FeatureSettings

# The features' settings by name: what offers an output, in what every command can afford to load.
Models = Callable[[], Mapping[str, "type[FeatureSettings]"]]


@dataclass(frozen=True)
class Offer:
    """An output, and the feature that offers it; None: it follows from the file without any."""

    output: Output
    feature: str | None = None
    settings: type[FeatureSettings] | None = None

    def refuse_where_off(self, cluster: ClusterFile) -> None:
        """Refuse an output of a feature that the cluster file does not enable.

        Raises:
            Misconfigured: it does not.
        """
        if self.feature is None or self.settings is None:
            return
        given = cluster.features.get(self.feature)
        if given is None or not self.settings.model_validate(given).enabled:
            raise Misconfigured(
                f"{self.output.word} follows from the feature {self.feature}, which the cluster file does not enable: "
                f"set features.{self.feature}"
            )


def offers(features: Models = settings_models) -> tuple[Offer, ...]:
    """Return every output there is."""
    return (*(Offer(own) for own in outputs()), *_offered(features))


def offer(word: str, features: Models = settings_models) -> Offer | None:
    """Return the output of that word; features are looked at only for what is not on our own list."""
    own = output(word)
    return Offer(own) if own is not None else {one.output.word: one for one in _offered(features)}.get(word)


def _offered(features: Models) -> Iterator[Offer]:
    return (Offer(output, name, model) for name, model in features().items() for output in model.outputs)
