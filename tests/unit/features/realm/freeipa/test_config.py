from __future__ import annotations

from pathlib import Path

import pytest

from muster.features.realm.freeipa import config
from muster.kernel.errors import Misconfigured
from muster.kernel.names import FQDN

WRITTEN = """\
#File modified by ipa-client-install

[global]
basedn = dc=example,dc=com
realm = EXAMPLE.COM
domain = example.com
server = ipa1.example.com
host = proxy01.example.com
xmlrpc_uri = https://ipa1.example.com/ipa/xml
enable_ra = True
"""


def test_the_server_and_the_realm_are_read(tmp_path: Path) -> None:
    file = tmp_path / "default.conf"
    file.write_text(WRITTEN)
    assert config.read(file) == config.Place("ipa1.example.com", "https://ipa1.example.com", FQDN("EXAMPLE.COM"))


def test_another_port_is_kept() -> None:
    assert (
        config.parsed(WRITTEN.replace("example.com/ipa", "example.com:8443/ipa")).url == "https://ipa1.example.com:8443"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[global]\nrealm = X\n",
        "[global]\nxmlrpc_uri = https://ipa1.example.com/ipa/xml\n",
        WRITTEN.replace("https:", "http:"),
        WRITTEN.replace("https://ipa1.example.com", "https://ipa1 -x"),
        WRITTEN.replace("EXAMPLE.COM", "EXAMPLE COM"),
        "no section\n",
        "\udcff",
    ],
)
def test_a_file_that_names_none_is_said_with_its_path(tmp_path: Path, text: str) -> None:
    file = tmp_path / "default.conf"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Misconfigured, match=str(file)):
        config.read(file)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="No such file"):
        config.read(tmp_path / "absent")
