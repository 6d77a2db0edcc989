"""Whatever is cut from a spool and however it is shipped, what arrives is how the run began."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.core.errors import Unavailable
from everloop.core.ids import Id
from everloop.core.ports import BlobStore
from everloop.kernel.performer import Performer
from everloop.kernel.unit_of_work import View
from everloop.track import RunPorts, RunStatus, start_run, sync_spool
from everloop.track.frames import MAGIC, Ended, Frame, encode_frame
from everloop.track.model import Run
from everloop.track.queries import RunDetails, ShowRun
from everloop.track.ring import pack_points
from everloop.track.series import read_series
from everloop.track.shipper import Shipment
from everloop.track.spool import Spool
from tests.kit import World, world

A = TypeVar("A", bound=msgspec.Struct)

NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=64)
BATCHES = st.lists(
    st.tuples(st.sampled_from("abc"), st.lists(NUMBERS, min_size=1, max_size=5)), max_size=8
)
W = world()


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    logging.getLogger("everloop").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("everloop").setLevel(logging.NOTSET)


class Flaky:
    """A performer whose connection breaks before or after calls, as it is told."""

    def __init__(self, inner: Performer, breaks: list[int]) -> None:
        self._inner = inner
        self._breaks = breaks

    @property
    def project(self) -> str:
        return self._inner.project

    @property
    def blobs(self) -> BlobStore:
        return self._inner.blobs

    def perform(
        self,
        verb: str,
        ask: msgspec.Struct,
        answer: type[A],
        *,
        request: str | None = None,
        reason: str | None = None,
    ) -> A:
        kind = self._breaks.pop() if self._breaks else 0
        if kind == 1:
            raise Unavailable("server.away", "The call was lost.", hint="Try again.")
        result = self._inner.perform(verb, ask, answer, request=request, reason=reason)
        if kind == 2:
            raise Unavailable("server.away", "The answer was lost.", hint="Try again.")
        return result


def write_run(folder: Path, batches: list[tuple[str, list[float]]], *, ended: bool) -> Path:
    """Write a spool as a process would that was then killed."""
    run = start_run(Flaky(W.owner, [1]), ports=RunPorts(spool=folder))
    run._is_ended = True
    run._courier.stop()
    frames: list[Frame] = [
        pack_points(key, range(len(values)), [7] * len(values), values) for key, values in batches
    ]
    if ended:
        frames.append(Ended(status=RunStatus.FINISHED, error=None, ended_at=None))
    run._spool.append(b"".join(encode_frame(frame) for frame in frames))
    run._spool.close()
    return run._spool.path


def stored(w: World, run: str) -> dict[str, list[float]]:
    details = w.owner.perform("run.show", ShowRun(run=run), RunDetails)
    with w.kernel.store.read() as tx:
        view = View(tx, w.owner._caller, details.run.project, w.kernel.services)
        return {
            metric.key: read_series(view, Id(run), metric.key).values.tolist()
            for metric in details.metrics
        }


def is_beginning(found: list[float], logged: list[float]) -> bool:
    """Compare bit by bit: NaN equals itself here, and -0.0 is not 0.0."""
    return [value.hex() for value in found] == [value.hex() for value in logged[: len(found)]]


@settings(max_examples=60, deadline=None)
@given(
    batches=BATCHES,
    ended=st.booleans(),
    shipped=st.integers(0, 4),
    cut=st.integers(0, 2_000),
    tail=st.binary(max_size=20),
    breaks=st.lists(st.sampled_from([0, 0, 1, 2]), max_size=8),
)
def test_a_cut_spool_arrives_as_a_beginning_of_what_was_logged(  # noqa: PLR0917
    batches: list[tuple[str, list[float]]],
    ended: bool,
    shipped: int,
    cut: int,
    tail: bytes,
    breaks: list[int],
) -> None:
    with TemporaryDirectory() as name:
        path = write_run(Path(name), batches, ended=ended)
        if shipped:
            spool = Spool(path)
            shipment = Shipment(spool, Flaky(W.owner, [1, *([0] * shipped)]))
            with suppress(Unavailable):
                shipment.ship()
            spool.close()
        size = path.stat().st_size
        os.truncate(path, max(size - cut, 0))
        if size - cut >= len(MAGIC):  # without that a file is none of ours, and left as it is
            with path.open("ab") as file:
                file.write(tail)

        line = Flaky(W.owner, breaks)
        for _ in range(len(breaks) + 2):
            try:
                report = sync_spool(Path(name), line)
            except Unavailable:
                continue
            if not report.waiting:
                break

        check(path.stem, batches, whole=cut == 0)


def check(run: str, batches: list[tuple[str, list[float]]], *, whole: bool) -> None:
    logged: dict[str, list[float]] = {}
    for key, values in batches:
        logged.setdefault(key, []).extend(values)
    with W.kernel.store.read() as tx:
        made = tx.find(Run, Id(run))
    if made is None:
        assert not whole
        return
    found = stored(W, run)
    for key, values in found.items():
        assert is_beginning(values, logged[key]), key
    if whole:
        assert {key: len(values) for key, values in logged.items()} == {
            key: len(values) for key, values in found.items()
        }
    assert made.status is not RunStatus.RUNNING
