"""How many file descriptors a configuration needs: ``haproxy -c`` calls valid what then dies for want of them.

Source: docs/facts/balancer.md §0 no. 11. Splicing is never rendered, so its quarter is not counted.
"""

from __future__ import annotations

import resource

from muster.balancer.haproxy.layout import Layout
from muster.balancer.model import Balancing
from muster.kernel.errors import Misconfigured

# Sockets of the command line, the event pollers of each thread, pipes between master and worker, the log.
RESERVE = 100


def needed(model: Balancing, maxconn: int) -> int:
    """Return the descriptors a rendered model needs at most.

    Each connection has two sides; each service a listener; each server a check.
    """
    return needed_for(maxconn, listeners=len(model.services) + 1, servers=model.servers)


def needed_for(maxconn: int, *, listeners: int, servers: int) -> int:
    """As :func:`needed`, from counts."""
    return 2 * maxconn + listeners + servers + RESERVE


def limit() -> int:
    """Return how many descriptors a child of this process may open: HAProxy raises its soft limit to the hard one."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard if hard != resource.RLIM_INFINITY else 1 << 30


def complaint_of(layout: Layout, limit: int) -> Misconfigured | None:
    """As :func:`complaint`, for a rendered configuration."""
    return complaint(layout.maxconn, listeners=len(layout.listeners), servers=len(layout.servers), limit=limit)


def complaint(maxconn: int | None, *, listeners: int, servers: int, limit: int) -> Misconfigured | None:
    """Return why HAProxy would not start under this limit, or None when it would.

    Args:
        maxconn: the configured limit; None: HAProxy chooses one that fits.
        listeners: listening sockets.
        servers: server lines.
        limit: descriptors HAProxy may open.
    """
    if maxconn is None:
        return None
    sum_ = needed_for(maxconn, listeners=listeners, servers=servers)
    if sum_ <= limit:
        return None
    fits = max(0, (limit - listeners - servers - RESERVE) // 2)
    return Misconfigured(
        f"HAProxy needs {sum_} file descriptors (2 x maxconn {maxconn} + {listeners} listeners + {servers} servers + "
        f"{RESERVE}) and may open {limit}: set the balancer's maxconn to at most {fits}, or raise LimitNOFILE to {sum_}"
    )
