from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from muster.features.realm import kerberos
from muster.features.realm.kerberos import (
    ClockWrong,
    KDCSilent,
    KeyRefused,
    KeytabUnusable,
    ServerUnknown,
    TicketEnded,
    Tickets,
    refusal,
)
from muster.features.realm.settings import KerberosSettings
from muster.kernel.errors import MusterError, Unavailable

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("kinit: Keytab contains no suitable keys for x@EXAMPLE.COM while getting initial credentials", KeytabUnusable),
        ("kinit: Pre-authentication failed: Key table file '/x' not found", KeytabUnusable),
        ("kinit: Pre-authentication failed: Permission denied while getting initial credentials", KeytabUnusable),
        ("kinit: Preauthentication failed while getting initial credentials", KeyRefused),
        ("kinit: Client 'x@EXAMPLE.COM' not found in Kerberos database while getting initial credentials", KeyRefused),
        ("kinit: Cannot contact any KDC for realm 'EXAMPLE.COM' while getting initial credentials", KDCSilent),
        ("SASL(-1): generic failure: GSSAPI Error: Unspecified GSS failure. (Clock skew too great)", ClockWrong),
        ("GSSAPI Error: The referenced credential has expired (Ticket expired)", TicketEnded),
        ("GSSAPI Error: Unspecified GSS failure. (Server not found in Kerberos database)", ServerUnknown),
        ("GSSAPI Error: (Server ldap/dc@EXAMPLE.COM not found in Kerberos database)", ServerUnknown),
        ("something else", None),
    ],
)  # fmt: skip
async def test_what_kerberos_says_stands_for_an_error(said: str, kind: type[MusterError] | None) -> None:
    assert refusal(said) is kind


@pytest.fixture
def kinit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kinit that does what stands in a file, ``$5`` being where the ticket goes."""
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "kinit"
    program.write_text(f"#!/bin/sh\n. {tmp_path}/what\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    (tmp_path / "what").write_text('touch "${5#FILE:}"\n')
    monkeypatch.setattr(kerberos, "_IN_MEMORY", tmp_path)
    return tmp_path / "what"


def settings(**change: object) -> KerberosSettings:
    return KerberosSettings.model_validate({"keytab_path": "/nowhere", "principal": "muster", **change})


def directories(place: Path) -> set[Path]:
    return set(place.glob("muster-realm-*"))


async def test_what_a_killed_process_left_is_swept_and_what_a_living_one_has_is_not(
    kinit: Path, tmp_path: Path
) -> None:
    script = (
        "import sys, time; from pathlib import Path; from muster.features.realm import kerberos\n"
        "from muster.features.realm.settings import KerberosSettings\n"
        "kerberos._IN_MEMORY = Path(sys.argv[1])\n"
        "settings = KerberosSettings(keytab_path='/nowhere', principal='muster')\n"
        "with kerberos.opened(settings, 'R') as tickets:\n"
        "    (tickets._directory / 'tickets-1').touch()\n"
        "    print(tickets._directory, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        with kerberos.opened(settings(), "R"):
            assert (left / "tickets-1").exists()
        process.kill()
    assert directories(tmp_path) == {left}
    with kerberos.opened(settings(), "R") as tickets:
        assert directories(tmp_path) == {tickets._directory}
    assert directories(tmp_path) == set()


async def test_what_is_no_directory_of_ours_is_left(kinit: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "muster-realm-link").symlink_to(tmp_path / "target")
    (tmp_path / "muster-realm-file").touch()
    with kerberos.opened(settings(), "R"):
        pass
    assert {p.name for p in directories(tmp_path)} == {"muster-realm-link", "muster-realm-file"}
    assert (tmp_path / "target").is_dir()


async def test_a_kinit_that_is_killed_leaves_no_file(kinit: Path) -> None:
    kinit.write_text('touch "${5#FILE:}"; sleep 60\n')
    with kerberos.opened(settings(timeout_s=0.5), "R") as tickets:
        with pytest.raises(Unavailable):
            await tickets.environment()
        assert list(tickets._directory.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Pre-authentication failed: Permission denied", "reading it failed: Permission denied"),
        ("Pre-authentication failed: Key table file '/k' not found", "reading it failed: No such file or directory"),
        ("Keytab contains no suitable keys for muster@R", "Keytab contains no suitable keys for muster@R"),
        ("Cannot contact any KDC for realm 'R'", "Cannot contact any KDC for realm 'R'"),
    ],
)
async def test_a_keytab_that_is_not_for_this_account_sounds_like_no_refusal_of_the_realm_s(
    kinit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, why: str
) -> None:
    keytab = tmp_path / "keytab"
    kinit.write_text(f'echo "kinit: {said} while getting initial credentials" >&2; exit 1\n')
    if "No such" not in why:
        keytab.touch()

    def opened(file: Path) -> None:
        if "Permission" in why:
            # What root, who may run this, is never told.
            raise PermissionError(13, "Permission denied", str(file))
        file.read_bytes()

    monkeypatch.setattr(kerberos, "_read", opened)
    with kerberos.opened(settings(keytab_path=str(keytab)), "R") as tickets, pytest.raises(MusterError) as caught:
        await tickets.environment()
    assert str(caught.value) == f"Logging in as muster@R with {keytab} failed: {why}"


async def test_of_many_that_were_refused_one_ticket_only_the_first_gets_another(kinit: Path) -> None:
    with kerberos.opened(settings(), "R") as tickets:
        refused = await tickets.environment()
        for _ in range(4):
            tickets.forget(refused)
            now = await tickets.environment()
        assert now["KRB5CCNAME"].endswith("tickets-2")
        assert len(list(tickets._directory.iterdir())) == 2


async def test_a_key_that_was_refused_is_not_tried_again_at_once_so_that_no_account_is_locked(
    kinit: Path, tmp_path: Path
) -> None:
    kinit.write_text(f'echo >> {tmp_path}/tries; echo "kinit: Preauthentication failed" >&2; exit 1\n')
    keytab = tmp_path / "keytab"
    keytab.write_text("old")
    now = [0.0]
    tickets = Tickets(settings(keytab_path=str(keytab)), "R", tmp_path, monotonic=lambda: now[0])

    async def tries() -> int:
        with pytest.raises(KeyRefused, match="Preauthentication failed"):
            await tickets.environment()
        return len((tmp_path / "tries").read_text())

    assert [await tries(), await tries(), await tries()] == [1, 1, 1]
    keytab.write_text("another")
    assert [await tries(), await tries()] == [2, 2]
    now[0] = 61.0
    assert await tries() == 3
