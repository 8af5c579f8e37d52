"""Where Pulp of 2018 sends clients."""

from __future__ import annotations

import pytest

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.derived.custom_hiera import OUTPUT
from muster.derived.output import Site
from muster.kernel.errors import Misconfigured
from muster.kernel.settings import parse
from tests.unit.derived.test_ruby_settings import CLUSTER, REST


def test_clients_are_sent_to_the_address() -> None:
    cluster = parse(f"{CLUSTER}generation: seed\n{REST}").parsed(ClusterFile)
    (document,) = OUTPUT.rendered(modelled(cluster), cluster, Site())
    assert (document.name, document.text) == ("custom-hiera.yaml", 'pulp::lazy_redirect_host: "cluster.test"\n')


@pytest.mark.parametrize("generation", ["installer", "foremanctl"])
def test_pulp_of_today_is_told_nothing(generation: str) -> None:
    cluster = parse(f"{CLUSTER}generation: {generation}\n{REST}").parsed(ClusterFile)
    with pytest.raises(Misconfigured, match=generation):
        OUTPUT.rendered(modelled(cluster), cluster, Site())
