"""Who does it, and on which host: as the ledger keeps it."""

from __future__ import annotations

import os


def here() -> str:
    return os.uname().nodename


def actor() -> str:
    from muster.cli.change import who

    return f"{who()}@{here()}"
