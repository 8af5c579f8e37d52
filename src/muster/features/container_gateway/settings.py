"""Settings of the container gateway."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from muster.edge.feature import FeatureSettings


class ContainerGatewaySettings(FeatureSettings):
    """The container gateway."""

    token_lifetime_s: Annotated[float, Field(ge=60, le=86_400)] = 3600.0
    """How long a token is good at most; Foreman says how long each shall be, and its shorter time counts."""
    key_lifetime_s: Annotated[float, Field(ge=3600, le=31_536_000)] = 604_800.0
    """After how long another key signs tokens. The one before is believed until the last token that it signed has ended."""
    foreman_timeout_s: Annotated[float, Field(gt=0, le=300)] = 30.0
    """How long Foreman may take to answer whether somebody may log in, and what he may read."""
