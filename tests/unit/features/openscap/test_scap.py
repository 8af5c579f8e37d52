from __future__ import annotations

import pytest

from muster.content.metadata.malformed import Malformed
from muster.features.openscap import scap


def test_profiles_are_those_of_the_first_benchmark_in_their_order() -> None:
    xml = (
        b"<d:c xmlns:d='u'><Profile id='no'/><d:Benchmark>"
        b"<g><Profile id='b'><title>B <i>i</i></title><title>x</title></Profile></g>"
        b"<d:Profile id='a'><select/></d:Profile></d:Benchmark><Benchmark><Profile id='c'/></Benchmark></d:c>"
    )
    assert list(scap.profiles([xml[:30], xml[30:]], "scap_content").items()) == [("b", "B i"), ("a", None)]
    assert scap.profiles([xml], "tailoring_file") == {}


def test_a_tailoring_file_has_profiles_too() -> None:
    xml = b"<Tailoring><Profile id='a'><title>A</title></Profile></Tailoring>"
    assert scap.profiles([xml], "tailoring_file") == {"a": "A"}


@pytest.mark.parametrize("xml", [b"", b"<a>", b"<!DOCTYPE a><a/>", b"no"])
def test_what_is_no_xml_is_named(xml: bytes) -> None:
    with pytest.raises(Malformed, match="Reading the content failed"):
        scap.check([xml] if xml else [])
    scap.check([b"<a><b>\xc3\xa4</b></a>"])
