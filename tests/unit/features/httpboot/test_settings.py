from __future__ import annotations

from pathlib import Path

from muster.balancer.model import modelled
from muster.features.httpboot.manifest import FEATURE
from muster.features.httpboot.service import _ports
from muster.features.httpboot.settings import HTTPBootSettings
from tests.unit.cluster.written import SMALL, parsed


def test_it_is_on_both_listeners_unless_it_is_said_otherwise() -> None:
    assert HTTPBootSettings().enabled is True
    assert HTTPBootSettings().root_dir is None
    assert HTTPBootSettings(root_dir="/srv/boot").root_dir == Path("/srv/boot")


def test_until_it_runs_no_port_is_shown() -> None:
    assert FEATURE.exposed(HTTPBootSettings()) == {"http_port": None, "https_port": None}
    assert FEATURE.exposed(None) == {"http_port": None, "https_port": None}


def test_foreman_is_told_the_ports_of_the_balancer_on_which_it_is() -> None:
    text = f"{SMALL}services: {{anaconda: {{listen_port: 8008}}, smartproxy: {{listen_port: 9099}}}}\n"
    balancing = modelled(parsed(text), frozenset())
    found = {word: _ports(HTTPBootSettings(enabled=word), balancing) for word in (True, "http", "https")}
    assert {word: (p.http, p.https) for word, p in found.items()} == {
        True: (8008, 9099),
        "http": (8008, None),
        "https": (None, 9099),
    }
    without = modelled(parsed(f"{SMALL}services: {{anaconda: {{enabled: false}}}}\n"), frozenset())
    assert _ports(HTTPBootSettings(), without).http is None
