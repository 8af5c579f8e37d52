from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from muster.features.realm.contract import Account, Wanted
from muster.features.realm.providers.smart_proxy import SmartProxyRealm
from muster.foreman.answers import Answer
from muster.foreman.smart_proxy import SmartProxy
from muster.kernel.errors import NotFound, Rejected, Unavailable
from muster.kernel.names import FQDN

pytestmark = pytest.mark.anyio
HOST = FQDN("web01.example.com")


class Proxy:
    """Answers what it is told, and keeps what it was asked."""

    url = "https://other.example.com:9090"

    def __init__(self, status: int, text: str) -> None:
        self.answer = Answer(status, text)
        self.asked: list[tuple[str, str, Any]] = []

    async def ask(self, method: str, path: str, form: Mapping[str, str] | None = None) -> Answer:
        self.asked.append((method, path, form))
        return self.answer

    async def call(self, method: str, path: str, form: Mapping[str, str] | None = None) -> Answer:
        return (await self.ask(method, path, form)).accepted(self.url, method, path)


def realm(status: int, text: str = "") -> tuple[SmartProxyRealm, Proxy]:
    proxy = Proxy(status, text)
    return SmartProxyRealm(cast(SmartProxy, proxy)), proxy


async def test_everything_foreman_said_goes_on() -> None:
    there, proxy = realm(200, '{"randompassword": "Secret1", "fqdn": ["web01.example.com"]}')
    account = await there.enrol(Wanted("EXAMPLE.COM", HOST, "web", is_rebuilt=True, is_update=True))
    assert account.password is not None
    assert (account.password.reveal(), account.told) == ("Secret1", {"fqdn": ["web01.example.com"]})
    form = {"hostname": str(HOST), "userclass": "web", "rebuild": "true", "update": "true"}
    assert proxy.asked == [("POST", "/realm/EXAMPLE.COM/", form)]


async def test_nothing_to_do_is_told_as_that() -> None:
    there, proxy = realm(200, '{\n  "message": "nothing to do"\n}')
    assert await there.enrol(Wanted("EXAMPLE.COM", HOST)) == Account()
    assert proxy.asked[0][2] == {"hostname": str(HOST)}


async def test_what_is_no_object_is_not_shown() -> None:
    there, _ = realm(200, '"Secret1"')
    with pytest.raises(Unavailable) as refusal:
        await there.enrol(Wanted("EXAMPLE.COM", HOST))
    assert "Secret1" not in str(refusal.value)


async def test_a_refusal_keeps_its_words() -> None:
    there, _ = realm(400, "Unknown realm EXAMPLE.COM")
    with pytest.raises(Rejected, match=r"Unknown realm EXAMPLE\.COM"):
        await there.enrol(Wanted("EXAMPLE.COM", HOST))


@pytest.mark.parametrize(
    ("text", "kind"),
    [("Host web01.example.com not found in realm", NotFound), ("Requested url was not found", Unavailable)],
)
async def test_a_proxy_without_the_feature_has_removed_nothing(text: str, kind: type[Exception]) -> None:
    there, _ = realm(404, text)
    with pytest.raises(kind):
        await there.remove("EXAMPLE.COM", HOST)


@pytest.mark.parametrize(("text", "told"), [("", None), ('{"summary": "gone"}', {"summary": "gone"}), ("[]", None)])
async def test_what_is_said_of_a_removal_is_told(text: str, told: Any) -> None:
    there, proxy = realm(200, text)
    assert await there.remove("EXAMPLE.COM", HOST) == told
    assert proxy.asked == [("DELETE", "/realm/EXAMPLE.COM/web01.example.com", None)]
