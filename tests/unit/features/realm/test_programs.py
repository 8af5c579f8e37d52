from __future__ import annotations

from pathlib import Path

import pytest

from muster.features.realm.active_directory.directory import _refused
from muster.features.realm.programs import ran
from muster.kernel.errors import Misconfigured
from muster.kernel.process import Finished

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("program", "package"),
    [("kinit", "krb5-user"), ("ldapsearch", "ldap-utils"), ("ldapmodify", "ldap-utils"), ("curl", "curl")],
)
async def test_of_a_program_that_is_not_there_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, package: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Misconfigured, match=f"^{program} is not on this host: it is in the package {package}"):
        await ran([program], timeout_s=5, environment={})
    (tmp_path / program).write_text("#!/nowhere\n")
    (tmp_path / program).chmod(0o755)
    with pytest.raises(Misconfigured, match=f"^Running {program} failed: "):
        await ran([program], timeout_s=5, environment={})


def test_an_ldapsearch_that_lacks_kerberos_names_the_package() -> None:
    # As Debian 12's says it (OpenLDAP 2.5.13) where its modules are not found.
    said = (
        "ldap_sasl_interactive_bind: Unknown authentication method (-6)\n"
        "\tadditional info: SASL(-4): no mechanism available: No worthy mechs found\n"
    )
    error = _refused(
        Finished(250, "", said), "ldap://dc1.example.com:389 refused, looking", "ldap://dc1.example.com:389"
    )
    assert type(error) is Misconfigured
    assert "the package libsasl2-modules-gssapi-mit" in str(error)
