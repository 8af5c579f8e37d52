"""Ports for servers under test."""

from __future__ import annotations

import contextlib
import random
import socket


def free_port(address: str) -> int:
    """Return a port that is free there, below those the kernel gives to clients, who could have it a moment later."""
    while True:
        port = random.SystemRandom().randrange(11_000, 32_000)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind((address, port))
            return port
