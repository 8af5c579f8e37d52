from __future__ import annotations

import pytest

from muster.cluster.problems import problems, warnings
from muster.kernel.settings import Problem, parse
from tests.unit.cluster.written import ONE, SHARED, SMALL, TWO, parsed, said, with_members

IMAGES = "{repositories: {a: {kind: container, url: https://registry.test, upstream: a}}}"
STEERED = "{pulps: [pulp@a], repositories: {a: {kind: file, url: https://origin.test, path: a}}}"


def test_members_that_share_an_id_or_a_name_are_named_with_both_lines() -> None:
    again = "{id: 1, name: PROXY01.example.com., address: 127.0.0.13}"
    assert said(problems(parse(with_members(ONE, TWO, again)))) == [
        (8, "members[2].id", "1 stands already in line 6"),
        (8, "members[2].name", "PROXY01.example.com. stands already in line 6"),
    ]


def test_a_member_is_called_by_a_name_and_not_by_an_address() -> None:
    address = "{id: 2, name: 192.0.2.12, address: 192.0.2.12}"
    assert said(problems(parse(with_members(ONE, address)))) == [
        (7, "members[1].name", "192.0.2.12 is an address; a member needs a host name, which its certificate carries")
    ]


def test_a_signer_that_is_no_member_is_answered_with_the_members() -> None:
    assert said(problems(parse(with_members(ONE, TWO, rest="signer: proxy03.example.com\n")))) == [
        (8, "signer", "proxy03.example.com is no member; members are proxy01.example.com, proxy02.example.com")
    ]
    for good in ("any", "PROXY02.example.com"):
        assert problems(parse(with_members(ONE, TWO, rest=f"signer: {good}\n"))) == []


def test_a_signer_with_a_trailing_dot_is_the_member_without() -> None:
    text = with_members(ONE, TWO, rest="signer: proxy02.example.com.\n")
    assert parsed(text).signer == parsed(text).members[1].name
    assert problems(parse(text)) == []


@pytest.mark.parametrize(
    ("given", "where", "sentence"),
    [
        ("api_user: muster, url: 'https://f.test'", "foreman.api_user", "needs api_token_file beside it"),
        ("api_token_file: /t, url: 'https://f.test'", "foreman.api_token_file", "needs api_user beside it"),
        ("api_user: muster, api_token_file: /t", "foreman.api_user", "needs url beside it"),
        ("api_user: muster, api_token_file: /t, url: 'http://f.test'", "foreman.url", "must be https://"),
    ],
)
def test_who_asks_foremans_api_needs_all_of_it_and_no_plain_http(given: str, where: str, sentence: str) -> None:
    ((line, at, said_so),) = said(problems(parse(with_members(ONE, rest=f"foreman: {{{given}}}\n"))))
    assert (line, at) == (7, where)
    assert sentence in said_so


@pytest.mark.parametrize(
    "given", ["", "url: 'http://f.test'", "api_user: muster, api_token_file: /t, url: 'https://f.test'"]
)
def test_who_asks_foremans_api_with_all_of_it_has_no_problem(given: str) -> None:
    assert problems(parse(with_members(ONE, rest=f"foreman: {{{given}}}\n"))) == []


def test_a_member_may_not_have_the_clusters_address() -> None:
    text = with_members(ONE, "{id: 2, name: Proxy.example.com, address: 127.0.0.12}")
    assert said(problems(parse(text))) == [(7, "members[1].name", "is the cluster's address; a member needs its own")]


def test_a_member_may_not_have_the_clusters_address_with_a_dot_either() -> None:
    text = with_members(ONE, "{id: 2, name: proxy.example.com., address: 127.0.0.12}")
    assert parsed(text).members[1].name == parsed(text).address
    assert [p.line for p in problems(parse(text))] == [7]


def test_balancers_need_names_of_their_own() -> None:
    rest = "balancers:\n  - {address: 192.0.2.1}\n  - {name: lb2, address: 192.0.2.2}\n  - {address: 192.0.2.3}\n"
    assert said(problems(parse(with_members(ONE, rest=rest)))) == [(10, "balancers[2].name", "balancer stands twice")]


def test_an_expected_difference_of_somebody_who_is_no_member_is_named_with_its_line() -> None:
    rest = (
        "expected_differences:\n"
        "  - field: dns.settings.*\n"
        "    members:\n"
        "      - PROXY02.example.com\n"
        "      - proxy03.example.com\n"
        "    reason: its own zone\n"
        "  - {field: version, reason: mixed kinds}\n"
    )
    text = with_members(ONE, TWO, rest=rest)
    known = "members are proxy01.example.com, proxy02.example.com"
    assert said(problems(parse(text))) == [
        (12, "expected_differences[0].members[1]", f"proxy03.example.com is no member; {known}")
    ]
    assert [e.field for e in parsed(text).expected_differences] == ["dns.settings.*", "version"]


@pytest.mark.parametrize("off", ["false", "no", '"off"'])
def test_muster_members_cannot_serve_without_the_service_smartproxy(off: str) -> None:
    rest = f"services:\n  smartproxy:\n    enabled: {off}\n"
    assert said(problems(parse(with_members(ONE, TWO, rest=rest)))) == [
        (
            10,
            "services.smartproxy.enabled",
            "members of kind muster cannot serve without this service; only a cluster of kind foreman can",
        )
    ]
    ruby = [m.replace("}", ", kind: foreman}") for m in (ONE, TWO)]
    assert problems(parse(with_members(*ruby, rest=rest))) == []
    assert len(problems(parse(with_members(ruby[0], TWO, rest=rest)))) == 1
    for fine in ("enabled: true", "enabled: maybe", "listen_port: 9443"):
        assert problems(parse(with_members(ONE, rest=f"services: {{smartproxy: {{{fine}}}}}\n"))) == []


def test_sqlite_serves_one_host_only() -> None:
    apart = ONE.replace("127.0.0.11", "192.0.2.11"), TWO.replace("127.0.0.12", "192.0.2.12")
    assert said(problems(parse(with_members(*apart)))) == [
        (4, "store.url", "SQLite serves members of one host; members on several need postgresql://")
    ]
    assert problems(parse(with_members(ONE, TWO))) == []
    assert problems(parse(with_members(*apart).replace("sqlite:///var/muster.db", "postgresql://u@h/d"))) == []


def test_ruby_members_never_touch_the_store_so_sqlite_serves_one_balancer() -> None:
    apart = (
        ONE.replace("127.0.0.11", "192.0.2.11").replace("}", ", kind: foreman}"),
        TWO.replace("127.0.0.12", "192.0.2.12").replace("}", ", kind: foreman}"),
    )
    one, two = "- {name: lb1, address: 192.0.2.1}", "- {name: lb2, address: 192.0.2.2}"
    assert problems(parse(f"{with_members(*apart)}\nbalancers:\n{one}\n")) == []
    assert said(problems(parse(f"{with_members(*apart)}\nbalancers:\n{one}\n{two}\n"))) == [
        (4, "store.url", "SQLite serves one balancer; several need postgresql://")
    ]
    assert (
        problems(parse(f"{with_members(ONE.replace('127.0.0.11', '192.0.2.3'), apart[1])}\nbalancers:\n{one}\n")) == []
    )


@pytest.mark.parametrize(
    "text",
    [
        "members: 5\n",
        "members: [5, null, [a]]\n",
        "members: [{id: null}]\nbalancers: 7\nstore: x\nsigner: [a]\n",
        "balancers: [null, null, x]\n",
        "address: null\nstore: {url: null}\n",
        "services: 5\n",
        "members: [{id: 1}]\nservices: {smartproxy: 5}\n",
        "members: [{id: 1}]\nservices: {smartproxy: {enabled: [5]}}\n",
        "{}",
    ],
)
def test_a_half_valid_file_is_looked_at_without_stumbling(text: str) -> None:
    assert all(isinstance(p, Problem) for p in problems(parse(text)))


@pytest.mark.parametrize("text", ["- a\n", "5\n", "text\n"])
def test_a_file_that_is_no_mapping_says_so(text: str) -> None:
    assert said(problems(parse(text))) == [(1, "", "is not a mapping of settings")]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("priority: 254", "priority: 190", (10, "balancers[2].priority", "lb3 and lb2 both have priority 190")),
        (
            "192.0.2.2,",
            "lb2.test,",
            (
                9,
                "balancers[1].address",
                "must be an IPv4 address, because balancers tell each other who owns 192.0.2.10",
            ),
        ),
        (
            "192.0.2.2,",
            "'fd00::2',",
            (
                9,
                "balancers[1].address",
                "must be an IPv4 address, because balancers tell each other who owns 192.0.2.10",
            ),
        ),
        (
            "192.0.2.2,",
            "192.0.2.1,",
            (
                9,
                "balancers[1].address",
                "is lb1's, too; balancers tell each other who owns 192.0.2.10, so lb2 needs its own",
            ),
        ),
        ("192.0.2.3", "192.0.2.10", (10, "balancers[2].address", "is the virtual address; lb3 needs its own")),
        (
            "127.0.0.11",
            "192.0.2.10",
            (6, "members[0].address", "is the virtual address; proxy01.example.com needs its own"),
        ),
    ],
)
def test_what_keeps_balancers_from_sharing_is_said_with_its_line(
    old: str, new: str, expected: tuple[int, str, str]
) -> None:
    assert said(problems(parse(SHARED.replace(old, new)))) == [expected]


def test_one_balancer_shares_with_nobody() -> None:
    alone = SMALL + "balancers: [{address: 192.0.2.1}]\nvirtual_address: {address: 192.0.2.10/24, interface: eth0}\n"
    assert said(problems(parse(alone))) == [
        (8, "virtual_address", "moves between balancers, so it needs two or more; the file has 1")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "virtual_address: 3",
        "virtual_address: {address: 3}\nbalancers: 3",
        "virtual_address: {}\nbalancers: [1, {}, {priority: [1]}, {address: {}}]\nmembers: [{address: []}]",
    ],
)
def test_half_valid_shared_addresses_are_spoken_of_without_a_crash(text: str) -> None:
    problems(parse(text))


@pytest.mark.parametrize(
    ("section", "doubted"),
    [
        ("content: {services: [rhsm]}\n", ["content"]),
        ("content: {services: [docker, rhsm]}\nforeman: {url: https://foreman.test}\n", ["content.services"]),
        ("content: {services: [docker], registry_url: https://registry.test}\n", []),
        (f"content: {{services: [docker, http], mirror: {IMAGES}}}\n", []),
        (f"content: {{services: [docker], mirror: {IMAGES}}}\n", ["content.mirror"]),
        (f"content: {{services: [http], one_version: false, mirror: {IMAGES}}}\n", ["content.mirror"]),
        (f"content: {{services: [http], steered: {STEERED}}}\n", []),
        (f"content: {{services: [http], one_version: false, steered: {STEERED}}}\n", ["content.steered"]),
        ("content: {services: [http], pub: /}\n", ["content.pub"]),
        ("content: {services: [http], pub: pub}\n", ["content.pub"]),
        ("content: {services: [http], pub: ''}\n", ["content.pub"]),
        ("content: {services: [http], pub: /var/www/html/pub}\n", []),
        ("content:\n", []),
    ],
)
def test_ports_with_nothing_behind_them_and_directories_for_nobody_are_doubted(
    section: str, doubted: list[str]
) -> None:
    text = SMALL + section
    assert [p.where for p in warnings(parse(text), parsed(text))] == doubted


def test_a_repository_is_mirrored_or_steered_and_not_both() -> None:
    lines = """\
content:
  mirror:
    repositories:
      tools: {kind: yum, url: "https://origin.test"}
  steered:
    pulps: [pulp@a]
    repositories:
      other: {kind: yum, url: "https://origin.test", path: other}
      tools: {kind: yum, url: "https://origin.test", path: tools}
"""
    begins = SMALL.count("\n")
    assert said(problems(parse(SMALL + lines))) == [
        (
            begins + 9,
            "content.steered.repositories.tools",
            f"tools is mirrored by members already (line {begins + 4}); each repository has a name of its own",
        )
    ]


@pytest.mark.parametrize(
    "section", ["{mirror: 3, steered: {}}", "{mirror: {repositories: []}, steered: [1]}", "{steered: {}}"]
)
def test_half_a_section_of_repositories_is_spoken_of_without_a_crash(section: str) -> None:
    problems(parse(f"{SMALL}content: {section}\n"))
