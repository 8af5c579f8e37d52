"""Which files of tests run first: of each room those that take longest, so that none of them runs alone at the end.

What is handed out to workers are whole files. By its own order pytest-xdist begins with the files that hold most tests, and
those are the quick ones. Rooms stay together: what their tests share runs while they run, and costs as long as it does.
"""

from __future__ import annotations

# Minutes each, by what a whole run took (make test TESTS=--durations=0); the order among them is that of their times.
LONGEST = (
    "tests/e2e/test_the_fault_matrix.py",
    "tests/e2e/test_a_machine_boots.py",
    "tests/e2e/test_puppet_agents.py",
    "tests/e2e/test_another_puppetserver_signs.py",
    "tests/contract/test_ansible.py",
    "tests/contract/test_long_connections.py",
    "tests/contract/test_content_flips.py",
    "tests/contract/test_content_mirror.py",
    "tests/contract/test_content_keepers.py",
    "tests/contract/test_content_steered.py",
    # Of all others: with thousands of tests each, they would come last of all.
    "tests/wire/test_conversations.py",
    "tests/wire/test_puppet_ca.py",
)
_ROOMS = ("tests/e2e/", "tests/contract/")


def place(name: str) -> tuple[int, int]:
    """Return what tests are sorted by, from the name of their file below the project's root; equal ones stay in order."""
    room = next((n for n, room in enumerate(_ROOMS) if name.startswith(room)), len(_ROOMS))
    return room, LONGEST.index(name) if name in LONGEST else len(LONGEST)
