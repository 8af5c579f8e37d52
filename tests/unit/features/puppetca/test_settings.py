from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from muster.features.puppetca.settings import PuppetCASettings

FILE = "/etc/puppetlabs/puppet/autosign.conf"
SERVER = {
    "url": "https://puppet.example.net:8140",
    "certificate": "/etc/muster/puppet.pem",
    "key": "/etc/muster/puppet.key",
    "ca": "/etc/muster/puppet-ca.pem",
}


def test_a_puppetservers_file_may_hold_the_names() -> None:
    given = {"provider": "puppetserver", "puppetserver": SERVER, "autosign_file": FILE}
    assert str(PuppetCASettings.model_validate(given).autosign_file) == FILE
    assert PuppetCASettings.model_validate({}).autosign_file is None


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"provider": "puppetserver", "puppetserver": SERVER, "autosigner": "tokens"}, "autosigner is tokens"),
        ({"provider": "authority"}, "the cluster's own CA asks the store"),
    ],
)
def test_a_file_that_nobody_reads_is_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        PuppetCASettings.model_validate({**given, "autosign_file": FILE})
