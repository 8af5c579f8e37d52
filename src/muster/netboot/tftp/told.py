"""What a server says of each request that it took up, when it is over."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Outcome = Literal[
    "sent",
    "asked",
    "absent",
    "denied",
    "refused",
    "cancelled",
    "silent",
    "expired",
    "changed",
    "failed",
    "superseded",
    "stopped",
]
"""What became of it.

``sent``: the client has acknowledged all of it; ``asked``: it wanted to know the size and no more; ``absent``, ``denied``:
there is no such file, or it may not be read; ``refused``: it was no request to read; ``cancelled``: the client gave up and
said so; ``silent``: it said nothing any more; ``expired``: it took too long; ``changed``: the file was written to meanwhile;
``failed``: this host could not; ``superseded``: the client began anew from the same port; ``stopped``: the server was.
"""

Dropped = Literal["rate", "client rate", "transfers", "client transfers", "broadcast", "no request", "not fit"]
"""Why a datagram got no answer: too many, of all or of one client, nothing that is to be answered, or what lies here may be
old."""


@dataclass(frozen=True, slots=True)
class TransferEnded:
    """One request, and what became of it.

    Attributes:
        client, port: who asked, and from which port.
        local: the address of ours that was asked.
        name: the file, as it was asked for, made fit to be shown; shortened when it is long.
        bytes: of the file, as many as the client has acknowledged.
        reason: one sentence more, empty where the outcome says it; may quote the client.
        duration_s: from the request to the end.
        resent: packets that were sent once more.
    """

    client: str
    port: int
    local: str
    name: str
    bytes: int
    outcome: Outcome
    reason: str
    duration_s: float
    blksize: int
    windowsize: int
    resent: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
