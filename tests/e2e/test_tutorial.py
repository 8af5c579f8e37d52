"""The tutorial, typed as it stands there: its own network, its own ``/etc/hosts``, real HAProxy, Puppet and dnf."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial" / "one-machine.md"
_TYPED = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
_AROUND = """\
mount --bind {hosts} /etc/hosts
ip link set lo up
set -eu -o pipefail
trap 'kill -9 $(jobs -p) 2>/dev/null' EXIT
"""


def test_every_command_of_the_tutorial_works_in_its_order(tmp_path: Path, needs: Callable[[str], None]) -> None:
    for server in ("haproxy", "puppet", "dnf", "createrepo_c", "rpmbuild", "namespaces"):
        needs(server)
    blocks = _TYPED.findall(PAGE.read_text("utf-8"))
    assert len(blocks) > 8
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    typed = "".join(f"echo '== block {n}' >&2\n{block}" for n, block in enumerate(blocks, 1))
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin:/opt/puppetlabs/bin",
        "LANG": "C.UTF-8",
    }
    script = _AROUND.format(hosts=tmp_path / "hosts") + typed
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    logs = "".join(f"\n-- {f.name}\n{f.read_text()[-2000:]}" for f in (tmp_path / "tutorial").glob("*.log"))
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}{logs}"
    assert done.stdout.count("hello\n") >= 1
    # The first certificates' names, and the member that is gone, in the words of the commands.
    for said in ("web01.example.net", "answers on none of its ports", '"version":"5.0.0"'):
        assert said in done.stdout
    assert (tmp_path / "tutorial/agent2/ssl/certs/web02.example.net.pem").exists()
