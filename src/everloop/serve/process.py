"""The processes around the service: one that listens for all, and those that it forks.

Models are loaded before the workers are forked, which so share their memory. Each worker has a
listening socket of its own that the master keeps open: connections that come while a worker dies
wait for the next one.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from everloop.core.clock import SystemClock
from everloop.core.errors import Conflict
from everloop.serve.applied import WORKERS
from everloop.serve.environment import Found
from everloop.serve.hosting import Host
from everloop.serve.limits import Limits
from everloop.serve.master import Master
from everloop.serve.observe.tally import lay_down
from everloop.serve.sockets import fitted, listen, name_of, reserve
from everloop.serve.worker import Group, Told, announce, work

LOCK_FILE: Final = "serve.lock"


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
    allowed = fitted(limits or Limits())
    with _locked(settings.home), _state_folder(settings) as state:
        host = Host(
            places,
            SystemClock(),
            key=settings.public_key,
            log=settings.log,
            by_folder=settings.is_named_by_folder,
        )
        sockets = listen(settings)
        rpc = reserve(settings)
        rpc_name = None if rpc is None else name_of(settings, rpc)
        told = Told(f"http://{name_of(settings, sockets[0])}", rpc_name, os.getpid())

        def begin(place: int) -> None:
            group = Group(settings, host, told, f"w{place}", allowed, state)
            work(group, sockets[place])

        try:
            host.load()
            if len(sockets) == 1:
                begin(0)
            else:
                if rpc is None:
                    announce(settings, host, told)
                Master(begin, len(sockets)).run()
        finally:
            for each in (*sockets, rpc):
                if each is not None:
                    each.close()


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
