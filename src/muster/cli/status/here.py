"""What HAProxy on this host says."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from muster.kernel.errors import MusterError


async def balancer_here(run: Path) -> dict[str, Any] | None:
    """Return what HAProxy on this host says, None when none runs here."""
    socket = run / "runtime.sock"
    if not socket.exists():
        return None
    # On a host without one nobody waits for what asks it.
    from muster.balancer.haproxy.sockets import MasterSocket, RuntimeSocket

    try:
        states = await RuntimeSocket(socket).servers()
    except MusterError as e:
        return {"ok": False, "trouble": str(e), "servers": []}
    # Long connections outlive a reload: those of old workers are the host's, too. An old one may end in this moment.
    sessions: dict[tuple[str, str], int] = {}
    with contextlib.suppress(MusterError):
        for s in await MasterSocket(run / "master.sock").servers_of_all_workers():
            sessions[s.backend, s.server] = sessions.get((s.backend, s.server), 0) + s.sessions
    return {
        "ok": True,
        "trouble": None,
        "servers": [
            {
                "backend": s.backend,
                "server": s.server,
                "status": s.status,
                "check": s.check,
                "sessions": sessions.get((s.backend, s.server), s.sessions),
                "total_sessions": s.total_sessions,
            }
            for s in states
            if not s.backend.endswith("_panic")
        ],
    }
