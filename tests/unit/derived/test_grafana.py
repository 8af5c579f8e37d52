from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest

from muster.app.offers import modelled
from muster.derived.grafana import OUTPUT, dashboard
from muster.derived.output import Site
from muster.kernel.errors import Misconfigured
from tests.unit.derived.test_prometheus import LB, OURS, RUBY, cluster

ALL = OURS + "authority: {}\ncontent: {}\n" + LB


def shown(text: str) -> dict[str, Any]:
    of = cluster(text)
    return dashboard(modelled(of), of)


def rows(text: str) -> list[str]:
    return [p["title"] for p in shown(text)["panels"] if p["type"] == "row"]


def test_there_are_rows_for_what_the_cluster_has() -> None:
    assert rows(ALL) == ["Cluster", "Traffic", "Certificates and drift", "Puppet CA", "Content", "Balancers"]
    assert rows(OURS) == ["Cluster", "Traffic", "Certificates and drift"]
    assert rows(RUBY + LB) == ["Balancers"]
    with pytest.raises(Misconfigured, match="metrics"):
        shown(RUBY)


def test_panels_have_numbers_and_places_of_their_own() -> None:
    panels = shown(ALL)["panels"]
    assert len({p["id"] for p in panels}) == len(panels)
    places = [p["gridPos"] for p in panels]
    assert all(p["x"] + p["w"] <= 24 for p in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_every_expression_looks_at_the_clusters_metrics_in_the_chosen_prometheus() -> None:
    for panel in shown(ALL)["panels"]:
        for target in panel.get("targets", ()):
            metrics = re.findall(r"\b[A-Za-z_]+\{([^}]*)\}", target["expr"])
            assert metrics, target
            assert all(m.startswith('cluster="$cluster"') for m in metrics)
            assert target["datasource"]["uid"] == "${datasource}"
    variables = {v["name"]: v for v in shown(ALL)["templating"]["list"]}
    assert variables["cluster"]["query"] == "demo"
    assert set(variables) == {"cluster", "datasource"}


def test_the_document_is_the_dashboard() -> None:
    of = cluster(ALL)
    (document,) = OUTPUT.rendered(modelled(of), of, Site())
    assert json.loads(document.text) == shown(ALL)
    assert len(shown(ALL)["uid"]) <= 40
