"""A network of libvirt that keeps a feature's records: where it is.

The same for every feature whose records such a network can keep. What asks and changes it is in ``virsh.py``.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from muster.cluster.values import Seconds
from muster.kernel.settings import Settings


class NetworkSettings(Settings):
    """A network of libvirt."""

    url: Annotated[
        str,
        StringConstraints(
            pattern=r"\A(?:qemu|network)(?:\+(?:unix|tls))?://[A-Za-z0-9.\[\]:-]{0,255}/[A-Za-z0-9_.~/-]{0,255}"
            r"(?:\?[a-z_]{1,32}=[A-Za-z0-9_.~/-]{0,1024})?\z"
        ),
    ] = "qemu:///system"
    """Where libvirt is, as virsh has it. Not over ssh, which would ask for keys of the members' account."""
    network: Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\z")] = "default"
    """Its network."""
    timeout_s: Seconds = 10.0
    """How long one call of virsh may take."""
