from __future__ import annotations

import ast
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from muster.balancer.model import modelled
from muster.cluster.file import ClusterFile
from muster.derived.keepalived import CHECK_SCRIPT, CheckPaths, rendered
from muster.kernel.errors import Misconfigured, Rejected
from muster.netboot.contract import HIDDEN
from tests.servers import tftp
from tests.unit.balancer.test_model import document

CHECK = CheckPaths(Path("/run/muster/runtime.sock"))
THREE = """\
balancers:
- {name: lb1, address: 10.0.0.7}
- {name: lb2, address: 10.0.0.8, interface: ens3}
- {name: lb3, address: 10.0.0.9, priority: 250}
virtual_address: {address: 10.0.0.10/24, interface: eth0, router_id: 7, advert_s: 0.25}
"""


def cluster(rest: str = THREE) -> ClusterFile:
    return document(rest).parsed(ClusterFile)


def text(name: str, of: ClusterFile | None = None) -> str:
    of = of or cluster()
    return rendered(of, which=of.balancer(name), check=CHECK)


def block(of: str, head: str) -> list[str]:
    lines = [line.strip() for line in of.splitlines()]
    start = lines.index(f"{head} {{") + 1
    return lines[start : lines.index("}", start)]


def test_every_balancer_speaks_to_all_others_and_never_to_itself() -> None:
    for name, own, others in (
        ("lb1", "10.0.0.7", ["10.0.0.8", "10.0.0.9"]),
        ("lb3", "10.0.0.9", ["10.0.0.7", "10.0.0.8"]),
    ):
        assert block(text(name), "unicast_peer") == others
        assert f"  unicast_src_ip {own}\n" in text(name)


def test_priorities_fall_in_the_files_order_unless_one_is_given() -> None:
    said = {n: next(x for x in text(n).splitlines() if "priority" in x).split()[1] for n in ("lb1", "lb2", "lb3")}
    assert said == {"lb1": "200", "lb2": "190", "lb3": "250"}


def test_all_agree_on_what_makes_them_one_group() -> None:
    for name in ("lb1", "lb2", "lb3"):
        assert {
            "  virtual_router_id 7",
            "  advert_int 0.25",
            "  state BACKUP",
            "  nopreempt",
            "  vrrp_version 3",
        } <= set(text(name).splitlines())


def test_a_balancers_own_interface_carries_the_address() -> None:
    assert block(text("lb1"), "virtual_ipaddress") == ["10.0.0.10/24 dev eth0"]
    assert block(text("lb2"), "virtual_ipaddress") == ["10.0.0.10/24 dev ens3"]
    assert "  interface ens3\n" in text("lb2")


def test_haproxy_is_asked_by_an_account_that_is_not_roots_through_a_script_with_security() -> None:
    assert {"enable_script_security", "script_user muster", "vrrp_check_unicast_src"} <= set(
        block(text("lb1"), "global_defs")
    )
    asked = block(text("lb1"), "vrrp_script haproxy_answers")
    assert 'script "/usr/local/libexec/muster-balancer-answers /run/muster/runtime.sock"' in asked
    assert "init_fail" in asked
    assert block(text("lb1"), "track_script") == ["haproxy_answers"]


def test_the_script_is_python_that_needs_nothing_but_the_standard_library() -> None:
    imported = {n.name for x in ast.walk(ast.parse(CHECK_SCRIPT)) if isinstance(x, ast.Import) for n in x.names}
    assert imported == {"socket", "sys", "time"}


def test_ipv6_balancers_share_an_ipv6_address() -> None:
    of = cluster(
        "balancers:\n- {name: lb1, address: 'fd00::1'}\n- {name: lb2, address: 'fd00::2'}\n"
        "virtual_address: {address: 'fd00::a/64', interface: eth0}\n"
    )
    assert block(text("lb1", of), "virtual_ipaddress") == ["fd00::a/64 dev eth0 preferred_lft 0"]


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("balancers: [{name: lb1, address: 10.0.0.7}, {name: lb2, address: 10.0.0.8}]\n", "no virtual_address"),
        (
            "balancers: [{name: lb1, address: 10.0.0.7}]\nvirtual_address: {address: 10.0.0.10/24, interface: e0}\n",
            "only one",
        ),
        (THREE.replace("10.0.0.9", "lb3.test"), "lb3 has the address lb3.test"),
        (THREE.replace("10.0.0.9", "fd00::9"), "lb3 has the address fd00::9"),
    ],
)
def test_what_cannot_be_rendered_is_said(rest: str, words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        text("lb1", cluster(rest))


HOSTILE = ["x\n  script evil", "a b", "x#y", "x!y", 'x"y', "{", "", "$PATH", "a}"]


@pytest.mark.parametrize("bad", HOSTILE)
def test_nothing_hostile_reaches_the_file(bad: str) -> None:
    good = cluster()
    assert good.virtual_address is not None
    first, *rest = good.balancers
    spoilt = [
        good.model_copy(update={"cluster": bad}),
        good.model_copy(update={"balancers": (first.model_copy(update={"name": bad or " "}), *rest)}),
        good.model_copy(update={"virtual_address": good.virtual_address.model_copy(update={"interface": bad})}),
        good.model_copy(update={"virtual_address": good.virtual_address.model_copy(update={"script_user": bad})}),
    ]
    for of in spoilt:
        with pytest.raises(Rejected):
            rendered(of, which=of.balancers[0], check=CHECK)
    for paths in (CheckPaths(Path("/run") / bad / "s"), CheckPaths(Path("/run/s"), Path("/x") / bad / "y")):
        if bad:
            with pytest.raises(Rejected):
                rendered(good, which=first, check=paths)


TFTP = (
    THREE
    + """\
features: {tftp: {tftp_servername: 10.0.0.10}}
netboot: {tftp: {port: 6969}}
"""
)


def on_hosts(rest: str, *numbers: int) -> ClusterFile:
    """Return a cluster whose members of these numbers stand on the hosts of balancers."""
    of = cluster(rest)
    members = [
        m.model_copy(update={"address": f"10.0.0.{n}", "kind": "muster"})
        for m, n in zip(of.members, numbers, strict=False)
    ]
    assert len(members) == len(numbers)
    return of.model_copy(update={"members": tuple(members)})


def test_whoever_owns_the_address_answers_over_tftp_if_anybody_does() -> None:
    of = on_hosts(TFTP, 7, 8)
    port = modelled(of, frozenset()).services[0].listen_port
    asked = block(text("lb1", of), "vrrp_script tftp_answers")
    assert (
        f'script "/usr/local/libexec/muster-balancer-answers /run/muster/runtime.sock tftp 6969 10.0.0.7 {port} 10.0.0.8"'
        in asked
    )
    assert block(text("lb1", of), "track_script") == ["haproxy_answers", "tftp_answers"]


@pytest.mark.parametrize(
    ("rest", "numbers"),
    [
        (THREE, (7, 8)),
        (TFTP, (11, 12)),
        (TFTP, (7, 12)),
        (TFTP, (11, 8)),
        (TFTP.replace("port: 6969", "addresses: [10.0.0.10]"), (7, 8)),
    ],
    ids=["no TFTP", "members elsewhere", "nobody else has one", "not on this host", "on the address alone"],
)
def test_where_no_other_host_could_answer_over_tftp_it_is_not_asked_for(rest: str, numbers: tuple[int, ...]) -> None:
    of = on_hosts(rest, *numbers)
    assert block(text("lb1", of), "track_script") == ["haproxy_answers"]
    assert "tftp" not in text("lb1", of)


def answered(*words: str) -> int:
    return subprocess.run([sys.executable, "-IS", "-c", CHECK_SCRIPT, *words], timeout=30, check=False).returncode


def test_the_script_gives_the_address_up_for_tftp_only_where_another_one_answers(tmp_path: Path) -> None:
    (tmp_path / HIDDEN).mkdir(mode=0o700)
    absent = str(tmp_path / "absent")
    with socket.create_server(("127.0.0.3", 0)) as service, tftp.ours(tmp_path, address="127.0.0.3") as serving:
        port, taken = serving.port, service.getsockname()[1]

        def asked(own: str, *others: str, service: int = taken) -> int:
            return answered(absent, "tftp", str(port), own, str(service), *others)

        assert asked("127.0.0.3", "127.0.0.2") == 0
        assert asked("127.0.0.2", "127.0.0.4") == 0
        assert asked("127.0.0.2", "127.0.0.4", "127.0.0.3") == 1
    with tftp.ours(tmp_path, address="127.0.0.3", port=port):
        # Its balancer is dead: whoever gave the address away would leave it to nobody.
        assert asked("127.0.0.2", "127.0.0.3") == 0
    assert answered(absent) == 1
