"""The fault matrix: what may happen to a cluster, what is promised then, and how it is tried.

``python -m tests.faults`` inflicts the rows in random order; ``tests/e2e/test_the_fault_matrix.py`` each once. Row 19 is
``tests/e2e/test_the_store_fails.py``: its disk needs a mount of its own.
"""

from __future__ import annotations

from functools import partial

from tests import scale
from tests.faults import attack, balancer, certificates, clients, members, store
from tests.faults.fault import Fault


def faults(
    *, store_away_s: float = scale.STORE_AWAY_S, removals: int = scale.REMOVALS, attacks: int = scale.ATTACKS
) -> tuple[Fault, ...]:
    """Return every row, in order."""
    return (
        Fault(1, "six-reloads", "0 failed, drain state kept", balancer.reloaded),
        Fault(2, "drain-and-stop", "0 failed; empty ≤ longest request + 2 s", members.drained_and_stopped),
        Fault(
            3,
            "remove-and-add",
            "0 failed; no request to a not-ready member",
            partial(members.removed_and_added, times=removals),
        ),
        Fault(4, "kill-member", "0 failed new; in flight ≤ open on it; down ≤ 0.5 s", members.killed),
        Fault(5, "hung-member", "down ≤ 4 s; afterwards p99 normal; served ≥ 90 %", members.hung),
        Fault(
            6,
            "partitioned-member",
            "0 failed new, p99 ≤ connect timeout; down ≤ 2 s",
            members.partitioned,
            ("root", "namespaces", "iptables"),
        ),
        Fault(
            7,
            "half-open-connections",
            "reaped ≤ keepalive budget + tcp-ut",
            clients.half_open,
            ("namespaces", "haproxy"),
        ),
        Fault(8, "slow-clients", "no member connection used; others' p99 unchanged", clients.slow),
        Fault(9, "connection-flood", "capped, others unaffected", clients.crowd),
        Fault(10, "all-checks-fail", "fail-open, alarm, 0 failed", certificates.all_checks_failed),
        Fault(11, "check-certificate-rotated", "no DOWN flap; seen ≤ 2 s", certificates.check_certificate_rotated),
        Fault(12, "kill-haproxy", "gap ≤ 0.2 s", balancer.killed),
        Fault(
            13,
            "balancer-host-dies",
            "address moves ≤ 1.5 s (haproxy killed), ≤ 3.5 s (link down)",
            balancer.host_died,
            ("namespaces", "keepalived", "haproxy"),
        ),
        Fault(14, "bad-configuration", "rejected; old one serves; last known good restored", balancer.misconfigured),
        Fault(15, "few-descriptors", "refused with arithmetic; old process untouched", balancer.without_descriptors),
        Fault(
            16,
            "store-away",
            "members serve; 0 failed; nobody restarts",
            partial(store.away, for_s=store_away_s),
            ("postgresql",),
        ),
        Fault(
            17,
            "lease-holder-paused",
            "other takes over ≤ TTL; the old one's write fenced",
            store.holder_paused,
            ("postgresql",),
        ),
        Fault(
            18,
            "clock-skew",
            "leases and ages right; doctor names the clock",
            store.clock_skewed,
            ("postgresql", "faketime"),
        ),
        Fault(
            20,
            "certificate-dates",
            "alarm at 30/7/1 d; that member out with the reason",
            certificates.member_certificate_dated,
        ),
        Fault(21, "edited-configuration", "detected, shown, repaired on request", balancer.drifted),
        Fault(
            22,
            "hostile-connections",
            "256 of one address cost a member < 64 MiB; others' p99 ≤ 1.5 times",
            partial(attack.hostile_connections, rounds=attacks),
            group="attack",
        ),
        Fault(23, "refused-calls", "warnings outlive them; others unaffected", attack.refused_calls, group="attack"),
        Fault(
            24,
            "another-process-on-sqlite",
            "no file taken away, nothing lost",
            attack.another_process,
            group="attack",
        ),
        Fault(
            25,
            "certificate-request-flood",
            "one source fills its own share; others get in and are signed",
            attack.request_floods,
            group="attack",
        ),
        Fault(
            26,
            "squatted-names",
            "who has an entry gets the name; reserved names are given to nobody",
            attack.squatted_names,
            group="attack",
        ),
    )
