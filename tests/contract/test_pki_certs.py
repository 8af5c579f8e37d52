"""``muster certs`` from the operator's side: real files, real ports, exit codes."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from muster.cli.certs import certs
from muster.kernel.errors import Conflict, NotFound
from muster.pki.context import server_context

CLUSTER = """\
schema: 1
cluster: demo
address: proxy.example.com
aliases: [proxy.example.net]
store: {url: "sqlite:////tmp/nowhere.db"}
members:
  - {id: 1, name: proxy01.example.com, address: 127.0.0.1}
  - {id: 2, name: proxy02.example.com, address: host02.example.com}
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER)
    return path


def run(cluster: Path, *arguments: str) -> Result:
    result = CliRunner().invoke(certs, [arguments[0], "--cluster", str(cluster), *arguments[1:]])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def shown(cluster: Path) -> dict[str, list[str]]:
    found = json.loads(run(cluster, "show", "--json").output)
    return {c["kind"] + " " + c["name"]: c["names"] + c["addresses"] for c in found}


@contextmanager
def serving(tls: ssl.SSLContext) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stopping = threading.Event()

        def accept() -> None:
            while not stopping.is_set():
                with suppress(OSError):
                    connection, _ = listener.accept()
                    with connection, tls.wrap_socket(connection, server_side=True) as wrapped:
                        wrapped.recv(1024)
                        wrapped.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopping.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=5)


def test_a_cluster_gets_its_certificates_in_two_commands(cluster: Path) -> None:
    assert run(cluster, "init").exit_code == 0
    issued = run(cluster, "issue", "--all", "--client", "foreman.example.com", "--balancer")
    assert issued.exit_code == 0, issued.output
    names = ["proxy.example.com", "proxy.example.net"]
    assert shown(cluster) == {
        "ca ": [],
        "member proxy01.example.com": ["proxy01.example.com", *names, "127.0.0.1"],
        "member proxy02.example.com": ["proxy02.example.com", *names, "host02.example.com"],
        "client foreman.example.com": ["foreman.example.com"],
        "balancer balancer": ["balancer"],
    }
    verified = run(cluster, "verify")
    assert (verified.exit_code, verified.output) == (0, "Nothing is wrong.\n")
    assert "proxy02.example.com" in run(cluster, "show").output


def test_dry_runs_write_nothing(cluster: Path) -> None:
    assert "Would write" in run(cluster, "init", "--dry-run").output
    assert not (cluster.parent / "pki").exists()
    run(cluster, "init")
    before = sorted(cluster.parent.rglob("*"))
    assert "Would write" in run(cluster, "issue", "--all", "--dry-run").output
    assert sorted(cluster.parent.rglob("*")) == before


def test_a_reissue_keeps_names_the_cluster_file_lost_until_told(cluster: Path) -> None:
    run(cluster, "init")
    run(cluster, "issue", "proxy01")
    cluster.write_text(CLUSTER.replace("aliases: [proxy.example.net]\n", ""))
    run(cluster, "issue", "proxy01")
    assert "proxy.example.net" in shown(cluster)["member proxy01.example.com"]
    run(cluster, "issue", "proxy01", "--drop-names")
    assert "proxy.example.net" not in shown(cluster)["member proxy01.example.com"]


def test_files_that_are_wrong_exit_1_with_codes(cluster: Path) -> None:
    run(cluster, "init")
    run(cluster, "issue", "proxy01")
    cluster.write_text(CLUSTER.replace("proxy.example.net", "added.example.net"))
    (cluster.parent / "pki" / "ca.key").chmod(0o644)
    result = run(cluster, "verify", "--json")
    found = [(c["code"], c["severity"]) for c in json.loads(result.output)]
    assert result.exit_code == 1
    assert found == [("FILE-MODE", "error")] + [("FILE-MISSING", "error")] * 3 + [("TLS-NAME", "error")]
    assert run(cluster, "verify", "proxy01").exit_code == 1


def test_a_live_port_is_verified_by_name_and_by_address(cluster: Path) -> None:
    run(cluster, "init")
    run(cluster, "issue", "proxy01", "--client", "foreman.example.com")
    home = cluster.parent / "pki" / "members" / "proxy01.example.com"
    with serving(server_context(home / "cert.pem", home / "key.pem", [home / "ca.pem"])) as port:
        by_member = run(cluster, "verify", "proxy01", "--port", str(port), "--client", "foreman.example.com")
        assert by_member.exit_code == 0, by_member.output
        assert run(cluster, "verify", f"proxy01.example.com:{port}").exit_code == 0
        wrong = run(cluster, "verify", f"127.0.0.1:{port}", "--name", "other.example.com")
    assert wrong.exit_code == 1
    assert "error: TLS-NAME:" in wrong.output
    assert "Remedy:" in wrong.output
    assert "TLS-REFUSED" in run(cluster, "verify", f"127.0.0.1:{port}").output


def test_a_second_init_is_refused_and_adopting_takes_both_files(cluster: Path, tmp_path: Path) -> None:
    run(cluster, "init")
    with pytest.raises(Conflict, match="--replace"):
        run(cluster, "init")
    pki = tmp_path / "pki"
    adopted = run(
        cluster, "init", "--pki", str(tmp_path / "b"), "--ca-cert", str(pki / "ca.pem"), "--ca-key", str(pki / "ca.key")
    )
    assert adopted.exit_code == 0
    assert (tmp_path / "b" / "ca.pem").read_bytes() == (pki / "ca.pem").read_bytes()
    assert run(cluster, "init", "--ca-cert", str(pki / "ca.pem")).exit_code == 2


def test_without_a_ca_every_command_says_how_to_make_one(cluster: Path) -> None:
    for command in (["issue", "--all"], ["show"], ["verify"]):
        with pytest.raises(NotFound, match="muster certs init"):
            run(cluster, *command)


def test_a_whole_rotation_from_the_command_line(cluster: Path) -> None:
    run(cluster, "init")
    run(cluster, "issue", "--all", "--balancer", "--client", "foreman.example.com")
    before = shown(cluster)
    ca = (cluster.parent / "pki" / "ca.pem").read_text()
    fast = ("--ca", "--settle", "0", "--no-look")
    assert "is not being replaced" in run(cluster, "rotate", *fast, "--dry-run").output
    for step in ("trust-both", "reissue", "drop-old"):
        files = {p: p.read_bytes() for p in cluster.parent.rglob("*") if p.is_file()}
        plan = json.loads(run(cluster, "rotate", *fast, "--dry-run", "--json").stdout)
        assert (plan["step"], plan["dry_run"]) == (step, True)
        assert {p: p.read_bytes() for p in cluster.parent.rglob("*") if p.is_file()} == files
        done = json.loads(run(cluster, "rotate", *fast, "--json").stdout)
        assert done["commands"] == plan["commands"]
        assert done["copy"] == plan["copy"]
        assert {c["to"] for c in done["copy"]} >= {"member proxy01.example.com", "balancer", "everywhere, Foreman too"}
        assert run(cluster, "verify").output == "Nothing is wrong.\n"
    assert done["next"] is None
    assert shown(cluster) == before
    assert ca not in (cluster.parent / "pki" / "ca.pem").read_text()


def test_steps_out_of_order_are_refused_and_change_nothing(cluster: Path) -> None:
    run(cluster, "init")
    run(cluster, "issue", "--all")
    with pytest.raises(Conflict, match="begin with step trust-both"):
        run(cluster, "rotate", "--ca", "--step", "drop-old")
    run(cluster, "rotate", "--ca", "--no-look")
    with pytest.raises(Conflict, match=r"the old CA issued member proxy01\.example\.com, .*do step reissue first"):
        run(cluster, "rotate", "--ca", "--step", "drop-old")
    assert run(cluster, "rotate", "--step", "reissue").exit_code == 2
    assert run(cluster, "rotate", "--ca", "--all").exit_code == 2
    assert run(cluster, "rotate", "--within", "soon").exit_code == 2


def test_a_member_that_has_not_got_its_files_stops_the_rotation(cluster: Path, tmp_path: Path) -> None:
    run(cluster, "init")
    run(cluster, "issue", "--all")
    home = tmp_path / "pki" / "members" / "proxy01.example.com"
    # Read once and never again: a member on another host, to which nobody copies.
    with serving(server_context(home / "cert.pem", home / "key.pem", [home / "ca.pem"])) as port:
        one = CLUSTER[: CLUSTER.index("  - {id: 2")] + f"services: {{smartproxy: {{member_port: {port}}}}}\n"
        cluster.write_text(one)
        fast = ("--ca", "--settle", "0")
        run(cluster, "rotate", *fast)
        with pytest.raises(
            Conflict, match=r"proxy01\.example\.com \(TLS-CLIENT-REFUSED\) does not trust the new CA yet"
        ):
            run(cluster, "rotate", *fast)
    with serving(server_context(home / "cert.pem", home / "key.pem", [home / "ca.pem"])) as port:
        cluster.write_text(re.sub(r"member_port: [0-9]+", f"member_port: {port}", one))
        assert "Step reissue is complete" in run(cluster, "rotate", *fast).output
        with pytest.raises(Conflict, match=r"proxy01\.example\.com \(TLS-CA\) has not taken up its new certificate"):
            run(cluster, "rotate", *fast)
    with serving(server_context(home / "cert.pem", home / "key.pem", [home / "ca.pem"])) as port:
        cluster.write_text(re.sub(r"member_port: [0-9]+", f"member_port: {port}", one))
        assert "Step drop-old is complete" in run(cluster, "rotate", *fast).output


def test_only_what_ends_soon_is_issued_again_and_keeps_its_names(cluster: Path) -> None:
    run(cluster, "init")
    run(cluster, "issue", "--all", "--balancer")
    run(cluster, "issue", "proxy01", "--days", "20")
    before = shown(cluster)
    verified = run(cluster, "verify")
    assert "TLS-EXPIRES-SOON" in verified.output
    assert "muster certs rotate" in verified.output
    cluster.write_text(CLUSTER.replace("aliases: [proxy.example.net]\n", ""))
    assert "Would write" in run(cluster, "rotate", "--dry-run").output
    assert run(cluster, "verify").exit_code == 1
    issued = json.loads(run(cluster, "rotate", "--json").output)["issued"]
    assert [i["name"] for i in issued] == ["proxy01.example.com"]
    assert run(cluster, "verify").exit_code == 0
    assert {k: sorted(v) for k, v in shown(cluster).items()} == {k: sorted(v) for k, v in before.items()}
    assert "No certificate ends within 30 days." in run(cluster, "rotate").output
    assert len(json.loads(run(cluster, "rotate", "--all", "--json").output)["issued"]) == 3


def test_a_ca_near_its_end_is_said_wherever_its_certificates_are(cluster: Path) -> None:
    run(cluster, "init", "--days", "6")
    run(cluster, "issue", "proxy01")
    found = json.loads(run(cluster, "verify", "proxy01", "--json").output)
    assert sorted(c["code"] for c in found) == ["TLS-CA-EXPIRES-SOON", "TLS-EXPIRES-SOON"]
    assert all("less than 7 days left" in c["sentence"] for c in found)
    assert "muster certs rotate --ca" in run(cluster, "rotate").output
