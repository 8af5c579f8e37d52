"""Foreman's calls; the recorded ones of the Ruby proxy are played in ``tests/wire``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from muster.authority.autosign import Autosign
from muster.cluster.file import Authority
from muster.edge.replies import error_reply, not_found
from muster.edge.routes import Access, RouteTable
from muster.features.puppetca.api import MOUNT
from muster.features.puppetca.autosigners import Hostnames, Tokens
from muster.features.puppetca.contract import Autosigner
from muster.features.puppetca.providers.memory import MemoryCA
from muster.features.puppetca.service import PuppetCAFeature, _minutes
from muster.kernel.errors import MusterError, NotAcceptable, Unavailable
from muster.kernel.secrets import Secret
from muster.policy.chain import chained
from muster.policy.metered import OperationMetrics
from muster.policy.settings import PolicySettings
from muster.store.engine import opened
from tests.servers import puppetca
from tests.unit.edge.calls import request

TABLE = RouteTable(MOUNT.routes)
NAME = "web01.example.com"


class Feature:
    """The feature with its provider at hand."""

    def __init__(self, autosign: Autosign) -> None:
        self.ca = MemoryCA()
        self.autosign = autosign
        self.service = PuppetCAFeature(self.ca, Hostnames(autosign))

    def with_tokens(self) -> None:
        self.service = PuppetCAFeature(self.ca, Tokens(self.autosign, 360))

    async def call(self, method: str, path: str, body: bytes = b"") -> tuple[int, str]:
        """Answer a call as the edge would."""
        call = request(method, path, body=(body,) if body else ())
        found = TABLE.find(method, path.partition("?")[0])
        if found is None:
            return 404, not_found().body.decode()
        route, call.arguments = found
        try:
            answer = await route.endpoint(self.service, call)
        except MusterError as e:
            answer = error_reply(e, accept=None)
        return answer.status, answer.body.decode()


@pytest.fixture
async def feature(tmp_path: Path) -> AsyncIterator[Feature]:
    async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        yield Feature(Autosign(store, Authority()))


def test_every_route_is_for_trusted_hosts() -> None:
    assert {r.access for r in MOUNT.routes} == {Access.TRUSTED}


async def test_a_request_is_signed_once_and_cleaned_as_often_as_asked(feature: Feature) -> None:
    feature.ca.request(NAME)
    assert await feature.call("POST", f"/{NAME}") == (200, "")
    again = await feature.call("POST", f"/{NAME}")
    assert again[0] == 406
    assert again[1].startswith(f"Failed to sign certificate(s) for {NAME}: Cannot sign certificate")
    listed = json.loads((await feature.call("GET", "/"))[1])
    assert listed[NAME]["state"] == "valid"
    for _ in range(2):
        assert await feature.call("DELETE", f"/{NAME}") == (200, "")
    assert json.loads((await feature.call("GET", "/"))[1]) == {}


async def test_a_name_typed_in_upper_case_is_the_hosts(feature: Feature) -> None:
    feature.ca.request(NAME)
    assert await feature.call("POST", f"/{NAME.upper()}") == (200, "")
    assert json.loads((await feature.call("GET", "/"))[1])[NAME]["state"] == "valid"
    assert await feature.call("DELETE", f"/{NAME.title()}") == (200, "")
    assert json.loads((await feature.call("GET", "/"))[1]) == {}


async def test_a_certificate_that_an_import_brought_in_upper_case_is_cleaned_by_its_name(feature: Feature) -> None:
    feature.ca.request(NAME.upper())
    assert await feature.call("DELETE", f"/{NAME.upper()}") == (200, "")
    assert json.loads((await feature.call("GET", "/"))[1]) == {}


@pytest.mark.parametrize("tokens", [False, True])
async def test_a_name_no_database_holds_is_refused_where_an_entry_is_taken_away(feature: Feature, tokens: bool) -> None:
    if tokens:
        feature.with_tokens()
    with pytest.raises(MusterError, match="is no certname") as refused:
        await feature.service.forbid("a\udcff")
    assert refused.value.status == 406


@pytest.mark.parametrize("name", ["a%20b", "bad%0Aname", "%23comment", "a;b", "x" * 300])
async def test_a_name_that_is_none_reaches_no_ca_and_no_list(feature: Feature, name: str) -> None:
    from urllib.parse import unquote

    for method, path in (("POST", name), ("DELETE", name), ("POST", f"autosign/{name}")):
        status, said = await feature.call(method, f"/{unquote(path)}")
        assert status == 406
        assert "\n" not in said
    assert await feature.call("GET", "/autosign") == (200, "[]")


async def test_a_ca_that_does_not_answer_is_503_and_says_what_was_tried(feature: Feature) -> None:
    feature.ca.failure = Unavailable("it is down")
    assert await feature.call("GET", "/") == (503, "Failed to list certificates: it is down")
    assert (await feature.call("POST", f"/{NAME}"))[0] == 503
    assert (await feature.call("DELETE", f"/{NAME}"))[0] == 503


async def test_the_list_of_names_is_kept_shown_and_emptied(feature: Feature) -> None:
    for name in (NAME, NAME, "*.example.com"):
        assert await feature.call("POST", f"/autosign/{name}?token_ttl=60") == (200, "")
    assert await feature.call("GET", "/autosign") == (200, f'["{NAME}","*.example.com"]')
    assert await feature.call("DELETE", f"/autosign/{NAME}") == (200, "")
    assert await feature.call("DELETE", f"/autosign/{NAME}") == (
        404,
        f"Attempt to remove nonexistent client autosign for {NAME}",
    )


@pytest.mark.parametrize(
    ("entry", "name", "signed"),
    [
        (NAME, NAME, True),
        (NAME, f"sub.{NAME}", False),
        (NAME, NAME.removesuffix("m"), False),
        ("*.example.com", NAME, True),
        ("*.example.com", f"a.b.{NAME}", True),
        ("*.example.com", "example.com", True),
        ("*.example.com", "webexample.com", False),
        ("*", NAME, True),
        ("*", "UPPER.example.com", False),
        ("*", "*.example.com", False),
    ],
)
async def test_whoever_asks_hears_whether_a_name_is_on_the_list(
    feature: Feature, entry: str, name: str, signed: bool
) -> None:
    request = puppetca.agent(name).csr
    assert await feature.call("POST", "/validate", request) == (404, "")
    assert await feature.call("POST", f"/autosign/{entry}") == (200, "")
    for _ in range(2):
        assert await feature.call("POST", "/validate", request) == (200 if signed else 404, "")
    assert await feature.call("DELETE", f"/autosign/{entry}") == (200, "")
    assert await feature.call("POST", "/validate", request) == (404, "")


async def test_a_token_is_a_yes_once_and_for_its_own_name_only(feature: Feature) -> None:
    feature.with_tokens()
    token = json.loads((await feature.call("POST", f"/autosign/{NAME}"))[1])["generated_token"]
    assert await feature.call("POST", "/validate", puppetca.agent("other.example.com", challenge=token).csr) == (
        404,
        "",
    )
    request = puppetca.agent(NAME, challenge=token).csr
    assert await feature.call("POST", "/validate", request) == (200, "")
    assert await feature.call("POST", "/validate", request) == (404, "")


async def test_a_yes_that_was_lost_on_its_way_is_no_no(feature: Feature) -> None:
    class Lossy(Tokens):
        async def permits(self, csr_pem: bytes) -> bool:
            assert await super().permits(csr_pem)
            raise Unavailable("the answer to the commit was lost")

    policies = PolicySettings().built(OperationMetrics(CollectorRegistry()), "puppetca/test")
    lossy = chained(Autosigner, Lossy(feature.autosign, 360), policies)  # type: ignore[type-abstract]
    feature.service = PuppetCAFeature(feature.ca, lossy)
    token = json.loads((await feature.call("POST", f"/autosign/{NAME}"))[1])["generated_token"]
    answer = await feature.call("POST", "/validate", puppetca.agent(NAME, challenge=token).csr)
    assert answer == (503, "Failed to validate CSR: the answer to the commit was lost")


@pytest.mark.parametrize("name", ["a\x00b", "a\ud800"])
@pytest.mark.parametrize("way", ["hostnames", "tokens"])
async def test_to_withdraw_what_no_list_could_hold_is_an_error_and_no_bug(
    feature: Feature, way: str, name: str
) -> None:
    if way == "tokens":
        feature.with_tokens()
    with pytest.raises(NotAcceptable, match="Failed to remove autosign for a") as raised:
        await feature.service.forbid(name)
    assert str(raised.value).isprintable()


MINUTES = {
    **dict.fromkeys((None, "", "soon", "0", "-5"), None),
    "60": 60,
    " 60": 60,
    "+7": 7,
    "5abc": 5,
    "1.5": 1,
    "1_0": 10,
    "9" * 12: 525_600,
    "9" * 30: 525_600,
}


@pytest.mark.parametrize(("text", "minutes"), MINUTES.items())
def test_a_time_to_live_is_read_as_ruby_reads_a_number(text: str | None, minutes: int | None) -> None:
    assert _minutes(text) == minutes


@pytest.mark.parametrize("ttl", ["", "?token_ttl=5", "?token_ttl=0", "?token_ttl=soon", "?token_ttl=99999999"])
async def test_a_token_is_given_and_withdrawn_whatever_time_is_asked_for(feature: Feature, ttl: str) -> None:
    feature.with_tokens()
    status, said = await feature.call("POST", f"/autosign/{NAME}{ttl}")
    assert status == 200
    assert len(json.loads(said)["generated_token"].split(".")) == 3
    assert await feature.call("GET", "/autosign") == (200, f'["{NAME}"]')
    for _ in range(2):
        assert await feature.call("DELETE", f"/autosign/{NAME}") == (200, "")
    assert await feature.call("GET", "/autosign") == (200, "[]")


@pytest.mark.parametrize("body", [b"", b"junk", b"x" * 70_000])
@pytest.mark.parametrize("way", ["hostnames", "tokens"])
async def test_what_is_no_request_is_not_validated(feature: Feature, way: str, body: bytes) -> None:
    if way == "tokens":
        feature.with_tokens()
    else:
        assert await feature.call("POST", "/autosign/*") == (200, "")
    assert await feature.call("POST", "/validate", body) == (404, "")
