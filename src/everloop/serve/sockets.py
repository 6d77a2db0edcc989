"""The sockets of a group of workers, and how many descriptors there are for connections."""

from __future__ import annotations

import resource
import socket
from contextlib import suppress
from typing import Final

import msgspec

from everloop.serve.environment import Found
from everloop.serve.limits import Limits
from everloop.serve.protocols import grpc

BACKLOG: Final = 2_048
MOST_DESCRIPTORS: Final = 65_536
OWN_DESCRIPTORS: Final = 1_024  # of logs, models and what else is no connection


def fitted(limits: Limits) -> Limits:
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


def listen(settings: Found) -> list[socket.socket]:
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


def reserve(settings: Found) -> socket.socket | None:
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


def name_of(settings: Found, bound: socket.socket) -> str:
    """Return host and port of a socket, as an address has them."""
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{shown}:{bound.getsockname()[1]}"
