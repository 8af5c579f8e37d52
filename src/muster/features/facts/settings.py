"""Settings of the Facts feature. Ruby's module has none: it loads Facter itself."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from muster.cluster.values import Seconds
from muster.edge.feature import FeatureSettings


class FactsSettings(FeatureSettings):
    """The Facts feature: what Facter says of the host of whichever member is asked."""

    facter: Annotated[str, StringConstraints(pattern=r"\A/[A-Za-z0-9._/+-]{1,255}\z")] | None = None
    """The program, as ``/opt/puppetlabs/bin/facter``. Absent: ``facter`` on the member's path, else that one."""
    legacy: bool = True
    """Whether names from before Facter 3 are among the facts, ``osfamily`` beside ``os``, as Ruby's module has them."""
    kept_s: Annotated[float, Field(ge=0, le=3600)] = 60.0
    """For how long facts are given without asking Facter again; it takes seconds. 0: it is asked each time."""
    timeout_s: Seconds = 30.0
    """How long Facter may take; then it is killed. Foreman's own calls wait for 60 s."""
