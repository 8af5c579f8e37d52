"""Pages whose commands are typed as they stand there: the tutorial on real HAProxy, Puppet and dnf, and the recipe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    logs = "".join(f"\n-- {f.name}\n{f.read_text()[-2000:]}" for f in home.glob("*/*.log"))
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}{logs}"
    return done.stdout


def test_every_command_of_the_tutorial_works_in_its_order(tmp_path: Path, needs: Callable[[str], None]) -> None:
    for server in ("haproxy", "puppet", "dnf", "createrepo_c", "rpmbuild", "namespaces"):
        needs(server)
    shown = typed(TUTORIAL, tmp_path)
    assert shown.count("hello\n") >= 1
    # The first certificates' names, and the member that is gone, in the words of the commands.
    for said in ("web01.example.net", "answers on none of its ports", '"version":"5.0.0"'):
        assert said in shown
    assert (tmp_path / "tutorial/agent2/ssl/certs/web02.example.net.pem").exists()


def test_every_command_of_the_recipe_works_in_its_order(tmp_path: Path, needs: Callable[[str], None]) -> None:
    needs("namespaces")
    shown = typed(RECIPE, tmp_path)
    # What the recipe has people type, found again in what is rendered.
    for said in (
        "--foreman-proxy-cname smartproxy.example.net", 'pulp::lazy_redirect_host: "smartproxy.example.net"',
        "ca_port = 8141", "scripts/proxy01.example.net", "smartproxy.example.net",
    ):  # fmt: skip
        assert said in shown
