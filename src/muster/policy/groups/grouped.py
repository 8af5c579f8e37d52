"""Several providers that are called as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar, cast

from muster.kernel.errors import Misconfigured, MusterError, Unavailable
from muster.policy.chain import Call
from muster.policy.marks import Operation, operations

C = TypeVar("C")

Mode = Literal["all", "first", "leader"]

ANSWERS_WITHIN_S = 5.0
"""How long a provider of a group may take to say that it is there. Below the time after which whoever asks a whole feature
that takes it for away (:mod:`muster.app.duties.providers`): one that hangs is not to be waited for by the others."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of one operation.

    Attributes:
        calls: the call at each provider, by its name, in the order of the settings.
    """

    operation: Operation
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]
    calls: Mapping[str, Call]


@dataclass(frozen=True, slots=True)
class Standing:
    """How one provider of a group is, for a person.

    Attributes:
        role: ``asked`` where calls go, ``in reserve`` where they would go next.
        why: what is wrong with it, in one sentence; empty: nothing.
        pending: changes that it has not had yet.
        stuck: changes that it refused and that others have had.
        epoch, led_since: of one that leads how often the leader changed, and since when it is this one, in store time;
            0: it is not known.
    """

    provider: str
    role: str = ""
    why: str = ""
    pending: int = 0
    stuck: int = 0
    epoch: int = 0
    led_since: float = 0.0


class Way(Protocol):
    """To which providers a call goes."""

    mode: Mode

    async def __call__(self, asked: Asked) -> Any:
        """Return what the call returned, or raise."""

    def standings(self) -> list[Standing]:
        """Return how each provider is, in their order; what is known without asking."""


def grouped(contract: type[C], providers: Mapping[str, C], way: Way, **attributes: Any) -> C:
    """Return an object that satisfies the contract and sends every operation the group's way.

    ``attributes`` are those of the contract that are no operations.
    """
    methods = {o.name: _through(o, providers, way) for o in operations(cast(Any, contract))}
    made = type(f"{contract.__name__}Group", (_Group,), {**attributes, **methods})
    return cast(C, made(providers, way))


class _Group:
    def __init__(self, providers: Mapping[str, object], way: Way) -> None:
        self.providers = providers
        self.way = way

    def __repr__(self) -> str:
        return f"<{self.way.mode} of {', '.join(self.providers)}>"


def _through(operation: Operation, providers: Mapping[str, Any], way: Way) -> Callable[..., Awaitable[Any]]:
    async def perform(_group: _Group, *arguments: Any, **named: Any) -> Any:
        def at(provider: Any) -> Call:
            return lambda: getattr(provider, operation.name)(*arguments, **named)

        return await way(Asked(operation, arguments, named, {n: at(p) for n, p in providers.items()}))

    perform.__name__ = operation.name
    return perform


def is_away(error: MusterError) -> bool:
    """Whether a provider's failure is about itself, so that another one may do better; else it is an answer."""
    return error.retryable or isinstance(error, Misconfigured)


async def reached(asked: Asked, why: dict[str, str]) -> Sequence[str]:
    """Ask every provider whether it answers, and return those that do, at least one; ``why`` is kept for the others.

    Raises:
        MusterError: none does.
    """

    async def answer(name: str) -> MusterError | None:
        error: MusterError
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                await asked.calls[name]()
        except TimeoutError:
            error = Unavailable(f"It did not answer within {ANSWERS_WITHIN_S:g} s")
        except MusterError as e:
            error = e
        else:
            why.pop(name, None)
            return None
        why[name] = str(error)
        return error

    said = await asyncio.gather(*(answer(n) for n in asked.calls))
    failures = Failures({n: e for n, e in zip(asked.calls, said, strict=True) if e is not None})
    if len(failures.said) == len(asked.calls):
        raise failures.joined(asked.operation)
    return [n for n in asked.calls if n not in failures.said]


@dataclass
class Failures:
    """What the providers of one call said, by name; and what that is together."""

    said: dict[str, MusterError] = field(default_factory=dict)

    def joined(self, operation: Operation) -> MusterError:
        """Return the failure of a call that no provider carried out."""
        reasons = "; ".join(f"{name}: {error}" for name, error in self.said.items())
        kinds = {type(e) for e in self.said.values()}
        # What may end well later is said so.
        kind = kinds.pop() if len(kinds) == 1 else Unavailable
        return kind(f"{operation} failed at every provider of the group: {reasons}")
