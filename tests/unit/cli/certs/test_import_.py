"""Whose bundles ``muster certs import`` takes over."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from muster.kernel.errors import Misconfigured, Rejected
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, write
from tests.unit.cli.certs.calls import files, run

NAMES = ("proxy02.example.com", "proxy.example.com")


def made_elsewhere(tmp_path: Path, request: BundleRequest, days: int = 90) -> tuple[str, ...]:
    """Return the options that import what a site's own CA issued."""
    home = tmp_path / "site"
    ca = ClusterCA.open(home) if (home / "ca.pem").exists() else ClusterCA.create(home, "site", now=datetime.now(UTC))
    at = write(ca.issue(request, now=datetime.now(UTC), valid_days=days), home)
    return ("--cert", str(at.certificate), "--cert-key", str(at.key))


def test_a_bundle_of_the_site_s_ca_is_imported_for_ruby_members_and_clients_and_nothing_is_wrong_with_it(
    site: Path, tmp_path: Path
) -> None:
    ruby = made_elsewhere(tmp_path, BundleRequest("member", NAMES[0], NAMES))
    before = files(site)
    assert run(site, "import", "proxy02", *ruby, "--dry-run").exit_code == 0
    assert files(site) == before
    assert "issued by CN=Muster cluster CA,O=site" in run(site, "import", "proxy02", *ruby).output
    foreman = made_elsewhere(tmp_path, BundleRequest("client", "foreman.example.com"))
    assert run(site, "import", "--client", "foreman.example.com", *foreman, "--json").exit_code == 0
    run(site, "issue", "proxy01")
    assert run(site, "verify").output == "Nothing is wrong.\n"


@pytest.mark.parametrize(
    ("arguments", "request_", "why"),
    [
        (("proxy02",), BundleRequest("member", NAMES[0]), "does not name proxy.example.com"),
        (("proxy01",), BundleRequest("member", "proxy01.example.com", NAMES, ("127.0.0.1",)), "O=site"),
        (("--balancer",), BundleRequest("balancer", "balancer"), "O=site"),
        (("--client", "foreman.example.com"), BundleRequest("client", "other.example.com"), "does not name foreman"),
        (("proxy02",), BundleRequest("client", NAMES[0], NAMES), "server"),
    ],
)
def test_what_its_users_would_refuse_is_not_imported(
    site: Path, tmp_path: Path, arguments: tuple[str, ...], request_: BundleRequest, why: str
) -> None:
    given = made_elsewhere(tmp_path, request_)
    if request_.kind == "balancer":
        check = tmp_path / "site" / "balancer" / "check.pem"
        given = ("--cert", str(check), "--cert-key", str(check))
    before = files(site)
    with pytest.raises(Rejected, match="It was not imported") as raised:
        run(site, "import", *arguments, *given)
    assert (why in str(raised.value), files(site)) == (True, before), raised.value


def test_a_key_of_another_certificate_is_not_imported(site: Path, tmp_path: Path) -> None:
    one = made_elsewhere(tmp_path, BundleRequest("member", NAMES[0], NAMES))
    other = made_elsewhere(tmp_path, BundleRequest("client", "foreman.example.com"))
    with pytest.raises(Misconfigured, match="does not belong to"):
        run(site, "import", "proxy02", "--cert", one[1], "--cert-key", other[3])
    assert run(site, "import", *one).exit_code == 2
