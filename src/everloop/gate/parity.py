"""The check that the served model answers as the trained one, and the choice of what serves it.

Every runtime that could answer for the version is asked the same rows as the training framework:
rows of the holdout, and rows at the model's own edges. Of those that match the fastest is chosen.
What was found is a part of the report, so that it is signed, and bundles are sealed by it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from time import perf_counter
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from everloop.core.digest import Digest
from everloop.core.errors import EverloopError, InvalidInput
from everloop.gate.case import Case, FloatArray
from everloop.registry.adapters.onnx_check import has_trees
from everloop.registry.boundary import MOST_ROWS, boundary_rows, choose_kept
from everloop.registry.evidence import CheckResult, ServingProof
from everloop.registry.forest import Forest, Ints, find_forest, forest_of
from everloop.registry.formats import Predictor, native_files, read_model_files, require_inputs
from everloop.registry.runtimes import (
    Candidate,
    Runtime,
    find_candidates,
    open_reference,
    open_runtime,
)
from everloop.registry.signature import to_matrix

BACKGROUND_ROWS: Final = 100
TIMED_ROWS: Final = 300
BATCHES: Final = (1, 8, 64, 256, 1_024, 4_096)
ENOUGH_S: Final = 0.2
_NEARLY: Final = 0.9
_CLEARLY: Final = 0.8
_WARM_UP: Final = 20
Bools: TypeAlias = npt.NDArray[np.bool_]
Answer: TypeAlias = Callable[[FloatArray], FloatArray]


class _Asked(NamedTuple):
    """Rows, and what the reference answers; NaN for rows that it refuses.

    Attributes:
        by: The reference, in words.
    """

    by: str
    rows: FloatArray
    answers: FloatArray
    forest: Forest | None


class Timing(NamedTuple):
    """What answers cost: microseconds a row, the best number of rows at once, and its rate."""

    p50_us: float
    p99_us: float
    best_batch: int
    rows_per_s: float


class _Match(NamedTuple):
    candidate: Candidate
    difference: float
    timing: Timing


def check_answers(case: Case) -> CheckResult:
    """Choose the runtime that serves a version, and say how its answers compare.

    Raises:
        EverloopError: the model, its framework or the holdout cannot be read.
    """
    format_name, files = native_files(case.version, read_model_files(case.blobs, case.version))
    forest = find_forest(format_name, files) or forest_of(
        getattr(case.predictor, "estimator", None)
    )
    rows = boundary_rows(case.version.signature, case.matrix, forest, most=MOST_ROWS)
    reference = open_reference(format_name, files, case.policy)
    try:
        asked = _Asked(reference.name, rows, _ask(reference.answer, rows), forest)
    finally:
        reference.close()
    refused: dict[str, str] = {}
    matches = [
        match
        for candidate in find_candidates(format_name, files, case.policy, refused)
        if (match := _compare(case, candidate, asked, refused)) is not None
    ]
    if not matches:
        told = "; ".join(f"{name}: {why}" for name, why in refused.items())
        return CheckResult(
            name="answers_match",
            passed=False,
            summary=f"Nothing here serves it with the answers of {reference.name}: {told[:300]}",
            values={"reference": reference.name, "rows": float(len(rows))},
        )
    best = _fastest(matches)
    case.serving = _prove(case, best, asked, refused)
    return _result(case.serving)


def _fastest(matches: list[_Match]) -> _Match:
    """Return the first one, or a later one that is faster by more than noise."""
    best = matches[0]
    for match in matches[1:]:
        if match.timing.p50_us < _CLEARLY * best.timing.p50_us:
            best = match
    return best


def _ask(answer: Answer, rows: FloatArray) -> FloatArray:
    """Return the answers to rows, and NaN for those that are refused."""
    try:
        with np.errstate(all="ignore"):  # some rows are at the ends of what numbers can be
            return np.asarray(answer(rows), dtype=np.float64)
    except InvalidInput:
        if len(rows) == 1:
            return np.full(1, np.nan)
    middle = len(rows) // 2
    parts = [_ask(answer, rows[:middle]), _ask(answer, rows[middle:])]
    width = max(part.ndim for part in parts)
    if width == 2:
        columns = max(part.shape[1] for part in parts if part.ndim == 2)
        parts = [
            part if part.ndim == 2 else np.full((len(part), columns), np.nan) for part in parts
        ]
    return np.concatenate(parts)


def _compare(
    case: Case, candidate: Candidate, asked: _Asked, refused: dict[str, str]
) -> _Match | None:
    name = candidate.name
    if candidate.conversion and asked.forest is None and has_trees(candidate.files["model.onnx"]):
        refused[name] = (
            "it has trees whose splits can't be found, so no row would show a wrong leaf"
        )
        return None
    try:
        predictor = open_runtime(candidate.runtime.name, candidate.files, case.policy)
    except EverloopError as error:
        refused[name] = error.message
        return None
    try:
        if not candidate.conversion:
            require_inputs(predictor, case.version.signature)
        difference = find_difference(predictor, asked.rows, asked.answers, candidate.runtime)
        if isinstance(difference, str):
            refused[name] = difference
            return None
        return _Match(candidate, difference, time_predictor(predictor, case.matrix))
    except EverloopError as error:
        refused[name] = error.message
        return None
    finally:
        predictor.close()


def find_difference(
    predictor: Predictor, rows: FloatArray, expected: FloatArray, runtime: Runtime
) -> float | str:
    """Return the largest difference from the expected answers, or why they do not match.

    A row that the reference refuses, or to which it gives no number, must get no number either.
    """
    found = _ask(predictor.predict, rows)
    if found.shape != expected.shape:
        return f"it answers an array of {found.shape} in place of {expected.shape}"
    usable = np.isfinite(expected)
    wrong = usable != np.isfinite(found)
    if wrong.any():
        return f"{int(wrong.sum())} answers are a number in one of the two alone"
    apart, over = _apart(found, expected, runtime.tolerance)
    if over.any():
        count = int(over.reshape(len(rows), -1).any(axis=1).sum())
        return f"{count} of {len(rows)} answers differ, by up to {float(apart.max()):.3g}"
    few = _few(usable)
    single = np.array([predictor.predict_one(row.tolist()) for row in rows[few]])
    alone, moved = _apart(single.reshape(found[few].shape), found[few], runtime.rounding)
    if moved.any():
        return f"one row alone gets another answer, by up to {float(alone.max()):.3g}"
    return float(apart.max(initial=0.0))


def _apart(found: FloatArray, expected: FloatArray, tolerance: float) -> tuple[FloatArray, Bools]:
    """Return by how much answers differ, and where that is more than allowed."""
    wanted = np.where(np.isfinite(expected), expected, 0.0)
    apart = np.abs(np.where(np.isfinite(expected), found, 0.0) - wanted)
    return apart, apart > tolerance * np.maximum(1.0, np.abs(wanted))


def _few(usable: Bools) -> Ints:
    good = np.flatnonzero(usable.reshape(len(usable), -1).all(axis=1))
    return good[:: max(1, len(good) // 50)]


def time_predictor(predictor: Predictor, matrix: FloatArray) -> Timing:
    """Return what single rows and batches cost a model, on one thread.

    Raises:
        EverloopError: the model refuses them.
        ValueError: there is no row.
    """
    rows = [row.tolist() for row in matrix[:TIMED_ROWS]]
    if not rows:
        raise ValueError("there is no row to measure on")
    for row in rows[:_WARM_UP]:
        predictor.predict_one(row)
    took = np.empty(TIMED_ROWS)
    for call in range(TIMED_ROWS):
        row = rows[call % len(rows)]
        start = perf_counter()
        predictor.predict_one(row)
        took[call] = perf_counter() - start
    rates: dict[int, float] = {}
    for size in BATCHES:
        batch = np.resize(matrix, (size, matrix.shape[1]))
        spent = []
        for _ in range(3):
            start = perf_counter()
            predictor.predict(batch)
            spent.append(perf_counter() - start)
            if spent[-1] > ENOUGH_S:
                break
        rates[size] = size / min(spent)
        if spent[-1] > ENOUGH_S:
            break
    rate = max(rates.values())
    best = next(size for size, found in rates.items() if found >= _NEARLY * rate)
    median, high = (float(value) * 1e6 for value in np.quantile(took, (0.5, 0.99)))
    return Timing(median, high, best, rates[best])


def _prove(case: Case, best: _Match, asked: _Asked, refused: dict[str, str]) -> ServingProof:
    kept = choose_kept(asked.rows, asked.forest)
    answers = asked.answers.reshape(len(asked.rows), -1)[kept]
    usable = np.isfinite(answers).all(axis=1)
    table = np.column_stack([asked.rows[kept], answers])[usable]
    converted = best.candidate.files if best.candidate.conversion else {}
    return ServingProof(
        runtime=best.candidate.runtime.name,
        runtime_version=best.candidate.runtime.version,
        format=best.candidate.runtime.reads,
        files={name: case.blobs.put(data) for name, data in converted.items()},
        reference=asked.by,
        rows=len(asked.rows),
        max_difference=best.difference,
        tolerance=best.candidate.runtime.tolerance,
        p50_us=best.timing.p50_us,
        p99_us=best.timing.p99_us,
        best_batch=best.timing.best_batch,
        rows_per_s=best.timing.rows_per_s,
        boundary=case.blobs.put(_pack(table)) if len(table) else None,
        background=_background(case),
        refused=refused,
    )


def _background(case: Case) -> Digest | None:
    """Store some rows of the training data, spread evenly; None where it can't be read."""
    try:
        table = case.training
        places = np.linspace(0, table.num_rows - 1, min(table.num_rows, BACKGROUND_ROWS))
        chosen = table.take(np.unique(places.round().astype(np.int64)))
        return case.blobs.put(_pack(to_matrix(case.version.signature, chosen)))
    except (EverloopError, ValueError):
        return None


def _pack(table: FloatArray) -> bytes:
    """Return an array as NumPy's own file format, which holds numbers and their shape alone."""
    sink = io.BytesIO()
    np.save(sink, np.ascontiguousarray(table), allow_pickle=False)
    return sink.getvalue()


def _result(proof: ServingProof) -> CheckResult:
    if proof.tolerance == 0.0:
        like = "in every bit"
    else:
        like = f"within {proof.tolerance:g}, the largest difference is {proof.max_difference:.2g}"
    return CheckResult(
        name="answers_match",
        passed=True,
        summary=f"Served by {proof.runtime} it answers {proof.rows} rows, those at its own edges "
        f"among them, like {proof.reference}, {like}; a row takes {proof.p50_us:.3g} us.",
        values={
            "runtime": proof.runtime,
            "runtime_version": proof.runtime_version,
            "reference": proof.reference,
            "rows": float(proof.rows),
            "max_difference": proof.max_difference,
            "tolerance": proof.tolerance,
            "p50_us": proof.p50_us,
            "p99_us": proof.p99_us,
            "best_batch": float(proof.best_batch),
            "rows_per_s": proof.rows_per_s,
            "refused": "; ".join(f"{name}: {why}" for name, why in proof.refused.items())[:1_000]
            or None,
        },
    )
