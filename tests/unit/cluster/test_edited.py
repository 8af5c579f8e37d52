from __future__ import annotations

import pytest
import yaml

from muster.cluster.edited import with_member, with_store, without_member
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected

BEFORE = """\
%YAML 1.1
---
# The demo cluster; ask Anna.
schema: 1
cluster: "demo"   # its name
address:   proxy.example.com
aliases: [ 'a.example.com',  "b.example.com" ]
"""
AFTER = """\

# Those in front.
balancers:
    - {name: lb1, address: 192.0.2.9}   # the only one
services:
  smartproxy: { listen_port: 9090 }
motd: |
  - not a member
   at all
...
"""

BLOCK = """\
members:   # in order of their purchase
# first comes first
- id: 1
  name: "proxy01.example.com"   # in the cellar
  # its address will change
  address: 192.0.2.1

- id: 2
  name: 'proxy02.example.com'
  address: 192.0.2.2   # behind the door
# end of members
"""
DEEP = """\
members:
    # first comes first
    -   name: proxy01.example.com
        id: 1
        address: 192.0.2.1
    -   name: proxy02.example.com
        id: 2
        address: 192.0.2.2
"""
FLOW_ITEMS = """\
members:
  - { id: 1, name: proxy01.example.com, address: 192.0.2.1 }   # in the cellar
  - { id: 2, name: "proxy02.example.com", address: 192.0.2.2 }  # behind the door
"""
ONE_LINE = """\
members: [{id: 1, name: proxy01.example.com, address: 192.0.2.1}, {id: 2, name: proxy02.example.com, address: 192.0.2.2}]
"""
FLOW_LINES = """\
members: [
    {id: 1, name: proxy01.example.com, address: 192.0.2.1},   # in the cellar
    {id: 2, name: proxy02.example.com, address: 192.0.2.2}   # behind the door
  ]
"""
FLOW_COMMAS = """\
members: [
    {id: 1, name: proxy01.example.com, address: 192.0.2.1},   # in the cellar
    {id: 2, name: proxy02.example.com, address: 192.0.2.2},   # behind the door
]
"""

ADDED_BLOCK = "- id: 3\n  name: proxy03.example.com\n  address: 192.0.2.3\n"
STYLES = {
    "block": (BLOCK, BLOCK.replace("# end of", f"{ADDED_BLOCK}# end of")),
    "deep": (DEEP, f"{DEEP}    -   id: 3\n        name: proxy03.example.com\n        address: 192.0.2.3\n"),
    "flow items": (FLOW_ITEMS, f"{FLOW_ITEMS}  - {{ id: 3, name: proxy03.example.com, address: 192.0.2.3 }}\n"),
    "one line": (ONE_LINE, ONE_LINE.replace("]\n", ", {id: 3, name: proxy03.example.com, address: 192.0.2.3}]\n")),
    "flow lines": (
        FLOW_LINES,
        FLOW_LINES.replace("   # behind", ",   # behind").replace(
            "  ]\n", "    {id: 3, name: proxy03.example.com, address: 192.0.2.3}\n  ]\n"
        ),
    ),
    "flow with commas": (
        FLOW_COMMAS,
        FLOW_COMMAS.replace("]\n", "    {id: 3, name: proxy03.example.com, address: 192.0.2.3},\n]\n"),
    ),
}
styles = pytest.mark.parametrize(("members", "grown"), STYLES.values(), ids=STYLES.keys())


def grown_by_proxy03(text: str) -> str:
    return with_member(text, name="proxy03.example.com", address="192.0.2.3", number=3, kind="muster")


@styles
def test_a_member_more_is_written_as_its_neighbours_are_and_nothing_else_changes(members: str, grown: str) -> None:
    assert grown_by_proxy03(BEFORE + members + AFTER) == BEFORE + grown + AFTER


@styles
def test_the_member_added_last_is_taken_out_to_the_byte(members: str, grown: str) -> None:
    shrunk = without_member(BEFORE + grown + AFTER, "proxy03.example.com")
    # A comma that its neighbour got stays: both mean the same.
    assert shrunk in (BEFORE + members + AFTER, BEFORE + members.replace("   # behind", ",   # behind") + AFTER)


@pytest.mark.parametrize(
    ("members", "left"),
    [
        (BLOCK, BLOCK.partition("- id: 1")[0] + "\n- id: 2" + BLOCK.partition("- id: 2")[2]),
        (DEEP, "members:\n    # first comes first\n" + DEEP[DEEP.index("    -   name: proxy02") :]),
        (FLOW_ITEMS, "members:\n" + FLOW_ITEMS.splitlines(keepends=True)[2]),
        (ONE_LINE, "members: [{id: 2, name: proxy02.example.com, address: 192.0.2.2}]\n"),
        (FLOW_LINES, FLOW_LINES.replace(FLOW_LINES.splitlines(keepends=True)[1], "")),
        (FLOW_COMMAS, FLOW_COMMAS.replace(FLOW_COMMAS.splitlines(keepends=True)[1], "")),
    ],
    ids=STYLES.keys(),
)
def test_a_member_is_taken_out_of_the_front_with_its_own_comments_only(members: str, left: str) -> None:
    assert without_member(BEFORE + members + AFTER, "PROXY01.example.com.") == BEFORE + left + AFTER


def test_the_comment_behind_the_last_member_stays_when_it_goes() -> None:
    left = without_member(BEFORE + BLOCK + AFTER, "proxy02.example.com")
    assert left == BEFORE + BLOCK.partition("- id: 2")[0] + "# end of members\n" + AFTER
    ends = without_member(ONE_LINE, "proxy02.example.com")
    assert ends == "members: [{id: 1, name: proxy01.example.com, address: 192.0.2.1}]\n"


def test_lines_end_as_they_did_and_a_missing_last_one_is_no_matter() -> None:
    dos = (BLOCK + "schema: 1\n").replace("\n", "\r\n")
    grown = grown_by_proxy03(dos)
    assert grown == (BLOCK.replace("# end of", f"{ADDED_BLOCK}# end of") + "schema: 1\n").replace("\n", "\r\n")
    assert without_member(grown, "proxy03.example.com") == dos
    assert grown_by_proxy03("members:\n- {id: 1, name: p1.test, address: 192.0.2.1}") == (
        "members:\n- {id: 1, name: p1.test, address: 192.0.2.1}\n"
        "- {id: 3, name: proxy03.example.com, address: 192.0.2.3}\n"
    )


def test_a_member_that_begins_below_its_dash_is_found_with_it() -> None:
    text = "members:\n  -\n    id: 1\n    name: p1.test\n    address: a.test\n  - {id: 2, name: p2.test, address: b.test}\n"
    assert without_member(text, "p1.test") == "members:\n  - {id: 2, name: p2.test, address: b.test}\n"
    assert without_member(text, "p2.test") == text.partition("  - {")[0]
    shorter = without_member(text, "p2.test")
    assert grown_by_proxy03(shorter) == (f"{shorter}  - id: 3\n    name: proxy03.example.com\n    address: 192.0.2.3\n")


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize(
    ("name", "address"),
    [("p3.test", "2001:db8::3"), ("p3.test", "fe80::"), ("on", "192.0.2.3"), ("null", "::1"), ("1e3", "192.0.2.3")],
)
def test_names_that_yaml_takes_for_something_else_are_quoted(name: str, address: str, flow: bool) -> None:
    first = "{id: 1, name: p1.test, address: b.test}" if flow else "id: 1\n  name: p1.test\n  address: b.test"
    grown = with_member(f"members:\n- {first}\n", name=name, address=address, number=3, kind="foreman")
    assert yaml.safe_load(grown)["members"][1] == {"id": 3, "name": name, "address": address, "kind": "foreman"}


def test_an_empty_list_gets_its_first_member() -> None:
    assert grown_by_proxy03("members: []\n") == ("members: [{id: 3, name: proxy03.example.com, address: 192.0.2.3}]\n")


@pytest.mark.parametrize(
    ("name", "address", "number", "what"),
    [
        ("PROXY02.example.com", "192.0.2.3", 3, "name PROXY02.example.com"),
        ("proxy03.example.com", "192.0.2.2", 3, "address 192.0.2.2"),
        ("proxy03.example.com", "192.0.2.3", 2, "id 2"),
    ],
)
def test_a_name_an_address_or_a_number_that_is_taken_is_refused(
    name: str, address: str, number: int, what: str
) -> None:
    with pytest.raises(Conflict, match=rf"Member proxy02\.example\.com has {what} already; nothing was changed"):
        with_member(BEFORE + BLOCK + AFTER, name=name, address=address, number=number, kind="muster")


@pytest.mark.parametrize(
    ("name", "address"),
    [("p3.test\n- x", "192.0.2.3"), ("p3.test", "192.0.2.3 # no"), ("p3 test", "192.0.2.3"), ("p3.test", "1.2.3")],
)
def test_what_is_no_name_or_address_never_reaches_the_text(name: str, address: str) -> None:
    with pytest.raises(Rejected):
        with_member(BLOCK, name=name, address=address, number=3, kind="muster")


def test_a_member_the_file_does_not_have_cannot_be_taken_out_nor_can_the_last_one() -> None:
    with pytest.raises(NotFound, match="nobody does not stand in the cluster file"):
        without_member(BLOCK, "nobody")
    with pytest.raises(Conflict, match="last member"):
        without_member(without_member(BLOCK, "proxy01.example.com"), "proxy02.example.com")


@pytest.mark.parametrize(
    "text", ["", "a: [", "- 1\n", "schema: 1\n", "members: 7\n", "members: [1]\n", "members:\n- a\n", "members: {}\n"]
)
def test_what_has_no_list_of_members_is_no_cluster_file(text: str) -> None:
    for change in (grown_by_proxy03, lambda t: without_member(t, "proxy01.example.com")):
        with pytest.raises(Misconfigured):
            change(text)


def test_a_list_that_only_a_person_can_change_is_left_to_one() -> None:
    shared = (
        "x: &m {id: 1, name: p1.test, address: a.test}\nmembers:\n- *m\n- {id: 2, name: p2.test, address: b.test}\n"
    )
    with pytest.raises(Misconfigured, match="only a person can change"):
        without_member(shared, "p1.test")
    assert without_member(shared, "p2.test").endswith("members:\n- *m\n")


STORES = {
    "block": (
        "store:   # where\n  # soon another\n  url: sqlite:////var/lib/muster.db   # the file\n  connect_timeout_s: 3\n",
        "store:   # where\n  # soon another\n  url: postgresql://muster@db/muster   # the file\n  connect_timeout_s: 3\n",
        "store:   # where\n  # soon another\n  url: postgresql://muster@db/muster   # the file\n"
        "  password_file: /etc/muster/pw\n  connect_timeout_s: 3\n",
    ),
    "flow": (
        'store: { url: "sqlite:////var/lib/muster.db" }  # where\n',
        "store: { url: postgresql://muster@db/muster }  # where\n",
        "store: { url: postgresql://muster@db/muster, password_file: /etc/muster/pw }  # where\n",
    ),
    "with a password": (
        "store:\n    password_file: '/etc/old'   # ask Anna\n    url: 'postgresql://muster@old/muster'\n",
        "store:\n    password_file: '/etc/old'   # ask Anna\n    url: postgresql://muster@db/muster\n",
        "store:\n    password_file: /etc/muster/pw   # ask Anna\n    url: postgresql://muster@db/muster\n",
    ),
}


@pytest.mark.parametrize("form", STORES)
def test_another_store_changes_its_lines_alone(form: str) -> None:
    before, after, with_password = STORES[form]
    url = "postgresql://muster@db/muster"
    assert with_store(BEFORE + BLOCK + before + AFTER, url) == BEFORE + BLOCK + after + AFTER
    assert with_store(BEFORE + BLOCK + before + AFTER, url, "/etc/muster/pw") == BEFORE + BLOCK + with_password + AFTER


@pytest.mark.parametrize("store", ["", "store: sqlite:///x\n", "store: {}\n", "store: {url: [a]}\n"])
def test_a_store_that_cannot_be_cut_is_left_to_a_person(store: str) -> None:
    with pytest.raises(Misconfigured, match="only a person can change"):
        with_store(BEFORE + BLOCK + store + AFTER, "sqlite:////x.db")


def test_a_store_that_stands_twice_by_an_alias_is_left_to_a_person() -> None:
    text = BEFORE + BLOCK + "other: &u sqlite:////a.db\nstore: {url: *u}\n" + AFTER
    with pytest.raises(Misconfigured, match="only a person can change"):
        with_store(text, "sqlite:////x.db")
