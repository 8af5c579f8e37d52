from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from muster.balancer.haproxy.binary import alerts
from muster.balancer.haproxy.descriptors import complaint, needed, needed_for
from muster.balancer.haproxy.layout import Layout, kept_state, steered
from muster.balancer.haproxy.sockets import processes, server_states
from tests.unit.balancer.test_model import model

STAT = (
    "# pxname,svname,scur,stot,bin,bout,status,weight,lastchg,downtime,check_status,check_code,last_chk,addr,\n"
    'https,proxy01.test,3,9,100,200,UP,100,7,0,L7OK,200,"OK, ready",10.0.0.1:443,\n'
    "https,proxy02.test,0,1,1,2,NOLB 1/2,100,7,0,* L7OKC,404,gone,10.0.0.2:443,\n"
    "https,BACKEND,3,10,101,202,UP,200,7,0,,,,,\n"
)

STATE = (
    "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_fqdn srv_port\n"
    "3 https 1 proxy01.test 10.0.0.1 2 8 100 - 443\n"
    "3 https 2 proxy02.test 10.0.0.2 2 0 100 - 443\n"
    "3 https 3 proxy03.test 10.0.0.3 2 0 100 proxy03.lan 443\n"
)

CONFIG = (
    "global\n  maxconn 300\nfrontend f from x\n  bind :443,:::443 v6only\n  bind 127.0.0.9:80\n  bind [::1]:81\n"
    "backend https from x\n  server proxy01.test 10.0.0.1:443 id 1\n  server proxy02.test 10.0.0.7:443 id 2\n"
    "  server proxy03.test proxy03.lan:443 id 3\n"
)

PROC = (
    "#<PID>          <type>          <reloads>       <uptime>        <version>       \n"
    "100             master          1               0d00h00m04s     2.6.12          \n"
    "# workers\n102             worker          0               0d00h00m01s     2.6.12          \n"
    "# old workers\n101             worker          1               0d00h00m04s     2.6.12          \n# programs\n"
)


def test_servers_are_read_from_haproxys_table() -> None:
    up, leaving = server_states(STAT)
    assert (up.backend, up.server, up.status, up.sessions, up.total_sessions) == ("https", "proxy01.test", "UP", 3, 9)
    assert (up.check, up.check_code, up.last_check, up.takes_traffic) == ("L7OK", 200, "OK, ready", True)
    assert (leaving.status, leaving.check, leaving.check_code, leaving.takes_traffic) == (
        "NOLB 1/2",
        "L7OKC",
        404,
        False,
    )


@given(st.text())
@example("# pxname,svname,scur\na,b,٣\n")
@example('# pxname,svname\n"a,b\n')
def test_no_table_crashes_the_reader(text: str) -> None:
    server_states(text)
    server_states("# pxname,svname,scur,check_code,weight\n" + text)
    processes(text)
    kept_state(text, Layout.of(text))
    steered(text)
    alerts(text)


def test_processes_are_told_apart() -> None:
    assert [(p.pid, p.type, p.is_old) for p in processes(PROC)] == [
        (100, "master", False),
        (102, "worker", False),
        (101, "worker", True),
    ]


def test_a_file_tells_its_listeners_and_servers() -> None:
    layout = Layout.of(CONFIG)
    assert layout.listeners == (("", 443), ("127.0.0.9", 80), ("::1", 81))
    assert layout.servers["https", "proxy02.test"] == "10.0.0.7:443"
    assert layout.maxconn == 300


def test_the_state_of_a_server_that_moved_is_forgotten() -> None:
    kept = kept_state(STATE, Layout.of(CONFIG))
    assert kept.startswith("1\n# be_id")
    assert [name for name in ("proxy01", "proxy02", "proxy03") if name in kept.replace("proxy03.lan", "")] == [
        "proxy01",
        "proxy03",
    ]


def test_only_what_people_set_counts_as_steering() -> None:
    assert steered(STATE) == steered(STATE.replace(" 2 8 100", " 0 8 100"))
    assert steered(STATE) != steered(STATE.replace(" 2 8 100", " 2 0 100"))


def test_complaints_lose_haproxys_refrain() -> None:
    said = (
        "[NOTICE]   (1) : haproxy version is 2.6\n[ALERT]    (1) : config : parsing [/x.cfg:3] : unknown keyword\n"
        "[ALERT]    (1) : config : Error(s) found in configuration file : /x.cfg\n"
    )
    assert alerts(said) == "config : parsing [/x.cfg:3] : unknown keyword"


def test_descriptors_are_counted_and_the_sum_is_said() -> None:
    assert needed_for(4000, listeners=9, servers=27) == 2 * 4000 + 9 + 27 + 100
    assert needed(model(), 1000) == 2000 + 7 + 12 + 100
    assert complaint(4000, listeners=9, servers=27, limit=8136) is None
    assert complaint(None, listeners=9, servers=27, limit=10) is None
    said = str(complaint(4000, listeners=9, servers=27, limit=8135))
    for part in ("8136", "8135", "maxconn to at most 3999", "LimitNOFILE"):
        assert part in said


@pytest.mark.parametrize("fits", [0, 100, 3999])
def test_the_remedy_really_fits(fits: int) -> None:
    limit = needed_for(fits, listeners=2, servers=3)
    refused = complaint(fits + 1, listeners=2, servers=3, limit=limit)
    assert refused is not None
    assert f"at most {fits}," in str(refused)
    assert complaint(fits, listeners=2, servers=3, limit=limit) is None
