"""How a process that will run for long imports what it needs."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Look for no garbage in the block, and afterwards never among what was there at its end: for imports alone.

    Modules stay as long as the process, and each look goes over all that they hold: a fifteenth of the time that importing a
    member takes, and afterwards a while in which nobody is answered.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was:
            gc.enable()
