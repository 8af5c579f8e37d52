"""First: one provider is asked, and when it is away the next one is, which then stays the one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from muster.kernel import log
from muster.kernel.errors import MusterError
from muster.policy.groups.grouped import Asked, Failures, Mode, Standing, is_away, reached

_log = log.logger("policy")


class First:
    """Ask the provider that answered last; fail over in the order of the settings, and stay there.

    A change that may not be repeated, and whose outcome is unknown, is not given to another provider: it might happen twice.
    For providers that lead to the same data (two proxies before one server, two servers of one database).

    Args:
        certain: errors after which it is known that nothing was changed.

    Concurrency: one event loop. Each member sticks to a provider of its own.
    """

    mode: Mode = "first"

    def __init__(self, name: str, providers: Sequence[str], certain: tuple[type[MusterError], ...] = ()) -> None:
        self._name, self._providers, self._certain = name, list(providers), certain
        self._current = providers[0]
        self._why: dict[str, str] = {}

    async def __call__(self, asked: Asked) -> Any:
        if asked.operation.name == "reached":
            return await reached(asked, self._why)
        failures, begun = Failures(), self._current
        for name in [begun, *(n for n in self._providers if n != begun)]:
            try:
                result = await asked.calls[name]()
            except MusterError as e:
                if not is_away(e):
                    self._answers(name)
                    raise
                self._why[name] = str(e)
                failures.said[name] = e
                if e.retryable and not asked.operation.repeatable and not isinstance(e, self._certain):
                    raise
                continue
            self._answers(name)
            return result
        raise failures.joined(asked.operation)

    def _answers(self, name: str) -> None:
        self._why.pop(name, None)
        if name != self._current:
            _log.warning(
                "A group asks another provider", group=self._name, provider=name, before=self._current,
                why=self._why.get(self._current, ""),
            )  # fmt: skip
            self._current = name

    def standings(self) -> list[Standing]:
        return standings(self._providers, self._current, self._why)


def standings(providers: Sequence[str], current: str, why: Mapping[str, str]) -> list[Standing]:
    """Return how providers are of which one is asked."""
    return [Standing(n, "asked" if n == current else "in reserve", why.get(n, "")) for n in providers]
