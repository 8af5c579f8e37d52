"""Pages whose commands are typed as they stand there: the tutorial on real HAProxy, Puppet and dnf, and the recipe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial" / "one-machine.md"
RECIPE = ROOT / "docs" / "admin" / "recipe.md"
_TYPED = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
_AROUND = """\
mount --bind {hosts} /etc/hosts
ip link set lo up
set -eu -o pipefail
trap 'kill -9 $(jobs -p) 2>/dev/null || true' EXIT
"""


def typed(page: Path, home: Path) -> str:
    """Type every block of a page into one shell with a network and names of its own, and return what was shown."""
    blocks = _TYPED.findall(page.read_text("utf-8"))
    assert len(blocks) > 8
    (home / "hosts").write_text("127.0.0.1 localhost\n")
    text = "".join(f"echo '== block {n}' >&2\n{block}" for n, block in enumerate(blocks, 1))
    environment = {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin:/opt/puppetlabs/bin",
        "LANG": "C.UTF-8",
    }
    script = _AROUND.format(hosts=home / "hosts") + text
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script]
    out, err = home / "out", home / "err"
    with out.open("wb") as shown, err.open("wb") as said:
        try:
            # Alone it takes half a minute. To files: when it hangs, what it said last says where.
            code: object = subprocess.run(
                command, env=environment, stdout=shown, stderr=said, timeout=150, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = "none: it hung"
    logs = "".join(f"\n-- {f.name}\n{f.read_text()[-2000:]}" for f in home.glob("*/*.log"))
    assert code == 0, f"exit {code}\n{out.read_text()[-3000:]}\n{err.read_text()[-3000:]}{logs}"
    return out.read_text()


@pytest.fixture
def home() -> Iterator[Path]:
    # HAProxy's sockets lie below it, and a socket's path has little room: less than what pytest's own leave in a worker.
    with tempfile.TemporaryDirectory(prefix="muster-typed-") as directory:
        yield Path(directory)


def test_every_command_of_the_tutorial_works_in_its_order(home: Path, needs: Callable[[str], None]) -> None:
    for server in ("haproxy", "puppet", "dnf", "createrepo_c", "rpmbuild", "namespaces"):
        needs(server)
    shown = typed(TUTORIAL, home)
    assert shown.count("hello\n") >= 1
    # The first certificates' names, and the member that is gone, in the words of the commands.
    for said in ("web01.example.net", "answers on none of its ports", '"version":"5.0.0"'):
        assert said in shown
    assert (home / "tutorial/agent2/ssl/certs/web02.example.net.pem").exists()


def test_every_command_of_the_recipe_works_in_its_order(home: Path, needs: Callable[[str], None]) -> None:
    needs("namespaces")
    shown = typed(RECIPE, home)
    # What the recipe has people type, found again in what is rendered.
    for said in (
        "--foreman-proxy-cname smartproxy.example.net", 'pulp::lazy_redirect_host: "smartproxy.example.net"',
        "ca_port = 8141", "scripts/proxy01.example.net", "smartproxy.example.net",
    ):  # fmt: skip
        assert said in shown
