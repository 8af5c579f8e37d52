from __future__ import annotations

import json

import pytest

from muster.kernel.documents import values_in


@pytest.mark.parametrize("text", ["1", "[]", "{}", "[1,2,[3]]", '{"a":{"b":[1,2]},"c":"d,[{"}', '["é"]'])
def test_there_are_no_more_values_than_are_told(text: str) -> None:
    def counted(value: object) -> int:
        below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return 1 + sum(map(counted, below))

    assert counted(json.loads(text)) <= values_in(text) == values_in(text.encode())
