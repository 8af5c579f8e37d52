"""Where the register leads content, and where nobody follows it."""

from __future__ import annotations

import pytest

from muster.app.duties.moves import leads_back
from muster.app.offers import modelled
from muster.cluster.file import ClusterFile

CLUSTER = ClusterFile.model_validate(
    {
        "schema": 1,
        "cluster": "t",
        "address": "proxy.example.com",
        "aliases": ["other.example.com"],
        "store": {"url": "sqlite:///x.db"},
        "members": [{"id": 1, "name": "proxy01.example.com", "address": "192.0.2.11"}],
        "content": {"services": ["https", "http"]},
        "services": {"https": {"listen_port": 443, "member_port": 8443}},
    }
)


@pytest.mark.parametrize(
    ("url", "is_back"),
    [
        ("https://192.0.2.11:8443", True),
        ("https://PROXY01.example.com:8443/pulp", True),
        ("https://proxy.example.com", True),
        ("https://other.example.com:443", True),
        ("http://proxy.example.com", True),
        ("http://192.0.2.11:24816", False),
        ("https://proxy.example.com:8443", False),
        ("https://pulp.example.com", False),
        ("http://192.0.2.11:port", True),
    ],
)
def test_what_members_answer_themselves_is_not_behind_them(url: str, is_back: bool) -> None:
    assert leads_back(url, CLUSTER, modelled(CLUSTER)) is is_back
