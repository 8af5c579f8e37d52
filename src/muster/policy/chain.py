"""The chain every contract can be wrapped in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

from muster.policy.marks import Operation, operations

C = TypeVar("C")
Call = Callable[[], Awaitable[Any]]


class Policy(Protocol):
    """One decorator. It may call ``call`` never, once or several times, and sees neither arguments nor provider."""

    async def __call__(self, operation: Operation, call: Call) -> Any:
        """Return what the call returned, or raise."""


def chained(contract: type[C], provider: C, policies: Sequence[Policy]) -> C:
    """Return an object that satisfies the contract and sends every operation through the policies, first one outermost.

    Attributes that are not operations are the provider's own.
    """
    methods = {o.name: _through(o, policies) for o in operations(cast(Any, contract))}
    wrapped = type(f"{contract.__name__}Chain", (_Chain,), methods)
    return cast(C, wrapped(provider))


class _Chain:
    def __init__(self, provider: object) -> None:
        self._provider = provider

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    def __repr__(self) -> str:
        return f"<policies around {self._provider!r}>"


def _through(operation: Operation, policies: Sequence[Policy]) -> Callable[..., Awaitable[Any]]:
    async def perform(chain: _Chain, *arguments: Any, **named: Any) -> Any:
        target = getattr(chain._provider, operation.name)

        def innermost() -> Awaitable[Any]:
            return cast(Awaitable[Any], target(*arguments, **named))

        call: Call = innermost
        for policy in reversed(policies):
            call = _bound(policy, operation, call)
        return await call()

    perform.__name__ = operation.name
    return perform


def _bound(policy: Policy, operation: Operation, call: Call) -> Call:
    return lambda: policy(operation, call)
