"""What servers were told, kept on disk: drains and weights outlive a reload, and an HAProxy that is killed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from muster.balancer.haproxy.layout import Layout, gated_state, kept_state, steered
from muster.balancer.haproxy.sockets import RuntimeSocket
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.files import write_atomically
from muster.kernel.log import logger

log = logger("balancer")


class ServerStates:
    """The state file that a new worker reads.

    Concurrency: not safe; the engine takes turns.
    """

    def __init__(self, file: Path, runtime: RuntimeSocket) -> None:
        self._file = file
        self._runtime = runtime
        self._known: frozenset[tuple[str, ...]] | None = None

    def begin(self) -> None:
        """Have a file, which HAProxy's configuration names."""
        if not self._file.exists():
            write_atomically(self._file, "1\n", mode=0o600)

    async def remember(self, in_force: Layout) -> bool:
        """Write down what was told since the last call, if anything was; return whether all of it stands in the file."""
        try:
            state = await self._runtime.state_file_content()
            if steered(state) != self._known:
                write_atomically(self._file, kept_state(state, in_force, in_force), mode=0o600)
                self._known = steered(state)
        except MusterError as e:
            log.debug("Server states were not saved", reason=str(e))
            return False
        return True

    async def save(self, layout: Layout, in_force: Layout | None, newcomers: Iterable[tuple[str, str]] = ()) -> None:
        """Keep for a configuration what it does not say itself, of the HAProxy that runs, else of the one before it.

        ``in_force`` is what that HAProxy serves, None when there is none; ``newcomers`` begin drained.
        """
        kept: str | None = None
        if in_force is not None:
            try:
                kept = kept_state(await self._runtime.state_file_content(), layout, in_force)
            except Unavailable as e:
                log.warning("Server states were not saved; those remembered last are used", reason=str(e))
        if kept is None:
            kept = kept_state(self._remembered(), layout)
        write_atomically(self._file, gated_state(kept, layout, sorted(newcomers)), mode=0o600)

    def _remembered(self) -> str:
        try:
            return self._file.read_text("utf-8", "replace")
        except OSError:
            return ""
