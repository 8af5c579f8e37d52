"""A member's certificate replaced under load, by garbage and by a good one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
from cryptography import x509

from muster.pki.bundles import paths
from tests.servers.local import Local, load, presented_serial, shown, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def reissued_afterwards(local: Local) -> AsyncIterator[None]:
    yield
    assert (await local.cli("certs", "issue", "--all", "--drop-names")).code == 0

    async def are_presented() -> bool:
        return await serials(local) == [await asyncio.to_thread(serial_on_disk, local, name) for name in local.names]

    # A member looks at its files every second; the next test begins with what it presents.
    await until(are_presented, "every member presents its new certificate")


def serial_on_disk(local: Local, member: str) -> int:
    return x509.load_pem_x509_certificate(paths(local.pki, "member", member).certificate.read_bytes()).serial_number


async def serials(local: Local) -> list[int]:
    return [await asyncio.to_thread(presented_serial, local, name) for name in local.names]


async def failed_modules(local: Local, member: str) -> dict[str, str]:
    found: dict[str, str] = (await local.ask("/logs/", member)).json["info"]["failed_modules"]
    return found


@pytest.mark.usefixtures("reissued_afterwards")
@pytest.mark.parametrize("garbage", [b"not a certificate\n", b""], ids=["words", "nothing"])
async def test_garbage_is_refused_and_a_good_reissue_is_presented_without_restart(local: Local, garbage: bytes) -> None:
    name = local.names[0]
    pids = [local.pid_of(n) for n in local.names]
    before = await serials(local)
    heard = len(local.log(name))
    async with load(local, new=10, kept=10, connections=4) as seen:
        # As an administrator's copy would: into the file that the link leads to.
        paths(local.pki, "member", name).certificate.resolve().write_bytes(garbage)

        async def is_refused() -> bool:
            return "certificate" in await failed_modules(local, name)

        await until(is_refused, "the member says that the certificate is bad")
        why = (await failed_modules(local, name))["certificate"]
        assert name in why
        assert "New certificate refused; the old one keeps serving" in local.log(name)[heard:]
        assert await serials(local) == before
        assert await failed_modules(local, local.names[1]) == {}

        issued = await local.cli("certs", "issue", "--all")
        assert issued.code == 0, issued

        async def are_new() -> bool:
            return not set(await serials(local)) & set(before)

        await until(are_new, "every member presents its new certificate")
        assert await failed_modules(local, name) == {}
    shown("garbage, then a reissue, new", seen.new)
    shown("garbage, then a reissue, kept", seen.kept)
    assert [o for o in seen.new + seen.kept if not o.ok or o.resent] == []
    assert [local.pid_of(n) for n in local.names] == pids


@pytest.mark.usefixtures("reissued_afterwards")
async def test_a_key_of_another_certificate_is_refused(local: Local) -> None:
    name, other = local.names[0], local.names[1]
    before = await serials(local)
    key = paths(local.pki, "member", name).key.resolve()
    key.write_bytes(paths(local.pki, "member", other).key.read_bytes())

    async def is_refused() -> bool:
        return "does not belong to" in (await failed_modules(local, name)).get("certificate", "")

    await until(is_refused, "the member says that key and certificate differ")
    assert await serials(local) == before
    assert os.stat(key).st_mode & 0o077 == 0  # noqa: PTH116
