"""The one error of all readers here."""

from __future__ import annotations

from muster.kernel.errors import MusterError


class Malformed(MusterError):
    """A repository's metadata, or a file made of it, is broken, larger than is read, or of another kind."""

    status = 502

    @classmethod
    def reading(cls, of: str, why: str) -> Malformed:
        """Return the error whose sentence names what was read and what was wrong with it."""
        return cls(f"Reading {of} failed: {why}")
