"""Functions by waiver: what they may not do, and what their process costs when it misbehaves."""

from __future__ import annotations

import os
import textwrap
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from everloop.app.models import load_model
from everloop.app.recording import Record, record_model
from everloop.core.errors import EverloopError, InvalidInput, UnsafeArtifact
from everloop.kernel.safe_load import SAFE_FORMATS, LoadPolicy
from everloop.registry.adapters import pyfunc
from everloop.registry.adapters.pyfunc import FunctionPredictor, save_function
from everloop.registry.loaders import load_predictor
from tests.kit import World, world

ROWS = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
TABLE = pa.table({"a": ROWS[:, 0], "b": ROWS[:, 1]})
PLAN = b'{"entry":"answer","inputs":2,"outputs":[]}'
OPEN = LoadPolicy(formats=SAFE_FORMATS | {"pyfunc"})


def total(rows: Any) -> Any:
    import numpy as np

    return np.round(rows[:, 0] + rows[:, 1], 6)


def both(rows: Any) -> Any:
    return rows * 2


def started(body: str) -> FunctionPredictor:
    source = "def answer(rows):\n" + textwrap.indent(textwrap.dedent(body), "    ")
    return FunctionPredictor(PLAN, source.encode())


def trusting() -> World:
    return world(policy=OPEN)


def test_a_function_answers_from_a_process_of_its_own() -> None:
    here = trusting()
    told = Record(name="sum", waiver="No library has this rule; Ann read it.")

    version = record_model(here.owner, told, total, TABLE)

    assert ("pyfunc", "No library has this rule; Ann read it.") == (version.format, version.waiver)
    with load_model(here.owner, "sum@1") as model:
        np.testing.assert_array_equal(model.predict(TABLE), [3.0, 7.0, 11.0])


def test_a_function_of_several_answers_names_its_columns() -> None:
    here = trusting()

    version = record_model(here.owner, Record(name="two", waiver="Tried out."), both, TABLE)

    assert ["0", "1"] == [field.name for field in version.signature.outputs]


def test_a_server_refuses_functions_unless_its_policy_names_them() -> None:
    files = save_function(total, ROWS)

    with pytest.raises(UnsafeArtifact) as refused:
        load_predictor("pyfunc", files, LoadPolicy())

    assert "artifact.format_refused" == refused.value.code


@pytest.mark.parametrize("waiver", ["", "  \n"])
def test_a_function_without_a_reason_is_refused(waiver: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        record_model(trusting().owner, Record(name="sum", waiver=waiver), total, TABLE)

    assert "model.waiver_missing" == refused.value.code


FACTOR = 2.0


def leaning(rows: Any) -> Any:
    return rows[:, 0] * FACTOR


def wrong_shape(rows: Any) -> Any:
    return rows[:1, 0]


@pytest.mark.parametrize("function", [leaning, wrong_shape, lambda rows: rows, print, np.sum])
def test_only_whole_functions_of_rows_can_be_kept(function: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        save_function(function, ROWS)

    assert "model.function_unusable" == refused.value.code


@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.socket()",
        "import socket; socket.create_connection(('127.0.0.1', 22))",
        "import os; os.fork()",
        "import os; os.execv('/bin/true', ['true'])",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.kill(os.getppid(), 0)",
        "open('/etc/passwd')",
        "open('/proc/self/environ')",
        f"open({str(__file__)!r})",
        "import os; os.listdir('/')",
        "import tempfile; tempfile.TemporaryFile()",
        "import numpy; numpy.zeros(1 << 31).sum()",
        "import ctypes; assert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0",
        "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    ],
)
def test_a_function_reaches_nothing_outside_of_its_process(attempt: str) -> None:
    cell = started(f"{attempt}\nreturn rows[:, 0]")

    with pytest.raises(InvalidInput) as refused:
        cell.predict(ROWS)

    cell.close()
    assert "model.predict_failed" == refused.value.code


def test_nothing_of_this_process_is_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERLOOP_TOKEN", "secret")
    names = [ord(letter) for letter in "EVERLOOP_TOKEN"]

    cell = started(f"import os\nreturn rows[:, 0] * (bytes({names}).decode() in os.environ)")

    assert [0.0, 0.0, 0.0] == cell.predict(ROWS).tolist()
    cell.close()


FORGE = """\
import os
for number in range(3, 10):
    try: os.write(number, b'x' * 17)
    except OSError: pass
os._exit(0)"""


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise RuntimeError('sorry')", "RuntimeError: sorry"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import os; os._exit(0)", "it ended"),
        ("return rows[:1, 0]", "cannot reshape"),
        ("return ['x'] * 3", "could not convert"),
        (FORGE, "lies about"),
    ],
)
def test_a_function_that_misbehaves_costs_one_call_and_no_more(body: str, told: str) -> None:
    cell = started("if rows[0, 0] == 1:\n" + textwrap.indent(body, "    ") + "\nreturn rows[:, 0]")

    with pytest.raises(InvalidInput, match=told):
        cell.predict(ROWS)

    assert [3.0, 5.0] == cell.predict(ROWS[1:]).tolist()
    cell.close()


def test_a_function_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyfunc, "ANSWER_S", 0.3)
    cell = started("while rows[0, 0] == 1: pass\nreturn rows[:, 0]")

    with pytest.raises(InvalidInput, match="does not answer in time"):
        cell.predict(ROWS)

    cell.close()


def test_closing_ends_the_process() -> None:
    cell = started("return rows[:, 0]")
    process = cell._process
    assert process is not None

    cell.close()
    cell.close()

    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    with pytest.raises(EverloopError) as refused:
        cell.predict(ROWS)
    assert "model.closed" == refused.value.code


@pytest.mark.parametrize(
    ("plan", "source"),
    [
        (b"{}", b"def answer(rows): pass"),
        (b'{"entry":"a b","inputs":2}', b"x = 1"),
        (b'{"entry":"answer","inputs":0}', b"def answer(rows): pass"),
        (PLAN, b"def other(rows): pass"),
        (PLAN, b"def answer(rows:"),
        (PLAN, b"raise ValueError('at once')"),
        (PLAN, b"import os; os._exit(3)"),
        (PLAN, b"\x00\xff"),
        (PLAN, b"(" * 100_000),
        (b'{"entry":"answer","inputs":2,"memory":1}', b"def answer(rows): pass"),
    ],
)
def test_files_that_hold_no_function_are_an_input_error(plan: bytes, source: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        FunctionPredictor(plan, source)

    assert "model.unreadable" == refused.value.code


def test_a_forked_worker_has_a_process_of_its_own_and_leaves_the_others_alone() -> None:
    predictor = FunctionPredictor(PLAN, b"import os\ndef answer(rows):\n    return rows[:, 0]")
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:  # everything here must end in _exit: it is a copy of the test's process
        try:
            answers = predictor.predict(ROWS).tolist()
            predictor.close()
            os.write(send, repr(answers).encode())
        finally:
            os._exit(0)
    os.close(send)
    _, status = os.waitpid(child, 0)
    told = os.read(receive, 1_000).decode()
    os.close(receive)

    assert (0, "[1.0, 3.0, 5.0]") == (status, told)
    np.testing.assert_array_equal(predictor.predict(ROWS), [1.0, 3.0, 5.0])
    predictor.close()
