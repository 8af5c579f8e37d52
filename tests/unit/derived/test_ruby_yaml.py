"""YAML for Ruby's programs."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from muster.derived.ruby_yaml import lines

VALUES: list[Any] = ["https", "yes", "1.2", ":a", "a: b", "# a", "'\"", "é", True, False, 8443, [], ["a", ":b"]]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_no_value_is_taken_for_another_kind_of_thing(value: Any) -> None:
    assert yaml.safe_load(lines({":key": value, "an::other": "x"})) == {":key": value, "an::other": "x"}
