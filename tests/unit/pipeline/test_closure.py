"""How far the source of a step reaches, and where it gives up."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from everloop.pipeline.fingerprint import fingerprint, read_closure, read_surroundings
from everloop.pipeline.source import Unreadable

Write = Callable[..., ModuleType]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write_all(**files: str) -> ModuleType:
        for name, text in files.items():
            path = tmp_path / (name.replace("__in__", "/") + ".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()
        return importlib.import_module("flow")

    yield write_all
    for name in set(sys.modules) - before:
        del sys.modules[name]


def codes(function: FunctionType) -> set[str]:
    return {name[5:] for name in read_closure(function) if name.startswith("code:")}


def test_names_are_followed_through_re_exports_and_attributes(write: Write) -> None:
    flow = write(
        flow="import pack\nfrom pack import first as one\n"
        "def work():\n    return one() + pack.inner.second()\n",
        pack__in____init__="from pack.inner import first\nUNUSED = 1\n",
        pack__in__inner="def first():\n    return 1\ndef second():\n    return THIRD\nTHIRD = 3\n",
    )

    found = codes(flow.work)

    assert {"flow.work", "pack.inner.first", "pack.inner.second", "pack.inner.THIRD"} <= found
    assert "pack.UNUSED" not in found


def test_a_module_passed_as_a_value_counts_whole(write: Write) -> None:
    flow = write(
        flow="import handtools\ndef work(name):\n    return getattr(handtools, name)()\n",
        handtools="def one():\n    return 1\ndef two():\n    return 2\n",
    )

    assert {"handtools.one", "handtools.two"} <= codes(flow.work)


def test_imports_inside_a_function_and_star_imports_are_followed(write: Write) -> None:
    flow = write(
        flow="from stars import *\n"
        "def work():\n    from handtools import one\n    return one() + two()\n",
        handtools="def one():\n    return 1\n",
        stars="def two():\n    return 2\n",
    )

    assert {"handtools.one", "stars.two"} <= codes(flow.work)


def test_statements_that_change_a_constant_later_count(write: Write) -> None:
    flow = write(
        flow="TABLE = {}\nTABLE['a'] = 1\nTABLE.update(b=2)\ndef work():\n    return TABLE\n"
    )
    before = read_closure(flow.work)["code:flow.TABLE"]
    path = Path(str(flow.__file__))

    path.write_text(path.read_text().replace("b=2", "b=3"))

    assert before != read_closure(flow.work)["code:flow.TABLE"]


def test_a_decorator_under_the_step_counts(write: Write) -> None:
    flow = write(
        flow="from everloop.pipeline import step\nfrom handtools import twice\n"
        "@step(retries=1)\n@twice\ndef work(x):\n    return x\n",
        handtools="import functools\ndef twice(f):\n    @functools.wraps(f)\n"
        "    def g(x):\n        return 2 * f(x)\n    return g\n",
    )

    assert "handtools.twice" in codes(flow.work.function)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return eval(x)", "eval"),
        ("import importlib\n    return importlib.import_module(x)", "import_module"),
        ("return missing_name", "missing_name"),
    ],
)
def test_what_cannot_be_followed_gives_no_key_and_says_why(
    write: Write, body: str, words: str
) -> None:
    flow = write(flow=f"def work(x):\n    {body}\n")

    made = fingerprint(flow.work, {}, variables=(), surroundings=read_surroundings(Path()))

    assert made.key is None
    assert words in made.reason


def test_a_file_edited_after_its_import_gives_no_key(write: Write) -> None:
    flow = write(
        flow="import handtools\ndef work(x):\n    return handtools.one(x)\n",
        handtools="def one(x):\n    return x\n",
    )
    path = Path(str(flow.handtools.__file__))

    path.write_text("def one(x):\n    return x + 1\n")

    with pytest.raises(Unreadable, match=r"handtools\.one is no longer what its source says"):
        read_closure(flow.work)


def test_a_constant_replaced_while_running_gives_no_key(write: Write) -> None:
    flow = write(flow="RATE = 1.5\ndef work(x):\n    return x * RATE\n")
    read_closure(flow.work)

    flow.RATE = 2.5  # type: ignore[attr-defined]

    with pytest.raises(Unreadable, match=r"flow\.RATE is no longer what its source says"):
        read_closure(flow.work)


def test_values_that_a_function_captured_count(write: Write) -> None:
    flow = write(flow="def make(n):\n    def inner(x):\n        return x + n\n    return inner\n")

    one, two = read_closure(flow.make(1)), read_closure(flow.make(2))

    assert ["value:flow.make.<locals>.inner.n"] == [name for name in one if one[name] != two[name]]
