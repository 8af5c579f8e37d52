from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography import x509

from muster.authority.authority import PuppetCA
from muster.features.puppetca.providers.authority import OwnCA
from muster.kernel.errors import NotFound
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from tests.servers import puppetca

NAME = "web01.example.com"


@pytest.fixture
async def ca(tmp_path: Path) -> AsyncIterator[PuppetCA]:
    async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        await puppetca.begin(store, tmp_path)
        async with puppetca.member(store, tmp_path) as ca:
            yield ca


class Interrupted:
    """A part of a CA to which something happens right after somebody's first call of an operation."""

    def __init__(self, part: object, operation: str, event: Callable[[], Awaitable[object]]) -> None:
        self._part = part
        self._operation = operation
        self._event: Callable[[], Awaitable[object]] | None = event

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if name != self._operation:
            return found

        async def interrupted(*arguments: Any, **named: Any) -> Any:
            try:
                return await found(*arguments, **named)
            finally:
                event, self._event = self._event, None
                if event is not None:
                    await event()

        return interrupted


def provider(ca: PuppetCA, operation: str, event: Callable[[], Awaitable[object]]) -> OwnCA:
    interrupted = SimpleNamespace(
        certificates=Interrupted(ca.certificates, operation, event), requests=Interrupted(ca.requests, operation, event)
    )
    return OwnCA(lambda: cast(PuppetCA, interrupted))


async def ask(ca: PuppetCA) -> None:
    assert not await ca.requests.submit(NAME, puppetca.agent(NAME).csr, source=puppetca.ANYBODY)


async def serial(ca: PuppetCA) -> int:
    return x509.load_pem_x509_certificate((await ca.certificates.pem(NAME)).encode()).serial_number


async def revoked(ca: PuppetCA) -> set[int]:
    return puppetca.revoked_in((await ca.lists.served(whole=True)).pem)


@pytest.mark.parametrize("operation", ["clean", "reject"])
async def test_a_certificate_signed_while_its_request_is_cleaned_away_is_revoked(ca: PuppetCA, operation: str) -> None:
    given: list[int] = []

    async def another_member_signs() -> None:
        if operation == "reject":
            await ask(ca)
        await ca.requests.sign(NAME, actor="another member")
        given.append(await serial(ca))

    await ask(ca)
    await provider(ca, operation, another_member_signs).clean(NAME)
    if operation == "clean":
        assert await ca.certificates.status(NAME) is None
        assert given == list(await revoked(ca))
    else:
        # Asked for and signed after all was cleaned: that is a host's new life.
        assert await serial(ca) == given[0]
        assert await revoked(ca) == set()


async def test_a_request_withdrawn_meanwhile_is_as_good_as_cleaned(ca: PuppetCA) -> None:
    async def another_member_rejects() -> None:
        await ca.requests.reject(NAME, actor="another member")

    await ask(ca)
    await provider(ca, "clean", another_member_rejects).clean(NAME)
    assert await ca.certificates.status(NAME) is None
    assert await revoked(ca) == set()


async def test_a_request_that_is_cleaned_away_is_written_down_as_rejected_by_foreman(ca: PuppetCA) -> None:
    await ask(ca)
    await OwnCA(lambda: ca).clean(NAME)
    with pytest.raises(NotFound):
        await ca.requests.pem(NAME)
    assert [(r["event"], r["actor"]) for r in await ca._hand.ledger.history(NAME, most=1)] == [("rejected", "Foreman")]
