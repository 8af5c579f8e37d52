"""Listeners as data: what a room offers is opened, and the balancer's model hears of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from prometheus_client import CollectorRegistry

from muster import features
from muster.app import member
from muster.app.duties.certificates import TrustFiles
from muster.app.duties.providers import Providers
from muster.app.listeners import Listeners
from muster.app.offers import answered, modelled, offered
from muster.cluster.file import ClusterFile
from muster.edge.application import Application
from muster.edge.authorise import Callers, Gate
from muster.edge.feature import Feature, Features, FeatureSettings, Served, State
from muster.edge.metrics import EdgeMetrics
from muster.edge.ports import Port
from muster.edge.replies import Reply, json_reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.edge.server import Server
from muster.kernel.errors import Misconfigured
from muster.kernel.rings import LogRings


def cluster(**given: Any) -> ClusterFile:
    content = {
        "schema": 1,
        "cluster": "demo",
        "address": "proxy.test",
        "store": {"url": "sqlite:///unused.db"},
        "members": [{"id": 1, "name": "proxy01.test", "address": "127.0.0.11"}],
        "signer": "proxy01.test",
    }
    return ClusterFile.model_validate({**content, **given})


async def hello(service: str, _: Request) -> Reply:
    return json_reply({"from": service})


def mounts() -> tuple[Mount, ...]:
    return (Mount("/boot", (Route("GET", "/", Access.OPEN, hello),)),)


class BootSettings(FeatureSettings):
    """Settings of a feature with a port of its own."""

    ports: ClassVar[tuple[Port, ...]] = (Port("boot", "http", None, mounts),)


class BareSettings(FeatureSettings):
    """Settings of a feature whose manifest says what its port answers."""

    ports: ClassVar[tuple[Port, ...]] = (Port("boot", "http", None),)


@pytest.fixture
def _with_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cast("dict[str, tuple[str, str]]", features._SETTINGS), "boot", (__name__, "BootSettings"))


def test_members_answer_foremans_two_and_as_a_ca_the_authoritys() -> None:
    assert [p.listener for p in offered(cluster())] == ["https", "http"]
    signing = cluster(signer="any", authority={})
    assert [p.listener for p in offered(signing)] == ["https", "http", "puppetca"]
    assert answered(signing) == {"smartproxy", "anaconda", "puppetca"}


@pytest.mark.usefixtures("_with_boot")
def test_a_features_port_is_answered_while_it_is_enabled_and_balancers_know() -> None:
    assert answered(cluster(features={"boot": {}})) == {"smartproxy", "anaconda", "http"}
    for off in (False, "false", "off", 0):
        assert answered(cluster(features={"boot": {"enabled": off}})) == {"smartproxy", "anaconda"}

    def beside(of: ClusterFile) -> list[bool]:
        service = modelled(of).service("http")
        assert service is not None
        return [s.beside is not None for s in service.servers]

    assert beside(cluster()) == [True]
    assert beside(cluster(features={"boot": {}})) == [False]


class Recording:
    """A server that listens on nothing and remembers what it was to."""

    def __init__(self) -> None:
        self.listening: list[tuple[Any, ...]] = []
        self.shown: list[tuple[Any, ...]] = []

    def listen(self, *given: Any) -> None:
        self.listening.append(given)

    def present(self, *given: Any) -> None:
        self.shown.append(given)


def listeners(of: ClusterFile, server: Recording, gate: Gate, *, draining: bool = False) -> Listeners:
    rings, metrics = LogRings(10, 5, "proxy01.test"), EdgeMetrics(CollectorRegistry())
    main = Application(gate=gate, features=Features(), mounts=(), limits=of.edge, rings=rings, metrics=metrics)
    main.draining = draining
    return Listeners(cast(Server, server), main, modelled(of), gate, bind=None, member=of.members[0])


def test_a_port_with_mounts_of_its_own_has_an_application_of_its_own_that_drains_with_the_member() -> None:
    server, gate = Recording(), Gate(Callers())
    of = cluster()
    assert listeners(of, server, gate, draining=True).open(Port("boot", "http", None, mounts), None, "me")
    (name, address, port, context, application, trust) = server.listening[0]
    assert (name, address, port, context, trust) == ("boot", "127.0.0.11", 80, None, None)
    assert application.draining is True
    assert application._gate is gate


class Opened:
    """Remembers which ports were to be opened, and with what."""

    def __init__(self) -> None:
        self.ports: dict[str, tuple[Any, ...]] = {}

    def open(self, port: Port, context: Any = None, *given: Any) -> bool:
        self.ports[port.listener] = given
        return True


def test_what_a_features_port_answers_stands_in_its_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    models = cast("dict[str, tuple[str, str]]", features._SETTINGS)
    monkeypatch.setitem(models, "boot", (__name__, "BareSettings"))
    monkeypatch.setattr(member, "server_context", lambda *_: object())
    feature = Feature("boot", "Boot", BareSettings, (), lambda _: {}, cast(Any, None), on_ports={"boot": mounts()})
    files = cast(TrustFiles, SimpleNamespace(bundle=SimpleNamespace(certificate="", key=""), ca_files=[]))

    def listened(state: State) -> dict[str, tuple[Any, ...]]:
        served, opened = Features({"boot": Served(feature, BareSettings(), state, service="me")}), Opened()
        member._listen(cast(Listeners, opened), cluster(features={"boot": {}}), served, files)
        return opened.ports

    assert listened(State.RUNNING) == {"https": (), "http": (), "boot": ("me", mounts())}
    # Nothing is there that could answer: better a closed port than 500.
    assert listened(State.FAILED) == {"https": (), "http": ()}


def test_a_feature_that_failed_takes_the_service_of_its_own_port_out() -> None:
    feature = Feature("boot", "Boot", BareSettings, (), lambda _: {}, cast(Any, None))
    served = Features({"boot": Served(feature, BareSettings(), State.FAILED, "no tree")})
    why = "feature boot failed: no tree"
    assert Providers(served, {"boot": BareSettings.ports}).found().down == {"smartproxy": why, "http": why}
    assert Providers(served).found().down == {"smartproxy": why}


def test_a_port_is_opened_with_the_mounts_of_its_feature_unless_it_brings_some() -> None:
    server, gate = Recording(), Gate(Callers())
    opened = listeners(cluster(), server, gate)
    assert opened.open(Port("bare", "http", None), None, "me", mounts())
    assert opened.open(Port("boot", "https", None, mounts), None, "me", ())
    assert opened.open(Port("all", "anaconda", None))
    applications = [one[4] for one in server.listening]
    assert ["/boot" in {m.mount.prefix for m in _mounted(a)} for a in applications[:2]] == [True, True]
    assert applications[2] is None


def _mounted(application: Application) -> list[Any]:
    return [m for found in application._by_first_segment.values() for _, m in found]


def test_a_rooms_certificate_is_judged_by_the_room_and_shown_there_alone() -> None:
    server, gate, context = Recording(), Gate(Callers()), cast(Any, object())
    opened = listeners(cluster(), server, gate)
    member, room = Port("https", "smartproxy", "member"), Port("boot", "https", "room", mounts)
    assert opened.open(member, context)
    assert opened.open(room, context, "me")
    assert server.listening[0][4] is None
    assert server.listening[1][4]._gate is not gate
    opened.present_members(context)
    assert [s[0] for s in server.shown] == ["https"]
    opened.present(room, context)
    assert [s[0] for s in server.shown] == ["https", "boot"]


def test_a_disabled_service_is_not_listened_for_unless_members_need_it() -> None:
    of = cluster(services={"anaconda": {"enabled": False}, "smartproxy": {"enabled": False}})
    server = Recording()
    opened = listeners(of, server, Gate(Callers()))
    https, http = offered(of)
    assert opened.open(http) is False
    with pytest.raises(Misconfigured, match="Service smartproxy is disabled"):
        opened.open(https)
    assert server.listening == []
