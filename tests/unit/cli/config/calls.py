"""``muster config check``, called on a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from muster.cli import muster

CLUSTER = """\
schema: 1
cluster: demo
address: proxy.test
store: {url: "sqlite:////var/muster.db"}
members: [{id: 1, name: proxy01.test, address: 127.0.0.11}]
"""
OFF = "services: {puppetca: {enabled: false}, puppet: {enabled: false}"


def checked(tmp_path: Path, text: str) -> tuple[int, list[tuple[int, str]]]:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    said = CliRunner().invoke(muster, ["config", "check", str(file), "--json"], standalone_mode=False)
    assert said.exception is None, said.exception
    content: Any = json.loads(said.output)
    assert content["valid"] is (said.return_value == 0)
    return said.return_value, [(p["line"], p["where"]) for p in content["problems"]]


def said(tmp_path: Path, text: str) -> tuple[int, list[tuple[int, str, str]], str]:
    """Return the exit code, the warnings, and what a person is told."""
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    told = CliRunner().invoke(muster, ["config", "check", str(file), "--json"], standalone_mode=False)
    plain = CliRunner().invoke(muster, ["config", "check", str(file)], standalone_mode=False)
    assert (told.exception, plain.exception) == (None, None)
    found = [(p["line"], p["where"], p["sentence"]) for p in json.loads(told.output)["warnings"]]
    return told.return_value, found, plain.output
