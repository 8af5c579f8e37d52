from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from muster.features.puppetca.contract import Autosigner
from muster.kernel.errors import Unavailable
from muster.policy.chain import chained
from muster.policy.marks import operations
from muster.policy.metered import OperationMetrics
from muster.policy.settings import PolicySettings


def test_an_answer_that_uses_a_token_up_is_a_change_that_is_not_repeated() -> None:
    marks = {o.name: (o.kind, o.repeatable) for o in operations(Autosigner)}
    assert marks == {
        "reached": ("query", True),
        "entries": ("query", True),
        "allow": ("change", True),
        "forbid": ("change", True),
        "permits": ("change", False),
    }


class Lost:
    """Answers, and the answer is lost on its way."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def reached(self) -> None:
        raise AssertionError

    async def allow(self, certname: str, ttl_min: int | None) -> str | None:
        raise AssertionError

    async def forbid(self, certname: str) -> None:
        raise AssertionError

    async def entries(self) -> list[str]:
        self.asked.append("entries")
        raise Unavailable("lost")

    async def permits(self, csr_pem: bytes) -> bool:
        self.asked.append("permits")
        raise Unavailable("lost")


async def test_whether_a_request_may_be_signed_is_asked_once_whatever_happens() -> None:
    lost = Lost()
    policies = PolicySettings().built(OperationMetrics(CollectorRegistry()), "puppetca/test")
    autosigner = chained(Autosigner, lost, policies)  # type: ignore[type-abstract]
    with pytest.raises(Unavailable, match="lost"):
        await autosigner.permits(b"")
    assert lost.asked == ["permits"]
    with pytest.raises(Unavailable, match="lost"):
        await autosigner.entries()
    assert lost.asked == ["permits", "entries", "entries", "entries"], "the policies do repeat"
