"""Runs a Python function out of a model's files in a locked process of its own.

Its source is text, never a pickle, and never runs in this process. The process has an interpreter
of its own, an empty environment, and the barriers of `pyfunc_cell`. They do not make the function's
answers true, and side channels (timing, caches) stay.
"""

from __future__ import annotations

import builtins
import dis
import inspect
import os
import select
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import IO, Final, Literal

import msgspec
import numpy as np

from everloop.core.errors import EverloopError, InvalidInput, UnsafeArtifact
from everloop.registry.adapters.refusals import (
    FloatArray,
    OneAnswer,
    ask_one,
    closed,
    no_answers,
    predict_failed,
    require_rows,
    require_size,
    unreadable,
)

LARGEST_SOURCE_BYTES: Final = 1 << 20
MEMORY_BYTES: Final = 4 << 30
START_S: Final = 30.0
ANSWER_S: Final = 60.0
_HEADER: Final = struct.Struct(">BIIQ")
_LARGEST_ANSWER: Final = 1 << 30
_PIECE: Final = 1 << 16
_CELL: Final = Path(__file__).with_name("pyfunc_cell.py")
# Nothing of this process's environment: it may hold tokens and passwords.
_ENVIRONMENT: Final = {
    "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
}  # fmt: skip


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stored function takes and answers.

    Attributes:
        entry: Name of the function in the source.
        inputs: How many columns a row has.
        outputs: Names of the columns of an answer; empty where it is one number a row.
    """

    format: Literal["everloop.pyfunc/1"] = "everloop.pyfunc/1"
    entry: str
    inputs: int
    outputs: list[str] = []


class FunctionPredictor:
    """A Python function in a process of its own. Thread-safe: calls run one after the other.

    A process that was forked from this one starts its own at its first call.

    A call that takes longer than a minute, or a process that ends, costs that call its answer; the
    next one starts a new process.

    Attributes:
        inputs: How many columns a row has.
        names: Always empty.
        outputs: Names of the columns of an answer; empty where it is one number a row.
        is_classifier: Always False.
        barriers: Which barriers hold: ``network``, ``files`` and ``processes``.
        may_hang: Always True: one row may take it as long as it likes, whatever others took.
    """

    may_hang: Final = True

    def __init__(self, plan: bytes, source: bytes, *, must_hold: bool = True) -> None:
        """Start the process and let it read the function.

        Raises:
            InvalidInput: ``model.unreadable``, also when the source itself raises.
            UnsafeArtifact: ``artifact.not_isolated`` where a barrier does not hold and must.
            LimitExceeded: ``model.too_large``.
        """
        for part in (plan, source):
            require_size(part, LARGEST_SOURCE_BYTES)
        try:
            self._plan = msgspec.json.decode(plan, type=Plan)
            self._source = source.decode("utf-8")
            compile(self._source, "function.py", "exec", dont_inherit=True)
        except (msgspec.DecodeError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
            raise unreadable("Python", str(error)) from error
        if not (self._plan.entry.isidentifier() and 1 <= self._plan.inputs <= 1_000_000):
            raise unreadable("Python", "its plan names no function, or no inputs")
        self.inputs = self._plan.inputs
        self.names: tuple[str, ...] = ()
        self.outputs = tuple(self._plan.outputs)
        self.is_classifier = False
        self.barriers: dict[str, bool] = {}
        self._must_hold = must_hold
        self._lock = threading.Lock()
        self._is_closed = False
        self._process: subprocess.Popen[bytes] | None = None
        with self._lock:
            self._start()

    def predict(self, rows: FloatArray) -> FloatArray:
        """Return one number, or one row of numbers, for each row.

        Raises:
            InvalidInput: ``model.wrong_shape`` or ``model.predict_failed``.
            Conflict: ``model.closed``.
        """
        matrix = require_rows(rows, self.inputs)
        if not len(matrix):
            return no_answers(self.outputs)
        width = len(self.outputs) or 1
        head = _HEADER.pack(0, len(matrix), self.inputs, matrix.nbytes)
        with self._lock:
            if self._is_closed:
                raise closed()
            self._forget_other()
            if self._process is None:
                self._start()
            found = self._ask(head + matrix.astype("<f8").tobytes(), ANSWER_S)
        if isinstance(found, str):
            raise predict_failed("Python", found)
        if found.shape != (len(matrix), width):
            raise predict_failed("Python", f"It answers an array of {found.shape}.")
        return found if self.outputs else found[:, 0]

    def predict_one(self, values: Sequence[float]) -> OneAnswer:
        """Return the answer to one row, by way of a matrix of one row.

        Raises:
            InvalidInput: as `predict`.
        """
        return ask_one(self.predict, values)

    def close(self) -> None:
        """End the process; idempotent."""
        with self._lock:
            self._is_closed = True
            self._forget_other()
            self._end()

    def __del__(self) -> None:
        process = getattr(self, "_process", None)
        if process is not None and self._owner == os.getpid():
            _end_process(process)

    def _forget_other(self) -> None:
        """Let go of a process that belongs to the one from which this one was forked."""
        if self._process is not None and self._owner != os.getpid():
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process.returncode = 0  # it is not ours to wait for, or to end
            self._process = None

    def _start(self) -> None:
        self._owner = os.getpid()
        self._process = subprocess.Popen(  # noqa: S603 -- our own interpreter and script
            [sys.executable, "-I", "-B", str(_CELL)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
            close_fds=True,
            start_new_session=True,
        )
        limits = msgspec.json.encode({"memory_bytes": MEMORY_BYTES})
        self.barriers = msgspec.json.decode(self._tell(limits), type=dict[str, bool])
        missing = sorted(name for name, held in self.barriers.items() if not held)
        if missing and self._must_hold:
            self._end()
            raise UnsafeArtifact(
                "artifact.not_isolated",
                f"This machine can't keep a function from {', '.join(missing)}.",
                hint="Use Linux 5.13 or newer with Landlock and seccomp, or let the server's "
                "policy allow weak isolation.",
                context={"missing": list(missing)},
            )
        code = {"source": self._source, "entry": self._plan.entry}
        self._tell(msgspec.json.encode(code))

    def _tell(self, data: bytes) -> str:
        """Send a message of the start and return the answer to it."""
        try:
            found = self._ask(struct.pack(">Q", len(data)) + data, START_S)
        except EverloopError as error:
            raise unreadable("Python", error.message) from error
        if not isinstance(found, str) or not found.startswith("{"):
            self._end()
            raise unreadable("Python", found if isinstance(found, str) else "it answers unasked")
        return found

    def _ask(self, data: bytes, within_s: float) -> FloatArray | str:
        """Send and return what comes back: numbers, or a text."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        line = _Line(process.stdin, process.stdout, time.monotonic() + within_s)
        try:
            line.send(data)
            kind, rows, columns, size = _HEADER.unpack(line.receive(_HEADER.size))
            is_honest = size <= _LARGEST_ANSWER and kind in {0, 1}
            body = line.receive(size if is_honest else 0)
        except (OSError, ValueError, struct.error) as error:
            self._end()
            raise predict_failed("Python", f"The function's process failed: {error}.") from error
        if not is_honest or (kind == 0 and size != rows * columns * 8):
            self._end()
            raise predict_failed("Python", "The function's process lies about its answer.")
        if kind == 0:
            return np.frombuffer(body, dtype="<f8").astype(np.float64).reshape(rows, columns)
        text = body.decode("utf-8", "replace")
        return _error_in(text) or text

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _end_process(process)


class _Line:
    """Both pipes of the process, used until a moment and no longer."""

    def __init__(self, asked: IO[bytes], answers: IO[bytes], until: float) -> None:
        self._out, self._in, self._until = asked.fileno(), answers.fileno(), until
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)

    def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._wait(writing=True)
            rest = rest[os.write(self._out, rest[:_PIECE]) :]

    def receive(self, size: int) -> bytes:
        pieces, left = [], size
        while left:
            self._wait(writing=False)
            piece = os.read(self._in, min(left, _PIECE * 16))
            if not piece:
                raise ValueError("it ended")
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _wait(self, *, writing: bool) -> None:
        left = self._until - time.monotonic()
        wanted: tuple[list[int], list[int]] = ([], [self._out]) if writing else ([self._in], [])
        if left <= 0 or not any(select.select(*wanted, [], left)):
            raise ValueError("it does not answer in time")


def _end_process(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.kill()
    process.wait()


def _error_in(text: str) -> str | None:
    try:
        return str(msgspec.json.decode(text, type=dict[str, str])["error"])
    except (msgspec.DecodeError, KeyError):
        return None


def save_function(function: object, example: FloatArray | None) -> dict[str, bytes]:
    """Return the files of a function that takes a matrix of rows; the example gives its columns.

    The function must be whole: what it uses it imports or defines inside.

    Raises:
        InvalidInput: ``model.function_unusable`` or ``model.example_missing``.
    """
    if not isinstance(function, FunctionType) or function.__name__ == "<lambda>":
        raise _unusable("Only a function with a name and a source can be kept.")
    if example is None or not len(example):
        raise InvalidInput(
            "model.example_missing",
            f"The function {function.__name__} does not say how many columns it takes.",
            hint="Give example rows.",
        )
    outside = sorted(set(_names_outside(function.__code__)) | set(function.__code__.co_freevars))
    if outside:
        raise _unusable(
            f"The function {function.__name__} uses {', '.join(outside[:5])} from outside of it."
        )
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise _unusable(f"The source of {function.__name__} can't be found.") from error
    found = np.asarray(function(np.array(example, dtype=np.float64)), dtype=np.float64)
    if found.shape[:1] != (len(example),) or found.ndim > 2:
        raise _unusable(f"It answers an array of {found.shape} to {len(example)} rows.")
    width = found.shape[1] if found.ndim == 2 else 1
    plan = Plan(
        entry=function.__name__,
        inputs=example.shape[1],
        outputs=[str(place) for place in range(width)] if width > 1 else [],
    )
    return {"function.json": msgspec.json.encode(plan), "function.py": source.encode()}


def _names_outside(code: CodeType) -> Iterator[str]:
    known = dir(builtins)
    for step in dis.get_instructions(code):
        if step.opname in {"LOAD_GLOBAL", "LOAD_NAME"} and step.argval not in known:
            yield str(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_outside(constant)


def _unusable(problem: str) -> InvalidInput:
    return InvalidInput(
        "model.function_unusable",
        problem,
        hint="Write one function of a matrix of rows, with its imports and constants inside.",
    )
