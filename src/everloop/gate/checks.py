"""The checks of a gate. Each answers with what it measured and one sentence for a risk officer.

They fail closed: a check that cannot be run has failed, and its sentence says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa

from everloop.core.errors import EverloopError
from everloop.core.semver import parse_version
from everloop.gate.case import Case
from everloop.gate.comparison import check_against, check_against_constant
from everloop.gate.leakage import find_leakage, overlap
from everloop.gate.parity import TIMED_ROWS, check_answers, time_predictor
from everloop.registry.evidence import CheckResult
from everloop.registry.model import ModelVersion
from everloop.registry.signature import find_breaks, find_row_problems

OVERLAP_LIMIT: Final = 0.05


def run_checks(case: Case, rivals: tuple[ModelVersion, ...]) -> tuple[CheckResult, ...]:
    """Run every check of a version against its rivals and a constant answer."""
    return tuple(_guarded(name, run) for name, run in _plan(case, rivals))


def _plan(
    case: Case, rivals: tuple[ModelVersion, ...]
) -> Iterator[tuple[str, Callable[[], CheckResult]]]:
    yield "schema", lambda: _check_schema(case, rivals)
    yield "leakage", lambda: _check_leakage(case)
    if rivals:
        yield "beats_constant", lambda: check_against_constant(case, "beats_constant")
    else:
        margin = case.config.min_improvement
        yield "beats_champion", lambda: check_against_constant(case, "beats_champion", margin)
    for position, rival in enumerate(rivals):
        name = "beats_champion" if position == 0 else f"beats_{rival.version}"
        yield name, partial(check_against, case, name, rival)
    yield "answers_match", lambda: check_answers(case)
    yield "latency", lambda: _check_latency(case)
    yield "finite_output", lambda: _check_finite(case)


def _guarded(name: str, run: Callable[[], CheckResult]) -> CheckResult:
    try:
        return run()
    except EverloopError as error:
        why, code = error.message, error.code
    except (ValueError, TypeError, KeyError, IndexError, ArithmeticError, OSError) as error:
        why, code = f"{type(error).__name__}: {str(error)[:200]}", "unexpected"
    return CheckResult(
        name=name,
        passed=False,
        summary=f"This check could not be run, so it counts as failed: {why}",
        values={"error": code},
    )


def _check_schema(case: Case, rivals: tuple[ModelVersion, ...]) -> CheckResult:
    if not case.config.schema:
        return _switched_off("schema")
    version = case.version
    problems = list(find_row_problems(version.signature, case.holdout))
    if case.target is not None and case.target != version.target:
        # Else whoever registers a version could choose an easier question for it.
        problems.append(f"it predicts {version.target}, the project asks for {case.target}")
    unknown = int((~np.isfinite(case.truth)).sum())
    if unknown:
        problems.append(f"{unknown} rows have no true answer")
    for rival in rivals:
        breaks = find_breaks(rival.signature, version.signature)
        is_major = parse_version(version.version).major > parse_version(rival.version).major
        if breaks and not is_major:
            problems.append(
                f"callers of {rival.version} break without a major version: {breaks[0]}"
            )
    rows = case.holdout.num_rows
    if problems:
        summary = f"The data kept from training does not fit the model: {'; '.join(problems[:3])}."
    else:
        summary = f"All {rows} rows kept from training fit what the model says it takes."
    return CheckResult(
        name="schema",
        passed=not problems,
        summary=summary,
        values={"rows": float(rows), "problems": float(len(problems))},
    )


def _check_leakage(case: Case) -> CheckResult:
    if not case.config.leakage:
        return _switched_off("leakage")
    signature = case.version.signature
    names = [field.name for field in signature.inputs]
    target = case.training[signature.output.name]
    if signature.outputs:  # classes have no order, whatever they are called
        target = target.cast(pa.string())
    found = find_leakage(case.training.select(names), target)
    if not found.rows:
        raise ValueError("the training data has too few rows, or a target that never changes")
    columns = [*names, signature.output.name]
    train, holdout = case.training.select(columns), case.holdout.select(columns)
    twice = overlap(train, holdout)
    # Coarse data repeats itself: how often is seen between the halves of the training data.
    middle = train.num_rows // 2
    natural = overlap(train.slice(0, middle), train.slice(middle)).share
    limit = OVERLAP_LIMIT + 2 * natural
    problems = []
    if found.single:
        told = ", ".join(leak.column for leak in found.single[:5])
        problems.append(f"{told} gives the answer away by itself")
    if found.additive:
        problems.append(f"the sum of {' and '.join(found.additive[:5])} is the answer")
    if twice.share > limit:
        problems.append(f"{twice.share:.1%} of the rows kept from training were trained on")
    if problems:
        summary = f"The model may know answers that it will not have in use: {'; '.join(problems)}."
    else:
        summary = (
            f"Neither an input nor a sum of inputs gives the answer away in {found.rows} rows, "
            "and the rows kept from training were not trained on."
        )
    return CheckResult(
        name="leakage",
        passed=not problems,
        summary=summary,
        values={
            "rows": float(found.rows),
            "leaking": ", ".join(found.columns[:20]) or None,
            "explained_by_sum": found.additive_r_squared,
            "overlap": twice.share,
            "overlap_limit": limit,
        },
    )


def _switched_off(name: str) -> CheckResult:
    return CheckResult(
        name=name, passed=True, summary="This check is switched off in the project's configuration."
    )


def _check_latency(case: Case) -> CheckResult:
    if case.serving is not None:  # measured of the runtime that will serve it
        median, high = case.serving.p50_us / 1e3, case.serving.p99_us / 1e3
    else:
        timing = time_predictor(case.predictor, case.matrix)
        median, high = timing.p50_us / 1e3, timing.p99_us / 1e3
    limit = case.config.max_latency_ms
    passed = high <= limit
    verdict = "within" if passed else "over"
    return CheckResult(
        name="latency",
        passed=passed,
        summary=f"99 of 100 single predictions take at most {high:.3g} ms, "
        f"{verdict} the limit of {limit:g} ms.",
        values={"p50_ms": median, "p99_ms": high, "limit_ms": limit, "calls": float(TIMED_ROWS)},
    )


def _check_finite(case: Case) -> CheckResult:
    answers = case.answers
    rows = answers.reshape(len(answers), -1)
    wrong = int((~np.isfinite(rows)).any(axis=1).sum())
    outside = 0
    if case.version.signature.task == "classification":
        with np.errstate(invalid="ignore"):
            outside = int(((rows < 0) | (rows > 1)).any(axis=1).sum())
    passed = not wrong and not outside and len(answers) > 0
    if passed:
        summary = f"Every one of {len(answers)} answers is a usable number."
    else:
        summary = f"{wrong + outside} of {len(answers)} answers are no usable number."
    return CheckResult(
        name="finite_output",
        passed=passed,
        summary=summary,
        values={"rows": float(len(answers)), "unusable": float(wrong + outside)},
    )
