from __future__ import annotations

from muster.features.bmc.contract import Device
from muster.features.bmc.providers.freeipmi import configuration
from muster.kernel.secrets import Secret


def test_what_means_something_in_a_configuration_stands_behind_a_backslash() -> None:
    device = Device("h", 'ad "m#in', Secret("a\\b'$"))
    assert configuration(device) == 'username "ad \\"m\\#in"\npassword "a\\\\b\'$"\n'
