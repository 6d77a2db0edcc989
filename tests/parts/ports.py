"""Ports of the loopback that nobody has at this moment."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a port that is free now, for a program that cannot be told to take one itself."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        found: int = held.getsockname()[1]
    return found
