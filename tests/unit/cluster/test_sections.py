from __future__ import annotations

import io
from typing import get_args

import pytest

from muster.cluster.sections import Log
from muster.kernel.log import configure
from tests.unit.cluster.written import SMALL, parsed, schema_problems

ADDED: list[tuple[str, str, str]] = [
    ("foreman: {url: 'ftp://x'}", "foreman.url", "String should match pattern"),
    ('foreman: {url: "https://x\\nInjected: 1"}', "foreman.url", "String should match pattern"),
    ("foreman: {version: 5.0}", "foreman.version", 'write it in quotes: "3.10"'),
    ("foreman: {version: 5}", "foreman.version", "write it in quotes"),
    ("foreman: {version: '5'}", "foreman.version", "MAJOR.MINOR or MAJOR.MINOR.PATCH"),
    ("foreman: {version: 3.11.0-develop}", "foreman.version", "MAJOR.MINOR or MAJOR.MINOR.PATCH"),
    ("foreman: {version: '3.011'}", "foreman.version", "MAJOR.MINOR or MAJOR.MINOR.PATCH"),
    ("foreman: {version: 1.2.3.4}", "foreman.version", "MAJOR.MINOR or MAJOR.MINOR.PATCH"),
    ('foreman: {version: "5.0\\n"}', "foreman.version", "MAJOR.MINOR or MAJOR.MINOR.PATCH"),
    ("foreman: {api_user: ''}", "foreman.api_user", "String should match pattern"),
    ("foreman: {api_user: 'a:b'}", "foreman.api_user", "String should match pattern"),
    ('foreman: {api_user: "a\\n"}', "foreman.api_user", "String should match pattern"),
    ("foreman: {api_user: é}", "foreman.api_user", "String should match pattern"),
    ("foreman: {trusted_hosts: ['*.example.com']}", "foreman.trusted_hosts[0]", "Invalid DNS name"),
    ("foreman: {trusted_host: []}", "foreman.trusted_host", "did you mean 'trusted_hosts'?"),
    ("services: {http: {traffic: udp}}", "services.http.traffic", "Input should be 'tls', 'plain' or 'tls-tunnel'"),
    ("services: {http: {check: udp}}", "services.http.check", "Input should be 'tcp'"),
    ("services: {http: {check: {path: 'x'}}}", "services.http.check.path", "String should match pattern"),
    ("services: {http: {check: {path: '/x y'}}}", "services.http.check.path", "String should match pattern"),
    ("services: {http: {check: {pfad: /x}}}", "services.http.check.pfad", "did you mean 'path'?"),
    ('services: {http: {check: {holds: "it\'s"}}}', "services.http.check.holds", "String should match pattern"),
    ("services: {http: {check: {timeout_s: 61}}}", "services.http.check.timeout_s", "less than or equal to 60"),
    ("edge: {body_limit_bytes: 1023}", "edge.body_limit_bytes", "greater than or equal to 1024"),
    ("edge: {idle_timeout_s: 0}", "edge.idle_timeout_s", "greater than 0"),
    ("edge: {idle_timeout_s: .nan}", "edge.idle_timeout_s", ""),
    ("edge: {idle_timeout_s: .inf}", "edge.idle_timeout_s", ""),
    ("edge: {proxy_protocol: maybe}", "edge.proxy_protocol", "'accepted', 'required' or 'off'"),
    ("log: {level: LOUD}", "log.level", "Input should be 'DEBUG'"),
    ("log: {level: UNKNOWN}", "log.level", "Input should be 'DEBUG', 'INFO', 'WARN', 'ERROR' or 'FATAL'"),
    ("log: {buffer: 1}", "log.buffer", "greater than or equal to 2"),
]


@pytest.mark.parametrize(("added", "where", "sentence"), ADDED)
def test_a_wrong_addition_is_said_with_its_line(added: str, where: str, sentence: str) -> None:
    (found, *_) = [p for p in schema_problems(SMALL + added + "\n") if p.where.startswith(where)]
    assert found.line == 7
    assert sentence in found.sentence


@pytest.mark.parametrize(
    ("given", "told"),
    [("", "5.0.0"), ("version: '3.10'", "3.10.0"), ("version: '3.14.2'", "3.14.2"), ("version: 4.1.0", "4.1.0")],
)
def test_foremans_version_is_told_in_the_form_it_parses(given: str, told: str) -> None:
    assert parsed(SMALL + f"foreman: {{{given}}}\n").foreman.told_version == told


def test_an_unknown_key_of_a_service_is_answered_with_the_nearest() -> None:
    (found,) = schema_problems(SMALL + "services: {http: {listen_prot: 1}}\n")
    assert found.sentence == "unknown key 'listen_prot'; did you mean 'listen_port'?"


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ("{field: dns.state}", "expected_differences[0].reason"),
        ("{field: dns.state, reason: ''}", "expected_differences[0].reason"),
        ("{field: 'dns state', reason: x}", "expected_differences[0].field"),
        ("{reason: x}", "expected_differences[0].field"),
    ],
)
def test_an_expected_difference_needs_a_field_and_a_reason(given: str, where: str) -> None:
    assert [p.where for p in schema_problems(SMALL + f"expected_differences: [{given}]\n")] == [where]


def test_every_level_a_file_may_name_is_one_that_a_member_can_log_from() -> None:
    try:
        for level in get_args(Log.model_fields["level"].annotation):
            configure(level=level, stream=io.StringIO())
    finally:
        configure(level="ERROR")
