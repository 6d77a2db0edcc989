"""The process in which a step runs apart from its pipeline.

A fresh interpreter, never a fork: no thread, lock or device handle of the parent comes along. It
gets a function's address and its arguments in canonical form over a socket and answers in the
same way; no pickle crosses the border.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import struct
import sys
import time
import traceback
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Final, cast

import msgspec

from everloop.core.errors import Conflict, EverloopError, InvalidInput
from everloop.pipeline.codecs import WORKER_MAIN, encode, type_name
from everloop.pipeline.context import ACTIVE, Active, StepLog
from everloop.pipeline.decoding import decode
from everloop.pipeline.fingerprint import source_digest

_HEAD: Final = struct.Struct("<Q")
_PIECE: Final = 1 << 20


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is to do.

    Attributes:
        script: File of the parent's main script when the function lives there.
        modules: Modules whose types the arguments hold.
        arguments: The canonical form of ``(args, kwargs)``.
        files: Folder for files among the arguments.
        environ: The parent's environment variables, which may have changed since this process
            began.
        source: Digest of the source that the parent runs; empty when the result is not cached.
    """

    sys_path: tuple[str, ...]
    environ: dict[str, str]
    source: str
    module: str
    qualname: str
    script: str | None
    modules: tuple[str, ...]
    arguments: bytes
    files: str


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """What a step raised in a worker.

    Attributes:
        kind: ``module:name`` of the exception's type.
        arguments: Canonical form of the exception's arguments; empty when they have none.
        error: The parts of an Everloop error; None for others.
    """

    kind: str
    message: str
    arguments: bytes
    error: tuple[str, str, str] | None
    trace: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker answers: a result with what the step logged, or a failure."""

    result: bytes
    log: bytes
    failure: Failure | None


def send(channel: socket.socket, message: msgspec.Struct) -> None:
    """Send one message.

    Raises:
        OSError: the other side is gone.
    """
    payload = msgspec.msgpack.encode(message)
    channel.sendall(_HEAD.pack(len(payload)))
    channel.sendall(payload)


def receive(channel: socket.socket) -> bytes | None:
    """Return the payload of the next message, or None when the other side closed.

    Raises:
        TimeoutError: the channel's time is over.
        OSError: the other side is gone.
    """
    head = _receive_exactly(channel, _HEAD.size)
    return None if head is None else _receive_exactly(channel, _HEAD.unpack(head)[0])


def _receive_exactly(channel: socket.socket, size: int) -> bytes | None:
    pieces = bytearray()
    while len(pieces) < size:
        piece = channel.recv(min(size - len(pieces), _PIECE))
        if not piece:
            return None
        pieces += piece
    return bytes(pieces)


def main(descriptor: int) -> None:
    """Serve tasks from the socket until the parent closes it."""
    with socket.socket(fileno=descriptor) as channel:
        while (payload := receive(channel)) is not None:
            send(channel, perform(msgspec.msgpack.decode(payload, type=Task)))


def perform(task: Task) -> Answer:
    """Run one task."""
    log = StepLog()
    token = ACTIVE.set(Active(runner=None, log=log, performer=None))
    try:
        _take_environment(task.environ)
        function = _find_function(task)
        _require_source(function, task)
        args, kwargs = cast(
            "tuple[tuple[object, ...], dict[str, object]]",
            decode(task.arguments, Path(task.files)),
        )
        result = encode(function(*args, **kwargs), f"the result of {task.qualname}").data
    except Exception as error:  # noqa: BLE001 -- the process's edge: it answers in the parent
        return Answer(result=b"", log=b"", failure=_describe(error))
    finally:
        ACTIVE.reset(token)
    return Answer(result=result, log=log.pack(), failure=None)


def _take_environment(environ: dict[str, str]) -> None:
    if dict(os.environ) != environ:
        os.environ.clear()
        os.environ.update(environ)
        time.tzset()


def _require_source(function: FunctionType, task: Task) -> None:
    if task.source and source_digest(function) != task.source:
        raise Conflict(
            "step.source_changed",
            f"The source of step {task.qualname} was edited while the pipeline was running.",
            hint="Run the pipeline again; it will use the new source throughout.",
        )


def _find_function(task: Task) -> FunctionType:
    sys.path[:] = task.sys_path
    importlib.invalidate_caches()
    if task.script is not None:
        _load_script(task.script)
    for name in task.modules:
        if name not in sys.modules:
            importlib.import_module(name)
    found: object = sys.modules["__main__"] if task.script else importlib.import_module(task.module)
    for part in task.qualname.split("."):
        found = getattr(found, part, None)
    function = getattr(found, "function", found)
    if not isinstance(function, FunctionType):
        raise InvalidInput(
            "step.not_importable",
            f"Step {task.qualname} cannot be found in the module {task.module}.",
            hint="A step for another process must stand at the top level of its module.",
        )
    return function


def _load_script(script: str) -> ModuleType:
    loaded = sys.modules.get(WORKER_MAIN)
    if loaded is not None:
        return loaded
    spec = importlib.util.spec_from_file_location(WORKER_MAIN, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[WORKER_MAIN] = sys.modules["__main__"] = module
    spec.loader.exec_module(module)
    return module


def _describe(error: Exception) -> Failure:
    arguments = b""
    if not isinstance(error, EverloopError):
        try:
            arguments = encode(error.args, "an exception").data
        except InvalidInput:
            arguments = b""
    parts = (error.code, error.message, error.hint) if isinstance(error, EverloopError) else None
    return Failure(
        kind=type_name(type(error)),
        message=str(error),
        arguments=arguments,
        error=parts,
        trace="".join(traceback.format_exception(error)),
    )
