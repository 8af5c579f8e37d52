"""What the doctor says of the Discovery feature: that nobody has tried it on the image it is for."""

from __future__ import annotations

from collections.abc import Sequence

from muster.kernel.findings import Check, Finding

UNPROVEN = "it was tried on a stand-in for discovered machines, and on no machine that boots the discovery image"
"""What the feature was never tried on; doctor and the log say so."""

_PLACE = "feature discovery"


def checks() -> list[Check]:
    """Return the check of a feature that is on."""

    async def unproven() -> Sequence[Finding]:
        return [
            Finding(
                "DISCOVERY-UNPROVEN",
                _PLACE,
                f"Discovery is unproven: {UNPROVEN}",
                "No machine that boots the image was to be had.",
                "Discover one machine and boot it from Foreman first, and tell what you see.",
                "warning",
            )
        ]

    return [Check(_PLACE, unproven)]
