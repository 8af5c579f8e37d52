from __future__ import annotations

import pytest

from muster.edge.routes import Access, RouteTable
from muster.features.dns.api import MOUNT, create, delete
from muster.features.dns.contract import DNSProvider, RecordType
from muster.features.dns.providers.memory import MemoryDNS
from muster.features.dns.service import DNS
from muster.kernel.errors import Rejected
from muster.kernel.names import FQDN
from tests.unit.edge.calls import request

TABLE = RouteTable(MOUNT.routes)
NAME = FQDN.parse("a.example.com")


def service() -> tuple[DNS, MemoryDNS]:
    memory = MemoryDNS()
    provider: DNSProvider = memory
    return DNS(provider), memory


async def test_a_form_makes_a_record_and_the_answer_is_empty() -> None:
    dns, memory = service()
    answer = await create(dns, request("POST", "/", body=[b"fqdn=a.example.com&value=192.0.2.1&type=A"]))
    assert (answer.status, answer.body) == (200, b"")
    assert len(await memory.lookup(NAME, RecordType.A)) == 1


async def test_parameters_may_stand_in_the_query() -> None:
    dns, memory = service()
    await create(dns, request("POST", "/?fqdn=a.example.com&value=192.0.2.1&type=A"))
    assert len(await memory.lookup(NAME, RecordType.A)) == 1


@pytest.mark.parametrize(
    "form", ["", "fqdn=a.example.com&value=192.0.2.1", "fqdn=a&type=A", "value=1&type=A", "fqdn&value=192.0.2.1&type=A"]
)
async def test_a_form_that_lacks_something_is_rejected_in_the_ruby_proxys_words(form: str) -> None:
    dns, _ = service()
    with pytest.raises(Rejected) as raised:
        await create(dns, request("POST", "/", body=[form.encode()]))
    assert str(raised.value) == "'create' requires fqdn, value, and type parameters"


@pytest.mark.parametrize(
    "form",
    [
        "fqdn[]=a.example.com&value=192.0.2.1&type=A",
        "fqdn[a]=b&value=192.0.2.1&type=A",
        "fqdn=a.example.com&value[]=192.0.2.1&type=A",
        "fqdn=a.example.com&value=192.0.2.1&type[]=A",
    ],
)
async def test_a_list_or_a_map_is_rejected_and_never_a_crash(form: str) -> None:
    dns, _ = service()
    with pytest.raises(Rejected, match="Invalid parameter"):
        await create(dns, request("POST", "/", body=[form.encode()]))


@pytest.mark.parametrize("path", ["/a.example.com", "/a.example.com/", "/a.example.com/A"])
async def test_a_path_removes_a_record(path: str) -> None:
    dns, memory = service()
    await dns.create("a.example.com", "192.0.2.1", "A")
    call = request("DELETE", path)
    found = TABLE.find("DELETE", path)
    assert found is not None
    route, call.arguments = found
    assert route.endpoint is delete
    answer = await delete(dns, call)
    assert (answer.status, answer.body) == (200, b"")
    assert not await memory.lookup(NAME, RecordType.A)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/a.example.com"), ("PUT", "/"), ("DELETE", "/"), ("DELETE", "/a/A/"), ("POST", "/a")],
)
def test_there_are_no_other_routes(method: str, path: str) -> None:
    assert TABLE.find(method, path) is None


def test_every_route_is_protected() -> None:
    assert MOUNT.prefix == "/dns"
    assert MOUNT.access is Access.TRUSTED
