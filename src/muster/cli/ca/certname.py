"""A name that a Puppet certificate can have, as an argument of commands."""

from __future__ import annotations

import re
from typing import Any

import click
from click.types import StringParamType

# What Puppet takes as a certname, old ones included.
_NAME = re.compile(r"[ -.0-~]{1,255}\Z")


class Certname(StringParamType):
    """A name that a certificate can have."""

    name = "certname"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from muster.kernel.names import shown

        if not _NAME.match(str(value)):
            self.fail(
                f"{shown(value)} is no certname: up to 255 printable ASCII characters without /",
                param,
                ctx,
            )
        return str(value)
