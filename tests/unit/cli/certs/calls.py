"""``muster certs``, called on a cluster's file."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from muster.cli.certs import certs

CLUSTER = """\
schema: 1
cluster: demo
address: proxy.example.com
store: {url: "sqlite:////nowhere/store.db"}
members:
  - {id: 1, name: proxy01.example.com, address: 127.0.0.1}
  - {id: 2, name: proxy02.example.com, address: 127.0.0.2}
"""
SITE = CLUSTER.replace("address: 127.0.0.2}", "address: 127.0.0.2, kind: foreman}") + (
    "services: {puppetca: {enabled: false}}\nforeman: {ca_file: CA}\n"
)


def run(cluster: Path, command: str, *arguments: str) -> Result:
    result = CliRunner().invoke(certs, [command, "--cluster", str(cluster), *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def files(cluster: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in cluster.parent.rglob("*") if p.is_file()}
