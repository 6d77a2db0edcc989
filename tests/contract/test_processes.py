"""What the port `MetadataStore` promises between processes, and to those that are killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from everloop.core.ids import Id
from everloop.core.ports import MetadataStore
from tests.contract.kinds import Counter
from tests.contract.other_process import FIRST, SECOND, add_one

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.contract.other_process", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert "ready\n" == read_line(child)
            yield child
        finally:
            child.kill()


def read_line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline()


def start_counters(store: MetadataStore) -> None:
    with store.write() as tx:
        tx.insert(Counter(id=FIRST, value=0))
        tx.insert(Counter(id=SECOND, value=0))


def value(store: MetadataStore, key: Id) -> int:
    with store.read() as tx:
        found = tx.find(Counter, key)
    assert found is not None
    return found.value


def test_two_processes_that_count_lose_nothing(shared: MetadataStore, shared_address: str) -> None:
    start_counters(shared)

    with (
        process("count", shared_address, "60") as one,
        process("count", shared_address, "60") as two,
    ):
        for _ in range(20):
            add_one(shared, FIRST)
        assert (0, 0) == (one.wait(60), two.wait(60))

    assert 140 == value(shared, FIRST)


@pytest.mark.parametrize("lines", [1, 2, 7, 30])
def test_a_writer_killed_at_any_time_leaves_whole_transactions(
    shared: MetadataStore, shared_address: str, lines: int
) -> None:
    start_counters(shared)

    with process("pairs", shared_address) as child:
        finished = [int(read_line(child)) for _ in range(lines)][-1]
        child.kill()
        child.wait(10)

    assert value(shared, FIRST) == value(shared, SECOND)
    assert value(shared, FIRST) >= finished
    assert value(shared, FIRST) + 1 == add_one(shared, FIRST, SECOND)


def test_a_writer_killed_inside_a_transaction_leaves_the_old_state(
    shared: MetadataStore, shared_address: str
) -> None:
    start_counters(shared)

    with process("half", shared_address) as child:
        assert ["changed\n", "changed\n"] == [read_line(child), read_line(child)]
        assert 0 == value(shared, FIRST)  # a reader does not wait for it
        child.kill()
        child.wait(10)

    assert (0, 0) == (value(shared, FIRST), value(shared, SECOND))
    assert 1 == add_one(shared, FIRST, SECOND)
