"""One request to one answer: assign, score, fall back, log. Bytes in, bytes out, no network.

The arm is decided by a hash before anything is scored, so the assignment cannot depend on the
outcome. A canary that fails costs nobody an answer: it is logged as the canary's failure, and the
champion answers instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import NamedTuple, cast

import msgspec
import numpy as np

from everloop.core.clock import Clock, Instant
from everloop.core.errors import EverloopError, Unavailable
from everloop.core.ids import Id, IdSource
from everloop.core.wire import Arm, PredictionRow, Scalar, Status
from everloop.serve.bundle import LoadedBundle
from everloop.serve.decode import event_time
from everloop.serve.lines import LogFile, LogWriter
from everloop.serve.protocol import PredictAnswer, Prediction
from everloop.serve.switchboard import Canary, Lineup

MAX_AWAITED_SHADOWS = 2_000


class ShadowJob(NamedTuple):
    """Rows for the shadow to answer, whose decoder read them, and the file for its answers."""

    loaded: LoadedBundle
    origin: LoadedBundle
    ids: Sequence[Id]
    rows: Sequence[msgspec.Struct]
    file: LogFile


@dataclass(slots=True)
class Counters:
    """What the process did since its start."""

    predictions: int = 0
    fallbacks: int = 0
    unlogged: int = 0


class Scored(NamedTuple):
    """What a version made of one row."""

    status: Status
    output: float | None
    latency_us: int


class _Moment(NamedTuple):
    """What the rows of one request have in common."""

    lineup: Lineup
    at: Instant
    logged_at: Instant
    unit: str | None
    shadow_version: Id | None


_ENCODER = msgspec.json.Encoder()


class Answerer:
    """Answers predict requests. Used by one thread."""

    def __init__(self, log: LogWriter, ids: IdSource, clock: Clock) -> None:
        self.counters = Counters()
        self.awaited_shadows = 0
        self._log = log
        self._ids = ids
        self._clock = clock

    def answer(self, lineup: Lineup, body: bytes) -> tuple[bytes, ShadowJob | None]:
        """Answer one request body; what the shadow still has to do comes beside the answer.

        Raises:
            InvalidInput: the request does not fit the model's signature.
            LimitExceeded: too many rows.
            Unavailable: ``model.none`` before the first release.
            EverloopError: ``model.failed`` when the champion itself has no answer.
        """
        champion = lineup.champion
        if champion is None:
            raise Unavailable(
                "model.none",
                "No model is released to this deployment yet.",
                hint="Release one with `everloop release start`.",
            )
        request = champion.rows.decode(body)
        now = self._clock.now()
        at = event_time(request.at, now)
        ids = [self._ids.new() for _ in request.inputs]
        arms = _assign(lineup.canary, ids, request.unit)
        scored, fallback = _score_arms(champion, lineup.canary, request.inputs, arms)
        shadow = self._wanted_shadow(lineup, len(ids))
        if None in map(_final_output, scored, fallback):
            shadow = None  # there is nothing to pair its answer with, and the request is refused
        moment = _Moment(
            lineup, at, now, request.unit, shadow.bundle.version_id if shadow else None
        )
        rows = [
            _to_row(moment, arm, id_, (values, found, spare))
            for id_, arm, values, found, spare in zip(
                ids, arms, request.inputs, scored, fallback, strict=True
            )
        ]
        logged, file = self._write(rows, shadow)
        self.counters.predictions += len(rows)
        self.counters.fallbacks += sum(row.fallback_version is not None for row in rows)
        answer = PredictAnswer(
            predictions=tuple(_to_prediction(row, champion) for row in rows),
            deployment=lineup.deployment,
            logged=logged,
        )
        job = ShadowJob(shadow, champion, ids, request.inputs, file) if shadow and file else None
        return _ENCODER.encode(answer), job

    def _wanted_shadow(self, lineup: Lineup, count: int) -> LoadedBundle | None:
        if self.awaited_shadows + count > MAX_AWAITED_SHADOWS:
            return None  # too busy: users come first, and the row says that no shadow was asked
        return lineup.shadow

    def _write(
        self, rows: list[PredictionRow], shadow: LoadedBundle | None
    ) -> tuple[bool, LogFile | None]:
        """Log the rows; return whether that was possible, and in which file."""
        try:
            file = self._log.append(rows, awaited=len(rows) if shadow else 0)
        except OSError:
            self.counters.unlogged += len(rows)
            return False, None
        if shadow is not None:
            self.awaited_shadows += len(rows)
        return True, file


def assign_arm(salt: str, key: str, share: float) -> Arm:
    """Return the arm of a unit or a request; the same key always has the same arm.

    The first 53 bits of SHA-256 over salt and key, as a number in [0, 1), against the share: as
    the share grows, a unit can only move to the canary, never back.
    """
    digest = hashlib.sha256(f"{salt}\x00{key}".encode("utf-8", "surrogatepass")).digest()
    position = (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)
    return Arm.CANARY if position < share else Arm.CHAMPION


def score(loaded: LoadedBundle, rows: Sequence[msgspec.Struct]) -> list[Scored]:
    """Let a version answer rows; whatever it raises becomes the status of all its rows."""
    begin = perf_counter_ns()
    try:
        outputs = np.asarray(loaded.model(loaded.rows.to_matrix(rows)), dtype=np.float64)
        values: list[float] = outputs.reshape(len(rows)).tolist()
    except Exception:  # noqa: BLE001 -- a model is foreign code: anything it raises is its error
        spent = (perf_counter_ns() - begin) // 1_000
        return [Scored(Status.ERROR, None, spent)] * len(rows)
    spent = (perf_counter_ns() - begin) // 1_000
    return [_judge(loaded, value, spent) for value in values]


def adapt(loaded: LoadedBundle, origin: LoadedBundle, row: msgspec.Struct) -> msgspec.Struct:
    """Return a row read by one version's decoder as another version takes it.

    Raises:
        InvalidInput: the other version needs a field that the request does not have.
    """
    if loaded.bundle.inputs == origin.bundle.inputs:
        return row
    values = to_values(origin, row)
    wanted = {field.name for field in loaded.bundle.inputs}
    return loaded.rows.from_values({name: values[name] for name in values if name in wanted})


def to_values(loaded: LoadedBundle, row: msgspec.Struct) -> dict[str, Scalar]:
    """Return the inputs of a row by the names of the signature."""
    names = (field.name for field in loaded.bundle.inputs)
    return dict(zip(names, msgspec.structs.astuple(row), strict=True))


def score_adapted(
    loaded: LoadedBundle, origin: LoadedBundle, rows: Sequence[msgspec.Struct]
) -> list[Scored]:
    """Let a version answer rows that another version's decoder has read."""
    try:
        adapted = [adapt(loaded, origin, row) for row in rows]
    except EverloopError:
        return [Scored(Status.ERROR, None, 0)] * len(rows)
    return score(loaded, adapted)


def _judge(loaded: LoadedBundle, value: float, spent: int) -> Scored:
    if loaded.is_valid(value):
        return Scored(Status.OK, value, spent)
    return Scored(Status.INVALID, value if np.isfinite(value) else None, spent)


def _assign(canary: Canary | None, ids: Sequence[Id], unit: str | None) -> list[Arm]:
    if canary is None:
        return [Arm.CHAMPION] * len(ids)
    return [assign_arm(canary.salt, unit or id_, canary.share) for id_ in ids]


def _score_arms(
    champion: LoadedBundle,
    canary: Canary | None,
    rows: Sequence[msgspec.Struct],
    arms: Sequence[Arm],
) -> tuple[list[Scored], list[Scored | None]]:
    """Score each row by its arm; beside it, what the champion answered where the canary failed."""
    scored: dict[int, Scored] = {}
    mine = [place for place, arm in enumerate(arms) if arm is Arm.CANARY]
    if canary is not None and mine:
        found = score_adapted(canary.loaded, champion, [rows[place] for place in mine])
        scored = dict(zip(mine, found, strict=True))
    rest = [
        place
        for place in range(len(rows))
        if place not in scored or scored[place].status is not Status.OK
    ]
    found = score(champion, [rows[place] for place in rest]) if rest else []
    answers = dict(zip(rest, found, strict=True))
    fallback = [answers.get(place) if place in scored else None for place in range(len(rows))]
    return [scored.get(place) or answers[place] for place in range(len(rows))], fallback


def _final_output(scored: Scored, fallback: Scored | None) -> float | None:
    return scored.output if fallback is None else fallback.output


def _to_row(
    moment: _Moment,
    arm: Arm,
    id_: Id,
    answered: tuple[msgspec.Struct, Scored, Scored | None],
) -> PredictionRow:
    inputs, scored, spare = answered
    lineup = moment.lineup
    canary, champion = lineup.canary, lineup.champion
    assert champion is not None
    answering = canary.loaded if canary is not None and arm is Arm.CANARY else champion
    return PredictionRow(
        id=id_,
        at=moment.at,
        logged_at=moment.logged_at,
        version=answering.bundle.version_id,
        arm=arm,
        share=canary.share if canary is not None else 0.0,
        status=scored.status,
        latency_us=scored.latency_us,
        # The row encodes as an object under the signature's names, as a dict would.
        inputs=cast("dict[str, Scalar]", inputs),
        output=scored.output,
        epoch=lineup.epoch,
        unit=moment.unit,
        fallback_version=None if spare is None else champion.bundle.version_id,
        fallback_output=None if spare is None else spare.output,
        shadow_version=moment.shadow_version,
    )


def _to_prediction(row: PredictionRow, champion: LoadedBundle) -> Prediction:
    is_fallback = row.fallback_version is not None
    output = row.fallback_output if is_fallback else row.output
    if output is None:
        raise EverloopError(
            "model.failed",
            f"Version {champion.bundle.semver} of {champion.bundle.model} has no answer to this.",
            hint="Roll back with `everloop rollback`; the prediction log has the inputs.",
            context={"prediction": row.id},
        )
    return Prediction(
        id=row.id,
        output=output,
        version=champion.bundle.version_id if is_fallback else row.version,
        arm=row.arm,
        fallback=is_fallback,
    )
