"""A cluster of two members, and commands called on it."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from muster.cli import muster
from muster.kernel.errors import MusterError

CLUSTER = """\
schema: 1
cluster: demo
address: proxy.test
store: {{url: "sqlite:///{store}"}}
members:
- {{id: 1, name: proxy01.test, address: 127.0.0.11}}
- {{id: 2, name: proxy02.test, address: 127.0.0.12}}
services: {{puppetca: {{enabled: false}}, puppet: {{enabled: false}}}}
"""


def run(file: Path, command: str, *arguments: str) -> Result:
    result = CliRunner().invoke(muster, [command, *arguments, "--cluster", str(file)], standalone_mode=False)
    if isinstance(result.exception, MusterError):
        raise result.exception
    return result


def wrong_usage(command: str, *arguments: str) -> bool:
    result = CliRunner().invoke(muster, [command, *arguments])
    return result.exit_code == 2 and result.output.replace("\n", "").isprintable()
