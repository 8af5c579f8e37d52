"""What the settings say is secret, and whom they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.app.settings import loaded
from muster.cli.support_bundle.settings import hosts_in, paths_in, secret_names, secrets_in, store_url_shown
from muster.cluster.file import ClusterFile
from tests.unit.cli.support_bundle.bundle import CLUSTER


@pytest.fixture
def cluster(tmp_path: Path) -> ClusterFile:
    file = tmp_path / "cluster.yaml"
    url = "postgresql://muster:s%40cret@db.corp.test/x?sslmode=verify-full&sslrootcert=/etc/muster/db-ca.pem"
    file.write_text(CLUSTER.format(store=url, port=1234))
    return loaded(file)


def test_names_of_secrets_come_from_the_models_of_every_room() -> None:
    assert secret_names() >= {"key_secret", "password"}
    # Its text is one only as far as it holds a password.
    assert "url" not in secret_names()


def test_secrets_are_those_of_features_and_the_password_of_the_stores_url(cluster: ClusterFile) -> None:
    assert set(secrets_in(cluster)) == {"cGxhbnRlZC1rZXk=", "s@cret"}


def test_hosts_are_named_by_members_foreman_and_urls(cluster: ClusterFile) -> None:
    found = hosts_in(cluster)
    assert {"gandalf.corp.test", "proxy.corp.test", "foreman.corp.test", "db.corp.test"} <= set(found)
    assert "postgresql://" not in "".join(found)


def test_paths_are_where_settings_lead(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.format(store=f"sqlite:///{tmp_path}/store.db", port=1234))
    assert tmp_path in paths_in(loaded(file))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://m:p@h/x", "postgresql://m:***@h/x"),
        ("sqlite:////var/lib/muster/muster.db", "sqlite:////var/lib/muster/muster.db"),
        ("oracle://m:p@h", "***"),
    ],
)
def test_a_stores_url_is_shown_without_its_password_or_not_at_all(url: str, shown: str) -> None:
    assert store_url_shown(url) == shown
