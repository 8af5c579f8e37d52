"""Does what the features depend on answer?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from muster.app.duties.duty import Duty, Found, joined
from muster.edge.feature import Features, ProvidedFeatureSettings, Served
from muster.edge.lags import Lags
from muster.edge.ports import Port
from muster.kernel import log
from muster.kernel.errors import MusterError
from muster.policy.chains import Chains

_log = log.logger("app")
_TIMEOUT_S = 8.0


class Providers(Duty):
    """Names providers that cannot be reached, and takes the member out where one is essential or a feature failed.

    Features are calls of service smartproxy: a member where one failed would answer 503 to its share of them. When it is so
    on every member, all are unready alike and the balancer fails open: the other features go on.
    """

    name = "providers"
    every_s = 5.0

    def __init__(
        self,
        features: Features,
        ports: Mapping[str, Sequence[Port]] = MappingProxyType({}),
        chains: Chains | None = None,
        lags: Lags | None = None,
    ) -> None:
        """``ports`` are the features' own, by feature; one that failed does not listen there.

        ``chains`` know of each provider of a group, of which some may be away while the feature answers; ``lags`` how old
        is what a provider knows that follows its server.
        """
        self._features = features
        self._chains = chains or Chains()
        self._lags = lags or Lags()
        self._ports = ports
        self._unreached: dict[str, str] = {}

    async def beat(self) -> None:
        asked = self._to_ask()
        answers = await asyncio.gather(*(_unreached(s) for _, s in asked))
        troubles = {n: why for (n, _), why in zip(asked, answers, strict=True) if why}
        for name in troubles.keys() - self._unreached.keys():
            _log.warning("A provider cannot be reached", feature=name, why=troubles[name])
        for name in self._unreached.keys() - troubles.keys():
            _log.info("A provider can be reached again", feature=name)
        self._unreached = troubles

    def facts(self) -> dict[str, str]:
        """Return whether each provider answers this member, by feature; who was not asked yet is taken to do so."""
        return {name: "away" if name in self._unreached else "reached" for name, _ in self._to_ask()}

    def known(self) -> dict[str, str]:
        """Return whether what is known here of servers that are followed is ``current`` or ``behind``, by feature."""
        found: dict[str, str] = {}
        for one in self._lags.now():
            if one.lag.is_late or one.feature not in found:
                found[one.feature] = "behind" if one.lag.is_late else "current"
        return found

    def _to_ask(self) -> list[tuple[str, Served]]:
        return [(n, s) for n, s in self._features.served.items() if s.answers and s.feature.reached is not None]

    def found(self) -> Found:
        essential = {n: why for n, why in self._unreached.items() if self._is_essential(n)}
        failed = {name: f"feature {name} failed: {why}" for name, why in self._features.failed().items()}
        why = list(failed.values())
        why += [f"feature {name}: {why}" for name, why in essential.items()]
        notes = [f"feature {name}: {why}" for name, why in self._unreached.items() if name not in essential]
        notes += self._of_groups()
        notes += self._of_lags()
        own = ({port.service: said} for name, said in failed.items() for port in self._ports.get(name, ()))
        return Found(joined([{"smartproxy": "; ".join(why)} if why else {}, *own]), notes=notes)

    def _of_groups(self) -> list[str]:
        """Return what is wrong with single providers of groups, which their groups do without."""
        found = []
        for feature, chain in self._chains.features.items():
            for one in chain.standings():
                of = f"feature {feature}, provider {one.provider}"
                if one.why and feature not in self._unreached:
                    found.append(f"{of}: {one.why}")
                if one.pending:
                    found.append(f"{of}: has yet to have {_changes(one.pending)}")
                if one.stuck:
                    found.append(f"{of}: refused {_changes(one.stuck)} that others have had (muster repairs list)")
        return found

    def _of_lags(self) -> list[str]:
        """Return what providers know of their servers that is old; whether calls are answered is decided elsewhere."""
        found = []
        for one in (f for f in self._lags.now() if f.lag.is_late):
            of = f"feature {one.feature}{f', provider {one.name}' if one.name else ''}"
            # Why a provider cannot be reached is said already.
            why = f": {one.lag.why}" if one.lag.why and one.feature not in self._unreached else ""
            found.append(f"{of}: what it knows of its server is {one.lag.age_s:.0f} s old{why}")
        return found

    def _is_essential(self, name: str) -> bool:
        served = self._features.served[name]
        if served.feature.is_essential is not None:
            return served.feature.is_essential(served.service)
        settings = served.settings
        return isinstance(settings, ProvidedFeatureSettings) and settings.readiness == "essential"


def _changes(count: int) -> str:
    return f"{count} change{'s' if count != 1 else ''}"


async def _unreached(served: Served) -> str | None:
    """Return why a feature's provider cannot be reached, or None when it can."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await served.feature.reached(served.service)  # type: ignore[misc]
    except TimeoutError:
        return f"its provider did not answer within {_TIMEOUT_S:g} s"
    except MusterError as e:
        return str(e)
    return None
