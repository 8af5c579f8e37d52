from __future__ import annotations

import pytest

from muster.cluster.file import ClusterFile
from muster.content.gateway import is_of_members

CLUSTER = ClusterFile.model_validate({
    "schema": 1,
    "cluster": "one",
    "address": "proxy.example.com",
    "store": {"url": "sqlite:////nowhere"},
    "members": [
        {"id": 1, "name": "proxy01.example.com", "address": "192.0.2.1"},
        {"id": 2, "name": "proxy02.example.com", "address": "2001:db8::2"},
        {"id": 3, "name": "proxy03.example.com", "address": "192.0.2.3", "kind": "foreman"},
        {"id": 4, "name": "proxy04.example.com", "address": "Proxy04.Example.com"},
    ],
    "services": {"smartproxy": {"member_port": 9443}},
})  # fmt: skip


@pytest.mark.parametrize(
    ("url", "is_ours"),
    [
        ("https://192.0.2.1:9443/container_gateway", True),
        ("https://[2001:db8::2]:9443/container_gateway", True),
        ("https://Proxy04.Example.com:9443/container_gateway", True),
        ("https://proxy04.example.com:9443/container_gateway/", True),
        ("https://192.0.2.1:9090/container_gateway", False),
        ("https://192.0.2.1:9443", False),
        ("http://192.0.2.1:9443/container_gateway", False),
        ("https://192.0.2.3:9443/container_gateway", False),
        ("https://registry.example.com:9443/container_gateway", False),
    ],
)
def test_the_gateway_of_members_is_known_by_address_port_and_path(url: str, is_ours: bool) -> None:
    assert is_of_members(CLUSTER, url) is is_ours
