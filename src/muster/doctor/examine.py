"""How checks are run: side by side, each on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from muster.kernel.errors import MusterError
from muster.kernel.findings import Check, Finding


async def examined(checks: Sequence[Check], *, timeout_s: float = 20.0) -> list[Finding]:
    """Run all checks side by side; one that fails or hangs becomes a finding and stops no other."""
    results = await asyncio.gather(*(_run(c, timeout_s) for c in checks))
    return in_order(f for result in results for f in result)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return each finding once, errors first."""
    return sorted(dict.fromkeys(findings), key=lambda f: f.severity == "warning")


async def _run(check: Check, timeout_s: float) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(timeout_s):
            return await check.run()
    except TimeoutError:
        return [
            Finding(
                "CHECK-TIMEOUT",
                check.name,
                f"The check {check.name} did not finish within {timeout_s:g} s",
                "Something it asks accepts connections and does not answer.",
                "Look at the other findings first; then at the network between here and there.",
            )
        ]
    except MusterError as e:
        return [
            Finding(
                "CHECK-FAILED",
                check.name,
                f"The check {check.name} could not be carried out: {e}",
                "This host lacks what the check needs; whether the cluster is well in this respect is unknown.",
                "Mend what the sentence names, or run muster doctor where the file is and may be read.",
            )
        ]
    except Exception as e:  # noqa: BLE001 - boundary: a bug in one check must not hide the others' findings
        text = f"The check {check.name} broke: {type(e).__name__}: {e}"
        return [Finding("CHECK-BROKEN", check.name, text, "A bug in Muster.", "Report it with this sentence.")]
