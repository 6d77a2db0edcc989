"""The processes around the service: sockets, workers, signals, and the order of their ends.

Models are loaded before the workers are forked, which so share their memory. Each worker has a
listening socket of its own that the master keeps open: connections that come while a worker dies
wait for the next one.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import gc
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import uvloop

from everloop.core.clock import SystemClock
from everloop.core.errors import Conflict
from everloop.core.wire import Address
from everloop.serve.addresses import all_routes
from everloop.serve.applied import WORKERS
from everloop.serve.dispatch import Dispatcher
from everloop.serve.environment import Found
from everloop.serve.files import write_atomically
from everloop.serve.hosting import SCAN_POLLS, Host
from everloop.serve.http import Listener
from everloop.serve.limits import Limits
from everloop.serve.notify import Notifier
from everloop.serve.observe.jsonlog import say, say_failure
from everloop.serve.observe.tally import lay_down, take_up
from everloop.serve.observe.tracing import open_tracer
from everloop.serve.protocols import grpc
from everloop.serve.reporting import Reporter
from everloop.serve.service import RELOAD_PAUSE_S, Endpoint, Service
from everloop.serve.shelf import BundleShelf
from everloop.serve.tokens import TokensFile
from everloop.serve.watching import Watched

ADDRESS_FILE: Final = "server.json"
LOCK_FILE: Final = "serve.lock"
DRAIN_S: Final = 5.0
BACKLOG: Final = 2_048
PAUSE_S: Final = 0.5
MOST_DESCRIPTORS: Final = 65_536
OWN_DESCRIPTORS: Final = 1_024  # of logs, models and what else is no connection
_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG of prctl(2)
_ENDINGS: Final = (signal.SIGTERM, signal.SIGINT)


def run(settings: Found, places: Sequence[Path], limits: Limits | None = None) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight are finished.

    Args:
        settings: Where to listen, with how many workers.
        places: Folders of deployments, homes of many of them, or sealed bundles.
        limits: What a client may take; the defaults when None.

    Raises:
        Conflict: ``serving.running`` when another process serves this home.
        IntegrityError: a bundle that stands alone does not verify.
        OSError: the port is taken or the folder cannot be written.
    """
    fitted = _fitted(limits or Limits())
    with _locked(settings.home), _state_folder(settings) as state:
        host = Host(
            places,
            SystemClock(),
            key=settings.public_key,
            log=settings.log,
            by_folder=settings.is_named_by_folder,
        )
        sockets = _listen(settings)
        rpc = _reserve(settings)
        rpc_name = None if rpc is None else _name_of(settings, rpc)
        told = _Told(f"http://{_name_of(settings, sockets[0])}", rpc_name, os.getpid())

        def work(place: int) -> None:
            group = _Group(settings, host, told, f"w{place}", fitted, state)
            _work(group, sockets[place])

        try:
            host.load()
            if len(sockets) == 1:
                work(0)
            else:
                if rpc is None:
                    _announce(settings, host, told)
                _Master(work, len(sockets)).run()
        finally:
            for each in (*sockets, rpc):
                if each is not None:
                    each.close()


def _fitted(limits: Limits) -> Limits:
    """Take as many descriptors as the system gives, and keep some from the connections.

    Without any left a process could load no model and open no log.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft == resource.RLIM_INFINITY:
        return limits
    left = max(soft - OWN_DESCRIPTORS, soft // 2)
    return msgspec.structs.replace(limits, connections=min(limits.connections, left))


class _Master:
    """Forks the workers, starts dead ones again, and ends them in order."""

    def __init__(self, work: Callable[[int], None], count: int) -> None:
        self._work = work
        self._count = count
        self._workers: dict[int, tuple[int, float]] = {}

    def run(self) -> None:
        watched = {*_ENDINGS, signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_BLOCK, watched)
        gc.collect()
        gc.freeze()  # what is loaded is shared: the collector must not write into its pages
        # A library's thread may be given the signal while this one does not wait for it; without a
        # handler that would be the end of the process, in no order.
        asked: list[int] = []
        for number in _ENDINGS:
            signal.signal(number, lambda known, _: asked.append(known))
        notifier = Notifier(os.environ)
        for place in range(self._count):
            self._start(place)
        notifier.ready()
        while not asked:
            notifier.beat()
            found = signal.sigtimedwait(watched, 1.0)
            if found is not None and found.si_signo in _ENDINGS:
                break
            for place, started in self._reap():
                if time.monotonic() - started < PAUSE_S:
                    time.sleep(PAUSE_S)  # one that dies at once must not take the machine with it
                self._start(place)
        notifier.ending()
        self._stop()

    def _start(self, place: int) -> None:
        started = time.monotonic()
        master = os.getpid()
        pid = os.fork()
        if pid:
            self._workers[pid] = (place, started)
            return
        code = 1
        try:
            _die_with_parent()
            if os.getppid() != master:
                os._exit(code)  # killed before we asked to be told of it
            for number in _ENDINGS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_ENDINGS, signal.SIGCHLD})
            self._work(place)
            code = 0
        except BaseException as error:  # noqa: BLE001 -- a fork must end here, whatever happens
            say_failure("worker", error, everloop__worker=place)
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> list[tuple[int, float]]:
        ended = []
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            place, started = self._workers.pop(pid)
            say("warn", "worker-ended", f"Worker {place} ended with status {status}.")
            ended.append((place, started))
        return ended

    def _stop(self) -> None:
        for pid in self._workers:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 2 * DRAIN_S + 1
        while self._workers and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.01)
        for pid in self._workers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


class _Told(NamedTuple):
    """Where the group listens: its URL, host and port of gRPC, and the process to end it by."""

    url: str
    rpc: str | None
    pid: int


class _Group(NamedTuple):
    """What a worker knows of the group it is in."""

    settings: Found
    host: Host
    told: _Told
    worker: str
    limits: Limits
    state: Path | None

    def announce(self) -> None:
        _announce(self.settings, self.host, self.told)


def _work(group: _Group, listening: socket.socket) -> None:
    # Whoever stands before a server without a home decides who may ask.
    tally = take_up(group.state, group.worker)
    service = Service(SystemClock(), tally, is_open=group.settings.is_open)
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


def _open_shelf(group: _Group, service: Service) -> BundleShelf | None:
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
    group: _Group, service: Service, listening: socket.socket, shelf: BundleShelf | None
) -> None:
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in _ENDINGS:
        loop.add_signal_handler(number, ending.set)
    reporter = Reporter(service, group.state, group.worker)
    dispatcher = Dispatcher([*all_routes(service, group.settings), *reporter.routes()])
    tracer = open_tracer(os.environ)
    has_access_log = os.environ.get("EVERLOOP_ACCESS_LOG", "") not in {"", "0"}
    watched = Watched(dispatcher, tracer=tracer, has_access_log=has_access_log)
    listener = reporter.listener = Listener(watched, group.limits, service.tally)
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
        background.add(endpoint.answerer.run_shadows())

    for endpoint in service.endpoints.values():
        begin(endpoint)
    background.add(_rescan(group, service, begin))
    if shelf is not None:
        background.add(shelf.keep())
    rpc = None
    if group.told.rpc is not None:
        rpc = await grpc.start(service, group.told.rpc, group.limits)
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
                await endpoint.answerer.drain()
    reporter.save()
    if tracer is not None:
        tracer.close()


async def _rescan(group: _Group, service: Service, begin: Callable[[Endpoint], None]) -> None:
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


def _announce(settings: Found, host: Host, told: _Told) -> None:
    if settings.home is None:
        also = "" if told.rpc is None else f" and grpc://{told.rpc}"
        sys.stderr.write(f"everloop-serve: {told.url}{also}\n")
        if settings.log is None:
            say("warn", "no-log", "Nothing is logged: no folder was named by EVERLOOP_LOG.")
        return
    for folder, place in host.addresses(settings.home):
        address = Address(url=told.url + place, pid=told.pid, grpc=told.rpc)
        write_atomically(folder / ADDRESS_FILE, msgspec.json.encode(address))


def _name_of(settings: Found, bound: socket.socket) -> str:
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{shown}:{bound.getsockname()[1]}"


@contextmanager
def _state_folder(settings: Found) -> Iterator[Path | None]:
    """Give the workers a place to tell each other things; None for one that is alone."""
    if settings.home is not None:
        (settings.home / WORKERS).mkdir(exist_ok=True)
        lay_down(settings.home / WORKERS)
        yield settings.home / WORKERS
    elif (settings.workers or 1) > 1 or settings.takes_models:
        try:
            made = tempfile.TemporaryDirectory(prefix="everloop-serve-")
        except OSError:
            if (settings.workers or 1) > 1:
                raise
            yield None  # where nothing can be written, one that is alone does without
            return
        with made as folder:
            yield Path(folder)
    else:
        yield None


@contextmanager
def _locked(folder: Path | None) -> Iterator[None]:
    """Hold the folder; the kernel lets go of it however this process and its workers end."""
    if folder is None:
        yield
        return
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


def _listen(settings: Found) -> list[socket.socket]:
    """Return one listening socket for each worker, all of one port."""
    made: list[socket.socket] = []
    port = settings.port
    try:
        for _ in range(settings.workers or 1):
            made.append(_bind(settings.host, port, is_shared=(settings.workers or 1) > 1))
            port = made[0].getsockname()[1]
    except OSError:
        for each in made:
            each.close()
        raise
    return made


def _reserve(settings: Found) -> socket.socket | None:
    """Return a socket that holds the port of gRPC for the workers, and never listens itself.

    Raises:
        MissingExtra: it is asked for, and its packages are not installed.
    """
    if settings.grpc_port is None:
        return None
    grpc.require_grpc()
    return _bind(settings.host, settings.grpc_port, is_shared=True, listens=False)


def _bind(host: str, port: int, *, is_shared: bool, listens: bool = True) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listening.bind((host, port))
        if listens:
            listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    listening.setblocking(False)
    return listening


def _die_with_parent() -> None:
    """End this worker when the master is killed, so that the port is free for the next one."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)
