"""Invariants are those of ``app/backup/decide.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.app.backup.decide import Here, Placed, decided
from muster.app.backup.manifest import OfFile
from muster.app.settings import parsed
from muster.kernel.errors import Misconfigured
from tests.unit.app.backup.conftest import cluster_text

HERE = Here(Path("/new/cluster.yaml"), Path("/new/pki"), lambda _: None)
CLUSTER = parsed(
    cluster_text(
        Path("/var"),
        foreman={"ca_file": "/etc/muster/foreman.pem", "crl_file": "/new/crl.pem"},
        features={
            "dns": {"provider": "nsupdate", "nsupdate": {"server": "192.0.2.1", "key_file": "/etc/bind/muster.key"}}
        },
    ).encode(),
    "it",
)


def of(name: str, mode: int = 0o640) -> OfFile:
    return OfFile(name=name, path=f"/old/{name}", mode=mode, owner="muster")


def placed(*files: OfFile, here: Here = HERE) -> dict[str, Placed]:
    return {p.name: p for p in decided(files, {f.name: b"content" for f in files}, CLUSTER, here)}


def test_files_go_where_this_host_has_them_the_cluster_file_last() -> None:
    found = placed(
        of("cluster.yaml", 0o644),
        of("pki/ca.pem"),
        of("pki/members/a.example.net/key.pem", 0o644),
        of("files/new/crl.pem"),
    )
    assert [(str(p.path), p.mode, p.state) for p in found.values()] == [
        ("/new/pki/ca.pem", 0o644, "new"),
        # Invariant 4.
        ("/new/pki/members/a.example.net/key.pem", 0o600, "new"),
        ("/new/crl.pem", 0o640, "new"),
        ("/new/cluster.yaml", 0o644, "new"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "files/etc/passwd", "files/etc/muster/../passwd", "files//etc/muster/foreman.pem", "files/", "files",
        "files/etc/muster/foreman.pem/", "files/etc/muster/foreman.pem\0", "pki/../cluster.yaml", "pki/ca-ffff.pem/..",
        "pki/members/../../x/cert.pem", "pki/members/../cert.pem", "pki//ca.pem", "pki/evil", "pki/members/a/cert.pem/x",
        "pki/ca.key\n", "/pki/ca.pem", "etc/passwd", "", "pki/puppet-ca/../ca.key", "pki/members/./key.pem",
        "pki/.members/a/key.pem",
    ],
)  # fmt: skip
def test_no_other_name_has_a_place_here(name: str) -> None:
    """Invariant 1."""
    with pytest.raises(Misconfigured, match="nothing was changed"):
        placed(of(name))


def test_two_files_never_share_a_place() -> None:
    here = Here(Path("/new/pki/ca.pem"), Path("/new/pki"), lambda _: None)
    with pytest.raises(Misconfigured, match=r"have their place at /new/pki/ca\.pem"):
        placed(of("cluster.yaml"), of("pki/ca.pem"), here=here)


def test_what_lies_elsewhere_is_written_only_where_that_was_asked_for() -> None:
    """Invariant 2."""
    files = of("files/etc/bind/muster.key"), of("files/new/crl.pem")
    assert [p.state for p in placed(*files).values()] == ["elsewhere", "new"]
    asked = Here(HERE.cluster_path, HERE.pki, HERE.content, elsewhere=True)
    assert [p.state for p in placed(*files, here=asked).values()] == ["new", "new"]


def test_what_is_here_stays_unless_it_is_forced_away() -> None:
    """Invariant 3; that different ones are only written by force is the command's."""
    present = {
        Path("/new/crl.pem"): b"content",
        Path("/new/pki/ca.pem"): b"another",
        Path("/etc/bind/muster.key"): b"content",
    }
    here = Here(HERE.cluster_path, HERE.pki, present.get, given=frozenset({Path("/etc/muster/foreman.pem")}))
    found = placed(
        of("files/new/crl.pem"),
        of("pki/ca.pem"),
        of("files/etc/bind/muster.key"),
        of("files/etc/muster/foreman.pem"),
        here=here,
    )
    assert [p.state for p in found.values()] == ["same", "different", "same", "given"]
    assert [p.is_written for p in found.values()] == [False, True, False, False]


def test_no_file_gets_a_mode_that_lets_it_run_or_lets_everybody_write() -> None:
    """Invariant 4."""
    assert placed(of("files/new/crl.pem", 0o777))["files/new/crl.pem"].mode == 0o664
    assert placed(of("pki/ca.passphrase", 0o777))["pki/ca.passphrase"].mode == 0o600


def test_the_text_that_a_passphrase_s_link_leads_to_is_not_replaced_either() -> None:
    """Invariant 3."""
    text = Path("/new/pki/ca.passphrase.txt")
    for there, state in ((b"content", "new"), (b"mine", "different")):
        here = Here(HERE.cluster_path, HERE.pki, {text: there}.get)
        (found,) = placed(of("pki/ca.passphrase"), here=here).values()
        assert (found.state, found.replaced) == (state, text)


def test_what_is_not_written_may_be_anything_here() -> None:
    def content(path: Path) -> bytes | None:
        raise Misconfigured(f"{path} is no plain file")

    (found,) = placed(of("files/etc/bind/muster.key"), here=Here(HERE.cluster_path, HERE.pki, content)).values()
    assert found.state == "elsewhere"
