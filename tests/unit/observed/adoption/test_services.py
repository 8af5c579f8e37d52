from __future__ import annotations

from muster.balancer.haproxy.found import found
from muster.observed.adoption.services import adopted_members, adopted_services


def services(text: str) -> dict[str, tuple[int, ...]]:
    return {s.name: s.ports for s in adopted_services(found(text))[1]}


def test_a_puppet_ca_beside_puppet_on_one_member_stays_a_service() -> None:
    text = "listen a\n bind :8140\n server x h:8140\nlisten b\n bind :8141\n server x h:8140\n"
    assert services(text) == {"puppet": (8140,), "puppetca": (8141,)}


def test_names_keep_apart_what_leads_to_one_program() -> None:
    text = "listen puppet\n bind :1\n server x h:8140\nlisten puppet-ca\n bind :2\n server x h:8140\n"
    assert services(text) == {"puppet": (1,), "puppetca": (2,)}


def test_two_frontends_of_one_name_get_names_of_their_own() -> None:
    text = "listen x-y\n bind :7001\n server x h:1\nlisten x_y\n bind :7002\n server x h:2\n"
    assert services(text) == {"x-y": (7001,), "x-y-7002": (7002,)}


def test_no_more_further_ports_are_taken_than_a_cluster_file_has() -> None:
    assert len(services("listen x\n bind :7000-7020\n server x h:1\n")["x"]) == 9


def test_backups_get_no_clients_while_others_are_there() -> None:
    text = "listen ca\n bind :8141\n server x h1:8140 backup\n server y h2:8140\n"
    _, (one,) = adopted_services(found(text))
    assert one.hosts == ("h2",)
    assert [m.name for m in adopted_members([one], {})] == ["h1", "h2"]
