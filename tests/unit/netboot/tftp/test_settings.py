"""What a TFTP server may be told (``netboot/tftp/settings.py``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from muster.kernel.errors import Misconfigured
from muster.netboot.tftp.settings import TFTPSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"addresses": ["tftp.example.net"]},
        {"addresses": ["127.0.0.1/8"]},
        {"port": 65536},
        {"data_ports": (0, 10)},
        {"data_ports": (20, 10)},
        {"data_ports": (1, 65536)},
        {"blksize_limit": 7},
        {"windowsize_limit": 0},
        {"transfers_limit": 0},
        {"longest_s": float("nan")},
        {"attempts": 0},
    ],
)
def test_a_value_out_of_its_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured):
        TFTPSettings(Path("/srv/tftp"), **wrong)


def test_the_root_is_enough() -> None:
    assert TFTPSettings(Path("/srv/tftp")).port == 69
