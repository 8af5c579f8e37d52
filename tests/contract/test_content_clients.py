"""The clients that content is tested with: they show their certificate, and what they went without is counted."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import pytest

from muster.pki import bundles
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest
from tests.servers import origins, registry
from tests.servers.clients import Apt, Dnf, Identity, Skopeo
from tests.servers.origins import Origin
from tests.servers.packages import Image, Package

ALPHA, BETA = Package("alpha"), Package("beta")
NAME, HOST = "content.clients.test", "host.clients.test"


@pytest.fixture
def identities(tmp_path: Path) -> tuple[Identity, Identity]:
    """A server's, by its name and the addresses below, and a client's."""
    now = datetime.now(UTC)
    ca = ClusterCA.create(tmp_path / "pki", "clients", now=now)
    made = []
    for request in (
        BundleRequest("member", NAME, (NAME,), ("127.0.0.68", "127.0.0.69")),
        BundleRequest("client", HOST),
    ):
        at = bundles.write(ca.issue(request, now=now), tmp_path / "pki")
        made.append(Identity(at.ca, at.certificate, at.key))
    return made[0], made[1]


@pytest.fixture
def origin(tmp_path: Path, identities: tuple[Identity, Identity], needs: Callable[[str], None]) -> Iterator[Origin]:
    """Two yum repositories and a deb one behind TLS, for clients with a certificate."""
    needs("pulp")
    own, _ = identities
    assert own.certificate is not None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(own.ca))
    context.load_cert_chain(own.certificate, own.key)
    context.verify_mode = ssl.CERT_REQUIRED
    for number in (1, 2):
        origins.yum(tmp_path / "served" / f"yum{number}", [ALPHA, BETA], revision=number)
        origins.deb(tmp_path / "served" / f"deb{number}", [ALPHA, BETA], revision=number, by_hash=True)
    with origins.served(tmp_path / "served", context=context) as running:
        yield running


def test_dnf_shows_its_certificate(
    origin: Origin, identities: tuple[Identity, Identity], tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("dnf")
    needs("namespaces")
    url = origin.url("yum1/", name=NAME)
    dnf = Dnf(tmp_path / "dnf", {"base": url}, identities[1], hosts={NAME: origin.address})
    refreshed = dnf.refresh()
    assert refreshed.is_whole, refreshed
    assert list(dnf.download("alpha").fetched) == [ALPHA.rpm_name]
    assert set(origin.clients) == {HOST}


def test_apt_shows_its_certificate(
    origin: Origin, identities: tuple[Identity, Identity], tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("apt")
    apt = Apt(tmp_path / "apt", [f"{origin.url('deb1')} stable main"], identities[1])
    updated = apt.update()
    assert updated.is_whole, updated
    assert list(apt.download("alpha").fetched) == [ALPHA.deb_name]
    assert set(origin.clients) == {HOST}


def test_skopeo_shows_its_certificate(
    identities: tuple[Identity, Identity], tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("registry")
    needs("skopeo")
    own, host = identities
    digest = Image().write(tmp_path / "image")
    skopeo = Skopeo(tmp_path / "skopeo", host)
    with registry.running(tmp_path, tls=own) as running:
        pushed = skopeo.push(tmp_path / "image", f"{running.place}/tiny:1")
        assert pushed.is_whole, pushed
        assert digest in skopeo.pull(f"{running.place}/tiny:1", "pulled").fetched


def test_a_repository_that_dnf_leaves_out_is_counted(
    origin: Origin, identities: tuple[Identity, Identity], tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("dnf")
    origin.fails["^/yum2/"] = HTTPStatus.SERVICE_UNAVAILABLE
    urls = {"base": origin.url("yum1/"), "updates": origin.url("yum2/")}
    refreshed = Dnf(tmp_path / "dnf", urls, identities[1]).refresh()
    assert (refreshed.code, refreshed.left_out, refreshed.is_whole) == (0, ["updates"], False), refreshed


def test_lists_that_apt_does_without_are_counted(
    origin: Origin, identities: tuple[Identity, Identity], tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("apt")
    apt = Apt(tmp_path / "apt", [f"{origin.url('deb1')} stable main"], identities[1])
    held = apt.update()
    assert held.is_whole, held
    # `docs/facts/content-and-boot.md` §9.1: asked four times within seven seconds, and the end is good.
    origin.fails["InRelease"] = HTTPStatus.SERVICE_UNAVAILABLE
    updated = apt.update()
    assert (updated.code, updated.left_out) == (0, [origin.url("deb1/dists/stable/InRelease")]), updated
    assert not updated.is_whole
