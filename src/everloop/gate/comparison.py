"""The check that a version is better than what is there, on the same rows.

What is there is the version in production. The best constant answer that can be learnt from the
training data must be beaten in any case: to beat a champion out of its season proves little.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from everloop.core.errors import InvalidInput
from everloop.gate.case import Case, FloatArray, losses
from everloop.gate.statistics import BlockIds, PairedResult, paired_test
from everloop.registry.evidence import LOSS_PERCENTILES, CheckResult, LossName
from everloop.registry.model import ModelVersion

_WORDS: Final[dict[LossName, str]] = {
    "absolute_error": "mean absolute error",
    "squared_error": "mean squared error",
    "zero_one": "share of wrong answers",
    "log_loss": "log loss",
}


def check_against(case: Case, name: str, rival: ModelVersion) -> CheckResult:
    """Compare a version with another one, row by row.

    Raises:
        EverloopError: the models or the rows cannot be read, or there are too few rows.
    """
    margin = case.config.min_improvement
    return _compare(case, name, case.answers_of(rival), f"version {rival.version}", margin)


def check_against_constant(case: Case, name: str, margin: float = 0.0) -> CheckResult:
    """Compare a version with the best constant answer, row by row.

    Args:
        case: The version and the rows kept from its training.
        name: Of the check.
        margin: The share of the constant's loss by which the version must be better.

    Raises:
        EverloopError: the model or the rows cannot be read, or there are too few rows.
    """
    constant = case.constant_answer()
    if isinstance(constant, float):
        answers, told = np.full(case.holdout.num_rows, constant), f"always answering {constant:.4g}"
    else:
        answers = np.tile(constant, (case.holdout.num_rows, 1))
        told = "always answering how often each class was seen"
    return _compare(case, name, answers, told, margin)


def _compare(
    case: Case, name: str, rival_answers: FloatArray, rival: str, margin: float
) -> CheckResult:
    known = np.isfinite(case.truth)
    rows = int(known.sum())
    if rows < case.config.min_rows:
        raise InvalidInput(
            "gate.too_few_rows",
            f"The data kept from training has {rows} rows with a true answer; "
            f"{case.config.min_rows} are needed.",
            hint="Keep more rows from training, or lower min_rows in the gate's configuration.",
        )
    truth = case.truth[known]
    mine = losses(case.loss, case.answers[known], truth)
    theirs = losses(case.loss, rival_answers[known], truth)
    result = paired_test(
        theirs,
        mine,
        blocks=_blocks(case, known),
        alpha=case.config.alpha,
        margin=-margin * float(theirs.mean()),
    )
    return CheckResult(
        name=name,
        passed=result.significant,
        summary=_sentence(case, rival, (float(mine.mean()), float(theirs.mean())), result, margin),
        values={
            "loss": case.loss,
            "rival": rival,
            "mean_loss": float(mine.mean()),
            "rival_mean_loss": float(theirs.mean()),
            "difference": result.mean_difference,
            "difference_low": result.ci_low,
            "difference_high": result.ci_high,
            "p_value": result.p_value,
            "alpha": result.alpha,
            "margin": result.margin,
            "rows": float(result.n),
            "blocks": float(result.blocks),
            # Yardsticks for those who watch the version later: releases and the loss detector.
            **{f"loss_q{q}": float(np.percentile(mine, q)) for q in LOSS_PERCENTILES},
        },
    )


def _blocks(case: Case, known: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> BlockIds | None:
    name = case.config.block
    if name is None:
        return None
    if name not in case.holdout.column_names:
        raise InvalidInput(
            "gate.block_missing",
            f"The data kept from training has no column {name[:80]!r} to group rows by.",
            hint="Correct `block` in the gate's configuration, or keep the column in the data.",
        )
    column = case.holdout[name].combine_chunks().dictionary_encode(null_encoding="encode")
    codes: np.ndarray[tuple[int, ...], np.dtype[np.int64]] = column.indices.to_numpy().astype(
        np.int64
    )
    return codes[known]


def _sentence(
    case: Case, rival: str, means: tuple[float, float], result: PairedResult, margin: float
) -> str:
    mine, theirs = means
    change = (theirs - mine) / theirs if theirs else 0.0
    direction = f"{abs(change):.1%} {'lower' if change >= 0 else 'higher'}"
    evidence = f"on the same {result.n} rows in {result.blocks} independent groups"
    if result.significant:
        sure = f"chance explains that with a probability of at most {result.p_value:.3g}"
    elif result.smallest_p > result.alpha:
        sure = "so few groups cannot show anything; keep more data from training"
    else:
        wanted = f" by {margin:.0%}" if margin else ""
        sure = (
            f"that does not show it to be better{wanted} "
            f"(probability by chance {result.p_value:.3g}, limit {result.alpha:g})"
        )
    return (
        f"Its {_WORDS[case.loss]} is {mine:.4g} against {theirs:.4g} of {rival}, "
        f"{direction} {evidence}; {sure}."
    )
