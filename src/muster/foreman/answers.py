"""What another Smart Proxy answered, and the errors its refusals stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muster.kernel.errors import Conflict, Denied, MusterError, NotFound, Rejected, Unavailable, Unsupported
from muster.kernel.names import shown

_BY_STATUS: Mapping[int, type[MusterError]] = {
    400: Rejected,
    403: Denied,
    404: NotFound,
    409: Conflict,
    501: Unsupported,
}


@dataclass(frozen=True)
class Answer:
    """What the other proxy said: status and body as text, what it named that version of the body, and what it says it is."""

    status: int
    text: str
    etag: str | None = None
    server: str | None = None

    def json(self) -> Any:
        """Return the body as JSON.

        Raises:
            Unavailable: it is not JSON, so what answered is no Smart Proxy.
        """
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError) as e:
            raise Unavailable(f"the answer is not JSON: {shown(self.text)}") from e

    def accepted(self, url: str, method: str, path: str) -> Answer:
        """Return the answer unless it is a refusal.

        Raises:
            MusterError: the one that the refusal stands for, with the other proxy's words.
        """
        if self.status < 300:
            return self
        is_passing = self.status in (408, 429, 502, 503, 504)
        kind = _BY_STATUS.get(self.status, Unavailable if is_passing else Rejected)
        raise kind(f"{url} answered {self.status} to {method} {path}: {shown(self.text.strip())}")
