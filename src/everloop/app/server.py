"""The control plane as a process: web application, serving supervisor and loop around one kernel.

The order at start: lock the home folder, open the kernel, take the port, answer; configuration,
serving and loop follow in threads of their own, so that none of them delays the first answer.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import msgspec

from everloop.app.client import Client, connect_home
from everloop.app.config import Config, load_config
from everloop.app.home import CONFIG_NAME, Home
from everloop.app.version import __version__
from everloop.core.errors import Conflict, InvalidInput, Unavailable
from everloop.core.wire import Address
from everloop.kernel.perform import Kernel
from everloop.kernel.tokens import CreateLoginLink, NewToken

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from everloop.http.guard import App

LOCK_FILE = "up.lock"
FIRST_LOGIN_FILE = "login.shown"
DEFAULT_PORT = 7300
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
GRACE_S = 3
Say = Callable[[str], None]


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the control plane is started; None stands for what everloop.yaml says."""

    host: str | None = None
    port: int | None = None
    show_login: bool = False
    serve: bool = True
    loop: bool = True


def run_server(
    home: Home, options: ServerOptions, *, project: str | None = None, say: Say = print
) -> None:
    """Run the control plane of a home folder until SIGTERM or SIGINT.

    Raises:
        Conflict: ``server.running`` while another one runs on the same folder.
        Unavailable: ``server.port_taken`` when the port asked for is not free.
        InvalidInput: everloop.yaml is wrong.
    """
    config = load_config(home.project_folder / CONFIG_NAME)
    home.create()
    with ExitStack() as stack:
        stack.enter_context(_locked(home))
        stop = threading.Event()
        _stop_on_signals(stop)
        client = stack.enter_context(connect_home(home, project=project or config.project))
        kernel = client.kernel
        assert kernel is not None
        listener = stack.enter_context(listening(config, options))
        url = f"http://{_shown(listener)}"
        hosts = allowed_hosts(config, options)
        app = build_app(kernel, hosts=hosts, project=client.project)
        stack.enter_context(_address_file(home, url))
        web = stack.enter_context(answering(app, listener))
        say(f"Everloop {__version__} at {url}")
        if options.show_login or not (home.path / FIRST_LOGIN_FILE).exists():
            say(f"Open it once with {login_link(client, url)}")
            (home.path / FIRST_LOGIN_FILE).touch(mode=0o600)
        else:
            say("Not logged in there? `everloop token login` prints a link.")
        stack.enter_context(_background(home, client, config, options))
        say("Stop it with Ctrl-C.")
        _wait(stop, web)


def build_app(kernel: Kernel, *, hosts: frozenset[str], project: str = "") -> App:
    """Return the web application of a kernel: API, pages and MLflow's interface behind the guard.

    Args:
        kernel: Performs the verbs.
        hosts: Values of the Host header to answer to.
        project: The project that MLflow's clients mean when their address names none.
    """
    from everloop.http.application import create_app
    from everloop.interop.mlflow.access import Access
    from everloop.interop.mlflow.application import make_mlflow_app

    mlflow = make_mlflow_app(Access(kernel, project), kernel.services.ids.new)
    return create_app(
        kernel, version=__version__, hosts=hosts, pages=_pages(kernel), front=(mlflow,)
    )


def login_link(client: Client, url: str | None = None) -> str:
    """Return a link that opens one session of the owner, within 15 minutes.

    Raises:
        EverloopError: the caller may not make one.
    """
    made = client.perform("login.create", CreateLoginLink(), NewToken)
    return f"{url or _known_address(client)}/login?code={made.secret}"


def _known_address(client: Client) -> str:
    if client.url is not None:
        return client.url
    running = client.home.running_server() if client.home is not None else None
    if running is None:
        raise Unavailable(
            "server.not_running",
            "The control plane of this project does not run.",
            hint="Start it with `everloop up --login`.",
        )
    return str(running["url"])


def _pages(kernel: Kernel) -> Sequence[BaseRoute]:
    from everloop.http.auth import caller_of
    from everloop.interop.export_routes import export_routes
    from everloop.kernel.performer import LocalPerformer
    from everloop.ui.pages import page_routes

    def performer_for(request: Request) -> LocalPerformer:
        return LocalPerformer(kernel, caller_of(request, kernel), request.path_params["project"])

    return [*export_routes(performer_for), *page_routes(kernel)]


@contextmanager
def _locked(home: Home) -> Iterator[None]:
    descriptor = os.open(home.path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            running = home.running_server() or {}
            raise Conflict(
                "server.running",
                f"This project's control plane runs already{_at(running.get('url'))}.",
                hint=f"Use it, or stop process {running.get('pid', 'that holds the lock')} first.",
            ) from error
        yield
    finally:
        os.close(descriptor)


def _at(url: object) -> str:
    return f" at {url}" if url else ""


def _stop_on_signals(stop: threading.Event) -> None:
    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


@contextmanager
def listening(config: Config, options: ServerOptions) -> Iterator[socket.socket]:
    """Hold the control plane's port; a port that nobody chose gives way to a free one.

    Raises:
        Unavailable: ``server.port_taken``.
        InvalidInput: ``server.host_unknown``.
    """
    host = options.host or config.server.host
    port = config.server.port if options.port is None else options.port
    # Only a port that somebody chose is insisted on.
    is_chosen = options.port is not None or config.server.port != DEFAULT_PORT
    for candidate in (port,) if is_chosen else (port, 0):
        listener = _bind(host, candidate)
        if listener is not None:
            try:
                yield listener
            finally:
                listener.close()
            return
    raise Unavailable(
        "server.port_taken",
        f"Port {port} on {host} can't be used: another program has it.",
        hint="Stop that program, or choose with --port; 0 takes a free one.",
    )


def _bind(host: str, port: int) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except socket.gaierror as error:
        listener.close()
        raise _unknown_host(host) from error
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise _unknown_host(host) from error
        return None
    listener.setblocking(False)
    return listener


def _unknown_host(host: str) -> InvalidInput:
    return InvalidInput(
        "server.host_unknown",
        f"{host[:80]!r} is no interface of this machine.",
        hint="Use 127.0.0.1 or ::1.",
    )


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def allowed_hosts(config: Config, options: ServerOptions) -> frozenset[str]:
    """Return the values of the Host header that are answered."""
    bound = (options.host or config.server.host).lower()
    return LOOPBACK_HOSTS | {bound, *(name.lower() for name in config.server.hosts)}


@contextmanager
def _address_file(home: Home, url: str) -> Iterator[None]:
    from everloop.serve.files import write_atomically

    write_atomically(home.server_file, msgspec.json.encode(Address(url=url, pid=os.getpid())))
    try:
        yield
    finally:
        home.server_file.unlink(missing_ok=True)


@contextmanager
def answering(app: App, listener: socket.socket) -> Iterator[threading.Thread]:
    """Answer requests in a thread of their own until the block ends."""
    import uvicorn
    import uvloop

    from everloop.http.lending import LendingProtocol

    config = uvicorn.Config(
        app,
        loop="none",
        http=LendingProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = uvicorn.Server(config)
    ready = threading.Event()

    async def serve() -> None:
        ready.set()
        await server.serve(sockets=[listener])  # off the main thread, so it takes no signals

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, name="web")
    thread.start()
    try:
        ready.wait()
        yield thread
    finally:
        server.should_exit = True
        thread.join(GRACE_S + 5)


@contextmanager
def _background(
    home: Home, client: Client, config: Config, options: ServerOptions
) -> Iterator[None]:
    """Run what is not the web application; ends it in the right order."""
    from everloop.app.keeping import Keeper

    keeper = Keeper(home, client, config, serve=options.serve, loop=options.loop)
    keeper.start()
    try:
        yield
    finally:
        keeper.stop()


def _wait(stop: threading.Event, web: threading.Thread) -> None:
    while not stop.wait(0.5):
        if not web.is_alive():
            raise Unavailable(
                "server.stopped",
                "The web application stopped by itself.",
                hint="Start it again; see the messages above.",
            )
