"""Words that may stand in what is written for other programs."""

from __future__ import annotations

import pytest

from muster.balancer.words import url


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("https", "a.test", 443), "https://a.test"),
        (("https", "a.test", 80), "https://a.test:80"),
        (("http", "a.test", 80), "http://a.test"),
        (("https", "a.test", 443, "/rhsm"), "https://a.test/rhsm"),
    ],
)
def test_a_url_has_its_port_where_it_is_not_the_schemes(given: tuple[str, str, int], said: str) -> None:
    assert url(*given) == said
