from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from muster.cluster.file import ClusterFile
from muster.content.backend import GatewayTimeout
from muster.content.handed import Said
from muster.edge.feature import Surroundings
from muster.edge.replies import Reply
from muster.edge.request import Peer, TooLarge
from muster.features.templates import api, service
from muster.features.templates.service import Templates
from muster.features.templates.settings import TemplatesSettings
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.happenings import Happening, Tell, untold
from tests.unit.content.test_handed import FORGED, cluster
from tests.unit.edge.calls import request

pytestmark = pytest.mark.anyio

URL = "http://proxy.example.com:8000"
TOLD = "url=http%3A%2F%2Fproxy.example.com%3A8000"


class Foreman:
    """Answers everything alike, and remembers what it was asked."""

    def __init__(self, status: int = 200, body: bytes = b"# template", error: MusterError | None = None) -> None:
        self.status, self.body, self.error = status, body, error
        self.asked: list[tuple[str, str, dict[str, str], bytes, int | None]] = []

    async def ask(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        *,
        body: AsyncIterator[bytes] | None = None,
        length: int | None = None,
        **_: Any,
    ) -> Said:
        if self.error is not None:
            raise self.error
        sent = b"".join([p async for p in body]) if body is not None else b""
        self.asked.append((method, path, dict(headers), sent, length))
        return Said(self.status, "text/plain", self.body)


async def called(foreman: Foreman, method: str, target: str, *, tell: Tell = untold, **given: Any) -> Reply:
    """Call as the edge does, by the routes."""
    mount = next(m for m in (api.UNATTENDED, api.USERDATA) if target.startswith(m.prefix))
    from muster.edge.routes import RouteTable

    found = RouteTable(mount.routes).find(method, target.partition("?")[0].removeprefix(mount.prefix))
    assert found is not None
    asked = request(method, target, **given)
    asked.arguments = found[1]
    return await found[0].endpoint(Templates(foreman, URL, tell=tell), asked)  # type: ignore[arg-type]


async def test_a_template_is_asked_for_with_the_cluster_s_url_and_the_host_s_address() -> None:
    foreman = Foreman()
    reply = await called(foreman, "GET", "/unattended/provision?token=a", by=Peer("192.0.2.9"), headers=FORGED)
    assert (reply.status, reply.body) == (200, b"# template")
    ((method, path, headers, _, _),) = foreman.asked
    assert (method, path) == ("GET", f"/unattended/provision?token=a&{TOLD}")
    assert headers == {"Accept": "*/*, application/json,version=2", "X-Forwarded-For": "192.0.2.9"}


@pytest.mark.parametrize("query", ["url=http://other.test", "u%72l=http://other.test", "url[]=x", "url[a]=x", "url"])
async def test_nobody_has_a_host_led_elsewhere(query: str) -> None:
    foreman = Foreman()
    await called(foreman, "GET", f"/unattended/provision?{query}&a=b")
    assert foreman.asked[0][1] == f"/unattended/provision?{TOLD}&a=b"
    await called(foreman, "POST", f"/unattended/built?{query}", body=[b"url=x"], headers={"Content-Length": "5"})
    assert foreman.asked[1][1].count("url=") == 1
    assert TOLD in foreman.asked[1][1]


async def test_who_asked_for_what_and_what_foreman_answered_is_told_without_the_token() -> None:
    heard: list[Happening] = []
    given: dict[str, Any] = {"by": Peer("192.0.2.9"), "tell": heard.append}
    card = {"X-RHN-Provisioning-MAC-0": "eth0 52:54:00:AA:00:01"}
    await called(Foreman(), "GET", "/unattended/provision?token=t0k3n", headers=card, **given)
    await called(Foreman(404), "GET", "/unattended/iPXE?token=t0k3n", **given)
    await called(Foreman(201), "POST", "/unattended/built?token=t0k3n", body=[b""], **given)
    await called(Foreman(), "GET", "/userdata/00:11:22:33:44:55/meta-data", **given)
    with pytest.raises(Unavailable):
        await called(Foreman(error=Unavailable("Foreman cannot be reached")), "GET", "/unattended/finish", **given)
    assert [(h.kind, h.mac, h.detail["method"], h.detail["template"], h.detail["status"]) for h in heard] == [
        ("template", "52:54:00:aa:00:01", "GET", "provision", 200),
        ("template", None, "GET", "iPXE", 404),
        ("built", None, "POST", "built", 201),
        ("template", "00:11:22:33:44:55", "GET", "meta-data", 200),
        ("template", None, "GET", "finish", 503),
    ]
    assert heard[-1].detail["failed"] == "Failed to proxy /finish: Foreman cannot be reached"
    assert {h.address for h in heard} == {"192.0.2.9"}
    assert "t0k3n" not in repr(heard)


async def test_userdata_is_found_by_a_card_s_address_too() -> None:
    foreman = Foreman()
    await called(foreman, "GET", "/userdata/user-data")
    await called(foreman, "GET", "/userdata/00:11:22:33:44:55/meta-data")
    assert [a[1].partition("?")[0] for a in foreman.asked] == [
        "/userdata/user-data", "/userdata/00%3A11%3A22%3A33%3A44%3A55/meta-data",
    ]  # fmt: skip


async def test_a_long_report_goes_on_as_it_comes_whatever_it_is_called() -> None:
    foreman = Foreman()
    log = b"100% done & a=b\n" * 1000
    sent = {"Content-Length": str(len(log)), "Content-Type": "application/x-www-form-urlencoded"}
    await called(foreman, "POST", "/unattended/failed?token=t", body=[log[:9000], log[9000:]], headers=sent)
    ((_, path, headers, body, length),) = foreman.asked
    assert path == f"/unattended/failed?token=t&Content-Type=text%2Fplain&{TOLD}"
    assert (body, length, headers["Content-Type"]) == (log, len(log), "text/plain")


@pytest.mark.parametrize("body", [b"100% done", b"a=%ff", b"a=1&a[b]=2"])
async def test_a_short_report_that_is_no_form_is_none(body: bytes) -> None:
    foreman = Foreman()
    await called(foreman, "POST", "/unattended/failed", body=[body], headers={"Content-Length": str(len(body))})
    assert foreman.asked[0][1] == f"/unattended/failed?Content-Type=text%2Fplain&{TOLD}"
    assert foreman.asked[0][3] == body


async def test_a_report_that_is_too_long_is_not_begun() -> None:
    foreman = Foreman()
    with pytest.raises(TooLarge, match="Failed to proxy /failed"):
        await called(foreman, "POST", "/unattended/failed", body=[b"x"], headers={"Content-Length": str(1 << 30)})
    assert not foreman.asked


@pytest.mark.parametrize("error", [Unavailable("Foreman cannot be reached"), GatewayTimeout("Foreman did not begin")])
async def test_foreman_away_is_said_with_what_was_tried(error: MusterError) -> None:
    error.place = "https://foreman.test"
    with pytest.raises(type(error), match=r"^Failed to retrieve p hostgroup template: Foreman ") as raised:
        await called(Foreman(error=error), "GET", "/unattended/p/t/h?token=secret")
    assert raised.value.place == "https://foreman.test"
    assert "secret" not in str(raised.value)


async def test_foreman_s_no_is_a_sentence_without_the_token(capsys: pytest.CaptureFixture[str]) -> None:
    reply = await called(Foreman(403, b"<html>"), "GET", "/unattended/provision?token=secret")
    assert reply.body == b"Failed to proxy /provision: Foreman answers 403 to GET /unattended/provision"
    assert "secret" not in capsys.readouterr().out


def url_of(settings: dict[str, Any], file: ClusterFile) -> str:
    around = Surroundings("proxy01.example.com", None, Path(), Path(), Path(), cluster=file)  # type: ignore[arg-type]
    return service._url(TemplatesSettings.model_validate(settings), around)


def test_where_hosts_fetch_templates_follows_from_the_cluster_file() -> None:
    def generation(word: str, **services: Any) -> ClusterFile:
        return ClusterFile.model_validate(
            {**cluster().model_dump(mode="json", by_alias=True, exclude_unset=True), "store": {"url": "sqlite:///x"},
             "generation": word, "services": services}
        )  # fmt: skip

    assert url_of({}, generation("installer")) == URL
    assert url_of({"enabled": "https"}, generation("installer")) == "https://proxy.example.com:9090"
    assert url_of({}, generation("foremanctl")) == "https://proxy.example.com:8443"
    assert url_of({}, generation("installer", anaconda={"listen_port": 8080})) == "http://proxy.example.com:8080"
    assert (
        url_of({"template_url": "http://other.example.com:8000"}, generation("installer"))
        == "http://other.example.com:8000"
    )


@pytest.mark.parametrize("spelling", ["[url]", "url]", "]url", "[[url", "[url][a]", "url[][", "%5Burl%5D"])
async def test_a_name_that_foreman_takes_for_the_url_goes_no_further(spelling: str) -> None:
    """Brackets around a name count for nothing in Rack 2.2 (``QueryParser#normalize_params``)."""
    foreman = Foreman()
    query = f"url=x&{spelling}=http://other.test&curl=b&[curl]=c"
    await called(foreman, "GET", f"/unattended/provision?{query}")
    assert foreman.asked[0][1] == f"/unattended/provision?{TOLD}&curl=b&%5Bcurl%5D=c"
