"""How large a proof is: short in ``make test``, long in ``make proof``.

``MUSTER_PROOF`` is read here and nowhere else. A test asserts the same at either size; one that takes a size from here
is marked ``proof``, which is how ``make proof`` finds it.
"""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T", int, float)

LONG = bool(os.environ.get("MUSTER_PROOF"))


def _of(short: T, long: T) -> T:
    return long if LONG else short


# tests/e2e/test_puppet_agents.py: hosts that enrol while members are killed; enough that each kill is among them.
BOOTSTRAPS = _of(300, 500)
# The same: names that four hosts ask for at once.
RACED_NAMES = _of(20, 100)
# tests/e2e/test_the_store_fails.py: how long PostgreSQL is stopped.
STORE_STOPPED_S = _of(10.0, 60.0)
# tests/e2e/test_the_fault_matrix.py, row 16: the same among other faults.
STORE_AWAY_S = _of(8.0, 60.0)
# The same, row 3: how often a member is removed and added.
REMOVALS = _of(2, 4)
# The same, row 22: rounds of an attack, of which the last is one without TLS.
ATTACKS = _of(2, 3)
# tests/contract/test_content_flips.py: how long repositories change under clients, once for each kind of Pulp.
FLIPS_S = _of(16.0, 300.0)
# tests/contract/test_content_mirror_flips.py: how long an origin changes under members that mirror it.
MIRROR_FLIPS_S = _of(10.0, 240.0)
# The same: how often one of them is killed meanwhile.
MIRROR_KILLS = _of(0, 8)
# tests/contract/test_content_steered.py: durable steps at which a member that steers Pulps is killed.
STEERED_KILLS = _of(1, 16)
# tests/contract/test_content_members_die.py: runs of dnf within which a member is killed.
KILLED_RUNS = _of(4, 20)
# tests/contract/test_ansible.py: balancers that are upgraded; two share an address.
UPGRADED_BALANCERS = _of(1, 2)
# The same: whether one process at each host does all tasks (Mitogen), or one for each, as Ansible itself has it.
REUSED_PROCESSES = _of(1, 0)
# tests/unit/authority/x509/test_csr.py: requests that are changed somewhere.
CHANGED_REQUESTS = _of(1_500, 20_000)
# tests/contract/test_long_connections.py: silence after which connections of other services are cut; 60 s is the product's.
SILENCE_S = _of(2.0, 60.0)
# The same: how long a connection outlives a reload; 15 minutes is the product's.
OLD_WORKER_S = _of(3.0, 900.0)
# tests/unit/content/test_view_simulated.py: worlds, by their seeds, in which backends and members change and die.
SHOWN_WORLDS = _of(100, 2_000)
# tests/contract/test_groups_kills.py and test_netboot_fetching.py: kinds of stores on which a member is killed at each step
# of a group, and of a fetch; what a commit is on either, tests/contract/test_failpoints.py asks at any size.
KILLED_STORES = _of(1, 2)
# tests/e2e/test_dhcp_addresses.py: networks whose addresses are all given out while members are killed.
OFFERED_SUBNETS = _of(1, 8)
# tests/e2e/test_a_machine_boots.py: boots within which a member is killed, each at another moment.
KILLED_BOOTS = _of(1, 9)
# The same: machines whose address is of Kea's.
KEA_BOOTS = _of(1, 2)
# The same: firmware with Secure Boot, and firmware that loads by HTTP.
PARTICULAR_BOOTS = _of(1, 2)
# tests/contract/test_openscap_deaths.py: durable steps at which a member that takes compliance reports is killed.
REPORT_KILLS = _of(2, 8)
# The same, where Foreman does not take the report.
REFUSED_KILLS = _of(1, 4)
