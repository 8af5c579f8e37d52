from __future__ import annotations

import pytest

from muster.edge.virsh import definition
from muster.kernel.errors import Unavailable
from muster.kernel.process import OUTPUT_LIMIT_BYTES


def test_a_definition_that_was_cut_is_no_smaller_one() -> None:
    whole = f"<network><dns>{'<host/>' * 200_000}</dns></network>"
    with pytest.raises(Unavailable, match="more of a network than the 1048576 bytes"):
        definition(whole[:OUTPUT_LIMIT_BYTES])


def test_a_short_text_is_named_for_what_it_is() -> None:
    with pytest.raises(Unavailable, match="no definition of a network: <network>"):
        definition("<network>")
