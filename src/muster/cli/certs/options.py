"""Options that several of these commands share."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from muster.kernel.errors import Misconfigured
from muster.kernel.files import read_bounded
from muster.pki.bundles import KeyKind

_LONGEST_SECRET = 4096

FILE = click.Path(path_type=Path, dir_okay=False)
key_kind_option = click.option(
    "--key", "key_kind", type=click.Choice(get_args(KeyKind)), default="ec-p256", show_default=True
)


def first_line(file: Path, what: str) -> str:
    """Return the first line of a file that holds a secret.

    Raises:
        Misconfigured: it cannot be read, is empty, or no text that could be typed.
    """
    try:
        lines = read_bounded(file, what=what, limit_bytes=_LONGEST_SECRET).decode().splitlines()
    except UnicodeDecodeError:
        # Read somehow it would be another secret, which nobody knows.
        raise Misconfigured(f"{file} is no UTF-8; its first line is the {what}") from None
    if not lines or not lines[0].strip():
        raise Misconfigured(f"{file} is empty; its first line is the {what}")
    return lines[0]
