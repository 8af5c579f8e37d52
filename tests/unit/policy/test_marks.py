from __future__ import annotations

from typing import Protocol

import pytest

from muster.features.dns.contract import DNSProvider
from muster.policy.marks import Operation, change, operations, query


class Shelf(Protocol):
    """A contract of this test's own."""

    @query
    async def lookup(self, name: str) -> str | None: ...

    @change(repeatable=True)
    async def add(self, name: str) -> None: ...

    @change(repeatable=False)
    async def draw(self) -> str: ...

    def size(self) -> int: ...

    async def _private(self) -> None: ...


def test_the_operations_of_a_contract_are_its_marked_coroutines_in_order() -> None:
    assert operations(Shelf) == (
        Operation("Shelf", "lookup", "query", True),
        Operation("Shelf", "add", "change", True),
        Operation("Shelf", "draw", "change", False),
    )
    assert [str(o) for o in operations(Shelf)] == ["Shelf.lookup", "Shelf.add", "Shelf.draw"]


def test_the_dns_contract_says_what_may_be_repeated() -> None:
    assert operations(DNSProvider) == (
        Operation("DNSProvider", "lookup", "query", True),
        Operation("DNSProvider", "reached", "query", True),
        Operation("DNSProvider", "add", "change", True),
        Operation("DNSProvider", "remove", "change", True),
    )


def test_a_coroutine_without_a_mark_is_no_contract() -> None:
    class Forgetful(Protocol):
        @query
        async def lookup(self) -> None: ...

        async def add(self) -> None: ...

    with pytest.raises(TypeError, match=r"Forgetful\.add is marked neither @query nor @change"):
        operations(Forgetful)


def test_a_contract_has_the_operations_of_the_contracts_it_extends() -> None:
    class Wide(Shelf, Protocol):
        @query
        async def listed(self) -> list[str]: ...

    assert [str(o) for o in operations(Wide)] == ["Wide.lookup", "Wide.add", "Wide.draw", "Wide.listed"]


def test_a_mark_leaves_the_method_as_it_is() -> None:
    async def method() -> int:
        return 5

    assert query(method) is method
    assert change(repeatable=True)(method) is method
