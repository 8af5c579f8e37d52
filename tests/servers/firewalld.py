"""A firewalld on one host of a segment, with a message bus of its own, gone with the block. Needs root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.servers import available
from tests.servers.client import PATIENCE_S
from tests.servers.namespaces import Host

_BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"""
_ZONE = """\
<?xml version="1.0" encoding="utf-8"?>
<zone{target}><short>{name}</short><service name="ssh"/><interface name="{device}"/></zone>
"""


@contextlib.contextmanager
def running(host: Host, configuration: Path, *, zone: Mapping[str, str]) -> Iterator[None]:
    """Hold firewalld running with a configuration beside the distribution's, and devices in zones."""
    with contextlib.ExitStack() as stack:
        # A socket's path may not be long.
        own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-test-")))
        its = own / "firewalld"
        shutil.copytree(configuration, its)
        (its / "zones").mkdir()
        (its / "firewalld.conf").write_text("DefaultZone=drop\n")
        for device, name in zone.items():
            target = ' target="ACCEPT"' if name == "trusted" else ""
            (its / "zones" / f"{name}.xml").write_text(_ZONE.format(name=name, device=device, target=target))
        (own / "bus.conf").write_text(_BUS.format(socket=own / "bus"))
        environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={own / 'bus'}"}
        log = stack.enter_context((own / "said").open("wb"))

        def start(*command: str | Path) -> subprocess.Popen[bytes]:
            started = subprocess.Popen([*map(str, command)], env=environment, stdout=log, stderr=log)
            stack.callback(_ended, started)
            return started

        start("dbus-daemon", f"--config-file={own / 'bus.conf'}", "--nofork")
        _until((own / "bus").exists, own / "said")
        start(
            *host.command(str(available.sbin("firewalld")), "--nofork", "--nopid", "--system-config", its),
            *("--log-file", own / "log"),
        )

        def answers() -> bool:
            # It says that it runs before its rules are in force.
            asked = subprocess.run(
                ["firewall-cmd", "--list-all-policies"], env=environment, capture_output=True, timeout=20, check=False
            )
            listed = subprocess.run(
                host.command(str(available.sbin("nft")), "list", "table", "inet", "firewalld"),
                capture_output=True, text=True, timeout=20, check=False,
            )  # fmt: skip
            return asked.returncode == 0 and all(f'"{device}"' in listed.stdout for device in zone)

        _until(answers, own / "said")
        yield


def _ended(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(PATIENCE_S)


def _until(holds: Callable[[], bool], said: Path) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < limit, said.read_text()
        time.sleep(0.05)
