"""Settings of the BMC feature and its providers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from muster.cluster.values import Port
from muster.edge.feature import ProvidedFeatureSettings
from muster.kernel.settings import Settings
from muster.policy.settings import BreakerSettings, PolicySettings, RetrySettings

Provider = Literal["redfish", "ipmitool", "freeipmi", "pyghmi", "shell", "memory"]
CipherSuite = Annotated[int, Field(ge=0, le=17)]


class RedfishSettings(Settings):
    """BMCs that speak Redfish, over HTTPS."""

    port: Port = 443
    """Their TCP port."""
    ca_file: Path | None = None
    """CAs that issued the BMCs' certificates, PEM; absent: those that this host trusts."""
    answer_bytes: Annotated[int, Field(ge=1 << 10, le=64 << 20)] = 4 << 20
    """Longest answer that is read of a BMC."""
    dell_wait_s: Annotated[float, Field(ge=0, le=60)] = 15.0
    """How long a Dell stays off in a cycle before it is switched on again."""


class IPMISettings(Settings):
    """BMCs that speak IPMI, over UDP: ``ipmitool``, ``freeipmi`` and ``pyghmi``."""

    port: Port = 623
    """Their UDP port."""
    cipher_suite: CipherSuite = 3
    """Cipher suite of ``ipmitool`` and ``freeipmi``: 3 (SHA-1) is what every BMC has, 17 (SHA-256) what newer ones want.
    Not asked of the BMC: that takes ``ipmitool`` ten seconds for every call, where the BMC does not answer that question."""


class BMCRetrySettings(RetrySettings):
    """How often what may be repeated is repeated."""

    attempts: Annotated[int, Field(ge=1, le=10)] = 1
    """Attempts in all; 1: nothing is repeated, since a BMC that does not answer at once mostly does not a moment later."""


class BMCBreakerSettings(BreakerSettings):
    """There is no breaker: one provider asks many BMCs, and one that is dead would keep calls from all others."""

    failures: int = 0
    """0, and nothing else."""

    @field_validator("failures")
    @classmethod
    def _is_off(cls, value: int) -> int:
        if value:
            raise ValueError("is 0 for BMCs: one that is dead would keep calls from all others")
        return value


class BMCPolicySettings(PolicySettings):
    """The policies around each provider, outermost first: metered, deadline, retry."""

    deadline_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Longest time one call may take, waiting for its turn included. Foreman itself gives up after 60 s."""
    retry: BMCRetrySettings = BMCRetrySettings()
    """Repetition of what may be repeated."""
    breaker: BMCBreakerSettings = BMCBreakerSettings()
    """There is none."""


class BMCSettings(ProvidedFeatureSettings):
    """The BMC feature."""

    bmc_default_provider: Provider | None = None
    """Which provider serves calls that name none: Foreman names none for IPMI (Ruby: the same name). Shown to Foreman."""
    redfish_verify_ssl: bool = True
    """Whether BMCs must show a certificate of their name that a known CA issued (Ruby: the same name)."""
    policies: BMCPolicySettings = BMCPolicySettings()
    """Deadline of a call, waiting for its turn included. Nothing is repeated unless it is asked for."""
    calls: Annotated[int, Field(ge=1, le=256)] = 16
    """Calls that one provider makes at once, two of them to one BMC; others wait for their turn."""
    redfish: RedfishSettings = RedfishSettings()
    """Settings of provider ``redfish``."""
    ipmi: IPMISettings = IPMISettings()
    """Settings of the providers that speak IPMI."""
