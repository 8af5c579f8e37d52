from __future__ import annotations

import pytest

from muster.content.sizes import size


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (5 << 20, "5.0 MiB"), (500 << 30, "500 GiB"),
        (3 << 40, "3.0 TiB"), (3 << 50, "3072.0 TiB"),
    ],
)  # fmt: skip
def test_sizes_are_said_as_a_person_says_them(count: int, said: str) -> None:
    assert size(count) == said
