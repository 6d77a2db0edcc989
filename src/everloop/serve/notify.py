"""Tells systemd that the server is ready, lives and ends (sd_notify(3)); elsewhere says nothing.

A unit of ``Type=notify`` counts as started only when models are loaded and golden answers repeated,
and with ``WatchdogSec`` a server that hangs is killed and started again.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress

_MICRO = 1e-6


class Notifier:
    """The way to the service manager of this process, if there is one.

    Attributes:
        beat_s: How often the manager wants a sign of life; None when it wants none.
    """

    def __init__(self, environ: Mapping[str, str], pid: int | None = None) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A name in the abstract name space begins with a zero byte, written as an at sign.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        wanted = environ.get("WATCHDOG_USEC", "")
        mine = environ.get("WATCHDOG_PID", "") in {"", str(os.getpid() if pid is None else pid)}
        self.beat_s = None
        if self._address and mine and wanted.isascii() and wanted.isdigit() and int(wanted):
            self.beat_s = int(wanted) * _MICRO / 2

    def ready(self) -> None:
        """Say that requests are answered from now on."""
        self._tell("READY=1")

    def beat(self) -> None:
        """Say that the process lives."""
        if self.beat_s is not None:
            self._tell("WATCHDOG=1")

    def ending(self) -> None:
        """Say that the process ends in order."""
        self._tell("STOPPING=1")

    async def keep(self) -> None:
        """Give the signs of life that are wanted; runs until cancelled."""
        while self.beat_s is not None:
            self.beat()
            await asyncio.sleep(self.beat_s)

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        # Whoever asked may be gone; that is no reason not to serve.
        with (
            suppress(OSError, ValueError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way,
        ):
            way.sendto(text.encode(), self._address)
