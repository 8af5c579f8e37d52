from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from muster.app.backup.files import collected, named
from muster.app.settings import parsed
from muster.kernel.errors import Misconfigured
from muster.kernel.files import read_bounded
from muster.kernel.settings import InvalidSettings
from muster.pki import bundles
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest
from tests.unit.app.backup.conftest import World, cluster_text


def names(world: World, **more: Any) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return what would be in a backup, and what not and why."""
    world.cluster_file.write_text(cluster_text(world.directory, **more))
    found = collected(world.cluster_file, world.pki)
    return {f.name: f.content for f in found.found}, {one.what: one.why for one in found.left}


def test_the_pki_is_in_it_as_far_as_it_is_the_clusters(world: World) -> None:
    (world.pki / "ca-0123456789ab.pem").write_text("before")
    (world.pki / "notes.txt").write_text("mine")
    (world.pki / "rotation" / "new").mkdir(parents=True)
    (world.pki / "rotation" / "new" / "ca.key").write_text("new")
    (world.pki / "puppet-ca").mkdir()
    (world.pki / "puppet-ca" / "lists.json").write_text("{}")
    found, left = names(world)
    assert list(found) == [
        "cluster.yaml", "pki/ca-0123456789ab.pem", "pki/ca.key", "pki/ca.pem", "pki/rotation/new/ca.key",
        "pki/members/proxy01.example.net/ca.pem", "pki/members/proxy01.example.net/cert.pem",
        "pki/members/proxy01.example.net/key.pem", "pki/balancer/ca.pem", "pki/balancer/check.pem",
    ]  # fmt: skip
    assert "nothing that Muster made" in left[str(world.pki / "notes.txt")]
    assert not any("lists.json" in what for what in left)


def test_what_the_cluster_file_names_is_in_it_where_it_is_here_and_ours(world: World) -> None:
    here, absent = world.directory / "foreman.pem", world.directory / "absent.pem"
    here.write_text("a CA")
    (world.directory / "db.pem").write_text("another CA")
    (world.pki / "puppet-ca").mkdir()
    (world.pki / "puppet-ca" / "ca_key.pem").write_text("a key")
    found, left = names(
        world,
        store={
            "url": f"postgresql://muster@db.example.net/muster?sslmode=verify-full&sslrootcert={world.directory}/db.pem"
        },
        foreman={"ca_file": str(here), "crl_file": str(absent)},
        authority={"autosign": ["policy"], "policy_executable": "/usr/local/bin/policy"},
    )
    assert found[f"files{here}"] == b"a CA"
    assert found[f"files{world.directory}/db.pem"] == b"another CA"
    assert found["pki/puppet-ca/ca_key.pem"] == b"a key"
    assert "No such file" in left[str(absent)]
    assert "a program" in left["/usr/local/bin/policy"]
    assert not any("puppet-ca" in what or "ca_key" in what for what in left)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ({"kind": "signer", "socket": "/run/muster-signer.sock"}, "the signer at /run/muster-signer.sock holds it"),
        (
            {
                "kind": "pkcs11",
                "module": "/usr/lib/p11.so",
                "token_label": "ca",
                "key_label": "k",
                "pin_file": "/etc/pin",
            },
            "the token ca holds it",
        ),
        ({"kind": "file"}, "is not on this host"),
    ],
)
def test_a_key_that_is_not_here_is_named_with_the_reason(world: World, key: dict[str, str], why: str) -> None:
    (world.pki / "ca.key").unlink()
    found, left = names(world, authority={"key": key})
    assert why in left["the key of the Puppet CA"]
    assert "is not on this host" in left["the key of the cluster's CA"]
    assert {"/etc/pin", "/usr/lib/p11.so"} <= left.keys() or key["kind"] != "pkcs11"
    assert not any(n.endswith("pin") for n in found)


def test_content_and_others_servers_are_named_with_how_they_come_back(world: World) -> None:
    _, left = names(world, content={"pub": "/var/www/pub"})
    assert "muster content sync" in left["what members keep of content on their disks"]
    assert {"Pulps, their databases and content", "/var/www/pub"} <= left.keys()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_whose_a_file_was_is_noted(world: World) -> None:
    os.chown(world.pki / "ca.key", 54_321, -1)
    found = {f.name: f for f in collected(world.cluster_file, world.pki).found}
    assert (found["pki/ca.key"].owner, found["pki/ca.key"].mode) == ("54321", 0o600)
    assert "BEGIN" not in repr(found["pki/ca.key"])


def test_a_file_that_is_larger_than_any_is_not_taken(world: World) -> None:
    with (world.pki / "ca.pem").open("ab") as f:
        f.truncate(2 << 20)
    with pytest.raises(Misconfigured, match="larger than"):
        collected(world.cluster_file, world.pki)


def test_only_a_cluster_file_that_can_be_used_is_backed_up(world: World) -> None:
    world.cluster_file.write_text("schema: 1\n")
    with pytest.raises(InvalidSettings):
        collected(world.cluster_file, world.pki)
    with pytest.raises(Misconfigured, match="No such file"):
        collected(world.directory / "absent", world.pki)


def test_a_path_that_leads_back_up_is_named_for_nobody() -> None:
    cluster = parsed(
        cluster_text(Path("/var"), foreman={"ca_file": "/etc/muster/../shadow", "crl_file": "rel.pem"}).encode(), "it"
    )
    assert list(named(cluster)) == [Path("rel.pem")]


def test_a_bundle_is_of_one_version_when_it_is_renewed_while_it_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = bundles.paths(world.pki, "member", "proxy01.example.net")
    before = {p.name: p.read_bytes() for p in (at.certificate, at.key, at.ca)}
    now = datetime.now(UTC)

    def renewing(path: Path, **more: Any) -> bytes:
        content = read_bounded(path, **more)
        if path.name == "cert.pem":
            again = ClusterCA.open(world.pki).issue(BundleRequest("member", at.name), now=now)
            bundles.write(again, world.pki)
        return content

    monkeypatch.setattr("muster.app.backup.files.read_bounded", renewing)
    found = collected(world.cluster_file, world.pki).found
    assert at.key.read_bytes() != before["key.pem"]
    assert {Path(f.name).name: f.content for f in found if f.name.startswith("pki/members/")} == before


def test_what_is_no_plain_file_is_left_out_unopened(world: World) -> None:
    at = world.directory / "foreman.pem"
    os.mkfifo(at)
    found, left = names(world, foreman={"ca_file": str(at)})
    assert f"files{at}" not in found
    assert "no plain file" in left[str(at)]


def test_what_features_and_groups_prove_themselves_with_is_in_it_and_what_other_servers_write_is_not(
    world: World,
) -> None:
    here = world.directory
    for name in ("keytab", "ns1.key", "ns2.key", "ipam.pem", "leases", "pid"):
        (here / name).write_text(name)
    found, left = names(
        world,
        features={
            "realm": {
                "provider": "ad",
                "ad": {
                    "realm": "EXAMPLE.COM", "keytab_path": f"{here}/keytab", "principal": "muster",
                    "domain_controller": "dc1.example.com",
                },
            },
            "externalipam": {
                "provider": "phpipam",
                "phpipam": {
                    "url": "https://i.example.net", "user": "u", "password_file": f"{here}/absent", "ca": f"{here}/ipam.pem",
                },
            },
            "dns": {
                "group": {
                    "mode": "all",
                    "providers": {n: {"nsupdate": {"server": n, "key_file": f"{here}/{n}.key"}} for n in ("ns1", "ns2")},
                }
            },
            "dhcp": {
                "provider": "dnsmasq", "subnets": ["192.0.2.0/24"],
                "dnsmasq": {"lease_file": f"{here}/leases", "pid_file": f"{here}/pid"},
            },
        },
    )  # fmt: skip
    assert {name for name in found if name.startswith("files")} == {
        f"files{here}/{name}" for name in ("keytab", "ns1.key", "ns2.key", "ipam.pem")
    }
    assert "No such file" in left[f"{here}/absent"]
    assert left[f"{here}/leases"] == left[f"{here}/pid"] == "the DHCP server's own, which it writes anew"
