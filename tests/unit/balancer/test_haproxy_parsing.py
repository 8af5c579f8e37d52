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


def rows(text: str) -> dict[str, dict[str, str]]:
    head, *lines = text.splitlines()[1:]
    return {row["srv_name"]: row for row in (dict(zip(head.split()[1:], x.split(), strict=True)) for x in lines)}


FULL = (
    "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight"
    " srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state"
    " bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr"
    " srv_agent_port\n"
    "3 web 1 checked.test 10.0.0.1 0 8 50 100 7 6 3 4 2 2 0 1 other.lan 443 _x._tcp.lan 1 39090 10.0.0.9 10.0.0.8 5555\n"
    "3 web 2 tracking.test 10.0.0.2 0 1 100 100 7 6 3 4 0 0 0 1 - 443 - 0 0 - - 0\n"
    "3 web 3 named.test 10.0.0.3 3 0 100 100 7 6 3 4 6 0 0 1 named.lan 443 - 0 0 - - 0\n"
)

PLANNED = (
    "backend web from x\n  server checked.test 10.0.0.1:443 id 1 weight 100 check port 39190\n"
    "  server tracking.test 10.0.0.2:443 id 2 weight 100 track probe/tracking.test\n"
    "  server named.test named.lan:443 id 3 weight 100 ssl check resolvers system\n"
)


def test_a_kept_state_says_nothing_that_the_configuration_says() -> None:
    found = rows(kept_state(FULL, Layout.of(PLANNED)))
    checked, tracking, named = found["checked.test"], found["tracking.test"], found["named.test"]
    neutral = {"srv_check_port": "0", "srv_check_addr": "-", "srv_agent_addr": "-", "srv_agent_port": "0"}
    assert checked.items() >= (neutral | {"srvrecord": "-", "srv_use_ssl": "0", "srv_fqdn": "-"}).items()
    # Who is checked is the plan's, too: "disable health" and "disable agent" are not kept.
    assert (checked["srv_check_state"], checked["srv_agent_state"]) == ("6", "6")
    assert (checked["srv_op_state"], checked["srv_admin_state"], checked["srv_uweight"]) == ("0", "8", "50")
    # Nothing brings up a server that is not checked itself.
    assert (tracking["srv_op_state"], tracking["srv_admin_state"], tracking["srv_check_state"]) == ("2", "1", "0")
    assert (named["srv_fqdn"], named["srv_addr"], named["srv_use_ssl"]) == ("named.lan", "10.0.0.3", "1")
    assert (named["srv_op_state"], named["srv_check_state"]) == ("3", "6")


@pytest.mark.parametrize(
    ("in_force", "uweight"),
    [
        # What somebody set on the socket stays while the plan's weight stays.
        (100, "50"),
        # HAProxy was told 50 at run time, when that was planned; now the plan is 100 again.
        (50, "100"),
    ],
)
def test_a_weight_is_kept_when_somebody_set_it_and_not_when_an_earlier_plan_did(in_force: int, uweight: str) -> None:
    before = Layout.of(PLANNED.replace("weight 100", f"weight {in_force}"))
    kept = rows(kept_state(FULL, Layout.of(PLANNED), before))["checked.test"]
    assert (kept["srv_uweight"], kept["srv_iweight"]) == (uweight, "100")


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
