"""The end of a server's process, also of one that hangs."""

from __future__ import annotations

import signal
import subprocess

_LONGEST_STOP_S = 10.0


def ended(process: subprocess.Popen[bytes] | None, how: signal.Signals = signal.SIGTERM) -> None:
    """Return when it has ended, by itself or killed; None: there is none."""
    if process is None:
        return
    process.send_signal(how)
    # One that is held hears nothing before.
    process.send_signal(signal.SIGCONT)
    try:
        process.wait(_LONGEST_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
