from __future__ import annotations

import pytest

from tests.unit.cluster.written import SHARED, SMALL, parsed, schema_problems


@pytest.mark.parametrize("address", ["127.0.0.256", "192.0.2", "192.0.2.1.5", "10"])
def test_an_address_with_a_slip_is_not_taken_for_a_host_name(address: str) -> None:
    found = schema_problems(SMALL.replace("127.0.0.11", f'"{address}"'))
    assert [p.where for p in found] == ["members[0].address"]


def test_a_store_url_is_never_repeated_in_a_problem() -> None:
    found = schema_problems(SMALL.replace("sqlite:///var/muster.db", "mysql://u:hunter2@h/d"))
    assert "hunter2" not in "".join(map(str, found))


@pytest.mark.parametrize(
    "address", ["192.0.2.10", "192.0.2.0/24", "192.0.2.255/24", "127.0.0.5/8", "x/24", "192.0.2.10/33", "fd00::/64", 7]
)
def test_an_address_that_no_host_could_have_is_refused_with_its_line(address: object) -> None:
    (found,) = schema_problems(SHARED.replace("192.0.2.10/24", str(address)))
    assert (found.line, found.where) == (12, "virtual_address.address")


@pytest.mark.parametrize("address", ["192.0.2.10/32", "192.0.2.0/31", "fd00::a/64"])
def test_short_networks_and_ipv6_are_fine(address: str) -> None:
    assert parsed(SHARED.replace("192.0.2.10/24", address)).virtual_address is not None
