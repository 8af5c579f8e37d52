from __future__ import annotations

import pytest

from muster.balancer.haproxy.additions import Addition, additions, reweighed
from muster.balancer.haproxy.layout import Layout, gated_state, kept_state

BEFORE = """\
# generation 1
global
  maxconn 100
backend web from tcp_base
  balance roundrobin
  server p1.test 192.0.2.1:80 id 1 check inter 2s
backend web_panic from tcp_base
  server p1.test 192.0.2.1:80 id 1
listen other
  bind :81
"""
P2 = "  server p2.test 192.0.2.2:80 id 2"
AFTER = (
    BEFORE.replace("generation 1", "generation 2")
    .replace("check inter 2s\n", f"check inter 2s\n{P2} check inter 2s\n")
    .replace("id 1\nlisten", f"id 1\n{P2}\nlisten")
)


def test_servers_that_are_all_the_difference_are_added() -> None:
    assert additions(BEFORE, AFTER) == (
        Addition("web", "p2.test", ("192.0.2.2:80", "id", "2", "check", "inter", "2s")),
        Addition("web_panic", "p2.test", ("192.0.2.2:80", "id", "2")),
    )


def test_several_new_servers_stand_in_their_order_wherever_they_are_put() -> None:
    first = BEFORE.replace("roundrobin\n", f"roundrobin\n  server p0.test 192.0.2.9:80 id 9\n{P2}\n")
    assert [(a.backend, a.server) for a in additions(BEFORE, first)] == [("web", "p0.test"), ("web", "p2.test")]


def test_comments_and_blank_lines_are_no_difference() -> None:
    assert additions(BEFORE, BEFORE.replace("# generation 1\n", "# generation 2\n\n# more\n")) == ()
    assert additions(BEFORE, BEFORE) == ()
    assert len(additions(BEFORE, f"\n# {AFTER}")) == 2


@pytest.mark.parametrize(
    "after",
    [
        BEFORE.replace("maxconn 100", "maxconn 200"),
        AFTER.replace("maxconn 100", "maxconn 200"),
        AFTER.replace("roundrobin", "leastconn"),
        # One that moved, or is checked otherwise, is no new one.
        BEFORE.replace("192.0.2.1:80", "192.0.2.7:80"),
        BEFORE.replace("inter 2s", "inter 3s"),
        # One less.
        BEFORE.replace("  server p1.test 192.0.2.1:80 id 1\n", ""),
        # One instead of another.
        BEFORE.replace("  server p1.test 192.0.2.1:80 id 1\n", f"{P2}\n"),
        # A server where a frontend may stand, too, and a backend that is new with its server.
        BEFORE + "  server p2.test 192.0.2.2:81\n",
        BEFORE + f"backend late\n{P2}\n",
        BEFORE.replace("global\n", f"global\n{P2}\n"),
        # What HAProxy cannot take while it runs.
        *(AFTER.replace(f"{P2}\n", f"{P2} {word} x\n") for word in ("resolvers", "init-addr", "tcp-ut")),
        # Half a line.
        BEFORE.replace("roundrobin\n", "roundrobin\n  server p2.test\n"),
        BEFORE.replace("roundrobin\n", "roundrobin\n  server-template p 3 p.test:80\n"),
    ],
)
def test_anything_more_than_new_servers_is_a_reload(after: str) -> None:
    assert additions(BEFORE, after) == ()


def test_a_server_is_added_drained_before_its_checks_begin() -> None:
    checked, unchecked = additions(BEFORE, AFTER)
    assert checked.commands == (
        "add server web/p2.test 192.0.2.2:80 id 2 check inter 2s",
        "set server web/p2.test state drain",
        "enable health web/p2.test",
    )
    assert unchecked.commands == (
        "add server web_panic/p2.test 192.0.2.2:80 id 2",
        "set server web_panic/p2.test state drain",
    )


def test_what_was_added_is_taken_back_out_of_service_first() -> None:
    assert additions(BEFORE, AFTER)[0].undoing == ("set server web/p2.test state maint", "del server web/p2.test")


STATE = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_fqdn srv_port
3 web 1 p1.test 192.0.2.1 2 0 - 80
3 web 7 gone.test 192.0.2.7 2 0 - 80
"""


def rows(text: str) -> dict[tuple[str, str], dict[str, str]]:
    lines = [line.split() for line in text.splitlines()[1:]]
    assert all(len(line) == len(lines[0]) - 1 for line in lines[1:])
    found = [dict(zip(lines[0][1:], line, strict=True)) for line in lines[1:]]
    return {(f["be_name"], f["srv_name"]): f for f in found}


def test_a_newcomer_starts_drained_by_a_line_of_its_own_in_the_columns_haproxy_uses() -> None:
    layout = Layout.of(AFTER)
    kept = kept_state(STATE, layout)
    assert rows(kept).keys() == {("web", "p1.test")}
    gated = rows(gated_state(kept, layout, [("web", "p2.test"), ("web_panic", "p2.test")]))
    assert gated.keys() == {("web", "p1.test"), ("web", "p2.test"), ("web_panic", "p2.test")}
    assert gated["web", "p1.test"]["srv_admin_state"] == "0"
    new = gated["web", "p2.test"]
    assert (new["srv_addr"], new["srv_port"], new["srv_admin_state"], new["srv_fqdn"]) == ("192.0.2.2", "80", "8", "-")


def test_without_a_state_the_columns_of_version_1_are_written() -> None:
    gated = rows(gated_state("1\n", Layout.of(AFTER), [("web", "p2.test")]))
    assert (len(gated["web", "p2.test"]), gated["web", "p2.test"]["srv_admin_state"]) == (25, "8")


def test_without_newcomers_a_state_stays_as_it_is() -> None:
    assert gated_state(STATE, Layout.of(AFTER), []) == STATE


def test_an_ipv6_newcomer_keeps_its_whole_address() -> None:
    layout = Layout.of("backend web\n  server p6.test [2001:db8::6]:443\n")
    new = rows(gated_state("1\n", layout, [("web", "p6.test")]))["web", "p6.test"]
    assert (new["srv_addr"], new["srv_port"]) == ("2001:db8::6", "443")


WEIGHED = BEFORE.replace("id 1", "id 1 weight 100")


def test_weights_that_are_all_the_difference_are_set() -> None:
    after = WEIGHED.replace("weight 100 check", "weight 30 check").replace("generation 1", "generation 2")
    assert reweighed(WEIGHED, after) == {("web", "p1.test"): 30}
    assert reweighed(WEIGHED, WEIGHED.replace("weight 100", "weight 7")) == {
        ("web", "p1.test"): 7,
        ("web_panic", "p1.test"): 7,
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (WEIGHED, WEIGHED),
        (BEFORE, WEIGHED),
        (WEIGHED, WEIGHED.replace("weight 100 check inter 2s", "weight 30 check inter 3s")),
        (WEIGHED, WEIGHED.replace("weight 100", "weight 30").replace("bind :81", "bind :82")),
        (WEIGHED, WEIGHED.replace("weight 100", "weight heavy")),
        (WEIGHED, WEIGHED.replace("192.0.2.1:80 id 1 weight 100", "192.0.2.9:80 id 1 weight 30")),
        (WEIGHED, f"{WEIGHED}  mode tcp\n"),
    ],
)
def test_anything_else_that_changed_needs_a_reload(before: str, after: str) -> None:
    assert reweighed(before, after) == {}
