"""One worker: a service on an event loop, and what it does beside answering, until its end."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import uvloop

from everloop.core.clock import SystemClock
from everloop.core.wire import Address
from everloop.serve.addresses import all_routes
from everloop.serve.dispatch import Dispatcher
from everloop.serve.environment import Found
from everloop.serve.files import write_atomically
from everloop.serve.hosting import SCAN_POLLS, Host
from everloop.serve.http import Listener
from everloop.serve.limits import Limits
from everloop.serve.notify import Notifier
from everloop.serve.observe.jsonlog import say, say_failure
from everloop.serve.observe.tally import take_up
from everloop.serve.observe.tracing import open_tracer
from everloop.serve.pages import Pages
from everloop.serve.protocols import grpc
from everloop.serve.reporting import Reporter
from everloop.serve.service import RELOAD_PAUSE_S, Endpoint, Service
from everloop.serve.shelf import BundleShelf
from everloop.serve.sockets import BACKLOG
from everloop.serve.tokens import TokensFile
from everloop.serve.watching import Watched

ADDRESS_FILE: Final = "server.json"
DRAIN_S: Final = 5.0
MOST_ARENAS: Final = 2
_ARENA_MAX: Final = -8  # M_ARENA_MAX of mallopt(3)
ENDINGS: Final = (signal.SIGTERM, signal.SIGINT)


class Told(NamedTuple):
    """Where the group listens: its URL, host and port of gRPC, and the process to end it by."""

    url: str
    rpc: str | None
    pid: int


class Group(NamedTuple):
    """What a worker knows of the group it is in."""

    settings: Found
    host: Host
    told: Told
    worker: str
    limits: Limits
    state: Path | None

    def announce(self) -> None:
        """Tell where the server is: a file for each deployment, or a line on standard error."""
        announce(self.settings, self.host, self.told)


def work(group: Group, listening: socket.socket) -> None:
    """Serve on a socket until SIGTERM or SIGINT; requests in flight are finished."""
    # Whoever stands before a server without a home decides who may ask.
    tally = take_up(group.state, group.worker)
    service = Service(SystemClock(), tally, is_open=group.settings.is_open)
    if group.settings.is_on_loopback:
        service.pages = Pages(group.settings.allowed_hosts)
    if group.settings.tokens_file is not None and not group.settings.is_managed:
        service.tokens = TokensFile(group.settings.tokens_file)
    group.host.open(service, group.worker)
    shelf = _open_shelf(group, service)
    if (group.settings.workers or 1) == 1 and group.told.rpc is None:
        group.announce()
    # A server makes no cycles to speak of; collecting thrice a second shows in the latency.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(group, service, listening, shelf))
    finally:
        for endpoint in service.endpoints.values():
            endpoint.log.close()
        if shelf is not None:
            shelf.close()
        if service.flusher is not None:
            service.flusher.close()


def _open_shelf(group: Group, service: Service) -> BundleShelf | None:
    """Return what brings bundles in and out, after what has been wanted so far is done."""
    if group.state is None or not group.settings.takes_models:
        return None
    folder = group.state / "shelf"
    folder.mkdir(exist_ok=True)
    workers = [f"w{place}" for place in range(group.settings.workers or 1)]
    made = BundleShelf(group.host, service, folder, group.worker, workers)
    made.apply()
    service.shelf = made
    return made


async def _serve(
    group: Group, service: Service, listening: socket.socket, shelf: BundleShelf | None
) -> None:
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in ENDINGS:
        loop.add_signal_handler(number, ending.set)
    reporter = Reporter(service, group.state, group.worker)
    routes = [*all_routes(service, group.settings), *reporter.routes()]
    dispatcher = Dispatcher(routes, service.admit if service.is_open else None)
    tracer = open_tracer(os.environ)
    has_access_log = os.environ.get("EVERLOOP_ACCESS_LOG", "") not in {"", "0"}
    watched = Watched(dispatcher, tracer=tracer, has_access_log=has_access_log)
    listener = reporter.listener = Listener(watched, group.limits, service.tally, service.turn)
    server = await loop.create_server(listener.connect, sock=listening, backlog=BACKLOG)
    background = _Background()
    background.add(listener.sweep())
    background.add(service.keep_routes())
    background.add(reporter.keep())
    background.add(reporter.keep_sketches())
    # With several workers their master speaks to the service manager.
    notifier = Notifier(os.environ if group.told.pid == os.getpid() else {})
    background.add(notifier.keep())
    notifier.ready()

    def begin(endpoint: Endpoint) -> None:
        background.add(endpoint.answerer.shadows.run())

    for endpoint in service.endpoints.values():
        begin(endpoint)
    background.add(_rescan(group, service, begin))
    if shelf is not None:
        background.add(shelf.keep())
    rpc = None
    if group.told.rpc is not None:
        _use_few_arenas()
        rpc = await grpc.start(service, group.told.rpc, group.limits, has_access_log=has_access_log)
        if group.worker == "w0":
            group.announce()  # not before: unlike the other port, this one refused until now
    await ending.wait()
    notifier.ending()
    service.is_draining = True
    server.close()
    calls = asyncio.ensure_future(rpc.stop(DRAIN_S)) if rpc is not None else None
    await listener.drain(DRAIN_S)
    if calls is not None:
        await calls
    await background.cancel()
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            for endpoint in service.endpoints.values():
                await endpoint.answerer.shadows.drain()
    reporter.save()
    if tracer is not None:
        tracer.close()


def _use_few_arenas() -> None:
    """Let the C library spread over few heaps: each of gRPC's threads keeps what a flood left."""
    with suppress(OSError, AttributeError):  # only glibc has them
        ctypes.CDLL(None).mallopt(_ARENA_MAX, MOST_ARENAS)


async def _rescan(group: Group, service: Service, begin: Callable[[Endpoint], None]) -> None:
    while True:
        await asyncio.sleep(SCAN_POLLS * RELOAD_PAUSE_S)
        try:
            found = await asyncio.to_thread(group.host.rescan, service, group.worker)
        except Exception as error:  # noqa: BLE001 -- the watch outlives what it finds
            say_failure("scan", error)
            continue
        for endpoint in found:
            begin(endpoint)
        if found:
            group.announce()


class _Background:
    """Tasks that run until the process ends."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        task.add_done_callback(_tell_end)
        self._tasks.append(task)

    async def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _tell_end(task: asyncio.Task[None]) -> None:
    """Say why what should run for ever does not; else nobody would know."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        say_failure("background", error)


def announce(settings: Found, host: Host, told: Told) -> None:
    """Tell where the server is: a file for each deployment, or a line on standard error."""
    if settings.home is None:
        also = "" if told.rpc is None else f" and grpc://{told.rpc}"
        sys.stderr.write(f"everloop-serve: {told.url}{also}\n")
        if settings.log is None:
            say("warn", "no-log", "Nothing is logged: no folder was named by EVERLOOP_LOG.")
        return
    for folder, place in host.addresses(settings.home):
        address = Address(url=told.url + place, pid=told.pid, grpc=told.rpc)
        write_atomically(folder / ADDRESS_FILE, msgspec.json.encode(address))
