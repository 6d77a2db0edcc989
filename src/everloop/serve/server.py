"""The process around the application: socket, event loop, signals, and the order of its ends."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec
import uvicorn
import uvloop

from everloop.core.clock import SystemClock
from everloop.core.errors import Conflict
from everloop.core.ids import IdSource
from everloop.core.wire import Address
from everloop.serve.answer import Answerer
from everloop.serve.app import ServeApp
from everloop.serve.lines import LogWriter
from everloop.serve.switchboard import Switchboard, write_atomically

ADDRESS_FILE = "server.json"
LOCK_FILE = "serve.lock"
DRAIN_S = 5
KEEP_ALIVE_S = 75


def run(folder: Path, *, host: str = "127.0.0.1", port: int = 0, key: str | None = None) -> None:
    """Serve a deployment's folder until SIGTERM or SIGINT; requests in flight are finished.

    Args:
        folder: Has ``routes.json`` and ``bundles/``; gets ``log/``, ``applied.json`` and
            ``server.json``.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one, which ``server.json`` tells.
        key: Hex of the only public key whose bundles are accepted; None trusts the routes file.

    Raises:
        Conflict: ``serving.running`` when another process serves this folder.
        OSError: the port is taken or the folder cannot be written.
    """
    with _locked(folder), closing(_listen(host, port)) as listener:
        clock = SystemClock()
        switchboard = Switchboard(folder, clock, pinned_key=key)
        switchboard.reload()
        ids = IdSource(lambda: time.time_ns() // 1_000_000, os.urandom)
        address = Address(url=f"http://{_shown(host)}:{listener.getsockname()[1]}", pid=os.getpid())
        with closing(LogWriter(folder / "log")) as log:
            app = ServeApp(switchboard, Answerer(log, ids, clock), log, clock)
            write_atomically(folder / ADDRESS_FILE, msgspec.json.encode(address))
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_serve(app, listener))


async def _serve(app: ServeApp, listener: socket.socket) -> None:
    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=DRAIN_S,
        backlog=2_048,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again at its end, when the log is still to be closed.
        signal.signal(number, lambda *_: None)
    background = [
        asyncio.create_task(app.keep_routes(), name="routes"),
        asyncio.create_task(app.run_shadows(), name="shadows"),
    ]
    try:
        await uvicorn.Server(config).serve(sockets=[listener])
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await app.drain()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder; the kernel lets go of it however this process ends."""
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                "serving.running",
                f"Another process serves {folder} already.",
                hint="Its address is in server.json; stop it first.",
            ) from error
        yield
    finally:
        os.close(descriptor)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2_048)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
