from typing import Any

from muster.app import offers
from muster.app.proxydhcp import everybodys, instructions
from muster.cluster.file import ClusterFile


def cluster(*, balancers: tuple[str, ...] = (), **sections: Any) -> ClusterFile:
    return ClusterFile.model_validate(
        {
            "schema": 1,
            "cluster": "c",
            "address": "proxy.example.com",
            "store": {"url": "postgresql://muster@db/muster"},
            "members": [{"id": n, "name": f"m{n}.example.com", "address": f"192.0.2.{n}"} for n in (1, 2)],
            "balancers": [{"name": f"b{n}", "address": a} for n, a in enumerate(balancers)],
            "netboot": {"proxy_dhcp": {}},
            **sections,
        }
    )


def virtual(*balancers: str, **settings: Any) -> str | None:
    address = {"address": "192.0.2.10/24", "interface": "eth0"}
    found = everybodys(cluster(balancers=balancers, virtual_address=address, netboot={"proxy_dhcp": settings}))
    return str(found.address) if found is not None else None


def test_loaders_come_from_the_virtual_address_where_only_members_may_have_it() -> None:
    assert virtual("192.0.2.1", "192.0.2.2") == "192.0.2.10"
    assert virtual("192.0.2.1", "192.0.2.9") is None
    assert everybodys(cluster()) is None


def test_who_says_where_loaders_come_from_is_obeyed() -> None:
    assert virtual("192.0.2.8", "192.0.2.9", boot_server="virtual_address") == "192.0.2.10"
    assert virtual("192.0.2.1", "192.0.2.2", boot_server="members") is None


def test_urls_lead_to_the_address_and_its_port_without_tls() -> None:
    one = cluster(features={"httpboot": {"enabled": True}}, services={"anaconda": {"listen_port": 8008}})
    told = instructions(one, offers.modelled(one))
    assert told is not None
    assert told.ipxe_url == "http://proxy.example.com:8008/unattended/iPXE?mac={mac}"
    assert told.http_root == "http://proxy.example.com:8008/httpboot"


def test_there_is_no_url_of_files_that_nobody_serves_over_plain_http() -> None:
    for features in ({}, {"httpboot": {"enabled": "https"}}, {"httpboot": {"enabled": False}}):
        one = cluster(features=features)
        told = instructions(one, offers.modelled(one))
        assert told is not None
        assert told.http_root is None


def test_where_nobody_asks_for_it_nothing_is_told() -> None:
    one = cluster(netboot={})
    assert instructions(one, offers.modelled(one)) is None
