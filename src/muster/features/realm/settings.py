"""Settings of the Realm feature and its providers, under the names that the Ruby modules have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from muster.cluster.service import Service, of_settings
from muster.cluster.values import Host, Port, Seconds
from muster.edge.another_proxy import SmartProxySettings
from muster.edge.feature import ProvidedFeatureSettings
from muster.kernel.names import FQDN, in_url
from muster.kernel.settings import Settings

# They become words of a program's command line: none begins with a hyphen.
Principal = Annotated[
    str,
    StringConstraints(
        pattern=r"\A[A-Za-z0-9][A-Za-z0-9._$-]{0,127}(?:/[A-Za-z0-9][A-Za-z0-9.-]{0,252})?(?:@[A-Za-z0-9][A-Za-z0-9.-]{0,252})?\z"
    ),
]
Prefix = Annotated[str, StringConstraints(pattern=r"\A(?:[A-Za-z0-9][A-Za-z0-9-]{0,13})?\z")]


def _absolute(value: Path) -> Path:
    if not value.is_absolute() or not str(value).isprintable():
        raise ValueError("is no absolute path")
    return value


def _dn(value: str) -> str:
    if not value.isprintable() or "=" not in value:
        raise ValueError("is no distinguished name, as OU=Linux,DC=example,DC=com")
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


File = Annotated[Path, AfterValidator(_absolute)]
DN = Annotated[str, StringConstraints(min_length=3, max_length=1000), AfterValidator(_dn)]


class KerberosSettings(Settings):
    """Who members are to the realm."""

    keytab_path: File
    """Keytab of the principal, readable for the members' account and for nobody else. The same on every member."""
    principal: Principal
    """Whom members log in as: ``muster@EXAMPLE.COM``; without a realm, in ``realm``."""
    krb5_config: File | None = None
    """Kerberos' configuration; absent: ``/etc/krb5.conf``."""
    timeout_s: Seconds = 10.0
    """How long one question may take, of the KDC as of the server."""


class ADSettings(KerberosSettings):
    """Active Directory: accounts of computers, over LDAP that is signed and sealed by Kerberos."""

    realm: FQDN
    """The realm: the domain's DNS name, ``EXAMPLE.COM``."""
    domain_controller: Annotated[tuple[Host, ...], BeforeValidator(_listed), Field(min_length=1, max_length=16)]
    """The domain controller's full name, or several, which are asked in this order while one does not answer."""
    port: Port = 389
    """The domain controllers' LDAP port."""
    ou: DN | None = None
    """Where accounts are made: ``OU=Linux,DC=example,DC=com``; absent: where the domain has new computers."""
    computername_prefix: Prefix = ""
    """What the names of accounts begin with. A host's name that begins with it does not get it twice."""
    computername_hash: bool = False
    """Whether accounts are named by a digest of the host's name, so that long names that begin alike stay apart."""
    computername_use_fqdn: bool = False
    """Whether accounts are named by the host's full name instead of its first label."""


class FreeIPASettings(KerberosSettings):
    """FreeIPA: hosts, over its JSON API. Unproven: no FreeIPA was there to try it on."""

    ipa_config: File = Path("/etc/ipa/default.conf")
    """Where the realm and the server are read from, as ``ipa-client-install`` writes it."""
    ca_file: File = Path("/etc/ipa/ca.crt")
    """FreeIPA's CA."""
    verify_ca: bool = True
    """Whether the server's certificate is verified, for the login as for every call."""
    remove_dns: bool = True
    """Whether a host's DNS records go with it; where FreeIPA cannot, they stay."""


class MemorySettings(Settings):
    """Hosts in this process, gone with it. For trying out and for tests."""

    realm: FQDN = FQDN("EXAMPLE.COM")
    """The realm."""


class RealmSettings(ProvidedFeatureSettings):
    """The Realm feature."""

    rubys_prefixes: ClassVar[tuple[str, ...]] = ("realm_",)

    provider: Literal["freeipa", "ad", "smart_proxy", "memory"] = "freeipa"
    """Which provider keeps the hosts. Ruby's ``use_provider`` is understood as well: ``realm_freeipa``, ``realm_ad``."""
    freeipa: FreeIPASettings | None = None
    """Settings of provider ``freeipa``."""
    ad: ADSettings | None = None
    """Settings of provider ``ad``."""
    smart_proxy: SmartProxySettings | None = None
    """Settings of provider ``smart_proxy``."""
    memory: MemorySettings = MemorySettings()
    """Settings of provider ``memory``."""

    @property
    def kerberos(self) -> KerberosSettings | None:
        """Who members log in as; None: this provider needs nobody."""
        return {"freeipa": self.freeipa, "ad": self.ad}.get(self.provider)

    @model_validator(mode="after")
    def _provider_has_settings(self) -> Self:
        needed = {"freeipa": "freeipa.keytab_path", "ad": "ad.keytab_path", "smart_proxy": "smart_proxy.url"}
        if self.provider in needed and getattr(self, self.provider) is None:
            raise ValueError(f"provider {self.provider} needs {needed[self.provider]}")
        return self

    def registered(self) -> tuple[Service, ...]:
        url = ""
        if self.provider == "ad" and self.ad is not None:
            url = f"ldap://{in_url(self.ad.domain_controller[0])}:{self.ad.port}"
        elif self.provider == "smart_proxy" and self.smart_proxy is not None:
            url = self.smart_proxy.url
        return (of_settings("realm", url, weight=self.readiness),) if url else ()
