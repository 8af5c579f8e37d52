"""``muster ipam``: what is kept and promised, freed, tried dry; as text and as JSON."""

from __future__ import annotations

import asyncio
import json
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from muster.app.settings import cluster_store, loaded
from muster.features.externalipam.contract import Subnet
from muster.features.externalipam.promises import Promises
from muster.features.externalipam.providers.claims import ClaimedIPAM
from muster.features.externalipam.service import ExternalIPAM
from muster.features.externalipam.settings import KeptSettings
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected
from tests.unit.cli.calls import run

SUBNETS: list[dict[str, Any]] = [{"network": "192.0.2.0/29"}, {"network": "2001:db8::/64", "group": "lab"}]
FEATURE = "features: {externalipam: {claims: {subnets: " + json.dumps(SUBNETS) + "}}}\n"


@pytest.fixture
def with_ipam(file: Path) -> Path:
    """One address of each subnet in use, and another promised."""
    file.write_text(file.read_text() + FEATURE)

    async def fill() -> None:
        async with cluster_store(loaded(file)) as store:
            ipam = ExternalIPAM(
                ClaimedIPAM(store, KeptSettings.model_validate({"subnets": SUBNETS})),
                "claims",
                Promises(store, held_s=600),
            )
            for network, prefix, group in (("192.0.2.0", "29", None), ("2001:db8::", "64", "lab")):
                first = await ipam.next_ip(network, prefix, group, "52:54:00:aa:00:01")
                await ipam.add(network, prefix, str(first), group)
                await ipam.next_ip(network, prefix, group, "52:54:00:aa:00:02")

    asyncio.run(fill())
    return file


def listed(file: Path, *arguments: str) -> dict[str, list[str]]:
    found = json.loads(run(file, "ipam", "list", "--json", *arguments).output)
    return {kind: [one["address"] for one in found[kind]] for kind in ("addresses", "promises")}


def test_what_is_in_use_and_what_is_promised_is_listed(with_ipam: Path) -> None:
    assert listed(with_ipam) == {
        "addresses": ["192.0.2.1", "2001:db8::1"], "promises": ["192.0.2.2", "2001:db8::2"],
    }  # fmt: skip
    assert listed(with_ipam, "--group", "lab") == {"addresses": ["2001:db8::1"], "promises": ["2001:db8::2"]}
    assert listed(with_ipam, "--group", "") == {"addresses": ["192.0.2.1"], "promises": ["192.0.2.2"]}
    text = run(with_ipam, "ipam", "list").output
    assert "192.0.2.1  in use since 20" in text
    assert "to 52:54:00:aa:00:01, subnet 192.0.2.0/29\n" in text
    assert "2001:db8::2  promised for " in text
    assert "subnet 2001:db8::/64 of group lab" in text


def test_addresses_are_freed_all_or_none(with_ipam: Path) -> None:
    before = listed(with_ipam)
    dry = run(with_ipam, "ipam", "release", "192.0.2.1", "192.0.2.2", "--dry-run").output
    assert dry == "Would free 2 addresses: 192.0.2.1, 192.0.2.2.\n"
    for wrong in (("192.0.2.1", "192.0.2.6"), ("2001:db8::1",)):
        with pytest.raises(NotFound, match="nothing was changed"):
            run(with_ipam, "ipam", "release", *wrong)
    with pytest.raises(Rejected):
        run(with_ipam, "ipam", "release", "192.0.2.1/29")
    assert listed(with_ipam) == before
    done = json.loads(run(with_ipam, "ipam", "release", "192.0.2.1", "192.0.2.2", "--json").output)
    assert (done["released"], done["dry_run"]) == (["192.0.2.1", "192.0.2.2"], False)
    run(with_ipam, "ipam", "release", "2001:db8::1", "--group", "lab")
    assert listed(with_ipam) == {"addresses": [], "promises": ["2001:db8::2"]}


def test_a_promise_that_somebody_changes_meanwhile_is_not_said_to_be_freed(with_ipam: Path) -> None:
    async def release_while_it_is_added() -> None:
        async with cluster_store(loaded(with_ipam)) as store:
            promises, subnet = Promises(store, held_s=600), Subnet(ip_network("192.0.2.0/29"), "")
            async with promises.changing("claims/", subnet, ip_address("192.0.2.2")):
                await asyncio.to_thread(run, with_ipam, "ipam", "release", "192.0.2.2")

    with pytest.raises(Conflict, match="was not freed"):
        asyncio.run(release_while_it_is_added())
    assert listed(with_ipam)["promises"] == ["192.0.2.2", "2001:db8::2"]


def test_what_another_ipam_keeps_is_freed_there(with_ipam: Path) -> None:
    netbox = '{provider: netbox, netbox: {url: "https://n.test", token: secret-token}}'
    with_ipam.write_text(with_ipam.read_text().replace(FEATURE, f"features: {{externalipam: {netbox}}}\n"))
    with pytest.raises(Rejected, match="free them where they are kept"):
        run(with_ipam, "ipam", "release", "192.0.2.1")
    assert "Provider netbox is unproven" in run(with_ipam, "ipam", "list").output
    assert listed(with_ipam) == {"addresses": [], "promises": []}


def test_a_cluster_without_the_feature_says_so(file: Path) -> None:
    with pytest.raises(Misconfigured, match="does not name the feature externalipam"):
        run(file, "ipam", "list")


def test_an_address_that_was_freed_is_offered_again(with_ipam: Path) -> None:
    run(with_ipam, "ipam", "release", "192.0.2.1")

    async def offered() -> str:
        async with cluster_store(loaded(with_ipam)) as store:
            ipam = ClaimedIPAM(store, KeptSettings.model_validate({"subnets": SUBNETS}))
            service = ExternalIPAM(ipam, "claims", Promises(store, held_s=600))
            return str(await service.next_ip("192.0.2.0", "29", None, None))

    assert ip_address(asyncio.run(offered())) == ip_address("192.0.2.1")
