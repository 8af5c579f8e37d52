from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from muster.features.tftp.manifest import FEATURE
from muster.features.tftp.settings import TFTPSettings


def test_the_ruby_module_s_names_and_defaults_are_kept() -> None:
    found = TFTPSettings()
    assert (found.tftp_connect_timeout, found.verify_server_cert, found.tftp_servername) == (10, True, None)
    assert found.tftproot is None
    given = {
        "tftproot": "/srv/tftp",
        "tftp_servername": "tftp.test",
        "tftp_connect_timeout": 5,
        "verify_server_cert": False,
    }
    assert TFTPSettings.model_validate(given).tftproot == Path("/srv/tftp")


@pytest.mark.parametrize(
    "given",
    [
        {"tftp_servername": "a b"},
        {"tftp_servername": ""},
        {"fetch_wait_s": 51},
        {"fetch_wait_s": -1},
        {"tftp_connect_timeout": 0},
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TFTPSettings.model_validate(given)


def test_foreman_is_shown_the_server_s_name() -> None:
    assert FEATURE.exposed(TFTPSettings.model_validate({"tftp_servername": "192.0.2.5"})) == {
        "tftp_servername": "192.0.2.5"
    }
    assert FEATURE.exposed(TFTPSettings()) == {"tftp_servername": None}
    assert FEATURE.exposed(None) == {"tftp_servername": None}
    assert FEATURE.capabilities == ()
