"""Options that several of these commands share."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from muster.pki.bundles import KeyKind

FILE = click.Path(path_type=Path, dir_okay=False)
key_kind_option = click.option(
    "--key", "key_kind", type=click.Choice(get_args(KeyKind)), default="ec-p256", show_default=True
)
