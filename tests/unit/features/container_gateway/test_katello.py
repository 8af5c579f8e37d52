from __future__ import annotations

from typing import Any

import pytest

from muster.content.backend import GatewayTimeout
from muster.features.container_gateway.katello import Katello, Said
from muster.kernel.errors import Unavailable

pytestmark = pytest.mark.anyio


class Silent:
    async def ask(self, *_: object) -> Any:
        raise GatewayTimeout("Foreman did not begin to answer within 30 s")


async def test_a_foreman_that_says_nothing_does_not_answer_for_now() -> None:
    """Container clients wait and ask again for what is away, and for nothing else."""
    silent: Any = Silent()
    it = Katello(silent)
    for asking in (it.token("", {}), it.repositories_of_user("Basic x", {}), it.repositories_of_host("5c5be8b4")):
        with pytest.raises(Unavailable, match="within 30 s"):
            await asking


@pytest.mark.parametrize("body", [b"", b"[]", b"[" * 5000, b'"x"', b"\xff"])
def test_what_is_no_object_is_no_answer_of_katellos(body: bytes) -> None:
    with pytest.raises(Unavailable, match="no JSON object"):
        Said(200, body, "application/json").json()
