"""Cluster files for these tests, small and valid, and what is said of them."""

from __future__ import annotations

import pytest

from muster.cluster.file import ClusterFile
from muster.kernel.settings import InvalidSettings, Problem, parse

SMALL = """\
schema: 1
cluster: demo
address: proxy.example.com
store: {url: "sqlite:///var/muster.db"}
members:
  - {id: 1, name: proxy01.example.com, address: 127.0.0.11}
"""

SHARED = (
    SMALL
    + """\
balancers:
  - {name: lb1, address: 192.0.2.1}
  - {name: lb2, address: 192.0.2.2, interface: ens3}
  - {name: lb3, address: 192.0.2.3, priority: 254}
virtual_address:
  address: 192.0.2.10/24
  interface: eth0
"""
)

ONE = "{id: 1, name: proxy01.example.com, address: 127.0.0.11}"
TWO = "{id: 2, name: proxy02.example.com, address: 127.0.0.12}"


def with_members(*lines: str, rest: str = "") -> str:
    return SMALL.partition("members:")[0] + "members:\n" + "".join(f"  - {line}\n" for line in lines) + rest


def parsed(text: str) -> ClusterFile:
    return parse(text, "cluster.yaml").parsed(ClusterFile)


def schema_problems(text: str) -> list[Problem]:
    with pytest.raises(InvalidSettings) as raised:
        parsed(text)
    return raised.value.problems


def said(found: list[Problem]) -> list[tuple[int, str, str]]:
    return [(p.line, p.where, p.sentence) for p in found]
