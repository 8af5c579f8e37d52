from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from muster.app.outputs import offer, offers
from muster.derived.output import Output
from muster.derived.outputs import OUTPUTS
from muster.edge.feature import Feature
from muster.features import manifests

ZONE = Output("zone", "Render a zone.", lambda balancing, cluster, site: ())


def offering() -> Mapping[str, Feature]:
    return {"dns": replace(manifests()["dns"], outputs=(ZONE,)), "puppet": manifests()["puppet"]}


def unasked() -> Mapping[str, Feature]:
    pytest.fail("features were looked at")


def test_what_features_offer_comes_after_what_follows_from_the_file_alone() -> None:
    found = offers(offering)
    assert [o.output for o in found] == [*OUTPUTS, ZONE]
    assert [o.feature.name for o in found if o.feature is not None] == ["dns"]


def test_features_are_not_looked_at_for_what_follows_from_the_file_alone() -> None:
    for output in OUTPUTS:
        assert getattr(offer(output.word, unasked), "output", None) is output


def test_a_word_nobody_offers_is_none() -> None:
    assert offer("zone", offering) is not None
    assert offer("zones", offering) is None


def test_no_two_outputs_have_one_word() -> None:
    words = [o.output.word for o in offers()]
    assert len(words) == len(set(words))
