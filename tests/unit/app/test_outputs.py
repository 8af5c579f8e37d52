from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest

from muster.app.outputs import offer, offers
from muster.derived.output import Output
from muster.derived.outputs import outputs
from muster.edge.feature import FeatureSettings
from muster.features import settings_models

ZONE = Output("zone", "Render a zone.", lambda balancing, cluster, site: ())


class DNSSettings(FeatureSettings):
    """Settings of a feature from which a zone follows."""

    outputs: ClassVar[tuple[Output, ...]] = (ZONE,)


def offering() -> Mapping[str, type[FeatureSettings]]:
    return {"dns": DNSSettings, "puppet": settings_models()["puppet"]}


def unasked() -> Mapping[str, type[FeatureSettings]]:
    pytest.fail("features were looked at")


def test_what_features_offer_comes_after_what_follows_from_the_file_alone() -> None:
    found = offers(offering)
    assert [o.output for o in found] == [*outputs(), ZONE]
    assert [o.feature for o in found if o.feature is not None] == ["dns"]


def test_features_are_not_looked_at_for_what_follows_from_the_file_alone() -> None:
    for output in outputs():
        assert getattr(offer(output.word, unasked), "output", None) is output


def test_a_word_nobody_offers_is_none() -> None:
    assert offer("zone", offering) is not None
    assert offer("zones", offering) is None


def test_no_two_outputs_have_one_word() -> None:
    words = [o.output.word for o in offers()]
    assert len(words) == len(set(words))
