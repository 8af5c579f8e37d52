"""Numbers of bytes as a person says them."""

from __future__ import annotations


def size(count: int) -> str:
    """Return a number of bytes with three digits or so, and its unit."""
    value = float(count)
    for word in ("B", "KiB", "MiB", "GiB"):
        if value < 1000:
            return f"{value:.0f} {word}" if word == "B" or value >= 100 else f"{value:.1f} {word}"
        value /= 1024
    return f"{value:.1f} TiB"
