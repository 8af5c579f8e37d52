"""Marks on the operations of a contract: is it a query or a change, and may a change be repeated?

The marks are what policies read. A contract is a ``Protocol`` whose public coroutines all carry one::

    class DNSProvider(Protocol):
        @query
        async def lookup(self, name: FQDN, type: RecordType) -> frozenset[str]: ...

        @change(repeatable=True)
        async def add(self, record: Record) -> None: ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__muster_operation__"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a contract.

    Attributes:
        repeatable: doing it twice has the effect of doing it once, so it may be tried again when its outcome is unknown.
    """

    contract: str
    name: str
    kind: Literal["query", "change"]
    repeatable: bool

    def __str__(self) -> str:
        return f"{self.contract}.{self.name}"


def query(method: F) -> F:
    """Mark an operation that changes nothing; it may always be repeated."""
    setattr(method, _MARK, Operation("", method.__name__, "query", True))
    return method


def change(*, repeatable: bool) -> Callable[[F], F]:
    """Mark an operation that changes something, and whether it may be repeated."""

    def mark(method: F) -> F:
        setattr(method, _MARK, Operation("", method.__name__, "change", repeatable))
        return method

    return mark


@lru_cache(maxsize=64)
def operations(contract: Any) -> tuple[Operation, ...]:
    """Return the contract's operations in the order of their definition.

    Raises:
        TypeError: a public coroutine carries no mark; a contract must say what may be repeated.
    """
    found: dict[str, Operation] = {}
    for owner in reversed(inspect.getmro(contract)):
        for name, member in vars(owner).items():
            if name.startswith("_") or not (inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)):
                continue
            if inspect.isasyncgenfunction(member):
                raise TypeError(f"{owner.__name__}.{name} is a generator; policies carry calls with one answer")
            mark = getattr(member, _MARK, None)
            if mark is None:
                raise TypeError(f"{owner.__name__}.{name} is marked neither @query nor @change")
            found[name] = replace(mark, contract=contract.__name__)
    return tuple(found.values())
