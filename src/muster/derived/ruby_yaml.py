"""YAML as Ruby's programs read it: a key a line, where one that begins with a colon is a symbol."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from muster.derived import consumer
from muster.derived.output import Document, Trial
from muster.kernel.errors import Rejected

_WRITTEN = re.compile(r"^([a-z_:]+): (.+)$", re.MULTILINE)
_READ = (
    "require 'yaml'; require 'json'; puts JSON.generate(YAML.safe_load(ARGF.read, permitted_classes: [Symbol]).map "
    '{ |key, value| [key.is_a?(Symbol) ? ":#{key}" : key, value] })'
)


def lines(values: Mapping[str, Any]) -> str:
    """Return one line for each key."""
    # JSON is YAML, too, in which no value can be taken for another kind of thing.
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())


async def _accepted(directory: Path, documents: Sequence[Document]) -> None:
    # It reads nearly everything as something: what counts is what it took from the file.
    ruby = consumer.found("ruby", "install the package ruby")
    for document in documents:
        said = await consumer.accepted([ruby, "-e", _READ, directory / document.name])
        wanted = [[key, json.loads(value)] for key, value in _WRITTEN.findall(document.text)]
        if json.loads(said.stdout) != wanted:
            raise Rejected(f"ruby reads something else in {document.name}: {said.stdout.strip()[:500]}")


READ_BY_RUBY = Trial("ruby", "Have Ruby parse it as its reader does, and compare what it read.", _accepted)
